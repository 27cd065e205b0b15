"""`fit` end to end on a tiny dataset: what a run holds, resuming, stopping, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_seg.spec import CAMVID_CLASSES
from tests.train.conftest import DEFAULT, TINY, Trained, quick
from train import callbacks
from train.__main__ import build_parser, main
from train.batches import TrainingBatches
from train.fcn8 import Fcn8Config
from train.files import sole_writer
from train.fit import Trainer
from train.fit_command import options_anew
from train.options import differences, run_config
from train.preflight import WARNINGS_TOLD
from train.recipes import ScaledAdamW
from train.run import load_model, open_run, save_run
from train.training_data import TrainingData
from train.weights import ENCODER_LAYERS

# What begins from a network has its shape.
ON = ["--rendered-share", "0", "--crop-size", "32x32", "--batch-size", "2", "--policy", "float32"]


@pytest.fixture
def dataset(make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(count=8, size=(64, 64), splits=("train", "test"))


def fit(dataset: Path, out: Path, *more: str, options: list[str] = DEFAULT) -> int:
    return main(["fit", str(dataset), "--out", str(out), *options, *more])


def stop_after_an_epoch(
    monkeypatch: pytest.MonkeyPatch, dataset: Path, out: Path, *more: str, options: list[str] = DEFAULT
) -> None:
    """Begin a run and interrupt it after its first epoch."""
    report = callbacks.Progress.on_epoch_end

    def stop(self: callbacks.Progress, epoch: int, logs: dict | None = None) -> None:
        report(self, epoch, logs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Progress, "on_epoch_end", stop)
        assert fit(dataset, out, *more, options=options) == 1


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def history(out: Path) -> list[dict[str, str]]:
    with open(out / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def weights(out: Path) -> list[np.ndarray]:
    return load_model(open_run(out)).get_weights()


def probabilities(out: Path) -> np.ndarray:
    frames = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    return np.asarray(load_model(open_run(out)).predict_on_batch(frames))


def test_masks_with_nothing_labelled_are_refused(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, out = make_dataset(count=6, size=(64, 64)), tmp_path / "run"
    masks = sorted((dataset / "annotations_prepped_train").iterdir())
    # The last one, which is validated on, is labelled: it teaches nothing.
    for mask in masks[:-1]:
        cv2.imwrite(str(mask), np.full((64, 64), CAMVID_CLASSES.index("unlabelled"), np.uint8))
    assert fit(dataset, out) == 1
    assert "5 training images hold nothing but 11 (unlabelled)" in capsys.readouterr().err
    assert not out.exists()


def test_default_recipe_leaves_a_whole_run(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert fit(dataset, out, "--epochs", "2", "--license", "own data") == 0
    printed = capsys.readouterr()
    assert "Total params" in printed.out
    assert "keras 3." in printed.out
    assert "epoch 2/2" in printed.err
    names = {path.name for path in out.iterdir()}
    assert {
        "config.json",
        "model.weights.h5",
        "history.csv",
        "checkpoint.npz",
        "report.html",
        "curves.png",
        "samples.png",
    } <= names
    assert not [name for name in names if "partial" in name]
    rows = history(out)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert 0.0 <= float(rows[1]["val_mean_iou"]) <= 1.0
    run = open_run(out)
    assert run.config["training"]["epochs"] == 2
    assert run.config["license"] == "own data"
    assert run.config["teacher"] is None
    assert len(run.samples("train")) + len(run.samples("val")) == 8
    assert {layer.__class__.__name__ for layer in load_model(run).layers} == {
        "InputLayer", "Conv2D", "MaxPooling2D", "Conv2DTranspose", "Add", "Activation",
    }  # fmt: skip


@pytest.mark.usefixtures("undrawn")
def test_notebook_recipe_records_accuracy(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert fit(dataset, out, "--recipe", "notebook", "--epochs", "2", "--batch-size", "4", options=TINY) == 0
    rows = history(out)
    assert float(rows[1]["loss"]) < 2.6
    assert 0.0 < float(rows[1]["accuracy"]) < 1.0
    assert float(rows[1]["learning_rate"]) == pytest.approx(0.01 / (1 + 5.0**-4 * 4), rel=1e-5)
    run = open_run(out)
    assert len(run.samples("train")) == 6  # int(8 * 0.85)
    assert run.fcn8.skip_activation == "relu"


@pytest.mark.usefixtures("undrawn")
def test_resumed_run_ends_where_the_whole_run_ends(trained: Trained, tmp_path: Path) -> None:
    whole, parted = trained.run, shutil.copytree(trained.begun, tmp_path / "parted")
    assert not (parted / "model.weights.h5").exists()
    assert fit(trained.dataset, parted, "--epochs", "3", "--resume") == 0
    for ours, theirs in zip(weights(parted), weights(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    unlike = [
        key
        for key in history(whole)[2]
        if key != "seconds" and history(whole)[2][key][:6] != history(parted)[2][key][:6]
    ]
    assert not unlike


@quick
def test_damaged_checkpoint_falls_back_to_the_one_before(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(trained.run, tmp_path / "run")
    checkpoint = out / "checkpoint.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    assert fit(trained.dataset, out, "--epochs", "3", "--resume") == 0
    said = capsys.readouterr().err
    assert "checkpoint.npz:" in said
    assert "going on from checkpoint.previous.npz" in said
    assert "resuming after epoch 2 of 3" in said
    for ours, theirs in zip(weights(out), weights(trained.run), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@quick
def test_nan_loss_stops_and_keeps_the_last_checkpoint(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = TrainingBatches.batch

    def poisoned(self: TrainingBatches, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        frames, masks = draw(self, epoch, index)
        return (frames * np.nan if epoch == 1 else frames), masks

    monkeypatch.setattr(TrainingBatches, "batch", poisoned)
    out = tmp_path / "run"
    assert fit(dataset, out, "--epochs", "3") == 1
    said = capsys.readouterr().err
    assert "loss became nan in epoch 2, batch 1. The checkpoint after epoch 1 is kept; go on from it with" in said
    assert "--resume, and a smaller --learning-rate." in said
    with np.load(out / "checkpoint.npz", allow_pickle=False) as file:
        assert json.loads(file["record"].tobytes())["epoch"] == 1
        assert all(np.isfinite(file[key]).all() for key in file.files if key.startswith("model/"))


@pytest.mark.slow
@quick
def test_the_cures_of_a_nan_loss_are_cures(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = TrainingBatches.batch
    from_epoch = 0

    def poisoned(self: TrainingBatches, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        frames, masks = draw(self, epoch, index)
        return (frames * np.nan if epoch >= from_epoch else frames), masks

    monkeypatch.setattr(TrainingBatches, "batch", poisoned)
    out = tmp_path / "run"
    assert fit(dataset, out, "--epochs", "3", "--batch-size", "4") == 1
    assert "in epoch 1, batch 1. No checkpoint had been written; start over with --resume" in capsys.readouterr().err
    assert not (out / "checkpoint.npz").exists()
    from_epoch = 1
    assert fit(dataset, out, "--epochs", "3", "--batch-size", "4", "--resume") == 1
    said = capsys.readouterr().err
    assert "no checkpoint had been written: starting over" in said
    assert "in epoch 2, batch 1. The checkpoint after epoch 1 is kept" in said
    from_epoch = 99
    assert fit(dataset, out, "--epochs", "3", "--batch-size", "4", "--resume", "--learning-rate", "1e-4") == 0
    assert "resuming after epoch 1 of 3" in capsys.readouterr().err
    assert open_run(out).config["recipe"]["learning_rate"] == 1e-4
    rates = [float(row["learning_rate"]) for row in history(out)]
    assert len(rates) == 3
    assert max(rates[1:]) <= 1e-4


def test_a_run_is_never_overwritten(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert fit(trained.dataset, out, "--resume") == 2
    shutil.copytree(trained.run, out)
    before = files(out)
    assert fit(trained.dataset, out, "--epochs", "3") == 2
    assert fit(trained.dataset, out, "--epochs", "3", "--resume", "--seed", "7") == 2
    assert files(out) == before
    said = capsys.readouterr().err
    assert "holds no run to go on with" in said
    assert "already holds a run" in said
    assert "seed is 1 there, 7 here" in said


def test_a_folder_that_cannot_be_is_told_before_the_data_is_read(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resume(tmp_path / "none") == 2
    assert f"--resume: {tmp_path / 'none'} holds no run to go on with" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "evaluate-val").symlink_to(dataset)
    assert fit(dataset, tmp_path / "run") == 2
    assert "evaluate-val is a link" in capsys.readouterr().err
    (tmp_path / "run" / "evaluate-val").unlink()
    (tmp_path / "run" / "config.json").write_text("{}")
    (dataset / "images_prepped_train" / "drive_001.png").write_bytes(b"not a picture")
    assert fit(dataset, tmp_path / "run") == 2
    assert "already holds a run" in capsys.readouterr().err


BOTH_ENDS = ("block1_conv1", "block3_conv1")


def resume(out: Path, *more: str) -> int:
    return main(["fit", "--out", str(out), "--resume", *more])


def vgg_like(path: Path, width: int) -> Path:
    """Kernels of blocks 1 and 2 at one width: they fit a network of that width whole."""
    rng, channels, arrays = np.random.default_rng(1), 3, {}
    for name in ENCODER_LAYERS[:4]:
        arrays[f"{name}_kernel"] = rng.normal(0, 0.1, (3, 3, channels, width)).astype(np.float32)
        arrays[f"{name}_bias"] = np.zeros(width, np.float32)
        channels = width
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("width", [4, pytest.param(6, marks=pytest.mark.slow)], ids=["whole", "strongest filters"])
@quick
def test_resume_alone_ends_where_the_whole_run_ends(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    file = vgg_like(tmp_path / "vgg.npz", width)
    begin = ["--weights", str(file), "--seed", "3", "--license", "own data", "--batch-size", "4"]
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    report = callbacks.Progress.on_epoch_end

    def look(self: callbacks.Progress, epoch: int, logs: dict | None = None) -> None:
        report(self, epoch, logs)
        if epoch == 0:
            shutil.copytree(whole, parted, ignore=shutil.ignore_patterns(".*"))  # all but the lock

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Progress, "on_epoch_end", look)
        assert fit(dataset, whole, "--epochs", "2", *begin) == 0
    file.unlink()
    assert resume(parted) == 0
    assert "resuming after epoch 1 of 2" in capsys.readouterr().err
    for ours, theirs in zip(weights(parted), weights(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    ours, theirs = open_run(parted).config, open_run(whole).config
    assert ours["encoder"]["loaded"] == list(ENCODER_LAYERS[:4])
    assert ours["encoder"]["whole"] is (width == 4)
    for config in (ours, theirs):
        del config["training"]["seconds"], config["training"]["loss"]
        del config["training"]["val_mean_iou"], config["training"]["val_accuracy"]
    assert ours == theirs
    # ImageNet's first kernel is scaled up for frames in [-1, 1]; what is saved shares that with block 3.
    kernels = [np.asarray(load_model(open_run(whole)).get_layer(name).kernel) for name in BOTH_ENDS]
    sizes = [float(np.sqrt(np.mean(kernel**2) * kernel[..., 0].size / 2)) for kernel in kernels]
    assert 0.4 < sizes[0] / sizes[1] < 2.5


def test_resume_refuses_what_contradicts_and_names_both(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(trained.begun, tmp_path / "run")
    before = files(out)
    for given, said in (
        (["--epochs", "9"], "recipe.epochs is 3 there, 9 here"),
        (["--recipe", "notebook"], "recipe.name is default there, notebook here"),
        (["--head-widths", "8,8"], "fcn8.head_widths is 4,4 there, 8,8 here"),
        (["--policy", "mixed_float16"], "policy is float32 there, mixed_float16 here"),
        (["--start", str(out)], "start is none there, run here"),
    ):
        assert resume(out, *given) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count(" there, ") == 1, "nothing that was not given differs"
    assert files(out) == before


@quick
def test_a_run_finds_its_data_from_any_folder(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(dataset.parent)
    weights_file = vgg_like(dataset.parent / "vgg.npz", 4)
    begin = ["--epochs", "2", "--batch-size", "4", "--weights", weights_file.name]
    stop_after_an_epoch(monkeypatch, Path(dataset.name), out, *begin)
    config = open_run(out).config
    assert (config["data"]["root"], config["data"]["images"]) == (str(dataset), None)
    assert config["paths"]["weights"] == str(weights_file)
    monkeypatch.chdir(elsewhere)
    assert len(open_run(out).samples("train")) == 7
    assert fit(Path(os.path.relpath(dataset)), out, "--resume", options=["--epochs", "2"]) == 0
    assert open_run(out).config["data"]["root"] == str(dataset)
    dataset.rename(dataset.with_name("moved"))
    capsys.readouterr()
    assert resume(out) == 1
    said = capsys.readouterr().err
    assert f"{dataset} is not a folder (any more), and {out} records its data there. Say where" in said
    assert resume(out, str(dataset.with_name("moved"))) == 0


def test_plain_folders_and_frames_are_recorded_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call = ["fit", "--out", "run", "--images", "a", "--masks", "b", "--rendered-share", "0"]
    recipe, options = options_anew(build_parser().parse_args(call))
    options = replace(options, unlabelled=(Path("clips/one.mp4"), Path("two.mp4")))
    data = run_config(recipe, options, TrainingData([], [], []))["data"]
    assert [data["root"], data["images"], data["masks"]] == [None, str(tmp_path / "a"), str(tmp_path / "b")]
    assert data["unlabelled"] == [str(tmp_path / "clips" / "one.mp4"), str(tmp_path / "two.mp4")]


def test_an_option_that_one_side_lacks_is_none_there() -> None:
    assert differences({"held_out": [], "start": None}, {"held_out": ["Zo\u00eb"], "start": "run"}, "recipe") == [
        "recipe.held_out is none there, Zo\u00eb here",
        "recipe.start is none there, run here",
    ]


@quick
def test_a_run_without_a_checkpoint_needs_its_weights_file_again(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = vgg_like(tmp_path / "vgg.npz", 4), tmp_path / "run"

    def stop(self: Trainer) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", stop)
        assert fit(dataset, out, "--epochs", "1", "--weights", str(file)) == 1
    (tmp_path / "moved").mkdir()
    moved = file.rename(tmp_path / "moved" / "vgg.npz")
    assert resume(out) == 2
    assert f"began with {file}, which is not there; give it with --weights" in capsys.readouterr().err
    assert fit(dataset, out, "--epochs", "1", "--resume", "--weights", str(moved)) == 0
    assert open_run(out).config["encoder"] == {"whole": True, "loaded": list(ENCODER_LAYERS[:4]), "began": []}


@quick
def test_resume_alone_goes_on_from_a_start_that_is_gone(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = shutil.copytree(trained.run, tmp_path / "first"), tmp_path / "second"
    stop_after_an_epoch(monkeypatch, trained.dataset, second, "--epochs", "2", "--start", str(first), options=ON)
    shutil.rmtree(first)
    assert resume(second) == 0
    assert open_run(second).config["training"]["epochs"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input-size", "100x64"], "multiples of 32"),
        (["--validation-share", "1.5"], "--validation-share must lie in 0 <= x < 1"),
        (["--learning-rate", "-1"], "--learning-rate must lie in 0 < x < 100, got -1.0"),
        (["--weights", "absent.h5"], "absent.h5: no such weights file"),
        (["--images", "a", "--masks", "b"], "either a dataset folder or --images and --masks, not both"),
        (["--recipe", "notebook"], "--crop-size: the recipe notebook trains on whole images"),
    ],
)
def test_calls_that_cannot_be_say_why(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert fit(dataset, tmp_path / "run", *options) in (1, 2)
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "-1"], "--seed: expected a whole number, 0 or above; got '-1'"),
        (["--seed", str(2**32)], "--seed: expected a seed below 2**32"),
        (["--out", ""], "--out:"),
    ],
)
def test_values_that_keras_would_not_take_are_wrong_calls(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        fit(dataset, tmp_path / "run", *options)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_run_that_is_stopped_before_it_begins_names_no_way_to_go_on(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("train.training_data.check_dataset", interrupted)
    assert fit(dataset, tmp_path / "run") == 1
    said = capsys.readouterr().err
    assert said == "stopped. No epoch had been begun; start over with the same command.\n"


def test_a_step_is_traced_once(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice, where the optimizer is built amid it: the longest part of a short training."""
    updated: Counter[str] = Counter()
    step = ScaledAdamW.update_step

    def counted(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        updated[str(self._get_variable_index(variable))] += 1
        step(self, gradient, variable, learning_rate)

    monkeypatch.setattr(ScaledAdamW, "update_step", counted)
    stop_after_an_epoch(monkeypatch, dataset, tmp_path / "run", "--epochs", "1")
    assert set(updated.values()) == {1}


def test_the_command_that_goes_on_can_be_pasted(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my run's first"

    def interrupted(*given: object) -> None:
        (out / "config.json").write_text("{}")
        raise KeyboardInterrupt

    out.mkdir()
    monkeypatch.setattr("train.fit_command.fit", interrupted)
    assert fit(dataset, out) == 1
    command = capsys.readouterr().err.partition("with --resume: ")[2]
    assert shlex.split(command) == ["python", "-m", "train", "fit", "--out", str(out), "--resume"]


def test_bad_files_are_all_named(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (dataset / "images_prepped_train" / "drive_001.png").write_bytes(b"not a picture")
    (dataset / "annotations_prepped_train" / "drive_002.png").unlink()
    assert fit(dataset, tmp_path / "run") == 1
    said = capsys.readouterr().err
    assert "drive_001.png" in said
    assert "drive_002.png" in said


@quick
def test_start_goes_on_from_a_finished_network(trained: Trained, tmp_path: Path) -> None:
    first, second = trained.run, tmp_path / "second"
    begin = ["--epochs", "1", "--start", str(first), "--learning-rate", "1e-9"]
    assert fit(trained.dataset, second, *begin, options=ON) == 0
    config = json.loads((second / "config.json").read_text())
    assert config["start"] == "first"
    assert config["license"] == "own data"
    assert config["fcn8"] == json.loads((first / "config.json").read_text())["fcn8"]
    # At a rate of almost nothing what comes out is what went in.
    np.testing.assert_allclose(probabilities(second), probabilities(first), atol=1e-5)


@quick
def test_start_does_not_overturn_a_layer_of_tiny_kernels(trained: Trained, tmp_path: Path) -> None:
    first, second = shutil.copytree(trained.run, tmp_path / "first"), tmp_path / "second"
    run = open_run(first)
    model = load_model(run)
    # As ImageNet's kernels and a folded normalisation leave a network: the same answers, values of thousands between.
    for name, scale in (("block1_conv1", 4096), ("block3_conv1", 1 / 4096)):
        layer = model.get_layer(name)
        layer.set_weights([layer.get_weights()[0] * scale, layer.get_weights()[1]])
    for name in ("block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2"):
        layer = model.get_layer(name)
        layer.set_weights([layer.get_weights()[0], layer.get_weights()[1] * 4096])
    save_run(first, run.config, model)
    before = probabilities(first)
    assert fit(trained.dataset, second, "--epochs", "1", "--start", str(first), options=ON) == 0
    assert np.abs(probabilities(second) - before).max() < 0.05


def test_start_takes_no_rate_of_nothing(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "first").mkdir()
    config = {"fcn8": Fcn8Config().to_dict(), "classes": list(CAMVID_CLASSES)}
    (tmp_path / "first" / "config.json").write_text(json.dumps(config))
    options = ["--start", str(tmp_path / "first"), "--learning-rate", "0"]
    assert fit(dataset, tmp_path / "second", options=options) == 2
    assert "--learning-rate must lie in 0 < x < 100, got 0.0" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--weights", "x.npz"], ["--recipe", "notebook"]])
def test_start_brings_its_own_weights(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    assert fit(dataset, tmp_path / "out", "--start", str(tmp_path), *more, options=[]) == 2
    assert "--start brings its own weights" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@quick
def test_two_trainings_do_not_write_into_one_folder(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with sole_writer(out):
        assert fit(dataset, out, "--epochs", "1") == 2
    assert f"{out}: another training writes into it; wait for its end" in capsys.readouterr().err
    assert not out.exists()
    assert fit(dataset, out, "--epochs", "1") == 0
    with sole_writer(out):
        assert fit(dataset, out, "--epochs", "1", "--resume") == 2
    assert fit(dataset, out, "--epochs", "1", "--resume") == 0
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_what_blocks_within_a_training_is_not_another_training(tmp_path: Path) -> None:
    """Standard output may be a pipe that does not wait."""
    with pytest.raises(BlockingIOError, match="its own"), sole_writer(tmp_path / "run"):
        raise BlockingIOError(11, "its own")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes no file")
def test_an_out_that_takes_no_file_is_told_before_the_data_is_read(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("train.training_data.check_dataset", lambda *given, **named: pytest.fail("read"))
    assert fit(dataset, Path("/proc/nope"), "--epochs", "1") == 1
    assert capsys.readouterr().err.startswith("error: /proc/nope: ")


@quick
def test_what_is_odd_in_a_dataset_is_told_as_it_is_used(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        for folder in ("images", "annotations"):
            (dataset / f"{folder}_prepped_train" / f"drive_{90 + number}.gif").write_bytes(b"GIF89a")
    (dataset / "images_prepped_train" / ".DS_Store").write_bytes(b"a file manager's")
    assert fit(dataset, tmp_path / "run", "--epochs", "1") == 0
    said = capsys.readouterr().err
    assert said.count(".gif: passed over, its name does not end in") == WARNINGS_TOLD
    assert "warning: and 3 more of the kind" in said, "hidden files are nothing odd"
