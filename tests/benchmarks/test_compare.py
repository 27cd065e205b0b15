"""Like runs are compared, unlike ones refused with every difference named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.compare import compare, render_comparison
from edge_seg.errors import ConfigurationError


def scaled(result, factor):
    rows = tuple(
        replace(row, ms_median=row.ms_median * factor, repeats_ms=tuple(ms * factor for ms in row.repeats_ms))
        if row.status == "ok"
        else row
        for row in result.rows
    )
    clip_rows = tuple(
        replace(row, frames_per_s=row.frames_per_s / factor, repeats_fps=tuple(fps / factor for fps in row.repeats_fps))
        for row in result.clip_rows
    )
    return replace(result, rows=rows, clip_rows=clip_rows)


@pytest.mark.parametrize(("factor", "verdict"), [(0.5, "faster"), (2.0, "slower"), (1.0, "no difference")])
def test_changes_point_the_right_way(result, factor, verdict):
    found = compare(result, scaled(result, factor))
    assert {change.verdict for change in (*found.changes, *found.clip_changes)} == {verdict}
    assert found.changes[0].speed.median == pytest.approx(1 / factor, rel=0.02)
    assert found.clip_changes[0].speed.median == pytest.approx(1 / factor, rel=0.02)


def test_a_small_change_within_the_spread_is_no_difference(result):
    assert {change.verdict for change in compare(result, scaled(result, 0.999)).changes} == {"no difference"}


def test_only_contenders_that_ran_in_both_are_compared(result):
    found = compare(result, replace(result, rows=result.rows[:2]))
    assert [(change.name, change.batch) for change in found.changes] == [
        ("Keras predict", 1),
        ("edge_seg cpu int8", 1),
    ]
    assert any(note.startswith("only in one of the two: edge_seg cpu int8, batch 4") for note in found.notes)


@pytest.mark.parametrize(
    ("part", "key", "value", "named"),
    [
        ("environment", "cpu", "Other CPU", "processor: Test CPU against Other CPU"),
        ("environment", "cores", 8, "usable cores: 2 against 8"),
        ("environment", "gpus", ["H200"], "GPUs: none against H200"),
        ("data", "digest", "e", "data: "),
        ("data", "frames", 6, "data: "),
        ("settings", "batch_sizes", [1], "batch sizes: 1 4 against 1"),
        ("settings", "frames", 4, "frames a repeat"),
        ("settings", "size", [352, 480], "input size"),
        ("clip", "digest", "other", "clip: "),
    ],
)
def test_unlike_runs_are_refused_by_name(result, part, key, value, named):
    other = replace(result, **{part: {**getattr(result, part), key: value}})
    with pytest.raises(ConfigurationError, match="cannot be compared") as caught:
        compare(result, other)
    assert named in str(caught.value)
    assert caught.value.exit_code == 2


def test_what_differs_without_harm_is_noted(result):
    other = replace(
        result,
        environment={**result.environment, "packages": {"numpy": "2.1"}, "revision": "def"},
        models=[{**result.models[0], "digest": "2"}],
        noisy=True,
    )
    text = render_comparison(compare(result, other))
    for part in (
        "numpy: 2.0 -> 2.1",
        "revision: abc -> def",
        "the int8 model is another file",
        "the second run was a noisy",
    ):
        assert part in text


def test_nothing_in_common_is_refused(result):
    with pytest.raises(ConfigurationError, match="no contender in common"):
        compare(result, replace(result, rows=(), clip_rows=()))
