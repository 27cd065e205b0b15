"""The benchmark of training: what it measures and prints, on a network and pictures as small as they come."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import keras
import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.training import make_turns, measure_training, render_training, speed, write_scenes
from train.dataset import find_samples, read_image, read_mask

TINY = [
    *("--block-widths", "4,4,4,4,4", "--head-widths", "4,4", "--crop-size", "32x32"),
    *("--batch-size", "2", "--steps", "2", "--repeats", "2"),
]


@pytest.fixture(autouse=True)
def no_scenes_mixed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them at their full size is most of the time of a tiny run."""
    from dataclasses import replace

    from train import recipes

    monkeypatch.setitem(recipes.RECIPES, "default", replace(recipes.RECIPES["default"], rendered_share=0.0))


@pytest.fixture
def training_set(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for folder, shape, top in (("images", (40, 48, 3), 256), ("annotations", (40, 48), 12)):
        (root / f"{folder}_prepped_train").mkdir(parents=True)
        for index in range(4):
            pixels = np.random.default_rng(index).integers(0, top, shape, np.uint8)
            cv2.imwrite(str(root / f"{folder}_prepped_train" / f"{index}.png"), pixels)
    return root


def test_json_holds_three_speeds_and_what_they_hang_on(training_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = keras.mixed_precision.dtype_policy()
    assert main(["training", str(training_set), *TINY, "--workers", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in result["rows"]] == [
        "input pipeline alone",
        "training step alone",
        "fit, both at once",
    ]
    for row in result["rows"]:
        assert len(row["repeats_s"]) == 2
        assert row["images_per_s"] == pytest.approx(2 * 1000 / row["ms_per_batch"])
    alone, step, both = (row["images_per_s"] for row in result["rows"])
    assert result["pipeline_over_step"] == pytest.approx(alone / step)
    assert result["fit_over_step"] == pytest.approx(both / step)
    assert (result["batch_size"], result["crop_size"]) == (2, [32, 32])
    assert result["network"]["block_widths"] == [4, 4, 4, 4, 4]
    assert (result["settings"]["workers"], result["settings"]["steps"]) == (1, 3)  # --steps 2 were fewer than 3 each
    assert result["environment"]["packages"]["keras"] == keras.__version__
    assert keras.mixed_precision.dtype_policy() == before
    text = render_training(result)
    assert f"{step:.1f}" in text
    assert "widths 4,4,4,4,4,4,4; batches of 2 crops of 32x32" in text


def test_a_row_is_the_median_of_its_turns() -> None:
    row = speed("step", [2.0, 1.0, 4.0], steps=10, batch_size=6)
    assert (row.images_per_s, row.ms_per_batch) == (30.0, 200.0)
    assert row.spread == pytest.approx((4.0 - 1.0) / 2.0)


def test_what_was_drawn_ahead_is_not_counted() -> None:
    """A flow begins with what was asked for ahead, all at once; the step is told the same way."""
    closed: list[int] = []

    def stream() -> Iterator[int]:
        try:
            for index in itertools.count():
                time.sleep(0.02 if index >= 12 else 0.0)
                yield index
        finally:
            closed.append(1)

    def fit(given: Iterator[int], *, steps_per_epoch: int, callbacks: list[keras.callbacks.Callback], **_: Any) -> None:
        callbacks[0].on_train_begin()
        for index in itertools.islice(given, steps_per_epoch):
            callbacks[0].on_train_batch_end(index, {"loss": 1.0})

    trainer: Any = SimpleNamespace(
        batches=SimpleNamespace(stream=stream, batch=lambda *_: 0, ahead=lambda workers: 3 * workers),
        model=SimpleNamespace(fit=fit),
    )
    turns = make_turns(trainer, 5, 4)
    assert turns["input pipeline alone"]() >= 5 * 0.02
    assert turns["fit, both at once"]() >= 5 * 0.02
    assert turns["training step alone"]() >= 0.0
    assert len(closed) == 2


def test_a_stream_is_closed_where_training_fails() -> None:
    closed: list[int] = []

    def stream() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.append(1)

    def fit(given: Iterator[int], **_: Any) -> None:
        next(given)
        raise MemoryError

    trainer: Any = SimpleNamespace(
        batches=SimpleNamespace(stream=stream, batch=lambda *_: 0, ahead=lambda workers: workers),
        model=SimpleNamespace(fit=fit),
    )
    kept = make_turns(trainer, 5, 4)["fit, both at once"]
    with pytest.raises(MemoryError) as caught:
        kept()
    assert caught.traceback  # It holds the stream: nothing but a close has ended it.
    assert closed == [1]


def test_scenes_stand_in_for_a_dataset(tmp_path: Path) -> None:
    samples = find_samples(write_scenes(tmp_path / "scenes", 2), "train")
    assert len(samples) == 2
    for sample in samples:
        assert read_image(sample.image).shape == (360, 480, 3)
        assert set(np.unique(read_mask(sample.mask))) <= set(range(12))


@pytest.mark.slow
def test_rendered_scenes_are_measured_without_a_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import training

    asked: list[int] = []

    def written(root: Path, count: int) -> Path:
        asked.append(count)
        return write_scenes(root, 2)

    monkeypatch.setattr(training, "write_scenes", written)
    settings = training.TrainingSettings(
        block_widths=(4, 4, 4, 4, 4), head_widths=(4, 4), crop_size=(32, 32), batch_size=2, steps=1, repeats=1, scenes=5
    )
    result = measure_training(settings)
    assert asked == [5]
    assert result["settings"]["dataset"] is None
    assert len(result["rows"]) == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--batch-size", "50"], "holds 4 training image(s), fewer than one batch of 50"),
        (["--crop-size", "100x64"], "multiples of 32"),
    ],
)
def test_what_cannot_be_measured_says_why(
    more: list[str], message: str, training_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["training", str(training_set), *TINY, *more]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_dataset_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["training", str(tmp_path / "absent"), *TINY]) == 1
    assert "is not a folder" in capsys.readouterr().err
