"""Killed at any turn: what has a final name is whole, the old or the new. The killing is done by `killed.py`."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

KILLED = Path(__file__).with_name("killed.py")
# A new one each time, printed with every failure; EDGE_SEG_TEST_SEED repeats one.
SEED = int(os.environ.get("EDGE_SEG_TEST_SEED", random.SystemRandom().randrange(2**31)))
WORKS = ("picture", "table", "video", "predict", "checkpoint", "weights", "export")
# With Keras, which takes long to begin: all manners are tried in one process.
SLOW_TO_BEGIN = {
    "checkpoint": "order,calls,bytes,moments",
    "weights": "order,calls,bytes",
    "export": "order,calls,bytes",
}
Killed = Callable[[str, str], dict[str, Any]]
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, deadly signals and /proc")


def kill(work: str, manners: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Manner -> what was found; where it failed, that is under "failed"."""
    command = [sys.executable, str(KILLED), work, manners, str(folder), str(SEED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    print(f"{work} {manners} seed {SEED}: {done.stdout.strip()}")
    assert done.returncode == 0, done.stderr
    found = {one["manner"]: one for one in map(json.loads, done.stdout.splitlines())}
    for one in found.values():
        if "failed" in one:
            one["failed"] += done.stderr  # A child's own words.
    return found


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """A function of work and manner: what was found."""
    known: dict[str, dict[str, dict[str, Any]]] = {}

    def ask(work: str, manner: str) -> dict[str, Any]:
        found = known.setdefault(work, {})
        if manner not in found:
            found |= kill(work, SLOW_TO_BEGIN.get(work, manner), tmp_path_factory.mktemp(work))
        assert "failed" not in found[manner], found[manner]["failed"]
        return found[manner]

    return ask


@pytest.mark.parametrize("work", [*WORKS[:4], *(pytest.param(work, marks=pytest.mark.slow) for work in WORKS[4:])])
def test_what_is_renamed_was_synced_before_and_its_folder_after(killed: Killed, work: str) -> None:
    killed(work, "order")


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS)
def test_killed_at_each_sync_and_rename(killed: Killed, work: str) -> None:
    found = killed(work, "calls")
    assert found["deaths"] >= 6
    assert found["old"] >= 2
    assert found["new"] >= 2, "it was killed after the rename too"


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS)
def test_killed_in_the_middle_of_a_write(killed: Killed, work: str) -> None:
    assert killed(work, "bytes")["deaths"] >= 4


@pytest.mark.slow
@pytest.mark.parametrize("work", ["picture", "video", "predict", "checkpoint"])
def test_killed_at_random_moments(killed: Killed, work: str) -> None:
    assert killed(work, "moments")["deaths"] >= 3


@pytest.mark.slow
def test_killed_at_each_system_call_that_writes(tmp_path: Path) -> None:
    """Every write, in Python or in a C library, through the kernel's own fault injection."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    probe = subprocess.run([strace, "-qq", "-o", str(tmp_path / "trace"), "true"], capture_output=True)
    if probe.returncode:
        pytest.skip("this container may not trace")
    script = (
        "import sys; sys.path[:0] = [sys.argv[1]]; from pathlib import Path; from tests.killed import WORKS\n"
        "work = WORKS['video'](Path(sys.argv[2])); work.folder.mkdir(exist_ok=True)\n"
        "print(work.look()) if sys.argv[3] == 'look' else work.make(sys.argv[3])\n"
    )

    def run(action: str, *before: str) -> subprocess.CompletedProcess[str]:
        command = [*before, sys.executable, "-c", script, str(KILLED.parents[1]), str(tmp_path / "work"), action]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    log = tmp_path / "trace"
    traced = (strace, "-f", "-qq", "-o", str(log), "-e", "trace=write,pwrite64,rename,fsync,unlink")
    assert run("new", *traced).returncode == 0
    # Counted a thread, as strace counts them when it injects.
    turns = Counter(re.findall(r"^(\d+) +(\w+)\(", log.read_text(), re.MULTILINE))
    calls = [(call, number) for (_, call), count in turns.items() for number in range(1, count + 1)]
    draw = random.Random(SEED)
    deaths = 0
    for call, number in draw.sample(sorted(set(calls)), 6):
        assert run("old").returncode == 0
        done = run("new", *traced, "-e", f"inject={call}:signal=KILL:when={number}")
        deaths += done.returncode != 0
        looked = run("look")
        assert looked.stdout.strip() in ("old", "new"), (SEED, call, number, looked.stderr)
    assert deaths >= 3, (SEED, turns)


@pytest.mark.parametrize(
    ("manner", "complaint"), [("order", "was not synced|assert published"), ("bytes", "neither old nor new")]
)
def test_a_writer_without_care_is_found_out(tmp_path: Path, manner: str, complaint: str) -> None:
    said = kill("picture!", manner, tmp_path)[manner]["failed"]
    assert any(part in said for part in complaint.split("|")), said
