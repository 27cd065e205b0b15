"""A finished FCN8 for other classes: encoder and head stay, and classes of the same name keep their scores.

Of a class that the finished network does not know, the scores begin at 0: all of them alike, whatever the scale of the
features that they are read from (Long and others, 2015, arXiv 1411.4038, start all theirs so). Knows no files.
"""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np

from .fcn8 import UPSAMPLINGS, Fcn8Config, RepeatPixels, fcn8
from .narrow import AFTER_SCORES, CHAIN, SCORES

# Behind a Relu a score of 0 would never learn.
ALIVE = 0.1


def rescore(finished: keras.Model, config: Fcn8Config, theirs: tuple[str, ...], ours: tuple[str, ...]) -> keras.Model:
    """A plain FCN8 of the finished one's widths for other classes.

    Args:
        finished: a plain FCN8.
        config: what `finished` is, but for the number of classes.
        theirs, ours: class names by id, of the finished network and of the one to make.
    """
    network = fcn8(replace(config, classes=len(ours)), kernel_initializer="zeros")
    for name in CHAIN:
        network.get_layer(name).set_weights(finished.get_layer(name).get_weights())
    known = [name for name in ours if name in theirs]
    here, there = [ours.index(name) for name in known], [theirs.index(name) for name in known]
    begun = ALIVE if config.skip_activation == "relu" else 0.0
    for name in SCORES.values():
        layer = network.get_layer(name)
        axis = 2 if name in UPSAMPLINGS else 3  # of the classes that it gives
        kernel, *bias = (np.zeros(variable.shape, np.float32) for variable in layer.weights)
        whole, *own = finished.get_layer(name).get_weights()
        np.moveaxis(kernel, axis, 0)[here] = np.moveaxis(whole, axis, 0)[there]
        for array, given in zip(bias, own, strict=True):
            array[:] = begun
            array[here] = given[there]
        layer.set_weights([kernel, *bias])
    for name in AFTER_SCORES:
        layer, (whole,) = network.get_layer(name), finished.get_layer(name).get_weights()
        kernel = np.array(keras.ops.convert_to_numpy(RepeatPixels()(layer.kernel.shape)))
        for mine, other in zip(here, there, strict=True):
            kernel[:, :, here, mine] = whole[:, :, there, other]
        layer.set_weights([kernel])
    return network
