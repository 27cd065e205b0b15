"""Spoiled models and media in child processes: each ends by a typed error or a good result, within 5 s and 1 GB.

The small budget is the same cases each time, and so is the larger one that `-m ""` adds, unless EDGE_SEG_FUZZ=new asks
for new ones: a change is judged by what it changed. Hypothesis prints the line that brings a failing example back.
`python -m tests.fuzz.coverage` goes on from there for as long as you like.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz import mutations, seeds
from tests.fuzz.child import BYTES, Child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and measures by Linux' /proc")


def corpus(target: str, folder: Path) -> Any:
    """The strategy of a target's cases, and good cases among its seeds."""
    good = seeds.of(target, folder)
    if target == "model":
        return mutations.spoiled_model(good)
    edits = {"video": mutations.VIDEO_EDITS, "weights": None}.get(target, mutations.PICTURE_EDITS)
    return mutations.spoiled(good, edits)


@pytest.fixture
def child(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Child]:
    with Child(request.param, tmp_path) as made:
        yield made


def hammer(child: Child, cases: Any, *, budget: int, derandomize: bool) -> Counter[str]:
    """Hand `budget` cases over; fails with the first that is a finding. Returns how the cases ended."""
    ends: Counter[str] = Counter()
    # Without the shrinking of hypothesis a failure is told at once; the case itself is kept in the folder of the test.
    phases = (Phase.explicit, Phase.generate)

    @settings(
        max_examples=budget,
        deadline=None,
        derandomize=derandomize,
        print_blob=True,
        phases=phases,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def run(case: bytes) -> None:
        outcome = child.run(case)
        ends[outcome.outcome] += 1
        finding = outcome.finding()
        if finding:
            kept = child.folder / f"finding-{child.target}"
            kept.write_bytes(case)
            pytest.fail(f"{finding}\nkept as {kept}")

    run()
    return ends


@pytest.mark.parametrize(
    ("child", "budget"),
    [("model", 60), ("video", 40), ("picture", 80), ("dataset", 60), ("weights", 60)],
    indirect=["child"],
)
def test_a_small_budget_of_the_same_cases(child: Child, budget: int) -> None:
    ends = hammer(child, corpus(child.target, child.folder), budget=budget, derandomize=True)
    assert len(ends) > 1, f"cases that all end alike reach nothing: {ends}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("child", "budget"),
    [("model", 600), ("video", 300), ("picture", 800), ("dataset", 600), ("weights", 600)],
    indirect=["child"],
)
def test_a_larger_budget(child: Child, budget: int) -> None:
    same = os.environ.get("EDGE_SEG_FUZZ") != "new"
    ends = hammer(child, corpus(child.target, child.folder), budget=budget, derandomize=same)
    print(child.target, dict(ends))
    assert ends["good"] > budget // 100, f"cases that are all refused reach nothing deep: {ends}"


@pytest.mark.parametrize("child", ["model", "video", "picture", "dataset", "weights"], indirect=True)
def test_the_seeds_themselves_are_good(child: Child) -> None:
    good = seeds.of(child.target, child.folder)
    ends = Counter(child.run(case).outcome for case in good)
    # WebP is for `predict` alone and TIFF for training alone; a colour picture is no mask.
    assert ends["good"] >= (3 if child.target == "dataset" else len(good) - 2 * (child.target == "picture")), ends


@pytest.mark.parametrize(
    ("child", "words", "limit"),
    [
        ("crash", "crash: exit status -11", None),
        ("hang", "hang: no answer", ("HUNG_S", 1.0)),
        ("spin", "0.5 s of processor time", ("SECONDS", 0.3)),
        ("hoard", "MB of memory", ("BYTES", 450_000_000)),
        ("raw", "ZeroDivisionError: planted", None),
    ],
    indirect=["child"],
)
def test_the_harness_sees_what_is_planted(child: Child, words: str, limit: Any, monkeypatch: Any) -> None:
    if limit:
        monkeypatch.setattr(f"tests.fuzz.child.{limit[0]}", limit[1])
    with pytest.raises(pytest.fail.Exception, match=words):
        hammer(child, st.just(b"anything"), budget=1, derandomize=True)
    assert (child.folder / f"finding-{child.target}").read_bytes() == b"anything"
    # A new child is made for the next case.
    if child.target in ("crash", "raw"):
        assert words in child.run(b"more").finding()


@pytest.mark.parametrize("child", ["fine"], indirect=True)
def test_one_child_handles_case_after_case(child: Child) -> None:
    outcomes = [child.run(case) for case in (b"refused", b"", b"x" * 10**6, b"refused")]
    assert [outcome.outcome for outcome in outcomes] == ["MediaError", "good", "good", "MediaError"]
    assert not any(outcome.finding() for outcome in outcomes)
    assert 0 < outcomes[0].peak_bytes < BYTES
