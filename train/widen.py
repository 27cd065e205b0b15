"""Set a finished FCN8 into a wider one that computes the same: no old filter reads the fresh filters yet.

A fresh filter reads every channel before it, each divided by its standard deviation, and is scaled until it varies as
much as the layer's own filters do (after Mishkin and Matas, "All you need is a good init", 2016, arXiv 1511.06422). The
old filters and the score maps read it with zeros, which learn. Chen and others ("Net2Net", 2016, arXiv 1511.05641) copy
filters instead, and split the weights that read them; copies must drift apart before they are worth anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import keras
import numpy as np

from .fcn8 import CONVOLUTIONS_PER_BLOCK, Fcn8Config, fcn8
from .narrow import AFTER_SCORES, CHAIN, SCORES, filter_statistics

Widths = Sequence[int]
# A filter whose deviation is below this share of what is usual in its layer is constant, but for rounding.
CONSTANT = 0.01


def widen(finished: keras.Model, config: Fcn8Config, frames: Iterable[np.ndarray], seed: int) -> keras.Model:
    """A plain, wider FCN8 that computes what a finished one does.

    Args:
        finished: a plain FCN8, in no layer wider than `config`.
        config: the wider network.
        frames: some scaled frames, (1, H, W, 3) float32 in [-1, 1] each, on which filters' deviations are measured.
        seed: of the fresh filters.
    """
    frames, rng = list(frames), np.random.default_rng(seed)
    wide = fcn8(config, kernel_initializer="zeros")
    for name in (*CHAIN, *SCORES.values(), *AFTER_SCORES):
        wide.get_layer(name).set_weights(
            [_placed(array, tuple(value.shape)) for array, value in _arrays(finished, wide, name)]
        )
    # `before`: deviation of each channel that a layer reads, the old ones and then the fresh ones.
    before, own = np.ones(3), filter_statistics(finished, frames)
    for name in CHAIN:
        layer, deviation = wide.get_layer(name), own[name].deviation
        old, fresh = len(deviation), layer.kernel.shape[-1] - len(deviation)
        usual = _usual(deviation)
        if fresh:
            kernel, bias = layer.get_weights()
            scale = np.sqrt(2.0 / kernel[..., 0].size) / before[:, None]
            kernel[..., old:] = rng.normal(size=(*kernel.shape[:3], fresh)) * scale
            layer.set_weights([kernel, bias])
            seen = filter_statistics(wide, frames, (name,))[name].deviation[old:]
            gain = usual / np.maximum(seen, 1e-6 * seen.max() + 1e-30)
            kernel[..., old:] *= gain
            layer.set_weights([kernel, bias])
            deviation = np.concatenate([deviation, seen * gain])
        # A constant carries no information; treated as if it varied like the rest, it does no harm should it ever vary.
        before = np.where(deviation > CONSTANT * usual, deviation, usual)
    return wide


def rates_where_wider(began: Widths, widths: Widths) -> dict[str, float]:
    """Factors on the learning rate of layers that read more channels than in the network begun from.

    Adam moves each weight by about the learning rate, so a sum over n times as many channels moves n times as far. The
    factor is channels before / channels now (Yang and others, "Tensor Programs V", 2022, arXiv 2203.03466, table 8).

    Args:
        began, widths: filters of blocks 1 to 5, conv6 and conv7, of the network begun from and of the wider one.
    """
    had, has = _filters(began), _filters(widths)
    read = {reader: source for source, reader in SCORES.items()} | dict(zip(CHAIN[1:], CHAIN, strict=False))
    return {name: had[source] / has[source] for name, source in read.items() if has[source] > had[source]}


def _usual(deviation: np.ndarray) -> float:
    """The usual deviation of a layer's filters that are not constant; 1 if all are."""
    if not deviation.any():
        return 1.0
    middle = np.median(deviation[deviation > 0])
    return float(np.median(deviation[deviation > CONSTANT * middle]))


def _filters(widths: Widths) -> dict[str, int]:
    """Number of filters of each layer of the chain."""
    counts = [width for width, count in zip(widths, (*CONVOLUTIONS_PER_BLOCK, 1, 1), strict=True) for _ in range(count)]
    return dict(zip(CHAIN, counts, strict=True))


def _arrays(finished: keras.Model, wide: keras.Model, name: str) -> Iterable[tuple[np.ndarray, keras.Variable]]:
    return zip(finished.get_layer(name).get_weights(), wide.get_layer(name).weights, strict=True)


def _placed(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array in the first corner of a larger one of zeros."""
    placed = np.zeros(shape, np.float32)
    placed[tuple(map(slice, array.shape))] = array
    return placed
