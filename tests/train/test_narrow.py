"""A narrower network begun from a finished one: what it computes, the filters it takes, `fit --start` with widths."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.train.conftest import quick
from train.__main__ import main
from train.begin import some_frames
from train.fcn8 import Fcn8Config, fcn8, logits_model
from train.fold import fold_batch_norm
from train.narrow import CHAIN, filter_statistics, narrow_from
from train.run import load_model, open_run, save_run

NARROW = Fcn8Config(input_size=(64, 96), block_widths=(3, 4, 5, 6, 4), head_widths=(7, 5))
WIDE = Fcn8Config(input_size=(64, 96), block_widths=(5, 7, 9, 8, 8), head_widths=(12, 9))
SHORT = ["--rendered-share", "0", "--crop-size", "32x32", "--batch-size", "3", "--policy", "float32"]


def random_network(config: Fcn8Config, seed: int = 0) -> keras.Model:
    """Finished weights, biases of all signs among them."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    model = fcn8(config)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([array + rng.normal(0, 0.1, array.shape) for array in layer.get_weights()])
    return model


def frames(count: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [rng.uniform(-1, 1, (1, 64, 96, 3)).astype(np.float32) for _ in range(count)]


def logits(model: keras.Model) -> np.ndarray:
    return np.asarray(logits_model(model).predict_on_batch(frames(1)[0]))


def widened(narrow: keras.Model) -> keras.Model:
    """The network set into a wider one, its filters spread out and larger, among others that nothing comes of."""
    wide = random_network(WIDE, seed=3)
    rng = np.random.default_rng(5)
    before, gains = np.arange(3), np.ones(3)
    for name in CHAIN:
        layer, ours = wide.get_layer(name), narrow.get_layer(name)
        place = np.sort(rng.permutation(layer.kernel.shape[-1])[: ours.kernel.shape[-1]])
        scale = rng.uniform(0.01, 100.0, len(place))
        kernel, bias = (array * 0 for array in layer.get_weights())
        inner = ours.get_weights()[0] / gains[:, None] * scale
        kernel[:, :, before[:, None], place] = inner
        bias[place] = ours.get_weights()[1] * scale
        layer.set_weights([kernel, bias])
        for score in {"block3_conv3": ["pool3_conv"], "block4_conv3": ["pool4_conv"]}.get(name, []):
            kernel, bias = wide.get_layer(score).get_weights()
            kernel *= 0
            kernel[:, :, place] = narrow.get_layer(score).get_weights()[0] / scale[:, None]
            wide.get_layer(score).set_weights([kernel, narrow.get_layer(score).get_weights()[1]])
        before, gains = place, scale
    (kernel,) = wide.get_layer("conv7_upsample4").get_weights()
    kernel *= 0
    kernel[..., before] = narrow.get_layer("conv7_upsample4").get_weights()[0] / gains
    wide.get_layer("conv7_upsample4").set_weights([kernel])
    for name in ("pool4_upsample2", "upsample8"):
        wide.get_layer(name).set_weights(narrow.get_layer(name).get_weights())
    return wide


def test_at_the_same_widths_it_computes_the_same() -> None:
    finished = random_network(NARROW)
    network = fcn8(NARROW, batch_norm_from=1)
    narrow_from(network, finished, frames())
    np.testing.assert_allclose(logits(network), logits(finished), atol=1e-4 * np.abs(logits(finished)).max())


def test_filters_that_nothing_comes_of_are_left_out_whatever_the_scale_of_the_others() -> None:
    inner = random_network(NARROW)
    wide = widened(inner)
    expected = logits(inner)
    np.testing.assert_allclose(logits(wide), expected, atol=1e-3 * np.abs(expected).max())
    network = fcn8(NARROW, batch_norm_from=1)
    narrow_from(network, wide, frames())
    np.testing.assert_allclose(logits(network), expected, atol=1e-3 * np.abs(expected).max())
    folded = fold_batch_norm(network, NARROW)
    np.testing.assert_allclose(logits(folded), expected, atol=1e-3 * np.abs(expected).max())


def test_a_strong_filter_that_is_not_read_gives_way_to_a_weak_one_that_is() -> None:
    wide = random_network(NARROW)
    first, second = wide.get_layer("block1_conv1"), wide.get_layer("block1_conv2")
    kernel, bias = second.get_weights()
    kernel[:, :, 1] = 0.0
    second.set_weights([kernel, bias])
    kernel, bias = first.get_weights()
    kernel[..., 1] *= 100.0
    first.set_weights([kernel, bias])
    network = fcn8(replace(NARROW, block_widths=(2, 4, 5, 6, 4)), batch_norm_from=1)
    narrow_from(network, wide, frames())
    ours = np.asarray(network.get_layer("block1_conv1").kernel).reshape(-1, 2)
    for column, index in enumerate((0, 2)):
        cosine = np.corrcoef(ours[:, column], kernel[..., index].ravel())[0, 1]
        assert cosine == pytest.approx(1.0, abs=1e-5)


def test_statistics_are_those_before_relu_over_all_frames() -> None:
    network = random_network(NARROW)
    shown = frames(3)
    seen = filter_statistics(network, iter(shown))["block1_conv1"]
    kernel, bias = network.get_layer("block1_conv1").get_weights()
    before = np.concatenate([np.asarray(keras.ops.conv(frame, kernel, padding="same")) + bias for frame in shown])
    np.testing.assert_allclose(seen.mean, before.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen.deviation, before.std((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("count", [1, 12, 23, 331])
def test_twelve_images_are_shown_from_the_first_to_the_last(count: int) -> None:
    pairs = [(np.full((32, 32, 3), index % 256, np.uint8), np.zeros((32, 32), np.uint8)) for index in range(count)]
    shown = [frame.mean() for frame in some_frames(pairs, (32, 32))]
    assert len(shown) == min(12, count)
    assert shown[-1] == pytest.approx((count - 1) % 256 / 127.5 - 1, abs=1e-5)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A finished run with a wide network, and terms."""
    config = replace(WIDE, input_size=(64, 64), skip_activation="linear")
    record = {"fcn8": config.to_dict(), "license": "own data", "training": {"recipe": "default"}}
    save_run(tmp_path / "wide", record, random_network(config))
    return tmp_path / "wide"


@pytest.mark.usefixtures("undrawn")
def test_fit_begins_a_narrower_network_from_a_finished_one(
    make_dataset: Callable[..., Path], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, out = make_dataset(count=8, size=(64, 64)), tmp_path / "narrow"
    began: list[keras.Model] = []

    def spy(network: keras.Model, *rest: Any) -> None:
        narrow_from(network, *rest)
        began.append(network)

    monkeypatch.setattr("train.begin.narrow_from", spy)
    widths = ["--block-widths", "4,5,6,7,8", "--head-widths", "6,5"]
    command = ["fit", str(dataset), "--out", str(out), "--start", str(finished), "--epochs", "1", *SHORT, *widths]
    assert main(command) == 0
    assert len(began) == 1
    config = json.loads((out / "config.json").read_text())
    assert config["fcn8"]["block_widths"] == [4, 5, 6, 7, 8]
    assert config["fcn8"]["skip_activation"] == "linear"
    assert config["fcn8"]["input_size"] == [64, 64], "that of the network it began from"
    assert (config["license"], config["start"]) == ("own data", "wide")
    assert (config["recipe"]["batch_norm"], config["recipe"]["learning_rate"]) == (True, 1e-3)
    assert load_model(open_run(out)).get_layer("conv6").kernel.shape == (7, 7, 8, 6)
    # Its checkpoint holds all of it: the wide network is not needed again.
    shutil.rmtree(finished)
    (out / "model.weights.h5").unlink()
    assert main(["fit", "--out", str(out), "--resume"]) == 0
    assert len(began) == 1
    assert (out / "model.weights.h5").is_file()


@pytest.mark.parametrize("first", [3, 5, None])
def test_what_is_not_normalised_goes_over_as_it_is(first: int | None) -> None:
    finished = random_network(NARROW)
    network = fcn8(NARROW, batch_norm_from=first)
    narrow_from(network, finished, frames())
    np.testing.assert_allclose(logits(network), logits(finished), atol=1e-4 * np.abs(logits(finished)).max())
    for name in CHAIN[:4]:
        np.testing.assert_array_equal(network.get_layer(name).kernel, finished.get_layer(name).kernel)
    same = np.allclose(network.get_layer("conv6").kernel, finished.get_layer("conv6").kernel)
    assert same is (first is None)


@quick
def test_fit_goes_on_with_normalisation_where_asked(
    make_dataset: Callable[..., Path], finished: Path, tmp_path: Path
) -> None:
    dataset, out = make_dataset(count=8, size=(64, 64)), tmp_path / "on"
    start = ["fit", str(dataset), "--out", str(out), "--start", str(finished)]
    assert main([*start, "--epochs", "1", "--batch-norm", *SHORT]) == 0
    run, wide = open_run(out), load_model(open_run(finished))
    assert (run.config["recipe"]["batch_norm"], run.config["recipe"]["learning_rate"]) == (True, 1e-3)
    ended = load_model(run)
    first, second, third = ("block1_conv1", "block2_conv1", "block3_conv1")
    # Block 1 keeps its kernels, but for a power of two that moves from the first to block 3's.
    ratio = np.asarray(ended.get_layer(first).kernel) / np.asarray(wide.get_layer(first).kernel)
    np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-6)
    for name in (second, third):
        assert not np.allclose(ended.get_layer(name).kernel, wide.get_layer(name).kernel)
    # Its checkpoint holds all of it.
    shutil.rmtree(finished)
    (out / "model.weights.h5").unlink()
    assert main(["fit", "--out", str(out), "--resume"]) == 0
    for before, after in zip(ended.get_weights(), load_model(run).get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@quick
def test_another_network_under_the_name_of_the_start_is_not_taken(
    make_dataset: Callable[..., Path],
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    out, start = tmp_path / "on", ["--start", str(finished)]
    begin = ["fit", str(make_dataset(count=8, size=(64, 64))), "--out", str(out), *start, "--epochs", "1", *SHORT]
    with monkeypatch.context() as patch:
        patch.setattr("train.callbacks.StopOnNan.on_train_batch_end", stopped)
        assert main(begin) == 1
    record = open_run(finished).config
    other = replace(WIDE, input_size=(64, 64), block_widths=(6, 7, 9, 8, 8))
    save_run(tmp_path / "other" / "wide", {**record, "fcn8": other.to_dict()}, random_network(other))
    capsys.readouterr()
    assert main(["fit", "--out", str(out), "--resume", "--start", str(tmp_path / "other" / "wide")]) == 2
    complaint = "expected the network of 5,7,9,8,8,12,9 filters that the run began from, got 6,7,9,8,8,12,9."
    assert complaint in capsys.readouterr().err
    assert main(["fit", "--out", str(out), "--resume"]) == 0
    # From here on it needs no start, whatever its name stands for.
    assert main(["fit", "--out", str(out), "--resume", "--start", str(tmp_path / "other" / "wide")]) == 0


def test_a_part_of_a_network_goes_on_only_with_normalisation(
    make_dataset: Callable[..., Path], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["fit", str(make_dataset(count=8, size=(64, 64))), "--out", str(tmp_path / "n"), "--start", str(finished)]
    assert main([*start, "--head-widths", "6,5", "--no-batch-norm"]) == 2
    assert "error: --no-batch-norm: a part of a network" in capsys.readouterr().err
    assert not (tmp_path / "n").exists()
