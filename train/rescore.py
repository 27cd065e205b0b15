"""Adapt a finished FCN8 to other classes: encoder and head stay, and classes of the same name nearly keep their scores.

An upsampling mixes the scores of all classes. What a dropped class contributed to the others, on average over a block
of pixels, is contributed by the scores that stay (measured in docs/training.md). The scores of a class that the
finished network does not know begin at 0, whatever the scale of the features that they are read from (Long and others,
2015, arXiv 1411.4038, start all scores at 0). Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import keras
import numpy as np

from .fcn8 import UPSAMPLINGS, Fcn8Config, RepeatPixels, fcn8
from .narrow import AFTER_SCORES, CHAIN, SCORES

# Initial bias of new scores before a Relu, where a score of 0 would never learn.
ALIVE = 0.1


def rescore(finished: keras.Model, config: Fcn8Config, theirs: tuple[str, ...], ours: tuple[str, ...]) -> keras.Model:
    """A plain FCN8 of the finished one's widths for other classes.

    Args:
        finished: a plain FCN8.
        config: the configuration of `finished`; its number of classes is not read.
        theirs, ours: class names by id, of the finished network and of the one to make.
    """
    network = fcn8(replace(config, classes=len(ours)), kernel_initializer="zeros")
    for name in CHAIN:
        network.get_layer(name).set_weights(finished.get_layer(name).get_weights())
    known = [name for name in ours if name in theirs]
    here, there = [ours.index(name) for name in known], [theirs.index(name) for name in known]
    linear = config.skip_activation == "linear"
    last = finished.get_layer("upsample8").get_weights()[0]
    kept = _kept(last, there)
    # pool4's scores pass through another upsampling, which also mixes the dropped classes into the others.
    doubled = np.einsum("ij,hwjk->hwik", kept, finished.get_layer("pool4_upsample2").get_weights()[0])
    given = {
        "pool3_conv": kept if linear else _alone(there, len(theirs)),
        "conv7_upsample4": kept,
        "pool4_conv": _kept(doubled, there, rows=range(len(there))) if linear else _alone(there, len(theirs)),
    }
    for name in SCORES.values():
        layer, mix = network.get_layer(name), given[name]
        axis = 2 if name in UPSAMPLINGS else 3  # of its output classes
        kernel, *bias = (np.zeros(variable.shape, np.float32) for variable in layer.weights)
        whole, *own = finished.get_layer(name).get_weights()
        np.moveaxis(kernel, axis, 0)[here] = np.tensordot(mix, np.moveaxis(whole, axis, 0), 1)
        for array, old in zip(bias, own, strict=True):
            array[:] = 0.0 if linear else ALIVE
            array[here] = mix @ old
        layer.set_weights([kernel, *bias])
    for name, whole in zip(AFTER_SCORES, (doubled, last[:, :, there]), strict=True):
        layer = network.get_layer(name)
        kernel = np.array(keras.ops.convert_to_numpy(RepeatPixels()(layer.kernel.shape)))
        for mine, other in zip(here, there, strict=True):
            kernel[:, :, here, mine] = whole[:, :, :, other]
        layer.set_weights([kernel])
    return network


def _kept(kernel: np.ndarray, there: list[int], rows: Sequence[int] | None = None) -> np.ndarray:
    """(kept, theirs): mixes all scores into those kept, which upsampled alone give what all gave, on a block's average.

    With M the kernel's mean over the block, (classes that it gives, theirs), and M' its columns of those that stay, the
    upsampling makes M s of all scores s, and M' A s of what is kept of them. Rows are those of the classes that stay:

        A = argmin |M' A - M|^2

    Args:
        kernel: of the upsampling, (height, width, output classes, theirs).
        there: ids of the classes kept; `rows`, the kept ones among its output classes, where they differ.
    """
    if len(there) in (0, kernel.shape[3]):
        return _alone(there, kernel.shape[3])
    mean = kernel.mean((0, 1), dtype=np.float64)[there if rows is None else list(rows)]
    return np.linalg.lstsq(mean[:, there], mean, rcond=1e-3)[0]


def _alone(there: list[int], count: int) -> np.ndarray:
    """(kept, theirs): takes each kept score unchanged. Through a Relu, sums of scores could not be passed on."""
    return np.eye(count)[there]
