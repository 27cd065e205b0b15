"""Batch normalisation folded into the convolutions before it: the trained network becomes the plain FCN8.

Exact up to float32 rounding: with scale = gamma / sqrt(variance + epsilon), the kernel becomes kernel * scale and the
bias (bias - mean) * scale + beta.
"""

from __future__ import annotations

import keras
import numpy as np

from .fcn8 import Fcn8Config, fcn8
from .policy import policy_kept


def fold_batch_norm(trained: keras.Model, config: Fcn8Config) -> keras.Model:
    """Return a plain float32 FCN8 that computes what `trained` computes at inference; `trained` is left as it is."""
    with policy_kept():
        keras.mixed_precision.set_dtype_policy("float32")
        plain = fcn8(config)
    norms = {layer.name: layer for layer in trained.layers if isinstance(layer, keras.layers.BatchNormalization)}
    for layer in plain.layers:
        if layer.weights:
            weights = [np.asarray(value, np.float32) for value in trained.get_layer(layer.name).get_weights()]
            norm = norms.get(f"{layer.name}_bn")
            layer.set_weights(_folded(weights, norm) if norm is not None else weights)
    return plain


def _folded(weights: list[np.ndarray], norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    kernel, bias = (value.astype(np.float64) for value in weights)
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in norm.get_weights())
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return [(kernel * scale).astype(np.float32), ((bias - mean) * scale + beta).astype(np.float32)]
