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
        first: called in the main thread, as soon as that is not in native code; it may raise.
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
            end(last_words)
        asked = True
        first()

    with _listening(said, last_words):
        previous = {number: signal.signal(number, handle) for number in NUMBERS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Inside the block SIGINT and SIGTERM wait for its end, where they raise `KeyboardInterrupt` in place of any error.

    For imports of native code, which take an interruption for a failure of their own, or swallow it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        heard = True

    listened = [number for number in NUMBERS if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, note) for number in listened}
    try:
        yield
    except BaseException:
        if heard:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if heard:
        raise KeyboardInterrupt


def interrupt() -> NoReturn:
    """What Ctrl-C does by itself: raise `KeyboardInterrupt`."""
    raise KeyboardInterrupt


def end(last_words: str) -> NoReturn:
    """End the process now: threads may sit in native code that cannot be interrupted, so nothing is waited for."""
    os.write(2, f"\n{last_words}\n".encode())
    os._exit(1)


@contextlib.contextmanager
def _listening(said: str, last_words: str) -> Iterator[None]:
    """A thread that hears signals even while the main thread is in native code, where no handler runs."""
    if os.name != "posix":
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def listen() -> None:
        heard = 0
        while (number := os.read(reader, 1)) != b"\0":
            heard += number[0] in NUMBERS
            if heard == 1 and said:
                os.write(2, f"\n{said}\n".encode())
            elif heard == 2:
                end(last_words)

    thread = threading.Thread(target=listen, name="edge_seg-signals", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        # A forked child, which a terminal's Ctrl-C reaches too, has let go of it: see below.
        if signal.set_wakeup_fd(-1) == writer:
            signal.set_wakeup_fd(before)
            os.write(writer, b"\0")
            thread.join()
        os.close(reader)
        os.close(writer)


def _fall_silent() -> None:
    """In a forked child: its signals are not the parent's."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fall_silent)
