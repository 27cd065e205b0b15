"""Held-out images that the network to begin or to learn from was trained on: said, counted and handed on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.train.conftest import quickest
from train.__main__ import main
from train.dataset import data_hash, find_samples
from train.run import open_run
from train.seen import seen_held_out, trained_on
from train.ship import ship_run
from train.splits import time_split

ASSETS = Path(__file__).parents[2] / "edge_seg" / "assets"
FIT = ["--epochs", "1", "--block-widths", "4,4,4,4,4", "--head-widths", "4,4", "--input-size", "32x32"]
FIT += ["--batch-size", "4", "--policy", "float32", "--rendered-share", "0"]


def fit(dataset: Path, out: Path, *more: str) -> Any:
    assert main(["fit", str(dataset), "--out", str(out), *FIT, *more]) == 0
    return open_run(out).config["data"].get("seen")


def looked(dataset: Path, share: float, **given: Path) -> Any:
    """What `fit` would record of its held-out images, without a training."""
    samples = find_samples(dataset)
    data: Any = SimpleNamespace(samples=samples, validation=time_split(samples, share)[1])
    options: Any = SimpleNamespace(**{"start": None, "teacher": None, **given})
    return seen_held_out(options, data, data_hash(samples))


@quickest
def test_held_out_images_that_a_network_knows_are_counted_and_handed_on(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = make_dataset(count=8)
    assert fit(dataset, tmp_path / "all", "--validation-share", "0") is None
    assert "trained on" not in capsys.readouterr().err
    start = ["--start", str(tmp_path / "all")]
    seen = fit(dataset, tmp_path / "on", *start, "--validation-share", "0.25")
    assert seen == {"count": 2, "names": ["drive_006", "drive_007"]}
    said = capsys.readouterr().err
    assert f"warning: --start {tmp_path / 'all'} was trained on 2 of the 2 held-out images" in said
    assert "It held out none; score by other images." in said
    # It held them out itself, and came from one that did not; cut down to what ships, too.
    ship_run(tmp_path / "on", tmp_path / "shipped")
    for given in ("on", "shipped"):
        assert looked(dataset, 0.25, teacher=tmp_path / given) == seen
        assert "--teacher" in capsys.readouterr().err
    # Without the run that it began from, once a checkpoint is there.
    shutil.rmtree(tmp_path / "all")
    assert main(["fit", "--out", str(tmp_path / "on"), "--resume"]) == 0
    assert open_run(tmp_path / "on").config["data"]["seen"] == seen


@quickest
def test_a_network_of_the_same_split_or_of_other_data_knows_none(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, one = make_dataset(count=8), tmp_path / "one"
    assert fit(dataset, one, "--validation-share", "0.25") is None
    ship_run(one, tmp_path / "shipped")
    for given in (one, tmp_path / "shipped"):
        assert looked(dataset, 0.25, start=given) is None
    assert looked(make_dataset(count=7), 0.5, start=one) is None
    assert "trained on" not in capsys.readouterr().err
    assert looked(make_dataset(count=8), 0.5, start=one)["count"] == 2
    said = capsys.readouterr().err
    assert "was trained on 2 of the 4 held-out images" in said
    assert "Hold out what it held out: --split time --validation-share 0.25." in said


def test_the_drives_to_hold_out_can_be_pasted(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = find_samples(make_dataset(count=8))
    config = json.loads((ASSETS / "keras_fast" / "config.json").read_text())
    config["data"] = {"hash": "ab", "train": [sample.stem for sample in samples]}
    config["recipe"]["held_out"] = ["old town", "K\u00f6ln"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    options: Any = SimpleNamespace(start=tmp_path, teacher=None)
    data: Any = SimpleNamespace(samples=samples, validation=samples[6:])
    assert seen_held_out(options, data, "ab")
    assert "Hold out what it held out: --hold-out 'old town,K\u00f6ln'." in capsys.readouterr().err


def test_a_shipped_network_whose_split_gives_other_numbers_may_know_all(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = find_samples(make_dataset(count=8))
    config = json.loads((ASSETS / "keras_fast" / "config.json").read_text())
    config["data"]["hash"] = "ab"
    (tmp_path / "config.json").write_text(json.dumps(config))
    options: Any = SimpleNamespace(start=tmp_path, teacher=None)
    data: Any = SimpleNamespace(samples=samples, validation=samples[6:])
    assert seen_held_out(options, data, "ab") == {"count": 2, "names": ["drive_006", "drive_007"]}
    assert "may have been, which it does not record, trained on 2 of the 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"validation_share": 0.1, "split": "\x1b[2Jtime"}, "--split ?[2Jtime --validation-share 0.1"),
        ({"validation_share": "all"}, "It does not record what it held out"),
        ({"held_out": [5]}, "It does not record what it held out"),
        (["default"], "It does not record what it held out"),
    ],
)
def test_a_recipe_of_any_content_is_one_harmless_line(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: Any, words: str
) -> None:
    dataset = make_dataset(count=4)
    config = {"fcn8": {}, "recipe": recipe, "data": {"hash": data_hash(find_samples(dataset))}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert looked(dataset, 0.25, start=tmp_path) == {"count": 1, "names": ["drive_003"]}
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.skipif("EDGE_SEG_DATA" not in os.environ, reason="needs EDGE_SEG_DATA")
@pytest.mark.parametrize("name", ["keras", "keras_fast"])
def test_what_the_bundled_networks_were_trained_on_is_known(name: str) -> None:
    samples, run = find_samples(Path(os.environ["EDGE_SEG_DATA"]) / "dataset1"), open_run(ASSETS / name)
    assert run.config["data"]["hash"] == data_hash(samples)
    known = trained_on(run, samples)
    assert known == {sample.stem for sample in time_split(samples, 0.1)[0]}
    assert len(known) == 331
