"""`python -m benchmarks`: errors as one line, a package that is missing among them. The commands: commands.py."""

from __future__ import annotations

from collections.abc import Sequence

from edge_seg.console import answer, complain
from edge_seg.signals import asked_twice, interrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 all done, 1 something failed, 2 the call was wrong."""
    return answer(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        # SIGTERM too ends the workers, and takes the temporary folders along.
        with asked_twice(interrupt, last_words="error: stopped at once."):
            from .commands import run_command

            return run_command(arguments)
    except ModuleNotFoundError as error:
        complain(f"{error.name} is not installed; from the clone: pip install -e '.[bench]'")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
