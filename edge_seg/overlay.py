"""Class ids + palette -> pictures. Knows nothing of models or files."""

from __future__ import annotations

import numpy as np

from .errors import ConfigurationError
from .opencv import cv2
from .preprocess import NEAREST

Palette = tuple[tuple[int, int, int], ...]


def colorize(labels: np.ndarray, palette: Palette) -> np.ndarray:
    """Paint class ids (H, W) uint8 in their palette colours: (H, W, 3) uint8 BGR. Ids past the palette are black."""
    return cv2.applyColorMap(labels, lookup_table(palette))


def lookup_table(palette: Palette) -> np.ndarray:
    """The palette (RGB) as a 256-entry BGR table (256, 1, 3) uint8."""
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(palette), 0] = np.asarray(palette, np.uint8)[:, ::-1]
    return table


def overlay(frame: np.ndarray, labels: np.ndarray, palette: Palette, alpha: float = 0.5) -> np.ndarray:
    """Lay the classes' colours over a frame.

    Args:
        frame: (H, W, 3) uint8 BGR.
        labels: (H, W) uint8, the frame's size.
        palette: one RGB colour per class.
        alpha: 0 shows the frame alone, 1 the colours alone.

    Returns:
        (H, W, 3) uint8 BGR, a new array.
    """
    alpha = check_alpha(alpha)
    return cv2.addWeighted(frame, 1.0 - alpha, colorize(labels, palette), alpha, 0.0)


class Painter:
    """Paints frame after frame into buffers that it reuses: four times as fast as `overlay`, which makes new arrays.

    What it returns is valid until the next call. Use one painter per thread.
    """

    def __init__(self, palette: Palette, *, alpha: float) -> None:
        self.alpha = check_alpha(alpha)
        self._table = lookup_table(palette)
        self._colors = np.empty((0, 0, 3), np.uint8)
        self._mixed = np.empty((0, 0, 3), np.uint8)

    def mask(self, labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The colours of `labels` (h, w) uint8, resized to `size` = (height, width) by nearest neighbour: (H, W, 3)."""
        if self._colors.shape[:2] != tuple(size):
            self._colors = np.empty((*size, 3), np.uint8)
        # Look colours up before enlarging, while there are fewer pixels; nearest neighbour blends no colours either.
        small = cv2.applyColorMap(labels, self._table)
        return cv2.resize(small, (size[1], size[0]), dst=self._colors, interpolation=NEAREST)

    def overlay(self, frame: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """`labels` of any size laid over `frame` (H, W, 3) uint8 BGR: (H, W, 3) uint8 BGR."""
        if self._mixed.shape != frame.shape:
            self._mixed = np.empty_like(frame)
        colors = self.mask(labels, frame.shape[:2])
        return cv2.addWeighted(frame, 1.0 - self.alpha, colors, self.alpha, 0.0, dst=self._mixed)


def check_alpha(alpha: float) -> float:
    """Return `alpha` as a float if it lies in 0..1; raise `ConfigurationError` otherwise."""
    if not isinstance(alpha, (int, float, np.number)) or not 0.0 <= alpha <= 1.0:
        raise ConfigurationError(f"alpha must lie between 0 (frame alone) and 1 (colours alone); got {alpha!r}.")
    return float(alpha)


def legend(classes: tuple[str, ...], palette: Palette, *, width: int) -> np.ndarray:
    """A strip naming each class beside its colour: (H, width, 3) uint8 BGR, for pictures in docs."""
    row_height = 22
    cell = max(cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0] for name in classes) + row_height + 12
    columns = max(1, width // cell)
    rows = -(-len(classes) // columns)
    strip = np.full((rows * row_height, width, 3), 255, np.uint8)
    for index, (name, (red, green, blue)) in enumerate(zip(classes, palette, strict=True)):
        x, y = (index % columns) * cell + 6, (index // columns) * row_height
        cv2.rectangle(strip, (x, y + 5), (x + row_height - 10, y + row_height - 5), (blue, green, red), cv2.FILLED)
        cv2.putText(
            strip,
            name,
            (x + row_height - 4, y + row_height - 7),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.42,
            (40, 40, 40),
            1,
            cv2.LINE_AA,
        )
    return strip
