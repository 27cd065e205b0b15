"""Freed memory stays with a process that trains, and a user's own settings stand."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Takes and gives back 200 MB, and prints how many of them the system still counts.
PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from train.memory import keep_freed_memory
def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
said = keep_freed_memory() if {keep} else None
import numpy as np
before = resident_mb()
block = np.ones(200_000_000, np.uint8)
del block
print(said, round(resident_mb() - before))
"""
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def outcome(keep: bool, **environment: str) -> tuple[str, int]:
    """What the call said, and the megabytes that stayed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(root=ROOT, keep=keep)],
        env={**clean, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    said, stayed = done.stdout.split()
    return said, int(stayed)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_freed_memory_is_kept_where_the_c_library_can() -> None:
    assert outcome(keep=False)[1] < 50
    said, stayed = outcome(keep=True)
    if said == "False":
        pytest.skip("this C library has no mallopt")
    assert stayed > 150
    assert outcome(keep=True, MALLOC_ARENA_MAX="4")[0] == "False"
