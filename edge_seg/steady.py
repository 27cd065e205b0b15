"""How steady labels are from frame to frame, and how to steady them. Knows no models, files or sources.

`Flicker` measures the share of pixels whose class differs from the frame before. `Smoother` holds on to classes: each
pixel's class moves along with the motion in the video, and has a strength that grows by one, up to N, with every frame
that agrees and falls by one with every frame that does not; at zero, the newest class is taken. Where the motion does
not explain the frame (something is uncovered, or there is a cut), the newest class is taken at once.
Both use only past frames, and keep one of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import ConfigurationError
from .opencv import cv2
from .preprocess import NEAREST

# OpenCV takes None for an omitted array, though its type stubs do not allow it; an empty array does not always do.
NONE: Any = None
# Strengths are stored as uint8.
LONGEST_HOLD = 255
# Motion is estimated on a grey image of half the size, at every second pixel: the best result within a millisecond.
SHRINK = 2
FINEST_SCALE = 1
PATCH_STRIDE = 6
# Grey levels (of 255) by which a neighbourhood may differ, on average, from the place that it moved from.
UNEXPLAINED_LEVELS = 24
NEIGHBOURHOOD = (5, 5)
# If this share of the frame is unexplained, there was a cut: the rest only matches by chance.
CUT_SHARE = 0.4


class Flicker:
    """The share of pixels that change class from one frame to the next, motion included; feed it frames in order."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._sum = 0.0
        self._pairs = 0

    def add(self, labels: np.ndarray) -> None:
        """Take the next frame's labels, (H, W) uint8, not to be modified afterwards; another size starts over."""
        if self._last is not None and self._last.shape == labels.shape:
            self._sum += np.count_nonzero(labels != self._last) / labels.size
            self._pairs += 1
        self._last = labels

    @property
    def share(self) -> float | None:
        """The mean over all pairs of frames, 0..1; None before the first pair."""
        return self._sum / self._pairs if self._pairs else None


class Smoother:
    """Steadies the labels of one source, see the module. Feed it frames in order; memory is that of one frame.

    Args:
        hold: N, 1 to 255; a class is kept against the model's for at most N - 1 frames, so that 1 changes nothing.

    Raises:
        ConfigurationError: `hold` is out of range.
    """

    def __init__(self, hold: int) -> None:
        self._hold = check_hold(hold)
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._flow.setFinestScale(FINEST_SCALE)
        self._flow.setPatchStride(PATCH_STRIDE)
        self._grey: np.ndarray = np.empty((0, 0), np.uint8)
        # Class and strength of each pixel, together because they move together.
        self._state: np.ndarray = np.empty((0, 0, 2), np.uint8)
        self._places = self._small_places = np.empty((0, 0, 2), np.float32)

    def __call__(self, labels: np.ndarray, image: np.ndarray) -> np.ndarray:
        """The steadied labels of the next frame.

        Args:
            labels: (H, W) uint8, the model's; not modified. Another size than before starts over.
            image: (H, W, 3) uint8 BGR, the frame they were made from.

        Returns:
            (H, W) uint8, an array that is not used elsewhere.
        """
        height, width = labels.shape
        # At least 16 pixels a side: the flow needs room for its patches of eight pixels.
        small = (max(16, width // SHRINK), max(16, height // SHRINK))
        grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), small, interpolation=cv2.INTER_AREA)
        if self._state.shape[:2] != labels.shape:
            self._places, self._small_places = _grid(labels.shape), _grid(grey.shape)
            shown, strength = labels.copy(), np.ones_like(labels)
        else:
            shown, strength = _weigh(labels, *self._carried(grey), self._hold)
        self._grey, self._state = grey, cv2.merge((shown, strength))
        return shown

    def _carried(self, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Last frame's classes and strengths, moved along with the motion; strength 0 where the motion is unknown."""
        # No initial flow is passed: the search would start from it, and errors would persist.
        flow = self._flow.calc(grey, self._grey, NONE)
        size = self._state.shape[1::-1]
        scale = np.array([size[0] / grey.shape[1], size[1] / grey.shape[0]], np.float32)
        came_from = cv2.add(cv2.resize(flow * scale, size, interpolation=cv2.INTER_LINEAR), self._places)
        # Nearest neighbour, since ids must not blend; what comes from outside the frame has class 0 and strength 0.
        shown, strength = cv2.split(_sample(self._state, came_from, cv2.INTER_NEAREST))
        before = _sample(self._grey, cv2.add(self._small_places, flow), cv2.INTER_LINEAR)
        unexplained = cv2.blur(cv2.absdiff(grey, before), NEIGHBOURHOOD) > UNEXPLAINED_LEVELS
        if unexplained.mean() > CUT_SHARE:
            return shown, np.zeros_like(strength)
        strength[cv2.resize(unexplained.view(np.uint8), size, interpolation=NEAREST) > 0] = 0
        return shown, strength


def check_hold(hold: int) -> int:
    """Return `hold` if labels can be held for so many frames; raise `ConfigurationError` otherwise."""
    if not 1 <= hold <= LONGEST_HOLD:
        raise ConfigurationError(f"smooth must be from 1, which changes nothing, to {LONGEST_HOLD}; got {hold}.")
    return hold


def _sample(picture: np.ndarray, places: np.ndarray, interpolation: int) -> np.ndarray:
    """Values of `picture` at `places`, (H, W, 2) float32 of x and y; 0 outside it."""
    return cv2.remap(picture, places, NONE, interpolation)


def _weigh(labels: np.ndarray, shown: np.ndarray, strength: np.ndarray, hold: int) -> tuple[np.ndarray, np.ndarray]:
    """(classes, strengths) after a frame with `labels`; `shown` is modified in place. All (H, W) uint8."""
    stronger, weaker = np.minimum(strength, hold - 1) + 1, strength - (strength > 0)
    strength = np.where(labels == shown, stronger, weaker)
    np.copyto(shown, labels, where=strength == 0)
    return shown, np.maximum(strength, 1, out=strength)


def _grid(shape: tuple[int, ...]) -> np.ndarray:
    """Each pixel's own (x, y) as (H, W, 2) float32."""
    return np.dstack(np.meshgrid(*(np.arange(side, dtype=np.float32) for side in shape[1::-1])))
