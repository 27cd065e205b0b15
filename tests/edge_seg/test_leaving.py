"""A program ends cleanly, whatever its daemon threads are segmenting."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_seg import leaving
from edge_seg.leaving import _Door

# Four threads in native code nearly all the time; the main thread ends amid it.
PROGRAM = """
import sys, threading, time
import numpy as np
from edge_seg import Segmenter

model, work = sys.argv[1:]
segmenter = Segmenter(model, device="cpu", threads=1)
frame = np.zeros((480, 640, 3), np.uint8)
batch = np.zeros((1, *segmenter.input_size, 3), np.uint8)

def endless():
    while True:
        yield frame

def loop():
    while True:
        if work == "segment":
            result = segmenter.segment(frame)
            result.class_share(), result.plot(), result.mask()
        elif work == "predict":
            segmenter.predict(batch)
        elif work == "stream":
            for _ in segmenter.stream(endless()):
                pass
        else:
            Segmenter(model, device="cpu", threads=1).close()

for _ in range(4):
    threading.Thread(target=loop, daemon=True).start()
time.sleep(0.5)
print("end")
"""


@pytest.mark.parametrize("work", ["segment", "predict", "stream", "open"])
def test_a_program_ends_amid_its_daemon_threads(tiny_model: Callable[..., Path], work: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tiny_model(size=(256, 256))), work],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr


def in_a_daemon(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_the_end_waits_for_who_is_inside_and_keeps_daemons_out() -> None:
    door, go, left = _Door(), threading.Event(), []

    def inside() -> None:
        door.enter()
        go.wait()
        # Amid the end: a session of the caller's own that asks another Segmenter.
        door.enter()
        door.leave()
        left.append("left")
        door.leave()

    door.enter()
    door.leave()
    in_a_daemon(inside)
    while not door._inside:
        time.sleep(0.001)
    threading.Timer(0.2, go.set).start()
    door.close()
    assert left == ["left"]
    late = in_a_daemon(door.enter)
    late.join(0.2)
    assert late.is_alive()
    assert not door._inside
    # Other handlers of the end may still segment, in the main thread.
    door.enter()
    door.leave()


def test_a_device_that_hangs_does_not_keep_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "PATIENCE_S", 0.1)
    door = _Door()
    door.enter()
    began = time.monotonic()
    door.close()
    assert 0.09 < time.monotonic() - began < 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_waits_for_nobody() -> None:
    program = (
        "import os, threading, time\n"
        "from edge_seg import leaving\n"
        "leaving._door.enter()\n"
        "began = time.monotonic()\n"
        "child = os.fork()\n"
        "if child:\n"
        "    leaving._door.leave()\n"
        "    status = os.waitpid(child, 0)[1]\n"
        "    print(status, time.monotonic() - began)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    status, took = done.stdout.split()
    assert status == "0"
    assert float(took) < 0.5 * leaving.PATIENCE_S
