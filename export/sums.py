"""Scales of int8 kernels whose sums of two products fit 16 bits, and the test that they do. Knows only arrays.

Without VNNI, x86 multiplies unsigned bytes with signed ones by PMADDUBSW, which adds two neighbours' products in 16
bits and saturates. An activation is at most 255, so two neighbouring weights of one sign may sum up to 128. Neighbours
are adjacent in the order (row, column, input channel), as channels-last kernels read them.

Seven-bit weights would do too, but cost every channel one bit; here a channel pays only for its worst pair.
"""

from __future__ import annotations

import numpy as np

# 255 * 128 is the largest such sum that 16 bits hold.
PAIR_LIMIT = 128


def exact_scales(kernel: np.ndarray) -> np.ndarray:
    """The smallest scale of each output channel whose int8 weights keep `largest_pair` within `PAIR_LIMIT`.

    Args:
        kernel: (out, in, rows, columns) float32.

    Returns:
        (out,) float32: max/127 if no pair is too large, and up to twice that.
    """
    return np.array([_exact_scale(channel) for channel in kernel], np.float32)


def _exact_scale(channel: np.ndarray) -> np.float32:
    scale = np.float32(max(float(np.abs(channel).max()) / 127, float(_pairs(channel).max()) / PAIR_LIMIT, 1e-12))
    # Rounding can lift a pair above the limit by one.
    while _pairs(np.rint(channel / scale)).max() > PAIR_LIMIT:
        scale *= np.float32(1.002)
    return scale


def largest_pair(kernel: np.ndarray) -> int:
    """The largest absolute sum of two neighbouring weights, each sign apart; kernel (out, in, rows, columns) int8."""
    return max(int(_pairs(channel.astype(np.int16)).max()) for channel in kernel)


def _pairs(channel: np.ndarray) -> np.ndarray:
    """Sums of neighbours in the order (row, column, input channel), of positive and of negative weights apart.

    Pairs begin at even places, so each weight has one neighbour if the number of input channels is even, else two.
    """
    line = channel.transpose(1, 2, 0).ravel()
    parts = np.stack([np.maximum(line, 0), np.maximum(-line, 0)])
    if len(channel) % 2:
        return parts[:, 1:] + parts[:, :-1] if line.size > 1 else parts
    return parts[:, 0::2] + parts[:, 1::2]
