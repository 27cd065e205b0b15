"""Widths: a study's scores beside the times of its networks, as JSON, table and picture."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import cv2
import pytest

from benchmarks import __main__ as command
from benchmarks import widths
from benchmarks.settings import check_run, run_classes
from edge_seg.errors import ModelFileError
from train.classes import CAMVID
from train.fcn8 import Fcn8Config

NETWORKS = {
    "width 8": Fcn8Config(block_widths=(8, 16, 32, 64, 64), head_widths=(64, 64)),
    "width 4": Fcn8Config(block_widths=(4, 8, 16, 32, 32), head_widths=(32, 32)),
}
SCORES = {"width 8": [0.41, 0.43], "width 4": [0.3, 0.32]}


@pytest.fixture
def study(tmp_path, monkeypatch, start_fake, tiny_model):
    """A finished study of two widths, two seeds each; fakes stand for its exported networks."""
    folder = tmp_path / "study"
    records = []
    for name, network in NETWORKS.items():
        for seed, score in enumerate(SCORES[name], start=1):
            run = folder / f"{name.replace(' ', '-')}-seed{seed}"
            run.mkdir(parents=True)
            recipe = {"epochs": 8, "batch_size": 4, "crop_size": [32, 64], "input_size": [352, 480]}
            (run / "config.json").write_text(json.dumps({"fcn8": network.to_dict(), "recipe": recipe}))
            (run / "model.weights.h5").write_bytes(name.encode())
            records.append({"variant": name, "seed": seed, "mean_iou": score})
    (folder / "widths.json").write_text(json.dumps({"study": "widths", "runs": records}))
    files = iter([tiny_model(name="first.onnx"), tiny_model(name="second.onnx")])
    monkeypatch.setattr(widths, "exported", lambda run, cached, name, options, say: next(files))
    measure = widths.measure_batch
    monkeypatch.setattr(widths, "measure_batch", partial(measure, start=start_fake))
    return folder


def test_scores_sizes_and_times_stand_together(study, tmp_path, capsys):
    save = tmp_path / "docs" / "widths.json"
    assert command.main(["widths", str(study), "--save", str(save), "--repeats", "2"]) == 0
    kept = json.loads(save.read_text())
    assert [point["name"] for point in kept["widths"]] == ["width 4", "width 8"]  # by size
    for point in kept["widths"]:
        assert point["parameters"] == NETWORKS[point["name"]].parameters
        assert point["mean_iou"] == SCORES[point["name"]]
        assert point["ms_median"] > 0
    table = capsys.readouterr().out
    assert f"| 8,16,32,64,64 / 64,64 | {NETWORKS['width 8'].parameters:,} |" in table
    assert "| 0.420 | 2.0 |" in table
    assert cv2.imread(str(save.with_suffix(".png"))).std() > 10


def test_times_that_other_programs_disturbed_say_so(study, tmp_path, monkeypatch, capsys):
    measure = widths.measure_batch
    monkeypatch.setattr(widths, "measure_batch", lambda *a, **k: replace(measure(*a, **k), others_cores=1000.0))
    save = tmp_path / "widths.json"
    assert command.main(["widths", str(study), "--save", str(save), "--repeats", "2"]) == 0
    assert "NOISY: other programs kept 1000.00 of" in capsys.readouterr().err
    assert any("trust neither" in note for note in json.loads(save.read_text())["notes"])


@pytest.mark.parametrize(
    ("spoil", "named", "code"),
    [
        (lambda run: (run / "config.json").unlink(), "is not a run: it has no config.json", 1),
        (lambda run: (run / "config.json").write_text("{}"), "damaged ('fcn8')", 1),
        (
            lambda run: (run / "config.json").write_text(json.dumps({"fcn8": NETWORKS["width 8"].to_dict()})),
            "'recipe'",
            2,
        ),
    ],
)
def test_a_run_that_lacks_something_is_told_before_anything_is_measured(
    study, spoil, named, code, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(widths, "measure_batch", lambda *_, **__: pytest.fail("it was measured"))
    spoil(study / "width-8-seed1")
    assert command.main(["widths", str(study), "--save", str(tmp_path / "x.json")]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line


@pytest.mark.parametrize(
    "text",
    [
        *("[" * 100_000, "5", '{"runs": 5}', '{"runs": [5]}', '{"runs": []}'),
        '{"runs": [{"variant": 5, "seed": 1, "mean_iou": 0.5}]}',
        '{"runs": [{"variant": "width 8", "seed": 1, "mean_iou": 1e999}]}',
        '{"runs": [{"variant": "width 8", "seed": 1e999, "mean_iou": 0.5}]}',
        '{"runs": [{"variant": "width 8", "seed": 1, "mean_iou": "0.5"}]}',
    ],
    ids=lambda text: text[:70],
)
def test_a_damaged_study_is_one_line(tmp_path, capsys, text):
    (tmp_path / "widths.json").write_text(text)
    assert command.main(["widths", str(tmp_path), "--save", str(tmp_path / "x.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in line


def test_a_damaged_config_is_told_before_anything_is_measured(tmp_path):
    (tmp_path / "model.weights.h5").write_bytes(b"weights")
    for text in ("{", "5", "[" * 100_000, '{"classes": [5]}', '{"classes": 5}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ModelFileError, match=r"config\.json: damaged \(.*Copy the run again"):
            check_run(tmp_path)
        assert run_classes(tmp_path) == CAMVID


def test_what_is_no_study_is_told(tmp_path, capsys):
    folder = tmp_path / "my study"
    assert command.main(["widths", str(folder), "--save", str(tmp_path / "x.json")]) == 2
    error = capsys.readouterr().err
    assert f"{folder} holds no study" in error
    assert f"`python -m train study widths DATASET --out '{folder}'`" in error
    assert not (tmp_path / "x.json").exists()
