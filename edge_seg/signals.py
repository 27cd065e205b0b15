"""Ctrl-C and SIGTERM: the first asks, the second insists. Knows nothing of what is interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def asked_twice(first: Callable[[], None], *, said: str = "", last_words: str) -> Iterator[None]:
    """Inside the block the first SIGINT or SIGTERM calls `first`, and the second ends the process where it stands.

    Args:
        first: called in the main thread; it may raise.
        said: a line for stderr at the first one.
        last_words: a line for stderr at the second one; then the exit code is 1.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread listen.
        return
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            # Threads may sit in native code that cannot be interrupted, so nothing is waited for.
            os.write(2, f"\n{last_words}\n".encode())
            os._exit(1)
        asked = True
        if said:
            os.write(2, f"\n{said}\n".encode())
        first()

    previous = {number: signal.signal(number, handle) for number in NUMBERS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def interrupt() -> NoReturn:
    """What Ctrl-C does by itself: raise `KeyboardInterrupt`."""
    raise KeyboardInterrupt
