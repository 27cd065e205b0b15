"""The network: its layers, its sizes, and batch normalisation folded away without a trace."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from edge_seg.errors import ConfigurationError
from train.fcn8 import Fcn8Config, fcn8, logits_model
from train.fold import fold_batch_norm

TINY = Fcn8Config(input_size=(64, 96), block_widths=(4, 5, 6, 7, 8), head_widths=(9, 10))

# The notebook's model.summary(), layer for layer.
NOTEBOOK_PARAMETERS = {
    "block1_conv1": 1792, "block1_conv2": 36928, "block2_conv1": 73856, "block2_conv2": 147584, "block3_conv1": 295168,
    "block3_conv2": 590080, "block3_conv3": 590080, "block4_conv1": 1180160, "block4_conv2": 2359808,
    "block4_conv3": 2359808, "block5_conv1": 2359808, "block5_conv2": 2359808, "block5_conv3": 2359808,
    "conv6": 102764544, "pool4_conv": 6156, "conv7": 16781312, "pool4_upsample2": 576, "pool3_conv": 3084,
    "conv7_upsample4": 786432, "upsample8": 9216,
}  # fmt: skip


def test_default_network_is_the_notebooks() -> None:
    model = fcn8()
    assert model.count_params() == 135_066_008
    assert {layer.name: layer.count_params() for layer in model.layers if layer.count_params()} == NOTEBOOK_PARAMETERS
    assert model.output_shape == (None, 224, 224, 12)
    assert model.get_layer("pool3_conv").activation is keras.activations.relu
    assert not model.get_layer("upsample8").use_bias


@pytest.mark.parametrize("size", [(224, 225), (0, 32), (33, 64), (-32, 32)])
def test_sizes_not_divisible_by_32_are_refused_by_name(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigurationError, match=f"multiples of 32.*{size[0]}x{size[1]}"):
        Fcn8Config(input_size=size)


@pytest.mark.parametrize(
    "bad", [{"classes": 1}, {"block_widths": (1, 2, 3)}, {"head_widths": (0, 4)}, {"skip_activation": "tanh"}]
)
def test_impossible_networks_are_refused(bad: dict) -> None:
    with pytest.raises(ConfigurationError):
        Fcn8Config(**bad)


def test_probabilities_sum_to_one_at_any_size_divisible_by_32() -> None:
    model = fcn8(TINY.with_size(None))
    for height, width in ((32, 32), (64, 96)):
        frames = np.random.default_rng(0).uniform(-1, 1, (2, height, width, 3)).astype(np.float32)
        found = keras.ops.convert_to_numpy(model(frames))
        assert found.shape == (2, height, width, 12)
        np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-5)


def test_config_survives_json() -> None:
    import json

    assert Fcn8Config.from_dict(json.loads(json.dumps(TINY.to_dict()))) == TINY


@pytest.mark.parametrize("first", [1, 3, 6])
def test_folding_batch_norm_changes_nothing(first: int) -> None:
    rng = np.random.default_rng(1)
    trained = fcn8(TINY, batch_norm_from=first, dropout=0.3)
    for layer in trained.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            channels = layer.gamma.shape[0]
            layer.set_weights(
                [rng.uniform(low, high, channels) for low, high in ((0.5, 2), (-1, 1), (-1, 1), (0.5, 2))]
            )
    plain = fold_batch_norm(trained, TINY)
    assert not any(isinstance(layer, (keras.layers.BatchNormalization, keras.layers.Dropout)) for layer in plain.layers)
    frames = rng.uniform(-1, 1, (2, 64, 96, 3)).astype(np.float32)
    expected, found = (keras.ops.convert_to_numpy(logits_model(model)(frames)) for model in (trained, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert np.ptp(expected) > 0.1, "an output this flat would hide any difference"
