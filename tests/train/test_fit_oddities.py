"""`fit` on data that is odd, and in a state that is: what it says, and what it leaves as it was."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_seg.errors import DatasetError
from edge_seg.spec import CAMVID_CLASSES
from tests.train.conftest import DEFAULT, Trained, quickest
from tests.train.test_fit import files, fit, history
from train.__main__ import build_parser, main
from train.batches import TrainingBatches
from train.callbacks import Progress
from train.fit import Trainer, left_as_it_is
from train.fit_command import options_anew
from train.options import read_begun
from train.recipes import RECIPES
from train.run import Run, open_run


@pytest.fixture
def dataset(make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(count=8, size=(64, 64))


def strict_json(path: Path) -> dict[str, Any]:
    """Read as readers other than Python's do: NaN is no JSON."""

    def refused(name: str) -> None:
        raise AssertionError(f"{path} holds {name}")

    return json.loads(path.read_text(), parse_constant=refused)


@quickest
def test_validation_images_without_a_label_are_told_and_leave_no_score(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    masks = sorted((dataset / "annotations_prepped_train").iterdir())
    cv2.imwrite(str(masks[-1]), np.full((64, 64), CAMVID_CLASSES.index("unlabelled"), np.uint8))
    assert fit(dataset, out, "--epochs", "1") == 0
    said = capsys.readouterr().err
    assert "warning: nothing is labelled in the masks of the 1 validation images" in said
    assert "nan" not in said
    assert "val_mean_iou" not in strict_json(out / "config.json")["training"]
    strict_json(out / "evaluate-val" / "summary.json")
    assert history(out)[0]["val_mean_iou"] == history(out)[0]["iou_pole"] == ""


def test_crops_are_cut_at_the_scale_of_the_network(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    monkeypatch.setattr(Trainer, "train", lambda self: trained.append(self.batches) or exit_now())
    assert fit(dataset, tmp_path / "run", "--epochs", "1") == 1
    assert [batches.view for batches in trained] == [(64, 64)]


def exit_now() -> None:
    raise KeyboardInterrupt


def test_a_crop_is_no_larger_than_the_network_unless_asked(tmp_path: Path) -> None:
    def crop(*more: str) -> Any:
        call = build_parser().parse_args(["fit", "data", "--out", str(tmp_path / "run"), *more])
        return options_anew(call)[0].crop_size

    assert crop() == (256, 320)
    assert crop("--input-size", "224x640") == (224, 320)
    assert crop("--input-size", "64x64", "--crop-size", "96x96") == (96, 96)
    assert crop("--recipe", "notebook") is None


def test_resume_never_trains_anew_over_a_finished_network(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(trained.run, tmp_path / "my run")
    for path in out.glob("checkpoint*.npz"):
        path.unlink()
    before = files(out)
    capsys.readouterr()
    assert main(["fit", "--out", str(out), "--resume"]) == 2
    assert f"no checkpoint to go on from; begin another run from it: --start '{out}', with" in capsys.readouterr().err
    assert files(out) == before


@pytest.mark.usefixtures("undrawn")
def test_a_finished_run_keeps_its_record_when_it_is_resumed(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(trained.run, tmp_path / "run")
    resume = ["fit", "--out", str(out), "--resume"]
    monkeypatch.setattr(Trainer, "train", lambda self: pytest.fail("there is nothing to train"))
    before = files(out)
    capsys.readouterr()
    assert main([*resume, "--learning-rate", "1e-4"]) == 0
    assert f"nothing left to train: {out}{os.sep} has finished its 3 epochs, " in capsys.readouterr().out
    assert files(out) == before
    assert main([*resume, "--epochs", "2"]) == 2
    assert "recipe.epochs is 3 there, 2 here" in capsys.readouterr().err
    assert files(out) == before
    # The terms are no part of what was trained, and the page is made where it had not come to be.
    (out / "report.html").unlink()
    assert main([*resume, "--license", "other terms"]) == 0
    for name in ("model.weights.h5", "checkpoint.npz", "history.csv"):
        assert files(out)[name] == before[name]
    assert strict_json(out / "config.json") == {**json.loads(before["config.json"]), "license": "other terms"}
    assert (out / "report.html").is_file()


def test_a_finished_run_of_one_epoch_has_not_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.html").touch()
    options = options_anew(build_parser().parse_args(["fit", "data", "--out", str(tmp_path)]))[1]
    left_as_it_is(Run(tmp_path, {"recipe": {"epochs": 1}}), options)
    assert "has finished its 1 epoch, and keeps" in capsys.readouterr().out


@quickest
def test_what_a_run_says_of_its_training_is_said_of_the_weights_beside_it(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"

    def full(model: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("train.run.weights_in_memory", full)
        assert fit(dataset, out, "--epochs", "2", "--batch-size", "4") == 1
    assert "The checkpoint after epoch 2 is kept" in capsys.readouterr().err
    assert "training" not in strict_json(out / "config.json")
    assert main(["fit", "--out", str(out), "--resume"]) == 0
    finished = strict_json(out / "config.json")["training"]
    # Gone on with once more, from the checkpoint before the last, and stopped: the finished weights are still there,
    # and so is what is known of them.
    (out / "checkpoint.npz").unlink()
    monkeypatch.setattr(Trainer, "train", lambda self: exit_now())
    assert main(["fit", "--out", str(out), "--resume"]) == 1
    assert strict_json(out / "config.json")["training"] == finished


@pytest.mark.usefixtures("undrawn")
def test_an_image_lost_while_training_is_one_line(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = TrainingBatches.batch

    def lost(self: TrainingBatches, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        if epoch == 4:
            raise DatasetError("images/drive_003.png: not a readable image.")
        return draw(self, epoch, index)

    monkeypatch.setattr(TrainingBatches, "batch", lost)
    monkeypatch.setattr("train.batches.drawing_threads", lambda: 1)  # With more it would be met sooner.
    assert fit(dataset, tmp_path / "run", "--epochs", "10") == 1
    said = capsys.readouterr().err
    assert said.endswith("error: images/drive_003.png: not a readable image.\n")
    assert "epoch 1/10" in said  # It was under way: what TensorFlow would make of it is a page.


def test_a_full_device_is_one_line_with_its_cure(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import tensorflow as tf

    def full(*given: object, **named: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "Graph execution error:\n\nOOM when allocating a tensor")

    monkeypatch.setattr("keras.Model.fit", full)
    assert fit(dataset, tmp_path / "run", "--epochs", "1") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: Out of memory: ")
    assert "a smaller --batch-size" in last


@pytest.mark.parametrize("more", [[], ["--teacher", "edge_seg/assets/keras"]], ids=["alone", "with a teacher"])
def test_a_dataset_that_unlabelled_took_is_told(
    dataset: Path, tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["fit", "--out", str(out), *more, "--unlabelled", "clip.mp4", str(dataset)]) == 2
    assert f"takes every name behind it, {str(dataset)!r} too" in capsys.readouterr().err
    assert not out.exists()


def test_a_start_is_recorded_by_the_folders_own_name(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.run)
    monkeypatch.setattr(Trainer, "train", lambda self: exit_now())
    options = DEFAULT[4:]
    assert fit(trained.dataset, tmp_path / "second", "--start", ".", options=options) == 1
    assert open_run(tmp_path / "second").config["start"] == "first"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"policy": "\x1b[2J"}, "policy"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**32}, "seed 4294967296"),
        ({"recipe": {**RECIPES["default"].to_dict(), "augmentation": {"scale": []}}}, "tuple index"),
        ({"recipe": {**RECIPES["default"].to_dict(), "augmentation": {"light": 10**400}}}, "too large"),
    ],
    ids=str,
)
def test_a_beginning_that_no_training_can_have_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], words: str
) -> None:
    config = {
        "fcn8": {},
        "recipe": RECIPES["default"].to_dict(),
        "seed": 1,
        "policy": "float32",
        "encoder": {"whole": False, "loaded": [], "began": []},
        "paths": {"weights": None, "start": None, "teacher": None},
        "data": {"root": str(tmp_path), "images": None, "masks": None, "unlabelled": []},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_begun(tmp_path)[1].seed == 1
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    assert main(["fit", "--out", str(tmp_path), "--resume"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not say how its run began" in line
    assert words in line


@pytest.mark.parametrize("columns", [100, 80, 40])
def test_the_line_of_a_step_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    progress = Progress(60, 103)
    progress.stream = io.StringIO()
    monkeypatch.setattr(progress.stream, "isatty", lambda: True, raising=False)
    progress.on_epoch_begin(11)
    progress.on_train_batch_end(70, {"loss": 1.2, "mean_iou": 0.4})
    line = progress.stream.getvalue().removeprefix("\r\x1b[2K")
    assert line.startswith("epoch 12/60 ")
    assert len(line) < columns
    assert ("71/103 loss 1.200 mean IoU 0.400 left 0:00:00" in line) is (columns >= 80)
    assert ("[###" in line) is (columns >= 80)
