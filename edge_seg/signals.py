"""Ctrl-C, SIGTERM and a closed terminal: the first signal asks to stop, the second ends the process. Knows nothing of
what is interrupted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from types import FrameType
from typing import NoReturn

INSISTING = (signal.SIGINT, signal.SIGTERM)
# When a terminal closes, both the kernel and the shell send SIGHUP: a second one does not insist.
NUMBERS = (*INSISTING, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else ()))
# Descriptor for our lines: standard error, or a copy of it while descriptor 2 is redirected (`speaking_through`).
_mouth = 2
# Taken by the thread that ends the process, and never given back: at a signal both ours and the main one want to, and
# the last words are said once.
_ending = threading.RLock()


@contextlib.contextmanager
def asked_twice(first: Callable[[], None], *, said: str = "", last_words: str) -> Iterator[None]:
    """Inside the block the first SIGINT, SIGTERM or SIGHUP calls `first`, and the second ends the process at once.

    An ignored SIGHUP, as under nohup, stays ignored; a SIGHUP never counts as the second signal.

    Args:
        first: called in the main thread, as soon as that is not in native code; it may raise.
        said: a line for stderr at the first signal (POSIX only).
        last_words: a line for stderr at the second one; the exit code is then 1.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread handle signals.
        return
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            first()
        elif number in INSISTING:
            end(last_words)

    numbers = [number for number in NUMBERS if number in INSISTING or signal.getsignal(number) != signal.SIG_IGN]
    with _listening(said, last_words, numbers), _handled(handle, numbers):
        yield


@contextlib.contextmanager
def held_back(*, said: str = "") -> Iterator[None]:
    """Hold these signals back until the end of the block, and then raise `KeyboardInterrupt` in place of any error.

    For imports of native code, which report an interruption as a failure of their own, or swallow it. `said` is a line
    for stderr at the first signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if said and not heard:
            _tell(said)
        heard = True

    with _handled(note, [number for number in NUMBERS if signal.getsignal(number) != signal.SIG_IGN]):
        try:
            yield
        except BaseException:
            if heard:
                raise KeyboardInterrupt from None
            raise
    if heard:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], numbers: Iterable[int]) -> Iterator[None]:
    """Handle these signals by `handler` within the block, except those with a handler not installed from Python."""
    before = {number: known for number in numbers if (known := signal.getsignal(number)) is not None}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)


@contextlib.contextmanager
def speaking_through(descriptor: int) -> Iterator[None]:
    """Inside the block our lines for stderr go to this descriptor."""
    global _mouth
    before, _mouth = _mouth, descriptor
    try:
        yield
    finally:
        _mouth = before


def interrupt() -> NoReturn:
    """Raise `KeyboardInterrupt`, as Ctrl-C does by default."""
    raise KeyboardInterrupt


def end(last_words: str) -> NoReturn:
    """End the process now, waiting for nothing: threads may be in native code that cannot be interrupted."""
    _ending.acquire()
    _tell(last_words)
    os._exit(1)


def _tell(words: str) -> None:
    """Write a line to stderr, from any thread or handler; a failure (the terminal may be gone) is ignored."""
    with contextlib.suppress(OSError):
        os.write(_mouth, f"\n{words}\n".encode())


@contextlib.contextmanager
def _listening(said: str, last_words: str, numbers: Collection[int]) -> Iterator[None]:
    """Run a thread that notices signals even while the main thread is in native code, where no handler runs."""
    if os.name != "posix":
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def listen() -> None:
        heard = False
        while (number := os.read(reader, 1)[0]) != 0:
            if heard and number in INSISTING:
                end(last_words)
            if number in numbers and not heard:
                heard = True
                if said:
                    _tell(said)

    thread = threading.Thread(target=listen, name="edge_seg-signals", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        # In a forked child `_fall_silent` has cleared the descriptor, and the thread does not exist.
        if signal.set_wakeup_fd(-1) == writer:
            signal.set_wakeup_fd(before)
            os.write(writer, b"\0")
            thread.join()
        os.close(reader)
        os.close(writer)


def _fall_silent() -> None:
    """In a forked child: do not report its signals (Ctrl-C reaches it too) to the parent's thread."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fall_silent)
