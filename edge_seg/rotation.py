"""The display matrix of a video: finding and parsing it, describing it, and applying it to a picture. Knows no decoder.

A matrix is (a, b, c, d), each -1, 0 or 1: pixel (x, y) is shown at (a*x + c*y, b*x + d*y), y downwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .opencv import cv2

Matrix = tuple[int, int, int, int]
IDENTITY: Matrix = (1, 0, 0, 1)
_WORDS = {
    (1, 0, 0, 1): "",
    (0, -1, 1, 0): "turned 90 degrees counterclockwise",
    (-1, 0, 0, -1): "turned 180 degrees",
    (0, 1, -1, 0): "turned 90 degrees clockwise",
    (-1, 0, 0, 1): "mirrored left to right",
    (1, 0, 0, -1): "mirrored top to bottom",
    (0, 1, 1, 0): "mirrored along the diagonal",
    (0, -1, -1, 0): "mirrored along the other diagonal",
}


def matrix_of(picture: Any) -> Matrix:
    """The display matrix that a decoded picture carries as side data; the identity without one."""
    side_data = picture.side_data
    for place in range(len(side_data)):
        data = side_data[place]
        if data.type.name == "DISPLAYMATRIX":
            return parse_matrix(bytes(data))
    return IDENTITY


def parse_matrix(data: bytes) -> Matrix:
    """FFmpeg's nine 16.16 numbers as a `Matrix`; the identity for turns that are not multiples of 90 degrees."""
    numbers = np.frombuffer(data, np.int32)
    a, b, c, d = (int(np.sign(round(int(numbers[place]) / 65536, 3))) for place in (0, 1, 3, 4))
    return (a, b, c, d) if (a, b, c, d) in _WORDS else IDENTITY


def describe(matrix: Matrix) -> str:
    """What was done to the picture, in words; empty for nothing."""
    return _WORDS[matrix]


def swaps_sides(matrix: Matrix) -> bool:
    """Whether width and height are exchanged."""
    return matrix[0] == 0


def upright(image: np.ndarray, matrix: Matrix) -> np.ndarray:
    """Turn and mirror (H, W, 3) uint8 as `matrix` says; the same array for the identity."""
    if matrix == IDENTITY:
        return image
    a, b, c, d = matrix
    if swaps_sides(matrix):
        image = cv2.transpose(image)
        mirror_x, mirror_y = c < 0, b < 0
    else:
        mirror_x, mirror_y = a < 0, d < 0
    if mirror_x or mirror_y:
        image = cv2.flip(image, -1 if mirror_x and mirror_y else int(mirror_x))
    return image
