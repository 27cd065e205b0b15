"""Begin an FCN8, narrower or normalised anew, from a finished one: each layer takes the filters that matter most.

A filter's importance is how much its output varies times how strongly it is read: s_c * sum |V_c|, with s_c the
standard deviation before Relu over some images and V_c the kernels that read channel c. (Li et al., "Pruning Filters
for Efficient ConvNets", 2017, arXiv 1608.08710, rank by a filter's own norm alone, which changes if a factor is moved
to the next layer.) The filters taken read fewer channels than before, so the narrower network normalises after each, to
a deviation of 1, since s_c has moved into the kernels that read it, and to the mean m_c that the filter had in the wide
network: beta = m_c / s_c. At equal widths all filters are taken, and the network computes the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from .fcn8 import channel_axis, per_channel
from .weights import ENCODER_LAYERS

CHAIN = (*ENCODER_LAYERS, "conv6", "conv7")
# What reads a layer's output besides the next layer of the chain, directly or through a pooling.
SCORES = {"block3_conv3": "pool3_conv", "block4_conv3": "pool4_conv", "conv7": "conv7_upsample4"}
AFTER_SCORES = ("pool4_upsample2", "upsample8")


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each of a layer's filters before Relu: (filters,) float64 each."""

    mean: np.ndarray
    deviation: np.ndarray


def narrow_from(network: keras.Model, finished: keras.Model, frames: Iterable[np.ndarray]) -> None:
    """Fill a network that normalises with the most important filters of a finished one.

    Args:
        network: an FCN8 with no layer wider than in `finished`, whose narrower layers are all normalised; changed in
            place.
        finished: a plain FCN8.
        frames: some scaled frames, (1, H, W, 3) float32 in [-1, 1] each, on which its filters are measured.
    """
    statistics = filter_statistics(finished, frames)
    kept, gains = np.arange(3), np.ones(3)
    normalised = {layer.name for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)}
    for name in CHAIN:
        layer, whole, seen = network.get_layer(name), finished.get_layer(name), statistics[name]
        if f"{name}_bn" in normalised:
            chosen = _most_important(finished, name, seen, layer.kernel.shape[-1])
            # A filter of constant output has no scale of its own; it is the last to be taken.
            deviation = np.maximum(seen.deviation, 1e-6 * seen.deviation.max() + 1e-30)[chosen]
            kernel, bias = (np.asarray(array, np.float64) for array in whole.get_weights())
            kernel = (np.take(kernel, kept, channel_axis(name)) * per_channel(gains, name))[..., chosen] / deviation
            layer.set_weights([kernel, bias[chosen] / deviation])
            norm, mean, ones = network.get_layer(f"{name}_bn"), seen.mean[chosen] / deviation, np.ones(len(chosen))
            norm.set_weights([ones * np.sqrt(1.0 + norm.epsilon), mean, mean, ones])
            kept, gains = chosen, deviation
        else:
            layer.set_weights(whole.get_weights())
            kept, gains = np.arange(len(seen.mean)), np.ones(len(seen.mean))
        if name in SCORES:
            _narrow_scores(network.get_layer(SCORES[name]), finished.get_layer(SCORES[name]), kept, gains)
    for name in AFTER_SCORES:
        network.get_layer(name).set_weights(finished.get_layer(name).get_weights())


def _most_important(finished: keras.Model, name: str, seen: Statistics, count: int) -> np.ndarray:
    """Indices of the `count` most important filters of a layer, ascending."""
    after = CHAIN.index(name) + 1
    readers = [finished.get_layer(reader) for reader in (*CHAIN[after : after + 1], SCORES.get(name)) if reader]
    importance = seen.deviation * sum(read_of(reader) for reader in readers)
    return np.sort(np.argsort(-importance, kind="stable")[:count])


def filter_statistics(
    finished: keras.Model, frames: Iterable[np.ndarray], names: Sequence[str] = CHAIN
) -> dict[str, Statistics]:
    """Statistics of the named convolutions over the frames' pixels, before Relu."""
    layers = [finished.get_layer(name) for name in names]
    inputs = keras.Model(finished.input, [layer.input for layer in layers])
    sums = {layer.name: np.zeros((2, layer.kernel.shape[-1])) for layer in layers}
    count = 0
    for frame in frames:
        count += 1
        shown = inputs(frame, training=False)
        # Keras returns a bare tensor for a list of one output.
        for layer, given in zip(layers, shown if isinstance(shown, list) else [shown], strict=True):
            before = ops.conv(ops.cast(given, "float32"), layer.kernel, padding="same") + layer.bias
            moments = ops.mean(before, (0, 1, 2)), ops.mean(ops.square(before), (0, 1, 2))
            sums[layer.name] += np.stack([ops.convert_to_numpy(moment) for moment in moments])
    found = {}
    for name, (total, squares) in sums.items():
        mean = total / count
        found[name] = Statistics(mean, np.sqrt(np.maximum(squares / count - mean**2, 0.0)))
    return found


def read_of(layer: keras.layers.Layer) -> np.ndarray:
    """How strongly a layer reads each input channel: the L1 norm of its kernel there, (channels,)."""
    kernel = np.abs(np.asarray(layer.kernel, np.float64))
    return kernel.sum(tuple(axis for axis in range(4) if axis != channel_axis(layer.name)))


def _narrow_scores(layer: keras.layers.Layer, wide: keras.layers.Layer, kept: np.ndarray, gains: np.ndarray) -> None:
    kernel, *bias = wide.get_weights()
    layer.set_weights([np.take(kernel, kept, channel_axis(wide.name)) * per_channel(gains, wide.name), *bias])
