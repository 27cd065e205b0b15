"""The standard streams as they are found: closed, full, or of an encoding that lacks letters; and what every command
line makes of errors: one line, and an exit code. Knows no commands.

`train`, `export` and `benchmarks` use it too. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast

from .errors import EdgeSegError

STDOUT = "standard output"
# Terminals obey them: a file's name could clear the screen, hide what follows or forge a line of ours.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def answer(work: Callable[[], int], *, afterwards: Callable[[], str] = str) -> int:
    """Do what a command line asks, streams prepared; returns its exit code. An error is one line on stderr.

    Args:
        work: parses and runs the command; returns the exit code.
        afterwards: a sentence on what there is now, for whom an interruption or the system stopped.
    """
    prepare_streams()
    try:
        stdout = _Stdout(sys.stdout)
        with contextlib.redirect_stdout(cast(TextIO, stdout)):
            try:
                code = work()
            except EdgeSegError:
                # What went wrong is worth more than that a part of the log is lost.
                with contextlib.suppress(OSError):
                    stdout.settle()
                raise
            except BaseException:
                stdout.settle()
                raise
            stdout.settle()
            return code
    except EdgeSegError as error:
        complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        complain(f"interrupted. {afterwards()}".rstrip())
    except OSError as error:
        # The reader of our output may have gone away (`| head`): nothing is left to say.
        if not (isinstance(error, BrokenPipeError) and error.filename == STDOUT):
            named = f"{error.filename}: " if error.filename else ""
            complain(f"{named}{error.strerror or error}. {afterwards()}".removesuffix(". "))
    return 1


class _Stdout:
    """A stream whose errors name it, whoever prints; what comes after the first one goes nowhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._error: OSError | None = None

    def write(self, text: str) -> int:
        with self._named():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._named():
            self._stream.flush()

    def settle(self) -> None:
        """Have everything written now, while it can be said that it was not; argparse, for one, swallows errors."""
        self.flush()
        if self._error is not None:
            raise self._error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What is left in the buffer would be tried again at exit, where nobody could say that it failed.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            error.filename, self._error = STDOUT, error
            raise


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
        # Of a dataset every bad file has a line.
        print("error: " + "\n".join(map(harmless, text.split("\n"))), file=sys.stderr, flush=True)


def put(*lines: str) -> None:
    """A result's lines on stdout, at once."""
    print(*map(harmless, lines), sep="\n", flush=True)


def harmless(line: str) -> str:
    """`line` with a question mark for each control character, line breaks too: names are written by anyone."""
    return _CONTROLS.sub("?", line)


def printable(line: str) -> bool:
    """Whether `put` shows `line` as it is: stdout's encoding has every letter, and a terminal obeys none."""
    if harmless(line) != line:
        return False
    try:
        line.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
