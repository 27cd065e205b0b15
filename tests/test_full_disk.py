"""A disk that fills, and a limit on the size of files: what plays is kept, how much is said, and the exit code is 1."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_seg.errors import MediaError
from edge_seg.mp4 import count_frames
from edge_seg.names import partial_path
from edge_seg.video import VideoFile
from tests.test_signals import TINY

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ulimit and tmpfs")
ROOT = Path(__file__).resolve().parents[1]
SLOW_CLI = Path(__file__).parent / "edge_seg" / "slow_cli.py"
RESULTS = {"overlay": "noise_overlay.mp4", "mask": "noise_mask.mp4", "labels": "noise_labels", "jsonl": "noise.jsonl"}


def run(command: list[object], *, limit_kb: int | None = None) -> subprocess.CompletedProcess[str]:
    """A child in which no file may grow beyond `limit_kb`."""
    shell = f'ulimit -f {limit_kb if limit_kb else "unlimited"} && exec "$@"'
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    words = ["bash", "-c", shell, "bash", *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, env=env, cwd=ROOT)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that does not compress: 200 frames of 96x128."""
    from fractions import Fraction

    from edge_seg.codecs import EncodeOptions
    from edge_seg.encode import VideoWriter

    path = tmp_path_factory.mktemp("noise") / "noise.mp4"
    draw = np.random.default_rng(0)
    options = EncodeOptions(preset="ultrafast")
    writer = VideoWriter(path, size=(96, 128), time_base=Fraction(1, 25), rate=Fraction(25), options=options)
    for number in range(200):
        writer.write(draw.integers(0, 255, (96, 128, 3), np.uint8), pts=number, duration=1)
    return writer.close().path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A factory of a disk of so many KB; a second call resizes it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def make(size_kb: int) -> Path:
        nonlocal mounted
        again = ["-o", f"remount,size={size_kb}k", str(folder)] if mounted else []
        command = ["mount", *(again or ["-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(folder)])]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a small disk takes root, in a container that allows it")
        mounted = True
        return folder

    yield make
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def kept(kind: str, partial: Path) -> int:
    """How many frames of a result there are; each must be whole."""
    if kind == "jsonl":
        return len([json.loads(line) for line in partial.read_text().splitlines()])
    if kind == "labels":
        pictures = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(partial.iterdir())]
        assert all(picture is not None and picture.shape == (96, 128) for picture in pictures)
        return len(pictures)
    with VideoFile(partial) as video:
        assert not any(frame.corrupt for frame in video)
    return count_frames(partial)


def check_kept(kind: str, out: Path, done: subprocess.CompletedProcess[str], reason: str) -> None:
    final = out / RESULTS[kind]
    partial = partial_path(final)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not final.exists()
    frames = kept(kind, partial)
    assert 10 < frames < 200
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"{final}: {reason} after " in line
    unit = {"jsonl": r"lines", "labels": r"pictures"}.get(kind, r"\(\d+\.\d s\)")
    assert re.search(rf"the first {frames} {unit} are kept, playable, in |the first {frames} {unit} are kept in ", line)
    assert line.count(str(partial)) == 1, "said once"
    assert ".;" not in line


@pytest.mark.parametrize(("kind", "limit_kb"), [("overlay", 700), ("mask", 500), ("jsonl", 30)])
def test_a_limit_on_the_size_of_files(noise: Path, tmp_path: Path, kind: str, limit_kb: int) -> None:
    out = tmp_path / "out"
    done = run([sys.executable, SLOW_CLI, 0, noise, "-o", out, "--save", kind], limit_kb=limit_kb)
    check_kept(kind, out, done, "the limit on the size of files is reached")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size_kb"), [("overlay", 700), ("mask", 500), ("labels", 400), ("jsonl", 32)])
def test_a_full_disk_and_then_room(
    noise: Path, tmp_path: Path, small_disk: Callable[[int], Path], kind: str, size_kb: int
) -> None:
    out = small_disk(size_kb)
    command = [sys.executable, SLOW_CLI, 0, noise, "-o", out, "--save", kind]
    check_kept(kind, out, run(command), "the disk is full")
    small_disk(20_000)
    done = run([*command, "--resume"])
    assert done.returncode == 0, done.stderr
    assert "left by a run that was stopped" in done.stderr
    assert kept(kind, out / RESULTS[kind]) == 200


def test_every_kind_says_what_is_kept_of_it(noise: Path, small_disk: Callable[[int], Path]) -> None:
    out = small_disk(900)
    done = run([sys.executable, SLOW_CLI, 0, noise, "-o", out, "--save", "overlay,mask,labels,jsonl"])
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "the disk is full" in line
    assert ".;" not in line
    for kind, name in RESULTS.items():
        partial = partial_path(out / name)
        assert not (out / name).exists()
        if partial.exists():
            assert re.search(rf"\b{kept(kind, partial)}\b[^;]* in {re.escape(str(partial))}", line), (kind, line)


def test_a_picture_on_a_full_disk(tmp_path: Path, small_disk: Callable[[int], Path]) -> None:
    from edge_seg import Segmenter
    from edge_seg.fake import FakeSession

    out = small_disk(16)
    frame = np.random.default_rng(1).integers(0, 256, (200, 200, 3), np.uint8)
    result = Segmenter(FakeSession(labels=lambda batch: batch[..., 0] % 12)).segment(frame)
    (out / "filler").write_bytes(bytes(12 * 1024))
    with pytest.raises(MediaError, match=r"labels.png cannot be written \(the disk is full\)"):
        result.save(out / "labels.png")
    assert [path.name for path in out.iterdir()] == ["filler"]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    from tests.train.conftest import write_pair

    folders = [tmp_path / "data" / f"{kind}_prepped_train" for kind in ("images", "annotations")]
    for folder in folders:
        folder.mkdir(parents=True)
    for index in range(8):
        write_pair(*folders, f"drive_{index:03}", index, (64, 64))
    return tmp_path / "data"


@pytest.mark.slow
def test_fit_keeps_the_checkpoint_before(dataset: Path, tmp_path: Path, small_disk: Callable[[int], Path]) -> None:
    out = small_disk(20_000) / "run"
    command: list[object] = [sys.executable, "-m", "train", "fit", dataset, "--out", out, *TINY, "--epochs", "3"]
    # Threads draw: what processes share is a file too, and larger than the limit.
    command += ["--workers", "0"]
    done = run(command, limit_kb=8)
    assert done.returncode == 1, done.stderr
    assert f"error: {out / 'checkpoint.npz'}: the limit on the size of files is reached." in done.stderr
    assert "No checkpoint had been written; start over with --resume." in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in out.iterdir()} == {"config.json", "history.csv"}
    # Room for one checkpoint and not for the next.
    script = (
        "import subprocess, sys; from train import checkpoint; from train.__main__ import main\n"
        "save = checkpoint.save_checkpoint\n"
        "import train.callbacks as callbacks\n"
        "def fill(folder, model, record):\n"
        "    save(folder, model, record)\n"
        "    try: (folder / 'filler').write_bytes(bytes(30_000_000))\n"
        "    except OSError: pass\n"
        "callbacks.save_checkpoint = fill\n"
        "raise SystemExit(main(sys.argv[1:]))"
    )
    done = run([sys.executable, "-c", script, *command[3:], "--resume"])
    assert done.returncode == 1, done.stderr
    assert "no checkpoint had been written: starting over" in done.stderr
    assert ": the disk is full. The checkpoint after epoch 1 is kept; go on from it with --resume." in done.stderr
    (out / "filler").unlink()
    with np.load(out / "checkpoint.npz", allow_pickle=False) as file:
        assert json.loads(file["record"].tobytes())["epoch"] == 1
    assert not list(out.glob(".*"))


@pytest.mark.slow
def test_export_publishes_nothing_on_a_full_disk(tmp_path: Path, small_disk: Callable[[int], Path]) -> None:
    from train.fcn8 import Fcn8Config, fcn8
    from train.run import save_run

    config = Fcn8Config(input_size=(64, 64), block_widths=(8, 8, 8, 8, 8), head_widths=(64, 64))
    run_folder = save_run(tmp_path / "run", {"fcn8": config.to_dict(), "training": {"epochs": 1}}, fcn8(config)).folder
    out = small_disk(100) / "model.onnx"
    out.write_bytes(b"the old model")
    more = ["--gate-on", "rendered", "--gate-frames", "2", "--golden-frames", "1"]
    done = run([sys.executable, "-m", "export", run_folder, "--out", out, *more])
    assert done.returncode == 1, done.stderr
    assert f"error: {out}: the disk is full. Nothing was published." in done.stderr
    assert "Traceback" not in done.stderr
    assert out.read_bytes() == b"the old model"
    assert [path.name for path in out.parent.iterdir()] == ["model.onnx"]


@pytest.mark.slow
def test_weights_on_a_full_disk_are_an_error_and_not_the_end_of_the_process(small_disk: Callable[[int], Path]) -> None:
    """HDF5 aborts where it cannot write what it holds back, so its files are made in memory."""
    script = (
        "import sys; from pathlib import Path; from train.fcn8 import Fcn8Config, fcn8; from train.run import *\n"
        "config = Fcn8Config(input_size=(32, 32), block_widths=(8, 8, 8, 8, 8), head_widths=(8, 8))\n"
        "for save in (lambda: save_run(sys.argv[1], {}, fcn8(config)),\n"
        "             lambda: save_float16(fcn8(config), Path(sys.argv[1]) / 'half.weights.h5')):\n"
        "    try: save()\n"
        "    except OSError as error: print(error.filename, error.strerror)\n"
    )
    out = small_disk(16)
    done = subprocess.run(
        [sys.executable, "-c", script, out],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "numpy"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines == [f"{out / name} the disk is full" for name in ("model.weights.h5", "half.weights.h5")]
    assert not list(out.iterdir())
