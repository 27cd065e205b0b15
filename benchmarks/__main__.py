"""`python -m benchmarks`: reports errors, even a missing package, in one line. The commands are in commands.py."""

from __future__ import annotations

from collections.abc import Sequence

from edge_seg.console import answer, complain
from edge_seg.signals import asked_twice, interrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 all done, 1 something failed, 2 wrong usage."""
    return answer(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        # So that SIGTERM too ends the workers and removes the temporary folders.
        with asked_twice(interrupt, last_words="error: stopped at once."):
            from .commands import run_command

            return run_command(arguments)
    except ModuleNotFoundError as error:
        complain(f"{error.name} is not installed; from the clone: pip install -e '.[bench]'")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
