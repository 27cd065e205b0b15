"""Standard streams that may be closed, full, or in an encoding that lacks characters; and how every command line
reports errors: one line, and an exit code. Knows nothing about commands.

`train`, `export` and `benchmarks` use it too. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast

from .errors import EdgeSegError

STDOUT = "standard output"
# Packages that are imported all over, without a guard of their own; both are called what pip calls them.
_EVERYWHERE = ("numpy", "av")
# Terminals obey these: a file's name could clear the screen, hide what follows or forge a line of ours.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def answer(work: Callable[[], int], *, afterwards: Callable[[], str] = str, as_json: bool = False) -> int:
    """Prepare the streams and run a command line; returns its exit code. An error is one line on stderr.

    Args:
        work: parses and runs the command; returns the exit code.
        afterwards: returns a sentence on what exists now, said after an interruption or a system error.
        as_json: print an error as an object on stdout too.
    """
    prepare_streams()
    try:
        stdout = _Stdout(sys.stdout)
        with contextlib.redirect_stdout(cast(TextIO, stdout)):
            try:
                code = work()
            except EdgeSegError:
                # The error itself matters more than that some output is lost.
                with contextlib.suppress(OSError):
                    stdout.settle()
                raise
            except BaseException:
                stdout.settle()
                raise
            stdout.settle()
            return code
    except EdgeSegError as error:
        complain(str(error), as_json=as_json)
        return error.exit_code
    except ImportError as error:
        # Where a package is there but does not load, the name is that of its own module that failed.
        package = (error.name or "").partition(".")[0]
        if package not in _EVERYWHERE:
            raise
        state, cure = "is not installed", "Install it: pip install"
        if error.name != package:
            state, cure = f"cannot be loaded ({error})", "Install it anew: pip install --force-reinstall"
        complain(f"{package} {state}. {cure} {package}", as_json=as_json)
    except KeyboardInterrupt:
        complain(f"interrupted. {afterwards()}".rstrip(), as_json=as_json)
    except OSError as error:
        # The reader of our output may have gone away (`| head`): nobody needs to be told.
        if not (isinstance(error, BrokenPipeError) and error.filename == STDOUT):
            named = f"{error.filename}: " if error.filename else _folder_if_gone()
            complain(f"{named}{error.strerror or error}. {afterwards()}".removesuffix(". "), as_json=as_json)
    return 1


def _folder_if_gone() -> str:
    """What an error that names no file is about where the working directory is gone; otherwise nothing."""
    try:
        os.getcwd()
    except OSError:
        return "the working directory is gone or unreadable; change to another folder: "
    return ""


class _Stdout:
    """Wraps a stream so that its errors name it; after the first one, output is discarded."""

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
        """Flush, and raise any earlier error while it can be reported; argparse, for one, swallows errors."""
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
            # The rest of the buffer would be written at exit, where a failure could not be reported any more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            error.filename, self._error = STDOUT, error
            raise


def prepare_streams() -> None:
    """Make the three standard streams safe to write to, however the process was started.

    A closed one becomes the null device: otherwise a result file could get its number, and with it the lines that
    native libraries write there. A character that an encoding lacks is escaped instead of ending the run.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # `open` takes the lowest free number, which in this order is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Open for the life of the process, like the stream it stands for.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def complain(text: str, *, as_json: bool = False) -> None:
    """Print an error on stderr, and as the object `{"error": text}` on stdout if `as_json`; where that fails too, only
    the exit code tells of it."""
    with contextlib.suppress(OSError):
        # The error of a dataset has a line for each bad file.
        print("error: " + "\n".join(map(harmless, text.split("\n"))), file=sys.stderr, flush=True)
    if as_json:
        put_error(text)


def put_error(text: str) -> None:
    """Print the object `{"error": text}` on stdout, if that can be written."""
    with contextlib.suppress(OSError):
        put_json({"error": text})


def put(*lines: str) -> None:
    """Print a result's lines on stdout and flush."""
    print(*map(harmless, lines), sep="\n", flush=True)


def put_json(value: dict[str, Any]) -> None:
    """Print an object as JSON on stdout and flush."""
    lines = json.dumps(value, indent=2, ensure_ascii=False, default=str).split("\n")
    # Characters that stdout lacks, that a terminal obeys or that are not valid text are written as JSON escapes.
    put(*(lines if all(map(printable, lines)) else json.dumps(value, indent=2, default=str).split("\n")))


def harmless(line: str) -> str:
    """`line` with "?" for each control character, line breaks too: a file's name can hold anything."""
    return _CONTROLS.sub("?", line)


def printable(line: str) -> bool:
    """Whether `put` prints `line` as it is: without control characters, and all of it in stdout's encoding."""
    if harmless(line) != line:
        return False
    try:
        line.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
