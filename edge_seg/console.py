"""The standard streams as they are found: closed, full, or of an encoding that lacks letters. Knows no commands.

`train`, `export` and `benchmarks` use it too. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys


def prepare_streams() -> None:
    """Make the three standard streams safe to write to, whoever started the process.

    One that is closed becomes the null device: a result that was opened under its number would get the lines that
    native libraries write there. A letter that an encoding lacks is escaped instead of ending the run.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # In this order the lowest free number, which is what `open` takes, is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # For the life of the process, as the stream it stands for.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def complain(text: str) -> None:
    """An error's line on stderr; where that cannot be written either, the exit code alone speaks."""
    with contextlib.suppress(OSError):
        print(f"error: {text}", file=sys.stderr, flush=True)


def put(text: str) -> None:
    """A result's line on stdout, at once.

    Raises:
        OSError: it cannot be written; "standard output" is its file's name.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        # What is left in the buffer would be tried again at exit, where nobody could say that it failed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        error.filename = "standard output"
        raise


def printable(text: str) -> bool:
    """Whether stdout's encoding has every letter of `text`."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
