"""README's commands are calls that the command lines take, its Python runs as it stands, and its tree is whole."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from benchmarks.commands import parse_arguments as benchmark_arguments
from benchmarks.figures import FOLDER
from benchmarks.rows import read_result
from edge_seg.cli import parse_arguments
from export.__main__ import build_parser as export_parser
from train.__main__ import build_parser as train_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line
    for kind, block in BLOCKS
    for line in block.splitlines()
    if not kind and line.startswith(("make ", "edge-seg ", "python -m "))
]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_one_that_its_command_line_takes(line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        makefile = (Path(__file__).parents[1] / "Makefile").read_text()
        assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE)
    elif words[0] == "edge-seg":
        assert parse_arguments(words[1:]).command == words[1]
    else:
        assert words[:2] == ["python", "-m"]
        parse = {
            "train": train_parser().parse_args,
            "export": export_parser().parse_args,
            "benchmarks": benchmark_arguments,
        }[words[2]]
        assert parse(words[3:]).command if words[2] == "benchmarks" else parse(words[3:])


def test_the_python_of_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = (block for kind, block in BLOCKS if kind == "python")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert "DeviceReport(requested='auto'" in capsys.readouterr().out
    assert (tmp_path / "overlay.png").stat().st_size > 10_000


def test_every_command_line_is_shown() -> None:
    shown = {" ".join(line.split()[:3]) for line in COMMANDS}
    assert {"make demo #", "python -m export", "python -m train"} <= shown
    assert {line.split()[1] for line in COMMANDS if line.startswith("edge-seg")} >= {
        "predict",
        "info",
        "verify",
        "checks",
    }


@pytest.mark.parametrize(("model", "file"), [("best", "bundled"), ("fast", "fast")])
def test_the_models_are_as_fast_as_their_figures(model: str, file: str) -> None:
    (line,) = (line for line in README.splitlines() if line.startswith(f"| `{model}`"))
    *_, size, _, inference, clip = (cell.strip() for cell in line.strip("|").split("|"))
    result = read_result(FOLDER / f"{file}.json")
    (row,) = (row for row in result.rows if row.name == "edge_seg cpu int8")
    (whole,) = (row for row in result.clip_rows if row.name == "edge_seg cpu int8")
    assert row.ms_median
    assert whole.frames_per_s
    speed = 1000 / row.ms_median
    assert inference == f"{row.ms_median:.0f} ms, {speed:{'.1f' if speed < 20 else '.0f'}} frames/s"
    assert clip == f"{whole.frames_per_s:.1f} frames/s"
    asset = ROOT / "edge_seg" / "assets" / f"fcn8_camvid_{'int8' if model == 'best' else 'fast_int8'}.onnx"
    assert size == f"{asset.stat().st_size / 1e6:.1f} MB"


def test_every_extra_of_readme_exists() -> None:
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    named = {extra for group in re.findall(r"\[([a-z,]+)\]\"", README) for extra in group.split(",")}
    assert {"gpu", "export", "bench"} <= named
    for extra in named:
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


def test_the_tree_has_a_line_for_every_file_and_no_other() -> None:
    lines = README.split("## The tree\n\n```\n")[1].split("```")[0].splitlines()
    listed, folders = [], [""]
    for line in lines:
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        folders = folders[: depth + 1]
        listed.append("".join([*folders, name]))
        if name.endswith("/"):
            folders.append(name)
    assert all((ROOT / name).exists() for name in listed)
    files = [
        str(path.relative_to(ROOT))
        for top in ("edge_seg", "train", "export", "benchmarks")
        for path in (ROOT / top).rglob("*.py")
    ]
    wanted = [name for name in files if not name.endswith("__.py")]
    assert sorted(name for name in listed if name.endswith(".py") and not name.startswith("tests/")) == sorted(wanted)
