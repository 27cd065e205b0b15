"""README's figures are those of the committed JSON; accuracy against speed."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import pytest

from benchmarks import __main__ as command
from benchmarks import figures
from benchmarks.benchmark import noise_notes
from benchmarks.family import draw_family, family
from benchmarks.measure import relative_spread
from benchmarks.rows import Row, read_result
from edge_seg.errors import ConfigurationError


def test_readme_agrees_with_the_committed_json():
    readme = figures.README.read_text(encoding="utf-8")
    assert figures.with_figures(readme, figures.section(figures.FOLDER)) == readme, "run: python -m benchmarks readme"


@pytest.mark.parametrize("name", [figures.BUNDLED, figures.FAST, figures.FULL])
def test_what_a_committed_result_says_of_its_noise_is_what_its_repeats_say(name):
    result = read_result(figures.FOLDER / name)
    notes = noise_notes(result.rows, result.clip_rows, [], result.environment)
    assert [note for note in result.notes if note.startswith(("NOISY", "OUTRUN"))] == notes
    assert result.noisy is any(note.startswith("NOISY") for note in notes)
    for row in result.everything:
        repeats = row.repeats_ms if isinstance(row, Row) else row.repeats_fps
        assert row.status != "ok" or row.spread == pytest.approx(relative_spread(repeats))


@pytest.fixture
def fitted(result):
    return replace(
        result,
        models=[{"label": "Keras run", "digest": "r", "recipe": "default"}, *result.models],
        operations={"1": {"gflop": 75.7, "weights": 8_615_168}},
    )


@pytest.fixture
def folder(fitted, tmp_path, monkeypatch):
    """A folder of figures and a README of its own."""
    docs = tmp_path / "docs" / "benchmark"
    docs.mkdir(parents=True)
    length = {
        "value": 60.0,
        "name": "edge_seg cpu int8",
        "status": "ok",
        "peak_mb": 321.0,
        "stride": 50,
        "samples": [[1.0, 300.0], [9.0, 321.0]],
        "frames": 9,
    }
    growth = {"kind": "growth", "format": 1, "environment": fitted.environment, "axes": {"length": [length]}}
    growth |= {"parameters": 924_688, "axes": growth["axes"] | {"batch": [], "threads": []}}
    (docs / "growth.json").write_text(json.dumps(growth))
    (docs / "bundled.json").write_text(fitted.to_json())
    (docs / "full.json").write_text(replace(fitted, models=fitted.models[1:]).to_json())
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{figures.BEGIN}\nold\n{figures.END}\nafter\n")
    for name, value in (("FOLDER", docs), ("README", readme), ("ROOT", tmp_path)):
        monkeypatch.setattr(figures, name, value)
    return docs


def test_the_command_writes_figures_and_pictures_and_check_sees_a_difference(folder, capsys):
    assert command.main(["readme", "--check"]) == 1
    assert figures.README.read_text().count("old") == 1
    assert command.main(["readme"]) == 0
    text = figures.README.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    for part in (
        "| **edge_seg cpu int8** | **20.0** | **5.00",
        "60 min (9 frames) 321 MB",
        "Cost against batch, threads: a network of 0.9 M weights.",
        "8.6 million weights",
        "failed: <planted>",
    ):
        assert part in text
    assert "| **12.0** | **91 %** |" in text
    for name in ("benchmark.png", "benchmark/growth.png", "benchmark/accuracy_speed.png"):
        assert cv2.imread(str(folder.parent / name)) is not None
    assert command.main(["readme", "--check"]) == 0
    figures.README.write_text(text.replace("**20.0**", "**19.0**"))
    assert command.main(["readme", "--check"]) == 1
    capsys.readouterr()


def test_an_untrained_network_has_parity_and_no_accuracy(folder):
    bundled, full = figures.section(folder).split("**The notebook's network")
    assert "57.90 %" in bundled
    assert "57.90 %" not in full
    assert "untrained" in full
    assert "99.900 %" in full


def test_results_that_have_no_place_in_one_picture_change_nothing(folder, fitted, capsys):
    """Neither README nor a picture, of which some could be drawn."""
    other = replace(fitted, environment={**fitted.environment, "cores": 4})
    (folder / "full.json").write_text(other.to_json())
    before = figures.README.read_text()
    for extra in ([], ["--check"]):
        assert command.main(["readme", *extra]) == 2
        assert "was measured on another usable cores" in capsys.readouterr().err
    assert figures.README.read_text() == before
    assert not list(folder.parent.rglob("*.png"))


@pytest.mark.parametrize("text", ["{", "{}", '{"operations": null, "limits": {}}', "[]", "[" * 100_000])
def test_a_broken_file_of_the_gpu_is_one_line(folder, capsys, text):
    (folder / "gpu.json").write_text(text)
    assert command.main(["readme"]) == 2
    assert "gpu.json is not a whole file of `benchmarks gpu`" in capsys.readouterr().err


def test_the_fast_model_has_a_table_and_a_place_in_the_picture_where_it_was_measured(folder, fitted, monkeypatch):
    assert "for speed" not in figures.section(folder)
    rows = tuple(replace(row, ms_median=row.ms_median and row.ms_median / 10) for row in fitted.rows)
    (folder / "fast.json").write_text(replace(fitted, rows=rows).to_json())
    _, fast = figures.section(folder).split("**The bundled model for speed**")
    assert "| **edge_seg cpu int8** | **2.0** |" in fast.split("**The notebook's network")[0]
    drawn = []
    monkeypatch.setattr(
        figures, "draw_family", lambda results, path: drawn.append(results) or draw_family(results, path)
    )
    for path, draw in figures.pictures(folder).items():
        draw(path)
    assert [name for name, _ in drawn[0]] == ["bundled", "bundled, fast", "full width"]


def test_what_stands_once_says_of_which_batch_size_it_is(fitted):
    head = figures.speed_table(fitted).splitlines()[0]
    assert head.endswith("| of peak, batch 1 | memory, MB, batch 1 | mean IoU, batch 1 | agreement, batch 1 |")
    single = replace(fitted, settings={**fitted.settings, "batch_sizes": [4]})
    assert figures.speed_table(single).splitlines()[0].endswith("| of peak | memory, MB | mean IoU | agreement |")


def test_a_peak_that_was_outrun_limits_nothing(fitted):
    peaks = {"fp32": {"gflops": 10.0, "library": "a", "what": "", "reason": ""}}
    limits = {"peaks": peaks, "bandwidth": {"best_gb_s": 5.0}}
    near, over = (
        replace(fitted, limits=limits, rows=tuple(replace(row, share_of_peak=share) for row in fitted.rows))
        for share in (0.5, 1.2)
    )
    assert "| 50 % |" in figures.speed_table(near)
    assert "fp32 10 GFLOP/s (a)" in figures.limit_text(near)
    assert "120 %" not in figures.speed_table(over)
    assert "fp32 10 GFLOP/s (a, exceeded by a row above: no share is given)" in figures.limit_text(over)
    assert "of the roofline" not in figures.limit_text(over)


def test_a_peak_that_was_outrun_says_nothing_against_another(fitted):
    peaks = {name: {"gflops": 10.0, "library": "a", "what": "", "reason": ""} for name in ("fp32", "int8")}
    rows = tuple(
        replace(row, arithmetic="int8", share_of_peak=0.5)
        if "int8" in row.name
        else replace(row, arithmetic="fp32", share_of_peak=1.2)
        for row in fitted.rows
    )
    result = replace(fitted, limits={"peaks": peaks, "bandwidth": {"best_gb_s": 5.0}}, rows=rows)
    table = figures.speed_table(result)
    assert "120 %" not in table
    assert "50 %" in next(line for line in table.splitlines() if "int8" in line)
    assert "int8 10 GOP/s (a)" in figures.limit_text(result)


def test_what_a_gpu_could_not_tell_is_left_out():
    row = {"name": "edge_seg cuda fp16", "batch": 8, "status": "ok", "reason": "", "frames_per_s": 1234.0}
    rows = [
        {**row, "share_of_peak": None, "agreement": 0.999},
        {**row, "batch": 32, "share_of_peak": None, "agreement": 0.5},
        {
            **row,
            "name": "torch",
            "status": "failed",
            "reason": "out of memory",
            "agreement": None,
            "share_of_peak": None,
        },
    ]
    found = {
        "operations": None,
        "limits": {"problem": "no torch"},
        "environment": {"gpus": ["H200, 580"]},
        "rows": rows,
    }
    found |= {"size": [8, 16], "repeats": 5, "created": "2026-11-27T00:00:00+00:00", "notes": []}
    heading, table, notes = figures.gpu_blocks(found)
    assert heading.startswith("**On a GPU**: FCN8 at 8x16 on one H200, 580, 5 interleaved rounds")
    assert "**1,234**" in table
    assert "**50.000 %**" in table, "the least of all batch sizes"
    assert "| torch | no memory left |" in table
    assert "peak" not in heading
    assert notes == ""


def test_readme_without_its_marks_is_refused(folder, capsys):
    figures.README.write_text("no marks")
    assert command.main(["readme"]) == 2
    assert "needs the two lines" in capsys.readouterr().err
    assert figures.README.read_text() == "no marks"


def test_accuracy_against_speed_takes_like_results_only(fitted, tmp_path):
    untrained = replace(fitted, models=fitted.models[1:])
    members = family([("bundled", fitted), ("full", untrained)])
    assert [(one.model, one.row.name, one.mean_iou) for one in members] == [
        ("bundled", "edge_seg cpu int8", 0.579),
        ("full", "edge_seg cpu int8", None),
    ]
    draw_family([("bundled", fitted), ("full", untrained)], tmp_path / "two.png")
    draw_family([("bundled", fitted)], tmp_path / "one.png")
    two, one = (cv2.imread(str(tmp_path / name)) for name in ("two.png", "one.png"))
    assert two.shape == one.shape
    assert (two != one).any()
    for part, key, value in (("data", "digest", "e"), ("environment", "cores", 64)):
        other = replace(fitted, **{part: {**getattr(fitted, part), key: value}})
        with pytest.raises(ConfigurationError, match="was measured on another"):
            family([("bundled", fitted), ("other", other)])
