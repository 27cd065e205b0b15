"""What the command lines share: a parser whose errors are one line, like every other error, and argument types.

`train`, `export` and `benchmarks` use it too. Imports nothing heavy.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from . import BUNDLED_MODELS, bundled_model


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that reports an error in one line, without the usage, and accepts no abbreviated options; its
    sub-parsers do the same."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **given})
        self._given: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, and keep the arguments for `error`."""
        self._given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print the message in one line and exit with 2: the call was wrong."""
        # An existing file whose name begins with "-" was taken for an option.
        dashed = next((text for text in self._given if text[:1] == "-" and os.path.exists(text)), "")
        hint = f" A file of such a name is written ./{dashed}." if dashed else ""
        called = f"{self.prog} {self._command()}".rstrip()
        self.exit(2, f"error: {message.removeprefix('argument ').rstrip('.')}.{hint} Help: {called} --help\n")

    def _command(self) -> str:
        """The sub-command that was given, or "": its unknown arguments are reported by the parent parser."""
        known = (action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction))
        return self._given[0] if self._given and any(self._given[0] in choices for choices in known) else ""


def name(text: str) -> str:
    """The name of a file or folder, not empty: "" would silently mean the default or the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("expected a name, got none (a variable that is not set?)")
    if "://" in text and not os.path.exists(text):
        raise argparse.ArgumentTypeError("expected a file or folder of this machine; got an address")
    return text


def model_named(text: str | None) -> Path:
    """The file that MODEL names: a path, or the bundled "best" (the default) or "fast" unless a file has that name."""
    text = text or "best"
    return bundled_model(text) if text in BUNDLED_MODELS and not os.path.exists(text) else Path(text)


def positive(text: str) -> int:
    """A whole number above zero."""
    if not text.strip().isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0; got {text!r}")
    return int(text)


def number(text: str, lowest: float, highest: float) -> float:
    """A number from `lowest` to `highest`, both included."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not lowest <= value <= highest:
        raise argparse.ArgumentTypeError(f"expected a number from {lowest:g} to {highest:g}; got {text!r}")
    return value
