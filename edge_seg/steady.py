"""How steady class ids are from frame to frame. Knows no models, files or sources."""

from __future__ import annotations

import numpy as np


class Flicker:
    """The share of pixels that change class from one frame to the next, motion included; feed it frames in order."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._sum = 0.0
        self._pairs = 0

    def add(self, labels: np.ndarray) -> None:
        """Take the next frame's class ids, (H, W) uint8, not to be changed afterwards; another size begins anew."""
        if self._last is not None and self._last.shape == labels.shape:
            self._sum += np.count_nonzero(labels != self._last) / labels.size
            self._pairs += 1
        self._last = labels

    @property
    def share(self) -> float | None:
        """The mean over all pairs of frames, 0..1; None before there is one."""
        return self._sum / self._pairs if self._pairs else None
