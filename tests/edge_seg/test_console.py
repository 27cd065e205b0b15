"""Standard streams that are closed, full or of a narrow encoding, and names of files that are no text: results and exit
codes stay what they are, each trouble is one line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.edge_seg.clips import make_clip, paint_number, video_numbers

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX shells and devices")
ROOT = Path(__file__).parents[2]


def shell(
    redirections: str, *arguments: object, module: str = "edge_seg", **env: str
) -> subprocess.CompletedProcess[bytes]:
    """`python -m edge_seg ...`, or another module, by a shell that redirects its streams."""
    words = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", *words],
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )


def call(clip: Path, model: str, out: Path, *more: object) -> list[object]:
    return ["predict", clip, "-m", model, "--device", "cpu", "-o", out, *more]


@posix
@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_run_without_a_log_gives_its_results(model: str, tmp_path: Path, redirections: str) -> None:
    clip = make_clip(tmp_path / "drive.mp4", count=8)
    assert shell(redirections, *call(clip, model, tmp_path / "out")).returncode == 0
    assert video_numbers(tmp_path / "out" / "drive_overlay.mp4")
    assert shell(redirections, "predict", tmp_path / "none.mp4", "-m", model).returncode == 1
    assert shell(redirections, "info", tmp_path / "none.onnx").stdout == b"", "errors are not results"


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_full_stdout_is_one_line(model: str, tmp_path: Path, more: tuple[str, ...]) -> None:
    clip = make_clip(tmp_path / "drive.mp4", count=8)
    for words in (["info", model, *more], call(clip, model, tmp_path / "out", *more)):
        done = shell(">/dev/full", *words)
        assert done.returncode == 1
        assert done.stderr.decode().splitlines()[-1] == "error: standard output: No space left on device"
        assert b"Traceback" not in done.stderr
        assert b"Exception ignored" not in done.stderr


@posix
@pytest.mark.parametrize("redirection", [">/dev/full", "| true"])
def test_a_stdout_that_takes_nothing_leaves_no_source_undone(model: str, tmp_path: Path, redirection: str) -> None:
    for name in ("one", "two"):
        make_clip(tmp_path / f"{name}.mp4", count=8)
    out = tmp_path / "out"
    words = call(tmp_path / "one.mp4", model, out, tmp_path / "two.mp4")
    done = shell(redirection, *words)
    assert sorted(path.name for path in out.glob("*.mp4")) == ["one_overlay.mp4", "two_overlay.mp4"]
    assert b"2 sources: 2 done" in done.stderr
    assert b"Traceback" not in done.stderr
    if redirection == ">/dev/full":
        assert done.returncode == 1
        assert done.stderr.endswith(b"error: standard output: No space left on device\n")


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_what_went_wrong_is_told_though_stdout_is_full(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import sys\nfrom edge_seg.console import answer\nfrom edge_seg.errors import MediaError\n\n"
        "def work():\n    print('a line of the log')\n    raise MediaError('drive.mp4: damaged')\n\n"
        "sys.exit(answer(work))\n"
    )
    with Path("/dev/full").open("w") as full:
        # Unbuffered, the line itself would be what fails first.
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
        words = [sys.executable, tmp_path / "own.py"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, env=env)
    assert (done.returncode, done.stderr) == (1, "error: drive.mp4: damaged\n")


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("edge_seg", ["--help"]),
        ("train", ["--help"]),
        ("train", ["inspect", "{data}"]),
        ("export", ["--help"]),
        ("benchmarks", ["compare", "{result}", "{result}"]),
    ],
)
def test_every_command_line_says_that_its_stdout_is_full(
    tmp_path: Path, module: str, call: list[str], unbuffered: str
) -> None:
    for folder, picture in (("images", paint_number(3)), ("masks", np.zeros((48, 64), np.uint8))):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "frame.png"), picture)
    places = {"result": ROOT / "docs" / "benchmark" / "bundled.json", "data": f"--images={tmp_path / 'images'}"}
    words = [word.format(**places) for word in call]
    words += [f"--masks={tmp_path / 'masks'}", f"--out={tmp_path / 'out'}"] if "inspect" in call else []
    done = shell(">/dev/full", *words, module=module, PYTHONUNBUFFERED=unbuffered)
    assert done.stderr.decode().splitlines()[-1:] == ["error: standard output: No space left on device"]
    assert (done.returncode, b"Traceback" in done.stderr, b"Exception ignored" in done.stderr) == (1, False, False)
    done = shell("| head -c 1 >/dev/null", *words, module=module, PYTHONUNBUFFERED=unbuffered)
    assert b"error" not in done.stderr, "whoever reads no further makes none"


@posix
def test_letters_that_stdout_lacks_end_no_run(model: str, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "fähre.mp4", count=4)
    done = shell("", *call(clip, model, tmp_path / "out"), PYTHONIOENCODING="ascii")
    assert (done.returncode, b"f\\xe4hre_overlay.mp4" in done.stdout) == (0, True), done.stderr
    done = shell("", *call(clip, model, tmp_path / "two", "--json"), PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout)["sources"][0]["source"] == str(clip)


@posix
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8:surrogateescape"])
def test_a_name_that_is_no_text(model: str, tmp_path: Path, encoding: str) -> None:
    clip = make_clip(tmp_path / "drive.mp4", count=4)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    try:
        clip.rename(odd)
    except OSError:
        pytest.skip("this disk takes text alone")
    done = shell("", *call(odd, model, tmp_path / "out", "--json"), PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("utf-8"))["sources"][0]["source"] == str(odd)
    done = shell("", *call(odd, model, tmp_path / "two"), PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr


@posix
def test_a_folder_that_is_gone_is_one_line(model: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"import os, sys; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); from edge_seg.cli import main; "
    script += f"sys.exit(main(['predict', 'a.mp4', '-m', {model!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the working directory is gone")
    assert "change to another folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_names_that_cannot_be_are_named(predict: Any, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "drive.mp4", count=4)
    code, summary, _ = predict("²", f"{'x' * 300}.mp4", clip)
    assert code == 1
    assert [source["status"] for source in summary["sources"]] == ["failed", "failed", "done"]
    code, _, err = predict(clip, out=tmp_path / ("y" * 300))
    assert code == 1
    assert "File name too long" in err


@posix
def test_a_name_forges_no_line(model: str, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a\nerror: b.mp4", count=2)
    for words in (call(clip, model, tmp_path / "out"), call(f"{clip}.lost.mp4", model, tmp_path / "out")):
        done = shell("", *words)
        said = (done.stdout + done.stderr).splitlines()
        assert not [line for line in said if line.startswith(b"error: b.mp4")], said
    done = shell("", *call(clip, model, tmp_path / "two", "--json"))
    assert json.loads(done.stdout)["sources"][0]["source"] == str(clip)
