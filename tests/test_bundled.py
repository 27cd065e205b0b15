"""`make bundled` trains what the model cards say, in their order, and goes on where it was stopped."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from train.__main__ import build_parser

ROOT = Path(__file__).parents[1]
KERNELS = "vgg19_imagenet_block1-3.npz"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


def make(*given: str) -> subprocess.CompletedProcess[str]:
    """`make bundled` as a shell would call it, also where these tests are run by `make test`."""
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(["make", "bundled", *given], cwd=ROOT, env=outside, capture_output=True, text=True)


def planned(runs: str | Path = "runs", *more: str) -> list[str]:
    """The commands that `make bundled` would run, without running any."""
    done = make("-n", "DATA=dataset1", f"KERNELS={KERNELS}", f"RUNS={runs}", *more)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if " -m train " in line]


def parsed(lines: list[str]) -> dict[str, argparse.Namespace]:
    """Commands by the name of the run that they make, in their order."""
    calls = [build_parser().parse_args(shlex.split(line.split(" -m train ")[1])) for line in lines]
    for call in calls:
        # How a run is computed and saved is the machine's affair and changes nothing that is learnt.
        for name in ("policy", "every"):
            vars(call).pop(name, None)
    return {Path(call.out).name: call for call in calls}


def on_the_cards() -> dict[str, argparse.Namespace]:
    text = "".join((ROOT / "docs" / name).read_text() for name in ("model_card.md", "model_card_fast.md"))
    lines = re.sub(r"\\\n\s+", "", text).splitlines()
    return parsed([line for line in lines if re.search(r"python -m train (fit|average) .*--out", line)])


def test_the_commands_are_those_of_the_cards() -> None:
    cards, plan = on_the_cards(), parsed(planned("runs", "CLIPS=clips"))
    assert len(cards) == 16
    assert list(plan) == list(cards)
    assert plan == cards


def test_a_run_comes_after_those_it_begins_from() -> None:
    made: set[Path] = set()
    for call in parsed(planned()).values():
        needed = [getattr(call, name, None) for name in ("start", "teacher", "first", "second")]
        assert {Path(run) for run in needed if run} <= made
        made.add(Path(call.out))
    assert not [line for line in planned() if "--unlabelled" in line], "no clips were given"


def test_what_is_finished_stays_and_what_was_stopped_goes_on(tmp_path: Path) -> None:
    for run, name in (("small", "model.weights.h5"), ("tuned", "checkpoint.npz")):
        (tmp_path / run).mkdir()
        (tmp_path / run / name).touch()
    lines = planned(tmp_path)
    assert "small" not in parsed(lines)
    assert [line.endswith("--resume") for line in lines] == [True] + [False] * 14


@pytest.mark.parametrize("given", [[], ["DATA=dataset1"], [f"KERNELS={KERNELS}"]])
def test_nothing_begins_without_data_and_kernels(given: list[str], tmp_path: Path) -> None:
    done = make(f"RUNS={tmp_path}", *given)
    assert done.returncode == 2
    assert done.stdout.startswith("error: make bundled needs DATA=")
    assert not list(tmp_path.iterdir())
