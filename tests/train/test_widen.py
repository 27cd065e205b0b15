"""A wider network begun from a finished one: it computes the same, its fresh filters live, `fit --start`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.train.conftest import quick
from tests.train.test_narrow import frames, logits, random_network
from train.__main__ import main
from train.begin import learning_rates
from train.fcn8 import Fcn8Config, fcn8
from train.fold import fold_batch_norm
from train.narrow import CHAIN, filter_statistics, narrow_from
from train.options import fcn8_config, read_begun
from train.recipes import RECIPES, make_optimizer
from train.run import load_model, open_run, save_run
from train.widen import rates_where_wider, widen

SMALL = Fcn8Config(input_size=(64, 96), block_widths=(3, 4, 5, 6, 4), head_widths=(7, 5), skip_activation="linear")
LARGE = replace(SMALL, block_widths=(3, 6, 5, 9, 8), head_widths=(20, 12))
SHORT = ["--rendered-share", "0", "--crop-size", "32x32", "--batch-size", "3", "--policy", "float32", "--epochs", "1"]


@pytest.mark.parametrize("larger", [LARGE, SMALL, replace(LARGE, block_widths=(5, 6, 8, 9, 8))])
def test_it_computes_the_same_plain_and_normalised(larger: Fcn8Config) -> None:
    finished = random_network(SMALL)
    expected = logits(finished)
    wide = widen(finished, larger, frames(), seed=1)
    assert [layer.kernel.shape[-1] for layer in map(wide.get_layer, CHAIN)][-2:] == list(larger.head_widths)
    np.testing.assert_allclose(logits(wide), expected, atol=1e-5 * np.abs(expected).max())
    network = fcn8(larger, batch_norm_from=3)
    narrow_from(network, wide, frames())
    np.testing.assert_allclose(logits(fold_batch_norm(network, larger)), expected, atol=1e-4 * np.abs(expected).max())


def test_fresh_filters_swing_like_the_others_and_read_old_and_fresh_channels_alike() -> None:
    finished = random_network(SMALL)
    # One channel a thousand times larger than it need be: what reads it must not hang on it alone.
    (kernel, bias), (after, after_bias) = (finished.get_layer(f"block4_conv{index}").get_weights() for index in (1, 2))
    kernel[..., 2] *= 1000.0
    bias[2] *= 1000.0
    after[:, :, 2] /= 1000.0
    finished.get_layer("block4_conv1").set_weights([kernel, bias])
    finished.get_layer("block4_conv2").set_weights([after, after_bias])
    wide = widen(finished, LARGE, frames(), seed=1)
    seen = filter_statistics(wide, frames())
    old = filter_statistics(finished, frames())
    for name in ("block2_conv2", "block4_conv2", "conv6", "conv7"):
        before = old[name].deviation
        np.testing.assert_allclose(seen[name].deviation[len(before) :], np.median(before), rtol=1e-3)
    ours = np.abs(np.asarray(wide.get_layer("block4_conv2").kernel)).sum((0, 1))[:, 6:]
    read = ours.sum(1) * seen["block4_conv1"].deviation
    assert read.max() < 3 * read.min()


def test_old_filters_and_scores_read_fresh_ones_with_zeros_alone() -> None:
    wide = widen(random_network(SMALL), LARGE, frames(), seed=1)
    for name, axis in (("pool4_conv", 2), ("conv7_upsample4", 3)):
        (kernel, *_) = wide.get_layer(name).get_weights()
        fresh = np.take(kernel, range({"pool4_conv": 6, "conv7_upsample4": 5}[name], kernel.shape[axis]), axis)
        assert fresh.size > 0
        assert not fresh.any()
    kernel, _ = wide.get_layer("conv6").get_weights()
    assert not kernel[:, :, 4:, :7].any()
    assert np.abs(kernel[:, :, :, 7:]).min() > 0


def test_the_seed_decides_the_fresh_filters() -> None:
    finished = random_network(SMALL)
    one, same, other = (
        widen(finished, LARGE, frames(), seed=seed).get_layer("conv6").get_weights()[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one[..., 7:], other[..., 7:])


def test_a_layer_that_reads_n_times_as_much_learns_at_an_nth_of_the_rate() -> None:
    rates = rates_where_wider((64, 128, 256, 256, 256, 256, 256), (64, 128, 256, 512, 512, 4096, 4096))
    assert rates == {
        **dict.fromkeys(("block4_conv2", "block4_conv3", "block5_conv1", "block5_conv2", "block5_conv3"), 0.5),
        **{"pool4_conv": 0.5, "conv6": 0.5, "conv7": 1 / 16, "conv7_upsample4": 1 / 16},
    }
    assert rates_where_wider(LARGE.widths, SMALL.widths) == {}
    dense = keras.layers.Dense(1, use_bias=False, name="conv7")
    dense.build((1, 1))
    other = keras.layers.Dense(1, use_bias=False, name="conv6")
    other.build((1, 1))
    recipe = replace(RECIPES["default"], weight_decay=0.0, ema=0.0, warmup_epochs=0.0)
    optimizer = make_optimizer(recipe, 100, {"conv7": 0.25})
    variables = [dense.kernel, other.kernel]
    start = [float(np.asarray(variable).item()) for variable in variables]
    optimizer.apply([keras.ops.ones((1, 1)), keras.ops.ones((1, 1))], variables)
    moved = [before - float(np.asarray(after).item()) for before, after in zip(start, variables, strict=True)]
    assert moved[0] == pytest.approx(0.25 * moved[1], rel=1e-3)
    assert moved[1] == pytest.approx(1e-3, rel=1e-2)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A finished run with a small network, and terms."""
    config = replace(SMALL, input_size=(64, 64))
    record = {"fcn8": config.to_dict(), "license": "own data", "training": {"recipe": "default"}}
    save_run(tmp_path / "small", record, random_network(config))
    return tmp_path / "small"


def begin(dataset: Path, out: Path, start: Path, *more: str) -> list[str]:
    return ["fit", str(dataset), "--out", str(out), "--start", str(start), *SHORT, *more]


def kept(ended: keras.Model, began: keras.Model, names: Sequence[str]) -> list[bool]:
    """Whether each layer's kernel is the other's but for one factor."""
    ratios = [np.asarray(ended.get_layer(name).kernel) / np.asarray(began.get_layer(name).kernel) for name in names]
    return [bool(np.allclose(ratio, ratio.flat[0], rtol=1e-6)) for ratio in ratios]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("normalised", "rate"), [([], 1e-4), (["--batch-norm"], 1e-3)])
def test_fit_begins_a_wider_network_beside_a_finished_one(
    make_dataset: Callable[..., Path], finished: Path, tmp_path: Path, normalised: list[str], rate: float
) -> None:
    dataset, out = make_dataset(count=8, size=(64, 64)), tmp_path / "wide"
    widths = ["--block-widths", "3,4,5,9,8", "--head-widths", "20,12"]
    assert main(begin(dataset, out, finished, *widths, "--freeze-blocks", "3", *normalised)) == 0
    config = json.loads((out / "config.json").read_text())
    assert (config["fcn8"]["block_widths"], config["fcn8"]["head_widths"]) == ([3, 4, 5, 9, 8], [20, 12])
    assert config["recipe"]["learning_rate"] == rate
    assert config["encoder"]["began"] == list(SMALL.widths)
    assert (config["license"], config["start"]) == ("own data", "small")
    ended, small = load_model(open_run(out)), load_model(open_run(finished))
    assert all(kept(ended, small, ("block1_conv1", "block1_conv2", "block2_conv1", "block3_conv3")))
    (scores,) = ended.get_layer("conv7_upsample4").get_weights()
    assert np.abs(scores[..., 5:]).max() > 0, "what reads the fresh filters has learnt"
    # Its checkpoint holds all of it, and config.json which layers learn how fast.
    shutil.rmtree(finished)
    recipe, options = read_begun(out)
    assert options.inherited is not None
    rates = learning_rates(recipe, options.inherited, fcn8_config(recipe, options))
    assert rates["conv7"] == 7 / 20
    assert rates["block4_conv2"] == 6 / 9
    (out / "model.weights.h5").unlink()
    assert main(["fit", "--out", str(out), "--resume"]) == 0
    for before, after in zip(ended.get_weights(), load_model(open_run(out)).get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@quick
def test_a_first_block_with_fresh_filters_is_not_kept(
    make_dataset: Callable[..., Path], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, out = make_dataset(count=8, size=(64, 64)), tmp_path / "wide"
    widths = ["--block-widths", "4,4,5,6,4"]
    assert main(begin(dataset, out, finished, *widths)) == 0
    fresh = open_run(out).config["encoder"]
    assert "block1_conv1" not in fresh["loaded"]
    assert main(begin(dataset, tmp_path / "two", finished, *widths, "--freeze-blocks", "2")) == 2
    expected = (
        "expected blocks 1 to 2 as wide as those of --start, and no block narrower: 3,4,5,6,4,7,5 filters there, "
    )
    assert f"error: --freeze-blocks 2: {expected}4,4,5,6,4,7,5 here." in capsys.readouterr().err
    assert main(begin(dataset, tmp_path / "two", finished, "--block-widths", "3,4,5,6,3", "--freeze-blocks", "2")) == 2
    assert f"{expected}3,4,5,6,3,7,5 here." in capsys.readouterr().err
    assert not (tmp_path / "two").exists()


@quick
def test_a_narrower_head_leaves_the_first_blocks_as_they_are(
    make_dataset: Callable[..., Path], finished: Path, tmp_path: Path
) -> None:
    dataset, out = make_dataset(count=8, size=(64, 64)), tmp_path / "head"
    assert main(begin(dataset, out, finished, "--head-widths", "5,5", "--freeze-blocks", "2")) == 0
    run = open_run(out)
    assert run.config["recipe"]["batch_norm"] is True
    assert run.config["encoder"]["whole"] is True
    ended, wide = load_model(run), load_model(open_run(finished))
    names = ("block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2")
    assert all(kept(ended, wide, names))
    assert not any(kept(ended, wide, ("block4_conv1", "block5_conv3")))
    assert ended.get_layer("conv6").kernel.shape[-1] == 5


@quick
def test_wider_here_and_narrower_there(make_dataset: Callable[..., Path], finished: Path, tmp_path: Path) -> None:
    dataset, out = make_dataset(count=8, size=(64, 64)), tmp_path / "other"
    assert main(begin(dataset, out, finished, "--block-widths", "3,4,4,9,4", "--head-widths", "20,3")) == 0
    run = open_run(out)
    assert run.config["recipe"]["batch_norm"] is True
    assert run.config["encoder"]["whole"] is False
    assert load_model(run).get_layer("conv7").kernel.shape == (1, 1, 20, 3)


@quick
def test_blocks_are_kept_only_where_something_was_given(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", str(make_dataset(count=8, size=(64, 64))), "--out", str(tmp_path / "new"), *SHORT]
    command += ["--head-widths", "7,5", "--freeze-blocks"]
    assert main([*command, "2", "--block-widths", "3,4,5,6,4"]) == 2
    assert "error: --freeze-blocks 2: nothing was given to keep; expected" in capsys.readouterr().err
    kernels = {
        f"block{block}_conv{index}": (3, 3, before, after)
        for block, index, before, after in ((1, 1, 3, 3), (1, 2, 3, 3), (2, 1, 3, 4), (2, 2, 4, 4), (3, 1, 4, 5))
    }
    arrays = {f"{name}_kernel": np.ones(shape, np.float32) for name, shape in kernels.items()}
    np.savez(tmp_path / "given.npz", **arrays, **{f"{name}_bias": np.ones(shape[3]) for name, shape in kernels.items()})
    command += ["2", "--weights", str(tmp_path / "given.npz"), "--block-widths"]
    assert main([*command, "3,5,5,6,4"]) == 2
    assert "error: --freeze-blocks 2: expected blocks 1 to 2 as wide as in given.npz" in capsys.readouterr().err
    assert main([*command, "3,4,5,6,4", "--freeze-blocks", "3"]) == 2
    assert "error: --freeze-blocks 3: expected at most 2 with --weights" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert main([*command, "3,4,5,6,4"]) == 0
    ended = load_model(open_run(tmp_path / "new"))
    # block1_conv1 was rescaled to frames in [-1, 1]; a power of two may have moved to block 3.
    for name in ("block1_conv2", "block2_conv1", "block2_conv2"):
        np.testing.assert_array_equal(ended.get_layer(name).kernel, 1.0)


def test_constant_filters_are_no_measure() -> None:
    finished = random_network(SMALL)
    for name, index, level in (("block4_conv1", 2, 0.3), ("block4_conv1", 3, -0.3), ("conv6", 0, 0.3)):
        kernel, bias = finished.get_layer(name).get_weights()
        kernel[..., index] = 0.0
        bias[index] = level
        finished.get_layer(name).set_weights([kernel, bias])
    wide = widen(finished, LARGE, frames(), seed=1)
    for name, old in (("block4_conv2", 6), ("conv7", 5)):
        fresh = np.abs(np.asarray(wide.get_layer(name).kernel)[..., old:]).mean((0, 1, 3))
        assert fresh.max() < 30 * np.median(fresh)
