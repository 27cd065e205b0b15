"""Studies: every variant changes what its name says, finished runs are kept, and the table says what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_seg.errors import DatasetError, ModelFileError
from tests.train.conftest import quick
from train import study
from train.__main__ import main
from train.history import read_history
from train.stores import rendered_scenes

TINY = ((2, 2, 2, 2, 2), (2, 2))


def record(variant: str, seed: int, mean_iou: float) -> dict[str, Any]:
    return {"variant": variant, "seed": seed, "mean_iou": mean_iou, "accuracy": 0.9, "iou": {"pole": mean_iou / 2}}


def test_every_part_leaves_out_something_of_the_recipe_and_nothing_twice() -> None:
    base, *others = (
        (json.dumps(asdict(study.study_recipe(variant, 8, (160, 224), 8))), variant.pretrained)
        for variant in study.part_variants()
    )
    assert base not in others
    assert len(set(others)) == len(others)


def test_table_gives_spread_and_difference_from_the_first() -> None:
    variants = study.part_variants()[:2]
    records = [record("all parts", 1, 0.51), record("all parts", 2, 0.53), record("without ImageNet kernels", 1, 0.45)]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in study.study_table(variants, records).splitlines()[2:]
    ]
    assert rows[0][:7] == ["all parts", "0.520", "2", "2.0", "", "", "0.26"]
    assert rows[1][:6] == ["without ImageNet kernels", "0.450", "1", "0.0", "-6.0", "0.0"]


def test_variants_are_compared_seed_by_seed() -> None:
    """While a second seed, which is kind to all, is under way, a variant without it is no worse for that."""
    variants = study.part_variants()[:3]
    records = [record("all parts", 1, 0.50), record("all parts", 2, 0.56), record("without ImageNet kernels", 1, 0.49)]

    def cells(line: int) -> list[str]:
        row = study.study_table(variants, records).splitlines()[2 + line]
        return [cell.strip() for cell in row.strip("|").split("|")][3:6]

    assert cells(1) == ["0.0", "-1.0", "0.0"]
    records += [record("without ImageNet kernels", 2, 0.53), record("without class weights", 3, 0.5)]
    assert cells(1) == ["4.0", "-2.0", "2.0"]
    assert cells(2) == ["0.0", "–", "–"]


def test_a_class_that_is_nowhere_has_no_score_in_the_table() -> None:
    variants = study.part_variants()[:1]
    table = study.study_table(variants, [record("all parts", 1, 0.5)])
    cells = [cell.strip() for cell in table.splitlines()[2].split("|")]
    assert cells[7:11] == ["0.25", "–", "–", "–"]


def test_images_of_which_none_are_held_out_are_refused_before_anything_is_trained(
    tmp_path: Path, make_dataset: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out, few = tmp_path / "study", make_dataset(count=3)
    assert main(["study", "widths", str(few), "--out", str(out)]) == 2
    assert "of 3 image(s) a share of 0.15 holds none out" in capsys.readouterr().err
    assert not out.exists()


def test_masks_of_other_classes_are_refused_without_a_cure_that_a_study_lacks(
    tmp_path: Path, make_dataset: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = make_dataset(count=8)
    mask = dataset / "annotations_prepped_train" / "drive_001.png"
    cv2.imwrite(str(mask), np.full((48, 64), 255, np.uint8))
    assert main(["study", "widths", str(dataset), "--out", str(tmp_path / "study")]) == 1
    error = capsys.readouterr().err
    assert f"{mask}: a 0/255 mask; expected class ids 0 to 11" in error
    assert "--ignore-id" not in error
    assert not (tmp_path / "study").exists()


def test_a_training_without_a_score_says_why(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("epoch,loss,val_mean_iou,val_accuracy,iou_pole\n1,2.0,,,\n")
    with pytest.raises(DatasetError, match="nothing is labelled in the images held out"):
        study.run_scores(tmp_path, "all parts", 1)
    (tmp_path / "history.csv").write_text("epoch,val_mean_iou,val_accuracy,iou_pole,iou_car\n1,0.4,0.8,,0.3\n")
    assert study.run_scores(tmp_path, "all parts", 1)["iou"] == {"car": 0.3}


def test_a_damaged_training_is_one_line(
    tmp_path: Path, make_dataset: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "width-8-seed1").mkdir()
    (tmp_path / "width-8-seed1" / "config.json").write_text("{")
    assert main(["study", "widths", str(make_dataset(count=8)), "--out", str(tmp_path)]) == 1
    assert "config.json: damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["", "epoch,loss\n1,2\n", "epoch,val_mean_iou,val_accuracy\n1,x,0.5\n", "epoch,loss\n1," + "9" * 200_000]
)
def test_a_training_whose_history_is_damaged_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(ModelFileError, match=r"history\.csv: .*Copy the run again") as caught:
        study.run_scores(tmp_path, "all parts", 1)
    assert "\n" not in str(caught.value)


def test_trainings_of_one_seed_share_their_scenes() -> None:
    first = rendered_scenes(4, (32, 32), 1)
    assert rendered_scenes(4, (32, 32), 1) is first
    assert rendered_scenes(4, (32, 32), 2) is not first


@pytest.mark.slow
@quick
def test_a_study_trains_each_variant_once_and_goes_on_where_it_stopped(
    tmp_path: Path,
    make_dataset: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = {"rendered_share": 0.0, "input_size": (64, 64), "validation_share": 0.34}
    first, second = (
        replace(variant, widths=TINY, changes={**variant.changes, **plain}) for variant in study.part_variants()[2:4]
    )
    monkeypatch.setitem(study.STUDIES, "parts", lambda: [first, second])
    out, dataset = tmp_path / "study", make_dataset(count=6)
    call = ["study", "parts", str(dataset), "--out", str(out), "--epochs", "1", "--crop-size", "32x32"]
    call += ["--batch-size", "2", "--seeds", "3"]
    call[call.index("--epochs") + 1] = "2"

    def interrupted(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("train.callbacks.StopOnNan.on_train_batch_end", interrupted)
        assert main(call) == 1
    assert (study.run_folder(out, first.name, 3) / "config.json").exists()  # its first epoch was under way
    assert main(call) == 0
    scores = [row["val_mean_iou"] for row in read_history(study.run_folder(out, first.name, 3) / "history.csv")]
    assert [bool(score) for score in scores] == [False, True]  # the last epoch's alone
    assert not (study.run_folder(out, first.name, 3) / "report.html").exists()
    runs = json.loads((out / "parts.json").read_text())["runs"]
    assert [(run["variant"], run["seed"]) for run in runs] == [(first.name, 3), (second.name, 3)]
    assert f"| {second.name} |" in (out / "parts.md").read_text()
    weights = study.run_folder(out, first.name, 3) / "model.weights.h5"
    trained = weights.stat().st_mtime_ns

    assert main(call) == 0
    assert weights.stat().st_mtime_ns == trained
    capsys.readouterr()
    other = [str(make_dataset(count=5)) if part == str(dataset) else part for part in call]
    assert main(other) == 2
    assert "holds a run on other data than" in capsys.readouterr().err
    call[call.index("--epochs") + 1] = "3"
    assert main(call) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert study.run_folder(out, first.name, 3).name in error
    assert "choose another --out" in error


@pytest.mark.parametrize("text", ["1,1", "1,01", "1,b", "1,"])
def test_seeds_are_numbers_each_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["study", "parts", str(tmp_path), "--out", str(tmp_path / "x"), "--seeds", text])
    assert stopped.value.code == 2
    assert "expected different whole numbers" in capsys.readouterr().err
