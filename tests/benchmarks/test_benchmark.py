"""The whole benchmark: with fake contenders in real workers, and once with Keras, an export and torch."""

from __future__ import annotations

import functools
import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import commands, settings
from benchmarks.benchmark import noise_notes, run_benchmark, stranger_notes
from benchmarks.cases import REFERENCE
from benchmarks.environment import ROOT
from benchmarks.field import find_field
from benchmarks.report import new_folder, write_report
from benchmarks.rows import read_result
from benchmarks.settings import Settings
from edge_seg.errors import ConfigurationError


@pytest.fixture
def call(monkeypatch, start_fake, run_folder, tiny_model, tmp_path, clip, dataset):
    """Runs the command line with fake contenders; the model file and the clip are real."""
    monkeypatch.setattr("benchmarks.commands.run_benchmark", functools.partial(run_benchmark, start=start_fake))
    model = str(tiny_model())

    def run(*extra: str) -> int:
        given = ("--run", str(run_folder), "--model", model, "--clip", str(clip), "--out", str(tmp_path / "out"))
        return command.main([*given, "--data", str(dataset), "--quick", "--peers", "none", *extra])

    return run


def test_an_exported_file_is_kept_until_the_code_that_exports_changes(monkeypatch, tmp_path):
    calls = []

    def run(call, **_):
        calls.append(call)
        Path(call[call.index("--out") + 1]).write_bytes(b"model")
        return subprocess.CompletedProcess(call, 0, "", "")

    monkeypatch.setattr(settings.subprocess, "run", run)

    def export():
        settings.export_digest.cache_clear()
        return settings.exported(tmp_path, tmp_path / "out", "run-fp32.onnx", (), lambda _: None)

    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "wrap.py").write_text("LEVELS = 255\n")
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    try:
        first = export()
        assert export() == first
        assert len(calls) == 1
        made = {first}
        for name in ("export/wrap.py", "train/fcn8.py", "train/run.py", "train/scenes/cars.py", "edge_seg/spec.py"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("LEVELS = 127\n")
            made.add(export())
        assert len(made) == 6
        for package in ("tf2onnx", "keras", "onnxruntime-gpu"):
            monkeypatch.setattr(settings, "package_versions", lambda package=package: {package: "99"})
            made.add(export())
        assert len(made) == len(calls) == 9
    finally:
        settings.export_digest.cache_clear()


def test_a_dataset_that_is_not_there_is_told_before_anything_is_exported(call, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("benchmarks.benchmark.find_field", lambda *_: pytest.fail("it exported first"))
    assert call("--data", str(tmp_path / "nothere")) == 1
    assert "nothere" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_writes_what_it_prints(call, capsys, tmp_path):
    assert call("--json", "--batch-sizes", "4,1", "--repeats", "2", "--frames", "4") == 0
    printed = json.loads(capsys.readouterr().out)
    (folder,) = (tmp_path / "out").iterdir()
    assert {path.name for path in folder.iterdir()} == {"results.json", "chart.png", "report.html"}
    result = read_result(folder / "results.json")
    assert json.loads(result.to_json()) == printed
    assert [(row.name, row.batch, row.status) for row in result.rows] == [
        (name, batch, "ok") for batch in (1, 4) for name in (REFERENCE, "Keras compiled", "edge_seg cpu fp32")
    ]
    assert {row.agreement for row in result.rows} == {1.0}
    assert {(row.batch, row.calls) for row in result.rows} == {(1, 8), (4, 2)}
    assert {row.ratio_low for row in result.rows} == {None}
    assert {row.spread for row in result.clip_rows} == {None}
    naive, clip_row = result.clip_rows
    assert (naive.name, naive.frames, naive.times_naive) == ("naive loop", 20, 1.0)
    assert naive.allowed_fps is None
    assert clip_row.frames == 12
    assert clip_row.times_naive == pytest.approx(clip_row.frames_per_s / 2)
    assert set(clip_row.alone_cpu_ms) == {"decode", "resize", "inference", "paint and encode"}
    assert clip_row.allowed_fps == pytest.approx(
        1000 * result.environment["cores"] / sum(clip_row.alone_cpu_ms.values())
    )
    assert clip_row.share_of_allowed == pytest.approx(clip_row.frames_per_s / clip_row.allowed_fps)
    assert {row.arithmetic for row in result.rows} == {"fp32"}
    assert all(row.share_of_peak > 0 for row in result.rows)
    assert result.limits["peaks"]["int8"]["gflops"] == 1000.0
    assert set(clip_row.stage_ms) == {"decode", "resize", "inference", "paint", "write"}
    assert result.clip["frames"] == 12
    assert result.data["frames"] == 5


def test_two_results_compare_on_the_command_line(result, capsys, tmp_path):
    paths = [
        str(write_report(each, new_folder(tmp_path))[0]) for each in (result, replace(result, clip={}, clip_rows=()))
    ]
    assert command.main(["compare", *paths]) == 2
    assert capsys.readouterr().err.startswith("error: These results cannot be compared")
    assert command.main(["compare", paths[0], str(Path(paths[0]).parent)]) == 0
    assert "no difference" in capsys.readouterr().out
    assert command.main(["compare", paths[0], str(tmp_path)]) == 2
    assert "results.json cannot be read" in capsys.readouterr().err
    assert command.main(["compare", paths[0], paths[0], "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["changes"]) == 4
    slow = tuple(
        replace(row, repeats_ms=tuple((2 if row.kind == "session" else 1) * ms for ms in row.repeats_ms))
        for row in result.rows
    )
    worse = str(write_report(replace(result, rows=slow), new_folder(tmp_path))[0])
    assert command.main(["compare", paths[0], worse]) == 1
    assert "LOSS: edge_seg cpu int8, batch 1: 0.50 times as fast" in capsys.readouterr().out
    other = str(write_report(replace(result, models=[{**result.models[0], "digest": "2"}]), new_folder(tmp_path))[0])
    assert command.main(["compare", paths[0], other]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "model int8: 1 against 2" in line
    assert command.main(["compare", paths[0], other, "--other-models"]) == 0
    assert command.main(["compare", paths[0], str(tmp_path / "nothing.json")]) == 2


def test_a_failed_contender_is_exit_code_1(monkeypatch, result, capsys, run_folder, tiny_model, tmp_path):
    monkeypatch.setattr("benchmarks.commands.run_benchmark", lambda settings, say: result)
    given = ["--run", str(run_folder), "--model", str(tiny_model()), "--no-clip", "--out", str(tmp_path / "out")]
    assert command.main(given) == 1
    assert "failed: broken, batch 1: <planted>" in capsys.readouterr().out


def test_devices_found_may_be_skipped_those_asked_for_may_not(run_folder, tiny_model):
    settings = Settings(run=run_folder, models=(tiny_model(),), peers=())
    for devices, optional in ((None, True), (("cpu", "cuda:7"), False)):
        field = find_field(replace(settings, devices=devices), "digest", lambda _: None)
        sessions = [contender for contender in field.contenders if contender.kind == "session"]
        assert sessions[0].name == "edge_seg cpu fp32"
        assert not sessions[0].optional
        assert all(contender.optional is optional for contender in sessions[1:])
    assert sessions[1].device == "cuda:7"


def test_files_of_one_name_keep_names_of_their_own(run_folder, tiny_model, tmp_path):
    paths = tmp_path / "a" / "m.onnx", tmp_path / "b" / "m.onnx", tmp_path / "third.onnx"
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        shutil.copy(tiny_model(), path)
    settings = Settings(run=run_folder, models=paths, fp32=paths[2], devices=("cpu",), peers=())
    field = find_field(settings, "digest", lambda _: None)
    assert [contender.name for contender in field.contenders if contender.kind == "session"] == [
        "edge_seg cpu third fp32",
        f"edge_seg cpu {paths[0]} fp32",
        f"edge_seg cpu {paths[1]} fp32",
    ]


def test_a_result_names_the_options_that_measure_the_same_again(tmp_path, monkeypatch):
    monkeypatch.delenv("EDGE_SEG_DATA", raising=False)
    plain = commands.read_settings(commands.parse_arguments([]))
    assert plain.extent == "--batch-sizes 1,4,8 --repeats 7 --frames 24"
    own = Settings(
        run=tmp_path / "runs" / "mine",
        models=(tmp_path / "mine.onnx",),
        data=tmp_path / "dataset1",
        data_limit=24,
        clip=tmp_path / "drive.mp4",
        clip_frames=60,
    )
    extent = "--run mine --model mine.onnx --clip drive.mp4 --batch-sizes 1,4,8 --repeats 7 --frames 24 "
    assert own.extent == extent + "--data dataset1 --data-limit 24 --clip-frames 60"
    assert commands.parse_arguments(own.extent.split()).data == Path("dataset1")


def test_a_word_that_is_no_command_is_answered_by_those_there_are(capsys):
    with pytest.raises(SystemExit):
        commands.parse_arguments(["grwoth", "--quick"])
    assert "invalid choice: 'grwoth' (choose from 'run', 'compare', 'growth'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [
        "",
        "--model a.onnx --model b.onnx --no-clip --peers none --devices cpu",
        "--run runs/mine --model edge_seg/assets/fcn8_camvid_int8.onnx --fp32 mine.onnx --peers torch,opencv",
        "--quick",
        "--quick --batch-sizes 2 --repeats 9 --clip-frames 5",
        "--data 'my drives' --data-limit 3 --clip drive.mp4 --devices cpu,cuda",
    ],
)
def test_the_options_that_a_result_names_give_its_settings_again(given, monkeypatch):
    monkeypatch.delenv("EDGE_SEG_DATA", raising=False)
    monkeypatch.chdir(ROOT)
    asked = commands.read_settings(commands.parse_arguments(shlex.split(given)))
    assert commands.read_settings(commands.parse_arguments(shlex.split(asked.extent))) == asked


def test_a_failed_export_is_a_failed_row_and_the_rest_goes_on(monkeypatch, run_folder, tiny_model, tmp_path):
    refused = subprocess.CompletedProcess([], 1, "", "step 1\nerror: 97 % of pixels agree\n")
    monkeypatch.setattr("benchmarks.settings.subprocess.run", lambda *_, **__: refused)
    settings = Settings(
        run=run_folder, models=(tiny_model(precision="int8"),), out=tmp_path / "out", batch_sizes=(1, 4), peers=()
    )
    field = find_field(settings, "digest", lambda _: None)
    assert [(row.name, row.batch, row.status) for row in field.failed] == [
        ("edge_seg cpu fp32", batch, "failed") for batch in (1, 4)
    ]
    assert field.failed[0].reason.endswith("failed: 97 % of pixels agree")
    assert [contender.precision for contender in field.contenders if contender.device == "cpu"][2:] == ["int8"]


def test_a_file_of_another_precision_is_no_fp32_file(call, capsys, tmp_path, tiny_model):
    assert call("--fp32", str(tiny_model(precision="int8"))) == 2
    assert "expected an fp32 file, got one of int8." in capsys.readouterr().err.splitlines()[-1]


def test_one_file_in_two_spellings_takes_part_once(run_folder, tiny_model):
    model = tiny_model()
    other = model.parent / ".." / model.parent.name / model.name
    settings = Settings(run=run_folder, models=(model, other), fp32=model, devices=("cpu",), peers=())
    field = find_field(settings, "digest", lambda _: None)
    assert [contender.kind for contender in field.contenders].count("session") == 1


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--run", "nowhere"), "nowhere is not a finished run"),
        (("--model", "nowhere.onnx"), "nowhere.onnx"),
        (("--fp32", "nowhere.onnx"), "nowhere.onnx"),
        (("--clip", "nowhere.mp4"), "nowhere.mp4"),
        (("--data", "nowhere"), "nowhere"),
    ],
)
def test_what_is_not_there_is_one_line(call, capsys, tmp_path, extra, message):
    assert call(*extra) in (1, 2)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_is_found_out_before_anything_is_measured(call, monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr("benchmarks.commands.run_benchmark", lambda *_, **__: pytest.fail("it was measured"))
    assert call("--out", str(tmp_path / "file" / "deep")) == 2
    assert "choose another with --out" in capsys.readouterr().err


def test_bad_numbers_are_refused_by_the_parser(capsys):
    for extra in (
        ["--clip", "a.mp4", "--no-clip"],
        ["--batch-sizes", "0"],
        ["--batch-sizes", "1,x"],
        ["--repeats", "-1"],
        ["--devices", "cpu,tpu"],
        ["--devices", ""],
        ["--out", ""],
        ["--nothing"],
    ):
        with pytest.raises(SystemExit) as caught:
            command.main(extra)
        assert caught.value.code == 2
    capsys.readouterr()


def test_files_of_different_sizes_are_not_mixed(call, tiny_model, capsys):
    assert call("--model", str(tiny_model(size=(64, 64)))) == 2
    assert "one at a time" in capsys.readouterr().err


def test_noise_is_told_and_quiet_is_not(result):
    assert noise_notes(result.rows, result.clip_rows, [0.01, None], result.environment) == []
    restless = [replace(row, spread=0.4, idle_share=0.5) if row.status == "ok" else row for row in result.rows]
    notes = noise_notes(restless, result.clip_rows, [None, 1.2], result.environment)
    assert len(notes) == 3
    assert "repeats of 4 of 7 rows" in notes[0]
    assert "1.20 of 2 core(s)" in notes[1]
    assert "should have waited" in notes[2]


def test_a_file_of_another_network_is_told(result):
    run = Path("runs/mine")
    assert stranger_notes(result.rows, run) == []
    name = result.rows[1].name
    strange = [replace(result.rows[0], agreement=None), replace(result.rows[1], agreement=0.104), *result.rows[2:]]
    (note,) = stranger_notes(strange, run)
    assert f"Keras run runs/mine: {name} 10.4 %." in note
    assert "--run RUN" in note


@pytest.mark.slow
def test_keras_its_export_and_torch_agree(tmp_path, dataset, clip):
    """The real thing, small: a Keras run, its fp32 file exported on the way, a clip, torch where it is installed."""
    folder, model = tiny_run(tmp_path)
    settings = Settings(
        run=folder,
        models=(model,),
        data=dataset,
        clip=clip,
        batch_sizes=(2,),
        repeats=2,
        frames=4,
        clip_repeats=1,
        devices=("cpu",),
        limits={"seconds": 0.05, "side": 256, "memory_mb": 24},
        out=tmp_path / "out",
    )
    result = run_benchmark(settings, say=lambda _: None)
    rows = {row.name: row for row in result.rows}
    assert {"edge_seg cpu fp32", "edge_seg cpu fp16", "Keras compiled"} <= rows.keys()
    for name, row in rows.items():
        assert row.status in ("ok", "skipped"), row.reason
        if row.status == "ok":
            assert row.agreement >= (0.995 if row.precision == "fp16" else 0.9999), name
            assert row.mean_iou == pytest.approx(rows[REFERENCE].mean_iou, abs=0.01)
    assert rows["Keras compiled"].peak_mb > rows["edge_seg cpu fp32"].peak_mb
    assert {row.frames for row in result.clip_rows} == {12}
    assert result.clip_rows[0].name == "naive loop"
    assert result.clip_rows[0].status == "ok"
    assert list((tmp_path / "out" / "cache").iterdir())


def tiny_run(folder):
    """A run of a small untrained network whose labels vary, and its fp16 file."""
    import keras

    from export.__main__ import main as export
    from train.fcn8 import Fcn8Config, fcn8
    from train.run import save_run

    keras.utils.set_random_seed(4)
    config = Fcn8Config(input_size=(64, 96), block_widths=(8, 8, 8, 8, 8), head_widths=(8, 8), skip_activation="linear")
    save_run(folder / "run", {"fcn8": config.to_dict()}, fcn8(config))
    options = ["--precision", "fp16", "--gate-frames", "3", "--golden-frames", "1"]
    assert export([str(folder / "run"), "--out", str(folder / "fp16.onnx"), *options]) == 0
    return folder / "run", folder / "fp16.onnx"


def test_help_keeps_the_names_of_things(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["gpu", "--help"])
    assert "A CUDA machine in one run" in capsys.readouterr().out


def test_help_says_where_the_options_of_a_plain_call_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert "`python -m benchmarks run --help` lists" in " ".join(capsys.readouterr().out.split())


def test_a_missing_package_is_one_line_and_help_waits_for_no_keras(tmp_path):
    start = "from benchmarks.__main__ import main"
    hidden = f"import sys; sys.modules['numpy'] = None; {start}; sys.exit(main(['compare', 'a.json', 'b.json']))"
    child = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, cwd=ROOT)
    assert child.returncode == 1
    assert child.stderr == "error: numpy is not installed; from the clone: pip install -e '.[bench]'\n"
    shown = f"import sys; {start}\ntry: main(['--help'])\nfinally: print('keras' in sys.modules)"
    child = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, cwd=ROOT)
    assert child.stdout.endswith("False\n"), child.stderr


def test_a_file_that_is_no_model_is_refused_before_scenes_are_rendered(run_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.benchmark.load_data", lambda *_, **__: pytest.fail("rendered first"))
    file = tmp_path / "other.onnx"
    file.write_bytes(b"no model")
    assert (
        command.main(["--run", str(run_folder), "--model", str(file), "--out", str(tmp_path / "o"), "--no-clip"]) == 1
    )
    assert "other.onnx" in capsys.readouterr().err


def test_a_file_of_other_classes_than_the_runs_is_refused_before_anything_is_measured(run_folder, tiny_model):
    own = tiny_model(classes=("road", "lawn"), palette=((0, 0, 0), (1, 1, 1)), unlabelled=None)
    with pytest.raises(ConfigurationError, match=r"of the classes road, lawn, the Keras run .* Give the run"):
        find_field(Settings(run=run_folder, models=(own,), peers=()), "digest", lambda _: None)


def test_figures_that_nobody_reads_are_written_all_the_same(result, tmp_path, monkeypatch):
    """`python -m benchmarks | head`, after minutes of measuring."""
    monkeypatch.setattr(commands, "run_benchmark", lambda settings, say: result)

    def broken(*given, **named):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(commands, "print", broken, raising=False)
    with pytest.raises(BrokenPipeError):
        commands.run_command(["run", "--no-clip", "--out", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {"results.json", "chart.png", "report.html"}
