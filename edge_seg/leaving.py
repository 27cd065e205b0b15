"""Python's own end: it is awaited by calls of native code in daemon threads, and none begins after it. Knows not what
they do.

Up to Python 3.13 a daemon thread that comes back from C++ once the interpreter is ending is unwound through it, and the
program, done with all else, aborts.
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
    """Which threads are inside native code, once for each time they entered; closed for good at the end."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: list[int] = []
        self._closed = False

    def enter(self) -> None:
        thread = threading.get_ident()
        with self._changed:
            # Who is inside already is waited for, and has to come to its end.
            if not self._closed or not threading.current_thread().daemon or thread in self._inside:
                self._inside.append(thread)
                return
        threading.Event().wait()  # until the process is gone

    def leave(self) -> None:
        with self._changed:
            self._inside.remove(threading.get_ident())
            self._changed.notify_all()

    def somebody_inside(self) -> bool:
        with self._changed:
            return bool(self._inside)

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._inside, PATIENCE_S)


_door = _Door()


def _begin_anew() -> None:
    """A forked child: whoever was inside did not come along."""
    global _door
    _door = _Door()


def _close() -> None:
    _door.close()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


@contextlib.contextmanager
def native_code() -> Iterator[None]:
    """A stretch of native code, which the program's end waits for, up to 10 s.

    A daemon thread that comes here when the program is ending stays here.
    """
    door = _door
    door.enter()
    try:
        yield
    finally:
        door.leave()


def program_is_ending() -> bool:
    """Whether a daemon thread would come into no native code any more."""
    return _door.closed


def end_program(code: int) -> NoReturn:
    """End a program that is done with all it had to do: at once, where native code that was given up is still at it."""
    if _door.somebody_inside():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
