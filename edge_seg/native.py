"""Native code beneath Python: its calls when the program ends, its threads at a fork, and the memory of closed videos.
Knows nothing about what that code does.

Python's exit waits for calls of native code in daemon threads, and none begins after it. Up to Python 3.13, a daemon
thread that returns from C++ while the interpreter is exiting is unwound through the C++ code, and the program aborts
although its work is done.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any, NoReturn

# A frame of the widest network takes two seconds; a device that hangs must not keep the program from ending.
PATIENCE_S = 10.0


class _Door:
    """The threads inside native code, once for each time they entered; closed for good at the program's exit.

    A signal's handler may raise anywhere in the main thread, and cut `enter` or `leave` short. What it leaves behind is
    harmless: whoever asks for others than itself is that thread. The lock is taken without `Condition`'s own methods,
    in which it would stay locked.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._inside: list[int] = []
        self._closed = False

    def enter(self) -> None:
        thread = threading.get_ident()
        with self._lock:
            # A thread that is already inside is waited for, so it may enter again: it has to finish.
            if not self._closed or not threading.current_thread().daemon or thread in self._inside:
                self._inside.append(thread)
                return
        threading.Event().wait()  # until the process is gone

    def leave(self) -> None:
        with self._lock:
            self._inside.remove(threading.get_ident())
            self._changed.notify_all()

    def others_inside(self) -> bool:
        """Whether a thread other than this one is inside."""
        with self._lock:
            return any(thread != threading.get_ident() for thread in self._inside)

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self.others_inside(), PATIENCE_S)


_door = _Door()


def _begin_anew() -> None:
    """Start afresh in a forked child, which has none of the threads that were inside."""
    global _door
    _door = _Door()


def _close() -> None:
    _door.close()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


@contextlib.contextmanager
def native_code() -> Iterator[None]:
    """A block of native code, which the program's exit waits for, up to 10 s.

    A daemon thread that arrives here when the program is exiting never goes on.
    """
    door = _door
    door.enter()
    try:
        yield
    finally:
        door.leave()


def program_is_ending() -> bool:
    """Whether the program is exiting, so that daemon threads can enter no more native code."""
    return _door.closed


def end_program(code: int) -> NoReturn:
    """Exit a program that has finished its work; at once, without cleanup, if abandoned native code still runs."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # Its reader is gone. What is left in it would be written at exit, whose failure is an exit code of its own.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if _door.others_inside():
        os._exit(code)
    sys.exit(code)


_threaded: weakref.WeakSet[Any] = weakref.WeakSet()


def keep_in_children(thing: Any) -> None:
    """Keep whatever `thing` holds at a fork alive in the child, for good: destroying it would wait for threads that do
    not exist there. Nothing is kept of a thing that was freed before the fork."""
    # Imported here, since a child may wait for ever for an import that another thread of its parent had begun.
    with contextlib.suppress(ImportError):
        import ctypes  # noqa: F401
    _threaded.add(thing)


def _keep_inherited() -> None:
    # A list would not do: Python clears it when the child ends. An extra reference is never released.
    ctypes: Any = sys.modules.get("ctypes")
    if hasattr(ctypes, "pythonapi"):
        for thing in _threaded:
            for held in vars(thing).values():
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited)


class Collector:
    """Collects what closed video files leave: for a twentieth of the time at most, unless `MOST_WAITING` files wait.

    PyAV's container and streams hold each other, and with them the decoder's threads and pictures. Python's collector,
    which counts objects, sees two small ones and lets them wait, each file with two threads.

    A collection takes milliseconds in `edge-seg` and a second in a program with millions of objects; there, a few
    closed files wait for the next one.
    """

    MOST_WAITING = 16
    SHARE = 0.05

    def __init__(self) -> None:
        self._waiting = 0
        self._rest_until = 0.0

    def file_closed(self) -> None:
        """Collect if it is due; to be called once nothing refers to the file's container."""
        self._waiting += 1
        began = time.monotonic()
        if self._waiting < self.MOST_WAITING and began < self._rest_until:
            return
        gc.collect()
        ended = time.monotonic()
        self._waiting, self._rest_until = 0, ended + (ended - began) / self.SHARE


collector = Collector()
