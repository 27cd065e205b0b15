"""Two runs of one lineage averaged: whatever the scales of their filters, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.train.conftest import quick
from tests.train.test_narrow import NARROW, SHORT, logits, random_network
from train.__main__ import main
from train.average import averaged_config, rescale_filters, weights_of
from train.narrow import CHAIN, SCORES
from train.run import load_model, open_run, save_run


def run_of(folder: Path, model: keras.Model, **more: object) -> Path:
    training = {"epochs": 3, "loss": 0.1, "val_loss": 0.2, "val_mean_iou": 0.3, "seconds": 5}
    return save_run(folder, {"fcn8": NARROW.to_dict(), "training": training, **more}, model).folder


def scaled(model: keras.Model) -> keras.Model:
    """The same function, each filter before a Relu with a scale of its own."""
    rng, other = np.random.default_rng(2), random_network(NARROW)
    other.set_weights(model.get_weights())
    for position, name in enumerate(CHAIN):
        layer = other.get_layer(name)
        kernel, bias = layer.get_weights()
        scale = rng.uniform(0.01, 100.0, len(bias))
        layer.set_weights([kernel * scale, bias * scale])
        for reader in (*CHAIN[position + 1 : position + 2], SCORES.get(name)):
            if reader:
                kernel, *rest = other.get_layer(reader).get_weights()
                by = scale if reader == "conv7_upsample4" else scale[:, None]
                other.get_layer(reader).set_weights([kernel / by, *rest])
    return other


def nudged(model: keras.Model, by: float) -> keras.Model:
    rng, other = np.random.default_rng(4), random_network(NARROW)
    other.set_weights([array + by * array.std() * rng.normal(size=array.shape) for array in model.get_weights()])
    return other


def test_scales_of_filters_change_nothing(tmp_path: Path) -> None:
    model = random_network(NARROW)
    expected = logits(model)
    other = scaled(model)
    np.testing.assert_allclose(logits(other), expected, atol=1e-3 * np.abs(expected).max())
    runs = run_of(tmp_path / "one", model), run_of(tmp_path / "other", other)
    assert main(["average", *map(str, runs), "--out", str(tmp_path / "mean")]) == 0
    mean = load_model(open_run(tmp_path / "mean"))
    for ours, theirs in zip(mean.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_a_dead_filter_stays_dead(tmp_path: Path) -> None:
    model = random_network(NARROW)
    layer = model.get_layer("block3_conv1")
    kernel, bias = layer.get_weights()
    kernel[..., 1], bias[1] = 0.0, -1.0
    layer.set_weights([kernel, bias])
    weights = weights_of(model)
    rescale_filters(weights, weights_of(nudged(model, 0.1)))
    assert all(np.isfinite(array).all() for arrays in weights.values() for array in arrays)
    assert not weights["block3_conv1"][0][..., 1].any()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_is_the_second_ones(tmp_path: Path, share: float) -> None:
    model = random_network(NARROW)
    other = nudged(model, 0.2)
    aligned, own = weights_of(other), weights_of(model)
    rescale_filters(aligned, own)
    one = run_of(tmp_path / "one", model, license="city data")
    two = run_of(tmp_path / "two", other, license="own data", data={"val": ["a"]}, recipe={"epochs": 3})
    assert main(["average", str(one), str(two), "--out", str(tmp_path / "mean"), "--share", str(share)]) == 0
    run = open_run(tmp_path / "mean")
    mean = load_model(run)
    for name in own:
        wanted = (1 - share) * own[name][0] + share * aligned[name][0]
        np.testing.assert_allclose(mean.get_layer(name).get_weights()[0], wanted, rtol=1e-4, atol=1e-5)
    if share == 1.0:
        np.testing.assert_allclose(logits(mean), logits(other), atol=1e-3 * np.abs(logits(other)).max())
    assert run.config["averaged"] == {"with": "one", "share": 1 - share}
    assert run.config["training"] == {"epochs": 3, "seconds": 5}, "scores are another network's"
    assert (run.config["license"], run.config["data"]) == ("city data; own data", {"val": ["a"], "seen": None})


@pytest.mark.parametrize(
    ("known", "hash_", "names"),
    [
        ({"train": ["a", "c"]}, "h", ["a", "d"]),
        ({"train": ["x"], "seen": {"count": 1, "names": ["b"]}}, "h", ["b", "d"]),
        ({"train": ["x"]}, "h", ["d"]),
        ({"train": ["a", "b"]}, "another", ["d"]),
    ],
)
def test_held_out_images_that_either_was_trained_on_are_handed_on(
    tmp_path: Path, known: dict[str, object], hash_: str, names: list[str]
) -> None:
    """Two that went on from one network may have held out different images."""
    model = random_network(NARROW)
    one = run_of(tmp_path / "one", model, data={"hash": hash_, **known})
    data = {"hash": "h", "train": ["c"], "val": ["a", "b", "d"], "seen": {"count": 1, "names": ["d"]}}
    two = run_of(tmp_path / "two", nudged(model, 0.1), data=data)
    config = averaged_config(open_run(one), open_run(two), 0.5)
    assert config["data"] == {**data, "seen": {"count": len(names), "names": names}}


def test_networks_with_nothing_in_common_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = run_of(tmp_path / "one", random_network(NARROW)), run_of(tmp_path / "two", random_network(NARROW, 9))
    assert main(["average", str(one), str(two), "--out", str(tmp_path / "mean")]) == 2
    assert "was not begun from" in capsys.readouterr().err
    wider = replace(NARROW, head_widths=(8, 5))
    save_run(two, {"fcn8": wider.to_dict()}, random_network(wider))
    assert main(["average", str(one), str(two), "--out", str(tmp_path / "mean")]) == 2
    assert "other widths: (3, 4, 5, 6, 4, 7, 5) and (3, 4, 5, 6, 4, 8, 5)" in capsys.readouterr().err
    assert not (tmp_path / "mean").exists()
    assert main(["average", str(one), str(one), "--out", str(two)]) == 2
    assert "already holds a run" in capsys.readouterr().err


@quick
def test_what_fit_went_on_to_is_averaged_with_what_it_began_as(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = make_dataset(count=8, size=(64, 96))
    finished = run_of(tmp_path / "finished", random_network(NARROW))
    begun, mean = tmp_path / "begun", tmp_path / "mean"
    start = ["fit", str(dataset), "--out", str(begun), "--start", str(finished), "--batch-norm", "--epochs", "1"]
    assert main([*start, *SHORT, "--learning-rate", "1e-5"]) == 0
    assert main(["average", str(finished), str(begun), "--out", str(mean)]) == 0
    expected = logits(load_model(open_run(finished)))
    np.testing.assert_allclose(logits(load_model(open_run(mean))), expected, atol=0.3 * np.abs(expected).max())
    assert main(["evaluate", str(mean), str(dataset), "--split", "val"]) == 0
    assert "mean IoU" in capsys.readouterr().out
