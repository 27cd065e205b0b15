"""Segmentation: a model's result for one frame, to count, draw and save. Knows no models and no video files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigurationError
from .files import name_of, write_atomically
from .native import native_code
from .opencv import cv2, python_memory_error
from .overlay import Palette, colorize, overlay
from .spec import ModelSpec, plain_palette


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation:
    """One frame's result.

    Attributes:
        labels: (H, W) uint8 class ids, at the frame's own size.
        frame: (H, W, 3) uint8 BGR, the same array object that was given.
        spec: the model's contract: class names and colours.
        index: position of the frame in its source, from 0.
        time_s: the frame's time in its source, in seconds; with several files, counted within each. 0 for a picture;
            None for a frame that was given without one.
        name: the file or the address (without its password) that the frame came from; "" if unknown.
        speed_ms: stage -> milliseconds per frame: "preprocess", "inference", "postprocess".
        confidence: (H, W) float32 0..1 at the frame's size, or None when the model gives none.
    """

    labels: NDArray[np.uint8]
    frame: NDArray[np.uint8] = field(repr=False)
    spec: ModelSpec = field(repr=False)
    index: int = 0
    time_s: float | None = None
    speed_ms: dict[str, float] = field(default_factory=dict)
    confidence: NDArray[np.float32] | None = field(default=None, repr=False)
    name: str = ""

    def class_share(self) -> dict[str, float]:
        """Class name -> share of the frame's pixels, 0..1, in the order of the ids."""
        return class_share(self.labels, self.spec.classes)

    def plot(self, alpha: float = 0.5, *, palette: Iterable[Iterable[int]] | None = None) -> NDArray[np.uint8]:
        """The classes' colours laid over the frame: (H, W, 3) uint8 BGR, a new array. `alpha` 0 is the frame alone.

        Args:
            palette: one (R, G, B) of 0..255 per class, instead of the model's.

        Raises:
            ConfigurationError: `alpha` outside 0..1, or a palette that does not fit these classes.
        """
        with native_code(), python_memory_error():
            return overlay(self.frame, self.labels, self._palette(palette), alpha)

    def mask(self, *, palette: Iterable[Iterable[int]] | None = None) -> NDArray[np.uint8]:
        """The classes' colours alone: (H, W, 3) uint8 BGR; `palette` as in `plot`."""
        with native_code(), python_memory_error():
            return colorize(self.labels, self._palette(palette))

    def _palette(self, given: Iterable[Iterable[int]] | None) -> Palette:
        if given is None:
            return self.spec.palette
        return replace(self.spec, palette=plain_palette(given)).palette

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the class ids as a PNG of the frame's size, whole or not at all; returns the path.

        Raises:
            ConfigurationError: not a path, or a name that does not end in .png, the one format here that keeps ids
                exactly.
            MediaError: the file cannot be written.
        """
        target = Path(name_of(path, "a picture"))
        if target.suffix.lower() != ".png":
            raise ConfigurationError(f"Class ids are saved as PNG, which keeps them exactly; got {target.name!r}.")
        with native_code(), python_memory_error():
            data = cv2.imencode(".png", self.labels)[1].tobytes()
        return write_atomically(target, data)


def class_share(labels: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """Class name -> share of the pixels of labels (H, W) uint8, 0..1, in the order of the ids."""
    # calcHist is twenty times as fast as bincount, which takes eight bytes a pixel. It counts in float32, exact up to
    # 2**24, so it is given no more at a time; one long row is faster for it than one long column.
    counts, row = np.zeros(256, np.int64), labels.reshape(1, -1)
    for first in range(0, labels.size, 2**24):
        with native_code():
            part = cv2.calcHist([row[:, first : first + 2**24]], [0], None, [256], [0, 256])
        counts += part.ravel().astype(np.int64)
    return {name: int(count) / labels.size for name, count in zip(classes, counts, strict=False)}
