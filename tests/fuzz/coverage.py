"""`python -m tests.fuzz.coverage TARGET [--seconds N]`: atheris looks for bytes that reach new lines of our checks.

Only our Python is watched; the native libraries behind it are run, not watched. It begins with the seeds and keeps what
it finds in `--corpus`; a finding ends it with an exit status that is not 0, and is kept as `crash-*` in that folder.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

TARGETS = ("model", "video", "picture", "dataset", "weights")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=[*TARGETS, "raw"])
    parser.add_argument("--seconds", type=int, default=60, help="how long (default: 60)")
    parser.add_argument("--corpus", type=Path, help="folder to keep what was found (default: a temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.corpus or Path(scratch) / "corpus"
        folder.mkdir(parents=True, exist_ok=True)
        _write_seeds(args.target, folder, Path(scratch))
        with atheris.instrument_imports(include=["edge_seg", "train"]):
            from edge_seg.errors import EdgeSegError
            from tests.fuzz.targets import TARGETS as EVERY
            from tests.fuzz.worker import import_everything

            import_everything()
        target, path = EVERY[args.target], Path(scratch) / "case"

        def one_input(data: bytes) -> None:
            path.write_bytes(data)
            with contextlib.suppress(EdgeSegError):
                target(path)

        limits = [f"-max_total_time={args.seconds}", "-timeout=30", "-rss_limit_mb=2000", "-max_len=200000"]
        atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={folder}/", str(folder)], one_input)
        atheris.Fuzz()


def _write_seeds(target: str, folder: Path, scratch: Path) -> None:
    from tests.fuzz import seeds

    for index, data in enumerate(seeds.of(target, scratch)):
        (folder / f"seed-{index}").write_bytes(data)


if __name__ == "__main__":
    main()
