"""Ctrl-C on a real terminal, and SIGTERM: the first drains and closes, the second ends it where it stands."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_seg import bundled_clip
from edge_seg.mp4 import count_frames
from tests.edge_seg.clips import make_clip, video_times
from tests.terminal import ROOT, Terminal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX terminals")
SLOW_CLI = Path(__file__).parent / "edge_seg" / "slow_cli.py"
BOTH = [signal.SIGINT, signal.SIGTERM]
NETWORK = ["--block-widths", "4,4,4,4,4", "--head-widths", "4,4", "--input-size", "64x64", "--policy", "float32"]
# Without normalisation, whose variables take a third of the time in which a step is traced.
TINY = [*NETWORK, "--crop-size", "32x32", "--batch-size", "2", "--rendered-share", "0", "--no-batch-norm"]


@pytest.mark.parametrize("number", BOTH)
def test_predict_drains_and_closes(tmp_path: Path, number: signal.Signals) -> None:
    clip, out = make_clip(tmp_path / "long.mp4", count=600), tmp_path / "out"
    arguments = [clip, tmp_path / "next.mp4", "-o", out, "--save", "overlay,jsonl,labels"]
    with Terminal([sys.executable, SLOW_CLI, 20, *arguments]) as terminal:
        terminal.wait_for(out / "long_overlay.partial.mp4")
        time.sleep(0.5)
        terminal.press(number)
        assert terminal.ended() == 1
    said = terminal.text
    assert "next.mp4: not started: the run was interrupted before it" in said
    assert "Finishing the frames under way; once more to stop at once." in said
    frames = count_frames(out / "long_overlay.partial.mp4")
    assert f"{frames} frames are kept in {out / 'long_overlay.partial.mp4'}" in said.replace("\r\n", "")
    assert "Traceback" not in said
    assert video_times(out / "long_overlay.partial.mp4") == video_times(clip)[:frames]
    assert len((out / "long.partial.jsonl").read_text().splitlines()) == frames
    assert len(list((out / "long_labels.partial").iterdir())) == frames
    assert sorted(path.name for path in out.iterdir()) == [
        "long.partial.jsonl",
        "long_labels.partial",
        "long_overlay.partial.mp4",
    ]


def test_predict_ends_at_once_at_the_second(tmp_path: Path) -> None:
    clip, out = make_clip(tmp_path / "long.mp4", count=100), tmp_path / "out"
    with Terminal([sys.executable, SLOW_CLI, 20_000, clip, "-o", out, "--batch", 8]) as terminal:
        terminal.wait_for("on fake")
        time.sleep(1.0)
        terminal.press(signal.SIGINT)
        terminal.wait_for("once more to stop at once")
        terminal.press(signal.SIGINT)
        assert terminal.ended(10) == 1, "twenty seconds of the batch are not waited for"
    assert "error: stopped at once; what was written has .partial in its name" in terminal.text


# Two threads notice the second signal; whoever has said the last words gives the other the time to say them too.
NOTICED_TWICE = """
import contextlib, threading
from edge_seg import signals

both, really = threading.Barrier(2), signals._tell

def tell(words):
    really(words)
    with contextlib.suppress(threading.BrokenBarrierError):
        both.wait(0.5)

signals._tell = tell
threading.Thread(target=signals.end, args=("stopped",)).start()
signals.end("stopped")
"""


def test_the_last_words_are_said_once() -> None:
    done = subprocess.run([sys.executable, "-c", NOTICED_TWICE], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "\nstopped\n")


def test_predict_drains_and_closes_when_its_terminal_goes_away(tmp_path: Path) -> None:
    clip, out = make_clip(tmp_path / "long.mp4", count=600), tmp_path / "out"
    with Terminal([sys.executable, SLOW_CLI, 20, clip, "-o", out, "--save", "overlay,jsonl"]) as terminal:
        terminal.wait_for(out / "long.partial.jsonl")
        # More than the first second, so that an overlay that is let go instead of closed would show fewer frames.
        deadline = time.monotonic() + 30
        while len((out / "long.partial.jsonl").read_text().splitlines()) < 40 and time.monotonic() < deadline:
            terminal.listen(0.02)
        # The shell says it once more.
        terminal.hang_up()
        terminal.press(signal.SIGHUP)
        assert terminal.ended() == 1
    frames = count_frames(out / "long_overlay.partial.mp4")
    assert 0 < frames < 600
    assert len((out / "long.partial.jsonl").read_text().splitlines()) == frames
    assert sorted(path.name for path in out.iterdir()) == ["long.partial.jsonl", "long_overlay.partial.mp4"]


def test_a_hang_up_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As under nohup."""
    clip, out = make_clip(tmp_path / "drive.mp4", count=40), tmp_path / "out"
    ignoring = ["/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh"]
    with Terminal([*ignoring, sys.executable, SLOW_CLI, 20, clip, "-o", out]) as terminal:
        terminal.wait_for(out / "drive_overlay.partial.mp4")
        terminal.press(signal.SIGHUP)
        assert terminal.ended() == 0
    assert count_frames(out / "drive_overlay.mp4") == 40


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_before_the_first_frame_is_an_error_line(tmp_path: Path, number: signal.Signals) -> None:
    script = "import time, edge_seg.cli, edge_seg.commands\nedge_seg.commands.checks = lambda o: time.sleep(60)\n"
    script += "print('ready', flush=True); raise SystemExit(edge_seg.cli.main(['checks']))"
    with Terminal([sys.executable, "-c", script]) as terminal:
        terminal.wait_for("ready")
        time.sleep(0.3)
        terminal.press(number)
        assert terminal.ended(20) == 1
    assert "error: interrupted." in terminal.text
    assert "Traceback" not in terminal.text


# Loses what is raised amid the import of a module, as a callback of importlib's own locks does.
LOSING = """
import os, signal, sys
from edge_seg.cli import main
number, module, *arguments = sys.argv[1:]

class Losing:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            sys.meta_path.remove(self)
            try: os.kill(os.getpid(), int(number)); os.getpid()
            except KeyboardInterrupt: print("lost", file=sys.stderr)

sys.meta_path.insert(0, Losing())
raise SystemExit(main(arguments))
"""


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("shutil", "info"),
        ("edge_seg.commands", "info"),
        ("edge_seg.modelfile", "info"),
        ("numpy", "predict"),
        ("onnxruntime", "predict"),
        ("onnxruntime", "verify"),
        ("cv2", "checks"),
    ],
)
def test_a_signal_amid_an_import_is_not_lost(tmp_path: Path, number: signal.Signals, module: str, command: str) -> None:
    arguments = [command, bundled_clip(), "-o", tmp_path] if command == "predict" else [command]
    call = [sys.executable, "-c", LOSING, str(int(number)), module, *map(str, arguments)]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: interrupted.\n")


@pytest.fixture
def dataset(make_pairs: Callable[..., Path]) -> Path:
    return make_pairs(count=8, size=(64, 64))


@pytest.fixture
def make_pairs(tmp_path: Path) -> Callable[..., Path]:
    from tests.train.conftest import write_pair

    def make(*, count: int, size: tuple[int, int]) -> Path:
        folders = [tmp_path / "data" / f"{kind}_prepped_train" for kind in ("images", "annotations")]
        for folder in folders:
            folder.mkdir(parents=True)
        for index in range(count):
            write_pair(*folders, f"drive_{index:03}", index, size)
        return tmp_path / "data"

    return make


def fit_command(dataset: Path, out: Path, *more: str) -> list[object]:
    return [sys.executable, "-m", "train", "fit", dataset, "--out", out, *TINY, *more]


@pytest.mark.slow
@pytest.mark.parametrize("number", BOTH)
def test_fit_stops_after_the_batch_and_goes_on(dataset: Path, tmp_path: Path, number: signal.Signals) -> None:
    run = tmp_path / "run"
    with Terminal(fit_command(dataset, run, "--epochs", "900")) as terminal:
        terminal.wait_for(run / "checkpoint.previous.npz", 300)
        terminal.press(number)
        assert terminal.ended() == 1
    assert "Finishing the batch under way; once more to stop at once." in terminal.text
    assert "Traceback" not in terminal.text
    with np.load(run / "checkpoint.npz", allow_pickle=False) as file:
        epoch = json.loads(file["record"].tobytes())["epoch"]
    assert f"The checkpoint after epoch {epoch} is kept; go on from it with --resume" in terminal.text
    assert {path.name for path in run.iterdir()} == {
        "config.json",
        "history.csv",
        "checkpoint.npz",
        "checkpoint.previous.npz",
    }


@pytest.mark.slow
def test_fit_ends_at_once_at_the_second(dataset: Path, tmp_path: Path) -> None:
    script = (
        "import sys, time; from train.batches import TrainingBatches; from train.__main__ import main\n"
        "draw = TrainingBatches.batch\n"
        "def slow(self, epoch, index):\n"
        "    if epoch: print('dawdling', flush=True); time.sleep(300)\n"
        "    return draw(self, epoch, index)\n"
        "TrainingBatches.batch = slow\n"
        "raise SystemExit(main(sys.argv[1:]))"
    )
    run = tmp_path / "run"
    command = fit_command(dataset, run, "--epochs", "3", "--workers", "0")  # No process would know of the script's.
    with Terminal([sys.executable, "-c", script, *command[3:]]) as terminal:
        terminal.wait_for(run / "checkpoint.npz", 300)
        terminal.wait_for("dawdling", 60)
        terminal.press(signal.SIGINT)
        terminal.wait_for("once more to stop at once")
        terminal.press(signal.SIGTERM)
        assert terminal.ended(20) == 1
    assert "error: stopped at once; --resume goes on from the last checkpoint" in terminal.text


@pytest.mark.slow
@pytest.mark.parametrize("number", BOTH)
def test_export_publishes_nothing(dataset: Path, tmp_path: Path, number: signal.Signals) -> None:
    from train.fcn8 import Fcn8Config, fcn8
    from train.run import save_run

    config = Fcn8Config(input_size=(64, 64), block_widths=(4, 4, 4, 4, 4), head_widths=(4, 4))
    run = save_run(tmp_path / "run", {"fcn8": config.to_dict(), "training": {"epochs": 1}}, fcn8(config)).folder
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_bytes(b"the old model")
    command = [sys.executable, "-m", "export", run, "--out", out / "model.onnx", "--gate-on", "rendered"]
    # The gate's many streets leave time for the signal; those of more golden frames would only be waited for.
    with Terminal([*command, "--gate-frames", 200, "--golden-frames", 1]) as terminal:
        terminal.wait_for("convert  ", 300)
        terminal.press(number)
        assert terminal.ended() == 1
    assert "error: interrupted. Nothing was published." in terminal.text
    assert "Traceback" not in terminal.text
    assert (out / "model.onnx").read_bytes() == b"the old model"
    assert [path.name for path in out.iterdir()] == ["model.onnx"]
