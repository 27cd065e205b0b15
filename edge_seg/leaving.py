"""Python's exit waits for calls of native code in daemon threads, and none begins after it. Knows nothing about what
they do.

Up to Python 3.13, a daemon thread that returns from C++ while the interpreter is exiting is unwound through the C++
code, and the program aborts although its work is done.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

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
    if _door.others_inside():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
