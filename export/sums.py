"""Scales of int8 kernels whose sums of two products fit 16 bits, and the test that they do. Knows arrays alone.

Without VNNI, x86 multiplies unsigned bytes with signed ones by an instruction that adds two neighbours' products in 16
bits and cuts off what does not fit (PMADDUBSW). An activation is 255 at the most, so a pair of weights of one sign may
sum up to 128. Neighbours are two in a row of (row, column, input channel), as channels-last kernels read them.

Seven-bit weights would do as well and cost a bit of every channel; here a channel pays only for its worst pair.
"""

from __future__ import annotations

import numpy as np

# 255 * 128 is the largest such product that 16 bits hold.
PAIR_LIMIT = 128


def exact_scales(kernel: np.ndarray) -> np.ndarray:
    """The smallest scale of each output channel whose int8 weights keep `largest_pair` within `PAIR_LIMIT`.

    Args:
        kernel: (out, in, rows, columns) float32.

    Returns:
        (out,) float32: from max/127, where no pair is too large, to twice that.
    """
    return np.array([_exact_scale(channel) for channel in kernel], np.float32)


def _exact_scale(channel: np.ndarray) -> np.float32:
    scale = np.float32(max(float(np.abs(channel).max()) / 127, float(_pairs(channel).max()) / PAIR_LIMIT, 1e-12))
    # Rounding can carry a pair over the limit by one.
    while _pairs(np.rint(channel / scale)).max() > PAIR_LIMIT:
        scale *= np.float32(1.002)
    return scale


def largest_pair(kernel: np.ndarray) -> int:
    """The largest sum, of one sign, of two weights that a processor may add up in 16 bits; kernel (O, I, h, w) int8."""
    return max(int(_pairs(channel.astype(np.int16)).max()) for channel in kernel)


def _pairs(channel: np.ndarray) -> np.ndarray:
    """Sums of neighbours in the order (row, column, input channel), positive and negative parts apart.

    Kernels begin at even places, so with an even number of input channels each weight has one neighbour.
    """
    line = channel.transpose(1, 2, 0).ravel()
    parts = np.stack([np.maximum(line, 0), np.maximum(-line, 0)])
    if len(channel) % 2:
        return parts[:, 1:] + parts[:, :-1] if line.size > 1 else parts
    return parts[:, 0::2] + parts[:, 1::2]
