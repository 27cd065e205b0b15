"""A program ends cleanly, whatever its daemon threads are segmenting."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from edge_seg import native
from edge_seg.native import _Door

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
    monkeypatch.setattr(native, "PATIENCE_S", 0.1)
    door = _Door()
    in_a_daemon(door.enter).join()
    began = time.monotonic()
    door.close()
    assert 0.09 < time.monotonic() - began < 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_waits_for_nobody() -> None:
    program = (
        "import os, threading, time\n"
        "from edge_seg import native\n"
        "inside = threading.Thread(target=native._door.enter)\n"
        "inside.start(), inside.join()\n"
        "began = time.monotonic()\n"
        "child = os.fork()\n"
        "if child:\n"
        "    native._begin_anew()\n"
        "    status = os.waitpid(child, 0)[1]\n"
        "    print(status, time.monotonic() - began)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    status, took = done.stdout.split()
    assert status == "0"
    assert float(took) < 0.5 * native.PATIENCE_S


class Interruption(Exception):
    """Raised by a signal's handler."""


def interrupted_at(step: int, work: Callable[[], None]) -> bool:
    """Do the work, and raise amid it after so many steps, as a handler may; returns whether it had as many.

    A step is a beginning or an end of a function, as Python runs handlers there and not wherever a line begins.
    """
    steps = 0

    def count(frame: FrameType, event: str, value: object) -> Any:
        nonlocal steps
        if not frame.f_code.co_filename.endswith(("native.py", "threading.py", "contextlib.py")):
            return None
        steps += event != "line"
        if event != "line" and steps == step:
            raise Interruption
        return count

    sys.settrace(count)
    try:
        work()
    except Interruption:
        return True
    finally:
        sys.settrace(None)
    return False


def test_an_exception_from_a_signals_handler_leaves_nobody_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        with native.native_code():
            pass

    def others() -> None:
        door.enter()
        door.leave()

    step = 1
    while True:
        door = _Door()
        monkeypatch.setattr(native, "_door", door)
        if not interrupted_at(step, work):
            break
        other = in_a_daemon(others)
        other.join(20)
        assert not other.is_alive(), f"locked for good by an interruption at step {step}"
        assert not door.others_inside(), step
        step += 1
    assert step > 10
