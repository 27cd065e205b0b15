"""`python -m export` from the command line on: what is published, what is refused, and what is left behind."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest

from edge_seg import spec as spec_module
from edge_seg.errors import ConversionError, DatasetError
from edge_seg.fake import FakeSession
from edge_seg.golden import decode_golden
from edge_seg.modelfile import read_model_header
from edge_seg.session import open_session
from export import cpu, half, publish, record
from export.__main__ import _say, main
from export.evidence import find
from export.record import Stages
from train.run import load_model, open_run, save_run

ROOT = Path(__file__).parents[2]
# Frames that are at hand; the tests of rendered ones say so.
ONE_GOLDEN = ["--golden-frames", "1", "--golden", "validation"]


def export(run_folder, out, *more) -> int:
    quick = () if "none" in more else ONE_GOLDEN
    return main([str(run_folder), "--out", str(out), *quick, *more])


def only_files(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_run_becomes_a_proved_file(run_folder, tmp_path, capsys, precision):
    out = tmp_path / "model.onnx"
    assert export(run_folder, out, "--precision", precision, "--outputs", "labels,confidence") == 0
    assert only_files(tmp_path) == ["model.onnx", "model.report.json"]
    header = read_model_header(out)
    assert header.spec.precision == precision
    assert header.spec.outputs == ("labels", "confidence")
    assert header.spec.license == "terms of the test"
    assert header.spec.training["val_mean_iou"] == 0.05
    assert header.spec.training["data_hash"] == "0123456789abcdef"
    assert header.spec.training["rendered_share"] == 0.12
    assert header.spec.training["teacher"] == {"run": "larger", "hash": "00ff"}
    assert "start" not in header.spec.training
    assert ("calibration" in header.spec.training) is (precision == "int8")
    assert header.spec.versions["opset"] == "17"
    assert header.spec.versions["ir"] == "8"
    assert {"keras", "tensorflow", "tf2onnx", "onnx"} <= header.spec.versions.keys()
    bound = spec_module.AGREEMENT_BOUNDS[precision]
    assert header.spec.parity["agreement"] >= bound
    assert header.spec.parity["source"] == "4 validation images"
    report = json.loads((tmp_path / "model.report.json").read_text())
    assert report["published"] is True
    assert report["sha256"] == header.sha256
    assert report["gate"]["mean_iou_points"] is not None
    assert report["gate_note"] == ""
    said = capsys.readouterr().out
    assert "validation images" in said
    assert said.endswith(f"report: {tmp_path / 'model.report.json'}\n")


def test_the_file_proves_itself_and_holds_rendered_frames(run_folder, scenes, tmp_path):
    out = tmp_path / "model.onnx"
    assert export(run_folder, out, "--golden", "rendered", "--golden-frames", "2") == 0
    header = read_model_header(out)
    frames, labels = decode_golden(header.contents.metadata[spec_module.GOLDEN_KEY])
    assert frames.shape == (2, 64, 96, 3)
    assert len(np.unique(labels)) > 1
    # Nothing of the dataset travels in the file.
    assert not any((frame == scene).all() for frame in frames for scene in scenes[0])
    session = open_session(out, device="cpu", batch_size=2)
    assert (session.run(frames)["labels"] == labels).mean() >= 0.9999
    onnx.checker.check_model(onnx.load(out), full_check=True)


def test_golden_frames_of_ones_own(run_folder, scenes, tmp_path):
    out = tmp_path / "model.onnx"
    assert export(run_folder, out, "--golden", "validation") == 0
    frames, _ = decode_golden(read_model_header(out).contents.metadata[spec_module.GOLDEN_KEY])
    assert any((frames[0] == scene).all() for scene in scenes[0][5:])


def test_no_golden_frames(run_folder, tmp_path):
    assert export(run_folder, tmp_path / "model.onnx", "--golden", "none") == 0
    assert spec_module.GOLDEN_KEY not in read_model_header(tmp_path / "model.onnx").contents.metadata


def test_a_dynamic_size_is_proved_at_another_size_too(run_folder, tmp_path):
    out = tmp_path / "model.onnx"
    assert export(run_folder, out, "--dynamic-size", "--gate-on", "rendered", "--gate-frames", "2") == 0
    spec = read_model_header(out).spec
    assert spec.dynamic_size
    assert spec.parity["other_size_agreement"] >= 0.9999
    session = open_session(out, device="cpu", input_size=(96, 128))
    assert session.run(np.zeros((1, 96, 128, 3), np.uint8))["labels"].shape == (1, 96, 128)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_smallest_size(run_folder, tmp_path, precision):
    """Its last maps are one pixel, whose change of layout tf2onnx writes in another way."""
    more = ("--input-size", "32x32", "--precision", precision)
    assert export(run_folder, tmp_path / "model.onnx", *more) == 0
    session = open_session(tmp_path / "model.onnx", device="cpu", batch_size=2)
    assert session.run(np.zeros((2, 32, 32, 3), np.uint8))["labels"].shape == (2, 32, 32)


def test_another_size_than_the_runs(run_folder, tmp_path):
    assert export(run_folder, tmp_path / "model.onnx", "--input-size", "32x64", "--opset", "21") == 0
    header = read_model_header(tmp_path / "model.onnx")
    assert header.spec.input_size == (32, 64)
    assert header.contents.opsets[""] == 21
    assert header.contents.ir_version == 10


@pytest.fixture
def planted(monkeypatch):
    """A single wrong weight, planted between conversion and gate."""
    right = publish.to_precision

    def wrong(*args):
        draft, calibrated = right(*args)
        kernel = draft.weights["upsample8.kernel"].copy()
        kernel[:, :64] += 100 * np.abs(kernel).max()
        draft.weights["upsample8.kernel"] = kernel
        return draft, calibrated

    monkeypatch.setattr(publish, "to_precision", wrong)


@pytest.mark.parametrize(("strength", "code"), [(2.0**10, 0), (2.0**17, 1)])
def test_float16_that_a_gpu_would_overflow_is_refused(run_folder, tmp_path, capsys, strength, code):
    """The same network with one layer's values larger and the next one's kernel smaller."""
    network = load_model(open_run(run_folder))
    for name, factor in (("block1_conv2", strength), ("block2_conv1", 1 / strength)):
        layer = network.get_layer(name)
        kernel, bias = layer.get_weights()
        assert np.abs(kernel * factor).max() < 65504, "each weight by itself fits"
        layer.set_weights([kernel * factor, bias * (factor if factor > 1 else 1)])
    run = save_run(tmp_path / "run", json.loads((run_folder / "config.json").read_text()), network).folder
    assert export(run, tmp_path / "model.onnx", "--precision", "fp16") == code
    assert (tmp_path / "model.onnx").exists() is (code == 0)
    if code:
        assert re.search(r"reaches \S+ on the gate's frames, and float16 ends at 65504", capsys.readouterr().err)


def test_float16_keeps_half_of_its_range_in_reserve():
    """Frames that nobody looked at reach more than those of the gate."""
    half.refuse_overflow({"conv1": (-3.0, 32_000.0), "conv2": (-32_000.0, 1.0)})
    with pytest.raises(ConversionError, match="conv2 reaches 4e"):
        half.refuse_overflow({"conv1": (-3.0, 32_000.0), "conv2": (-40_000.0, 1.0)})


def test_the_frames_that_float16_is_judged_by_are_of_all_that_the_gate_has(monkeypatch, tmp_path):
    frames = np.arange(64, dtype=np.uint8).reshape(64, 1, 1, 1)
    seen = []

    def observe(draft, tensors, frames, calibration, folder):
        seen.extend(frames.ravel().tolist())
        return {"conv1": (0.0, 1.0)}, {}, len(frames)

    for name, fake in (("observe", observe), ("summed_tensors", list), ("to_half", list), ("suit_gpu", list)):
        monkeypatch.setattr(publish, name, fake)
    options = SimpleNamespace(precision="fp16")
    job = publish.Job(run=None, size=(1, 1), options=options, gate_on="val", stages=Stages(lambda line: None))
    evidence = SimpleNamespace(pictures=SimpleNamespace(frames=frames))
    publish.to_precision(job, [], evidence, tmp_path)
    assert seen == sorted(seen)
    assert len(seen) == publish.OVERFLOW_FRAMES
    assert (seen[0], seen[-1]) == (0, 63)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_model_that_fails_is_not_published(planted, run_folder, tmp_path, capsys, precision):
    out = tmp_path / "model.onnx"
    out.write_bytes(b"the old model")
    assert export(run_folder, out, "--precision", precision) == 1
    assert out.read_bytes() == b"the old model"
    assert only_files(tmp_path) == ["model.onnx", "model.report.json"]
    report = json.loads((tmp_path / "model.report.json").read_text())
    assert report["published"] is False
    assert report["failures"]
    error = capsys.readouterr().err
    assert "is not published" in error
    assert "An old file of that name is untouched" in error
    assert {"fp32": "train again", "fp16": "--precision fp32", "int8": "--calibration-frames"}[precision] in error
    assert "Traceback" not in error


def test_a_model_that_fails_leaves_no_file_where_there_was_none(planted, run_folder, tmp_path, monkeypatch):
    folder, kept = tmp_path / "models", tmp_path / "kept.json"
    folder.mkdir()
    beside: list[str] = []
    write = publish.write_json
    monkeypatch.setattr(publish, "write_json", lambda *given: beside.extend(only_files(folder)) or write(*given))
    assert export(run_folder, folder / "model.onnx", "--report", str(kept)) == 1
    assert only_files(tmp_path) == ["kept.json", "models"]
    assert beside == only_files(folder) == [], "the report of a refusal needs none of the room that the model took"


def test_a_device_that_must_pass_and_does_not_stops_the_file(run_folder, tmp_path, monkeypatch, capsys):
    """The fake that ships stands in for a GPU that computes nothing but road."""
    right = publish.open_session

    def open_session(path, *, device):
        if device == "cpu":
            return right(path, device=device)
        spec = read_model_header(path).spec
        return FakeSession(spec, labels=lambda batch: np.full(batch.shape[:3], 3, np.uint8), name=device)

    monkeypatch.setattr(publish, "open_session", open_session)
    monkeypatch.setattr(publish, "require_device", lambda ort, name: None)
    assert export(run_folder, tmp_path / "model.onnx", "--prove-on", "cuda") == 1
    assert only_files(tmp_path) == ["model.report.json"]
    error = capsys.readouterr().err
    assert "model.onnx is not published: on cuda, " in error
    assert "Update the device's driver and onnxruntime, or leave it out of --prove-on. Report: " in error
    assert json.loads((tmp_path / "model.report.json").read_text())["devices"][0]["device"] == "cuda"


def test_a_device_that_must_pass_and_is_not_there_is_named_before_anything_is_done(run_folder, tmp_path, capsys):
    assert export(run_folder, tmp_path / "model.onnx", "--prove-on", "tensorrt:7") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "device tensorrt:7 cannot be had" in error
    assert export(run_folder, tmp_path / "model.onnx", "--prove-on", "auto") == 2
    assert "--prove-on names devices" in capsys.readouterr().err
    assert not only_files(tmp_path)


def test_a_device_that_passes_is_in_the_report(run_folder, tmp_path):
    assert export(run_folder, tmp_path / "model.onnx", "--prove-on", "cpu") == 0
    (figures,) = json.loads((tmp_path / "model.report.json").read_text())["devices"]
    assert figures["device"] == "cpu"
    assert figures["agreement"] >= figures["bound"]


def test_golden_frames_that_do_not_agree_stop_the_file(run_folder, tmp_path, monkeypatch, capsys):
    """The stamped file is held to its own frames: wrong ones would make every device fail later."""
    right = publish.stamp

    def wrong(path, spec, golden):
        golden.labels[:] = 11 - golden.labels
        right(path, spec, golden)

    monkeypatch.setattr(publish, "stamp", wrong)
    assert export(run_folder, tmp_path / "model.onnx") == 1
    assert "on the golden frames" in capsys.readouterr().err
    assert only_files(tmp_path) == ["model.report.json"]


def test_packages_that_do_not_fit_are_named_with_their_versions(run_folder, tmp_path, monkeypatch, capsys):
    """As tf2onnx fails under a NumPy or a Keras that is too new for it."""
    import tf2onnx

    def broken(*args, **kwargs):
        raise AttributeError("module 'numpy' has no attribute 'cast'")

    monkeypatch.setattr(tf2onnx.convert, "from_function", broken)
    assert export(run_folder, tmp_path / "model.onnx") == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    for package in ("tf2onnx", "tensorflow", "keras", "onnx", "numpy"):
        assert re.search(rf"\b{package} \d+\.", line)
    assert "Install the tested versions: pip install " in line
    assert not only_files(tmp_path)


def test_a_crash_while_writing_leaves_the_old_file(run_folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "model.onnx"
    out.write_bytes(b"the old model")

    def full(draft, path, metadata=None):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(publish, "write_draft", full)
    assert export(run_folder, out) == 1
    assert out.read_bytes() == b"the old model"
    assert only_files(tmp_path) == ["model.onnx"]
    assert f"{out}: the disk is full. Nothing was published." in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_full_disk_is_named_whatever_was_being_written(run_folder, tmp_path, monkeypatch, capsys, precision):
    """The second file of a draft, which calibration or the gate looks into, is on the same disk as the model."""

    def full(draft, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cpu, "write_draft", full)
    out = tmp_path / "model.onnx"
    assert export(run_folder, out, "--precision", precision, "--golden", "none") == 1
    assert not only_files(tmp_path)
    assert f"error: {out}: the disk is full. Nothing was published." in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_named_and_not_the_model(run_folder, tmp_path, monkeypatch, capsys):
    write = Path.write_text

    def full(path, text, **more):
        if path.name.endswith("kept.json"):
            raise OSError(28, "No space left on device")
        return write(path, text, **more)

    monkeypatch.setattr(Path, "write_text", full)
    kept = tmp_path / "kept.json"
    assert export(run_folder, tmp_path / "model.onnx", "--report", str(kept)) == 1
    assert not only_files(tmp_path)
    assert f"error: {kept}: the disk is full. Nothing was published." in capsys.readouterr().err


def test_an_interrupt_leaves_nothing(run_folder, tmp_path, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(publish, "run_gate", interrupted)
    assert export(run_folder, tmp_path / "model.onnx") == 1
    assert "interrupted. Nothing was published." in capsys.readouterr().err
    assert not only_files(tmp_path)


def test_notes_on_a_run_cannot_command_the_terminal(capsys):
    _say("note: images are not at hand (/data\x1b]0;PWNED\x07\n is not a folder)")
    assert capsys.readouterr().err == "note: images are not at hand (/data?]0;PWNED?? is not a folder)\n"


def test_a_run_whose_dataset_is_gone_is_gated_on_rendered_scenes(run_folder, model, tmp_path, capsys):
    config = json.loads((run_folder / "config.json").read_text())
    config["data"]["root"] = str(tmp_path / "gone")
    moved = save_run(tmp_path / "run", config, model).folder
    plain = ("--gate-frames", "2", "--golden", "none")
    assert export(moved, tmp_path / "model.onnx", *plain) == 0
    said = capsys.readouterr()
    assert "2 rendered scenes" in said.out
    note = json.loads((tmp_path / "model.report.json").read_text())["gate_note"]
    assert re.fullmatch(r"the run's validation images are not at hand \(.*gone.*\): gated on rendered scenes", note)
    assert f"note: {note}\n" in said.err
    assert export(moved, tmp_path / "int8.onnx", "--precision", "int8", *plain) == 1
    error = capsys.readouterr().err
    assert "--data DATASET" in error
    # Found out before Keras was asked anything.
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    more = ("--precision", "int8", "--calibration-data", "rendered", "--calibration-frames", "2", *plain)
    assert export(moved, tmp_path / "int8.onnx", *more) == 0


def test_data_given_must_hold_the_runs_images(run_folder, tmp_path, capsys):
    for folder in ("images_prepped_train", "annotations_prepped_train"):
        (tmp_path / "other" / folder).mkdir(parents=True)
    assert export(run_folder, tmp_path / "model.onnx", "--data", str(tmp_path / "other")) == 1
    assert "No images" in capsys.readouterr().err


@pytest.mark.parametrize("given", [(), ("--data", "gone")], ids=["recorded", "given"])
def test_the_cure_for_a_dataset_that_is_gone_is_of_this_command(run_folder, model, tmp_path, capsys, given):
    config = json.loads((run_folder / "config.json").read_text())
    config["data"]["root"] = str(tmp_path / "gone")
    moved = save_run(tmp_path / "run", config, model).folder
    assert main([str(moved), "--out", str(tmp_path / "model.onnx"), "--gate-on", "val", *given]) == 1
    error = capsys.readouterr().err
    assert "Name the run's dataset with --data DATASET" in error
    assert "--images" not in error


def test_the_cure_stands_before_the_list_of_files(run_folder, dataset, tmp_path, capsys):
    root = shutil.copytree(dataset, tmp_path / "dataset")
    orphan = root / "images_prepped_train" / "curves.png"
    cv2.imwrite(str(orphan), np.zeros((64, 96, 3), np.uint8))
    assert export(run_folder, tmp_path / "model.onnx", "--data", str(root)) == 1
    head, line = capsys.readouterr().err.splitlines()
    assert "Name the run's dataset with --data DATASET" in head
    assert head.endswith(":")
    assert line.strip().startswith(str(orphan))


@pytest.mark.parametrize("asked", [["--gate-on", "val"], ["--gate-on", "auto"], ["--gate-on", "rendered"]])
def test_every_bad_file_of_the_proof_is_named_before_anything_is_done(
    run_folder, dataset, model, tmp_path, capsys, asked
):
    root = shutil.copytree(dataset, tmp_path / "dataset")
    masks = root / "annotations_prepped_train"
    cv2.imwrite(str(masks / "drive_006.png"), np.full((64, 96), 255, np.uint8))
    image = root / "images_prepped_train" / "drive_008.png"
    image.write_bytes(image.read_bytes()[:200])
    config = json.loads((run_folder / "config.json").read_text())
    config["data"]["root"] = str(root)
    run = save_run(tmp_path / "run", config, model).folder
    out = tmp_path / "out"
    out.mkdir()
    # Golden validation frames, as ONE_GOLDEN asks for, are looked at too.
    assert export(run, out / "model.onnx", "--golden-frames", "2", *asked) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: 2 problem(s)")
    assert "drive_006.png: a 0/255 mask" in error
    assert "drive_008.png: truncated" in error
    assert not only_files(out)


def test_a_shipped_run_is_told_what_export_can_do(run_folder, model, tmp_path, capsys):
    config = json.loads((run_folder / "config.json").read_text())
    config["data"] = {"hash": "ab", "root": None}
    shipped = save_run(tmp_path / "run", config, model).folder
    assert main([str(shipped), "--out", str(tmp_path / "model.onnx"), "--precision", "int8"]) == 2
    error = capsys.readouterr().err
    assert "--calibration-data rendered" in error
    assert "--split" not in error
    assert main([str(shipped), "--out", str(tmp_path / "model.onnx"), "--gate-on", "test"]) == 2
    assert "records no dataset; name one with --data DATASET" in capsys.readouterr().err


def test_no_part_of_the_runs_images_stands_for_all_of_them(run_folder):
    run = open_run(run_folder)
    data = {**run.config["data"], "val": [*run.config["data"]["val"], "drive_lost"]}
    with pytest.raises(DatasetError, match=r"lacks 1 of the(.|\n)*drive_lost"):
        find(replace(run, config={**run.config, "data": data}), "val", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "model.h5"], "ending in .onnx"),
        (["--out", "no/such/folder/model.onnx"], "folder that exists"),
        (["--opset", "9"], "between 15 and 22"),
        (["--input-size", "100x100"], "multiples of 32"),
        (["--golden-frames", "65"], "1 to 64"),
        (["--percentile", "30"], "percentile above 50"),
        (["--precision", "int8", "--percentile", "99"], "Add --calibration percentile"),
        (["--calibration", "entropy"], "Add --precision int8"),
        (["--calibration-data", "rendered", "--precision", "fp16"], "Add --precision int8"),
        (["--confidence-dtype", "float32"], "--outputs labels,confidence"),
        (["--golden", "none", "--golden-frames", "8"], "--golden-frames needs golden frames"),
        (["--data", ".", "--gate-on", "rendered"], "--data is for images of the gate"),
        (
            ["--data", ".", "--gate-on", "rendered", "--precision", "int8", "--calibration-data", "rendered"],
            "both are to be rendered",
        ),
        (["--report", "model.onnx"], "another file than --out"),
        (["--license", "two\nlines"], r"of printable characters, in one line; got 'two\nlines'"),
        (["--name", "\x1b[2J"], "of printable characters"),
        (["--input-size", "8224x32"], "from 1 to 8192"),
        (["--input-size", "2176x3840"], "at most 2 golden frames of 2176x3840 pixels; got 4"),
        (["--report", "../no/such/folder/report.json"], "--report must name a file in a folder that exists"),
        (["--report", "."], "--report must name a file"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(run_folder, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main([str(run_folder), "--out", "model.onnx", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not only_files(tmp_path)


@pytest.mark.parametrize("option", ["--out", "--report"])
def test_a_folder_that_takes_no_files_is_told_before_anything_is_done(
    run_folder, tmp_path, monkeypatch, capsys, option
):
    closed = tmp_path / "closed"
    closed.mkdir()
    # Whoever runs the tests may be root, whom no mode stops.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed)
    names = {"--out": tmp_path / "model.onnx", "--report": tmp_path / "report.json"} | {option: closed / "model.onnx"}
    assert main([str(run_folder), *(str(part) for pair in names.items() for part in pair)]) == 2
    assert f"{option} must name a file in a folder that exists and takes new files" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--precision", "int4"], ["--outputs", "logits"], ["--input-size", "big"]])
def test_argparse_refuses_with_two(run_folder, tmp_path, arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(run_folder), "--out", str(tmp_path / "model.onnx"), *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --")
    assert error.count("\n") == 1


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert export(tmp_path, tmp_path / "model.onnx") == 1
    assert "is not a run" in capsys.readouterr().err


def test_a_network_of_any_size_needs_one(run_folder, model, tmp_path, capsys):
    config = json.loads((run_folder / "config.json").read_text())
    config["fcn8"]["input_size"] = None
    folder = save_run(tmp_path / "run", config, model).folder
    assert export(folder, tmp_path / "model.onnx") == 2
    assert "--input-size HxW" in capsys.readouterr().err


def test_a_run_with_two_classes_of_one_name_is_refused_before_anything_is_done(run_folder, model, tmp_path, capsys):
    config = json.loads((run_folder / "config.json").read_text())
    config["classes"] = ["sky", "sky", *spec_module.CAMVID_CLASSES[2:]]
    folder = save_run(tmp_path / "run", config, model).folder
    assert export(folder, tmp_path / "model.onnx") == 2
    assert capsys.readouterr().err == "error: classes must have different names; two are called 'sky'.\n"


def test_the_file_holds_no_number_that_json_lacks(run_folder, tmp_path):
    config = json.loads((run_folder / "config.json").read_text())
    run = save_run(tmp_path, config | {"training": {"epochs": 1, "val_accuracy": float("nan")}})
    assert record.training_summary(run)["val_accuracy"] is None


def test_whether_a_run_is_trained(run_folder, tmp_path):
    assert record.is_trained(open_run(run_folder))
    assert not record.is_trained(save_run(tmp_path, {"fcn8": {}}))


def test_another_backend_is_refused_with_the_cure(monkeypatch, run_folder, tmp_path, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert export(run_folder, tmp_path / "model.onnx") == 1
    assert "KERAS_BACKEND=tensorflow python -m export" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["tf2onnx", "onnx", "tensorflow"])
def test_a_missing_package_is_named_with_the_command(monkeypatch, run_folder, tmp_path, capsys, module):
    monkeypatch.setitem(sys.modules, module, None)
    assert export(run_folder, tmp_path / "model.onnx") == 1
    error = capsys.readouterr().err
    assert f"export needs {module}" in error
    assert "pip install -e '.[export" in error


@pytest.mark.slow
def test_the_full_network_needs_less_than_three_gigabytes(tmp_path):
    """135,066,008 parameters converted and stamped, fp32: under 3 GB, and 90 s of the machine's time."""
    make = (
        "import keras; from train.fcn8 import Fcn8Config, fcn8; from train.run import save_run; import sys; "
        "keras.utils.set_random_seed(1); save_run(sys.argv[1], {'fcn8': Fcn8Config().to_dict()}, fcn8())"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, "-c", make, str(tmp_path / "run")]
    subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
    out = tmp_path / "model.onnx"
    command = [sys.executable, "-m", "export", str(tmp_path / "run"), "--out", str(out), "--gate-frames", "2"]
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "model.report.json").read_text())
    assert report["parameters"] == 135_066_008
    stages = {record["stage"]: record for record in report["stages"]}
    made = [stages[name] for name in ("load", "golden frames", "convert", "write", "stamp")]
    # The peak only grows, so it is read where the last thing of its own is in memory.
    assert stages["convert"]["peak_gb"] < 3.0
    assert stages["write"]["peak_gb"] == stages["Keras' answers for the gate"]["peak_gb"]
    assert sum(record["cpu_seconds"] for record in made) < 90
