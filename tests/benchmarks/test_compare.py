"""Like runs are compared, unlike ones refused with every difference named."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks import __main__ as command
from benchmarks.cases import NAIVE, REFERENCE
from benchmarks.compare import compare, render_comparison
from edge_seg.console import harmless
from edge_seg.errors import ConfigurationError


def scaled(result, factor, *, machine=1.0):
    """As if edge_seg's code took `factor` times as long, and the machine `machine` times as long for everything."""

    def times(row):
        return machine * (factor if row.name.startswith("edge_seg") else 1.0)

    rows = tuple(
        replace(row, ms_median=row.ms_median * times(row), repeats_ms=tuple(ms * times(row) for ms in row.repeats_ms))
        if row.status == "ok"
        else row
        for row in result.rows
    )
    clip_rows = tuple(
        replace(
            row,
            frames_per_s=row.frames_per_s / times(row),
            repeats_fps=tuple(fps / times(row) for fps in row.repeats_fps),
        )
        for row in result.clip_rows
    )
    return replace(result, rows=rows, clip_rows=clip_rows)


def of_edge_seg(changes):
    return [change for change in changes if change.name.startswith("edge_seg")]


@pytest.mark.parametrize(("factor", "verdict"), [(0.5, "faster"), (2.0, "slower"), (1.0, "no difference")])
def test_changes_point_the_right_way(result, factor, verdict):
    found = compare(result, scaled(result, factor))
    changes = of_edge_seg(found.changes)
    assert {change.verdict for change in (*changes, *found.clip_changes)} == {verdict}
    assert changes[0].speed.median == pytest.approx(1 / factor, rel=0.02)
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
        ("environment", "cpu_features", ["avx512f", "avx512_vnni"], "Test CPU against Test CPU (AVX-512, VNNI)"),
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
        compare(result, other, other_models=True)
    assert named in str(caught.value)
    assert caught.value.exit_code == 2


def test_what_differs_without_harm_is_noted(result):
    other = replace(
        result,
        environment={**result.environment, "packages": {"numpy": "2.1"}, "revision": "def"},
        models=[{**result.models[0], "digest": "2"}],
        noisy=True,
    )
    text = render_comparison(compare(result, other, other_models=True))
    for part in (
        "numpy: 2.0 -> 2.1",
        "revision: abc -> def",
        "the int8 model is another file",
        "the second run was a noisy",
    ):
        assert part in text


def test_another_model_is_refused_unless_asked_for(result):
    other = replace(result, models=[{**result.models[0], "digest": "2"}])
    with pytest.raises(ConfigurationError, match=r"model int8: 1 against 2.*--other-models") as caught:
        compare(result, other)
    assert caught.value.exit_code == 2
    assert compare(result, other, other_models=True).losses == []


def one_row(result, name, **changes):
    rows = tuple(replace(row, **changes) if (row.name, row.batch) == (name, 4) else row for row in result.rows)
    return replace(result, rows=rows)


def test_a_planted_slowdown_of_one_row_is_a_loss(result):
    slower = one_row(result, "edge_seg cpu int8", ms_median=22.0, repeats_ms=(21.9, 22.0, 22.1))
    assert compare(result, slower).losses == [
        "LOSS: edge_seg cpu int8, batch 4: 0.91 times as fast, beyond the noise of 3 %"
    ]
    assert compare(slower, result).losses == []
    assert "LOSS: edge_seg" in render_comparison(compare(result, slower))


def test_a_slowdown_within_the_noise_is_no_loss(result):
    slower = {"ms_median": 22.0, "repeats_ms": (21.0, 22.0, 23.0)}
    assert compare(result, one_row(result, "edge_seg cpu int8", spread=0.12, **slower)).losses == []
    assert compare(result, one_row(result, "edge_seg cpu int8", spread=0.05, **slower)).losses != []
    assert compare(result, one_row(result, "edge_seg cpu int8", ms_median=20.4, repeats_ms=(20.4,) * 3)).losses == []


@pytest.mark.parametrize("factor", [3.0, 100.0])
def test_a_slowdown_is_seen_however_widely_the_repeats_spread(result, factor):
    """As a speed-up of the same size is: a spread above the median leaves no speed below 1 - noise."""
    wide = (20.0, 46.0, 79.0)
    noisy = {"spread": (79.0 - 20.0) / 46.0}
    rows = tuple(replace(row, ms_median=46.0, repeats_ms=wide, **noisy) for row in result.rows if row.status == "ok")
    clip_rows = tuple(replace(row, frames_per_s=46.0, repeats_fps=wide, **noisy) for row in result.clip_rows)
    before = replace(result, rows=rows, clip_rows=clip_rows)
    found = compare(before, scaled(before, factor))
    changes = (*of_edge_seg(found.changes), *found.clip_changes)
    assert {(change.verdict, change.losses) for change in changes} == {("slower", ("speed",))}
    back = compare(scaled(before, factor), before)
    assert {change.verdict for change in (*of_edge_seg(back.changes), *back.clip_changes)} == {"faster"}
    assert back.losses == []


def with_naive_loop(result):
    return replace(result, clip_rows=(replace(result.clip_rows[0], name=NAIVE), *result.clip_rows))


@pytest.mark.parametrize("machine", [1.3, 0.7])
def test_a_machines_own_change_of_speed_is_no_loss_and_hides_none(result, machine):
    before = with_naive_loop(result)
    alike = compare(before, scaled(before, 1.0, machine=machine))
    assert alike.losses == []
    assert {change.verdict for change in (*alike.changes, *alike.clip_changes)} == {"no difference"}
    told = f"itself was {max(machine, 1 / machine):.2f} times {'slower' if machine > 1 else 'faster'}"
    assert [told in note for note in alike.notes] == [True, True]
    assert alike.changes[0].after == pytest.approx(machine * alike.changes[0].before)
    slower = compare(before, scaled(before, 1.2, machine=machine))
    assert [loss.partition(" times")[0][-4:] for loss in slower.losses] == ["0.83"] * 3


@pytest.mark.parametrize("change", [{"packages": {"numpy": "2.1"}}, {"python": "3.13"}], ids=["packages", "python"])
def test_yardsticks_of_other_packages_measure_no_machine(result, change):
    """What slowed the others may be their own doing."""
    after = scaled(result, 1.0, machine=1.3)
    found = compare(result, replace(after, environment={**result.environment, **change}))
    assert found.drift == 1.0
    assert len(found.losses) == 5
    own = {"packages": {"numpy": "2.0", "edge-seg": "9"}}
    assert compare(result, replace(after, environment={**result.environment, **own})).drift == pytest.approx(1 / 1.3)


def test_a_gpus_rows_are_judged_by_the_clock_alone(result):
    rows = tuple(replace(row, device="cuda:0") if row.kind == "session" else row for row in result.rows)
    before = replace(result, rows=rows, clip_rows=())
    changes = of_edge_seg(compare(before, scaled(before, 1.0, machine=1.3)).changes)
    assert [change.speed.median for change in changes] == [pytest.approx(1 / 1.3, rel=0.02)] * 2


@pytest.mark.parametrize(("points", "lost"), [(-0.2, True), (-0.04, False), (0.2, False)])
def test_a_planted_loss_of_accuracy_is_a_loss_at_any_speed(result, points, lost):
    worse = one_row(scaled(result, 0.5), "edge_seg cpu int8", mean_iou=0.579 + points / 100)
    found = compare(result, worse)
    assert bool(found.losses) is lost
    assert [change.losses for change in found.changes if change.losses] == ([("mean IoU",)] if lost else [])


def test_a_slower_clip_is_a_loss(result):
    clip_rows = tuple(replace(row, frames_per_s=30.0, repeats_fps=(29.9, 30.0, 30.1)) for row in result.clip_rows)
    (loss,) = compare(result, replace(result, clip_rows=clip_rows)).losses
    assert loss.startswith("LOSS: edge_seg cpu int8, batch 1, end to end: 0.75 times as fast")


def test_what_ran_and_fails_now_is_a_loss(result):
    broken = one_row(result, "edge_seg cpu int8", status="failed", reason="planted")
    assert compare(result, broken).losses == ["LOSS: edge_seg cpu int8, batch 4 ran before and failed now"]
    assert compare(broken, result).losses == []


def test_nothing_in_common_is_refused(result):
    with pytest.raises(ConfigurationError, match="no contender in common"):
        compare(result, replace(result, rows=(), clip_rows=()))


def test_a_device_that_is_gone_is_a_loss_and_a_peer_that_is_not_installed_is_none(result):
    gone = {"status": "skipped", "reason": "planted"}
    assert compare(result, one_row(result, "edge_seg cpu int8", **gone)).losses == [
        "LOSS: edge_seg cpu int8, batch 4 ran before and was skipped now"
    ]
    peer = one_row(result, "edge_seg cpu int8", kind="openvino")
    found = compare(peer, one_row(peer, "edge_seg cpu int8", **gone))
    assert found.losses == []
    assert "only in one of the two: edge_seg cpu int8, batch 4" in found.notes


def test_a_clip_that_fails_is_told_from_the_row_of_its_name(result):
    failed = tuple(replace(row, status="failed", reason="planted") for row in result.clip_rows)
    found = compare(result, replace(result, clip_rows=failed))
    assert found.losses == ["LOSS: edge_seg cpu int8, batch 1, end to end ran before and failed now"]
    assert found.notes == ("only in one of the two: edge_seg cpu int8, batch 1, end to end",)


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({"agreement": 0.998}, "agreement -0.10 points, beyond 0.05"),
        ({"agreement": None}, "agreement is no number any more"),
        ({"mean_iou": None}, "mean IoU is no number any more"),
    ],
)
def test_labels_that_changed_are_a_loss_though_nothing_has_a_truth(result, change, lost):
    before = one_row(result, "edge_seg cpu int8", agreement=0.999)
    after = one_row(result, "edge_seg cpu int8", **{"agreement": 0.999, **change})
    assert compare(before, after).losses == [f"LOSS: edge_seg cpu int8, batch 4: {lost}"]
    assert compare(after, before).losses == []


def test_one_or_two_repeats_are_judged_by_nobody(result):
    """Their spread is not known."""
    slower = one_row(result, "edge_seg cpu int8", ms_median=40.0, repeats_ms=(40.0, 40.1))
    found = compare(result, slower)
    assert found.losses == []
    assert [change.verdict for change in found.changes if change.batch == 4 and "int8" in change.name] == [
        "too few repeats"
    ]


def test_a_models_row_that_is_not_there_is_a_loss(result):
    named = replace(
        result, rows=tuple(replace(row, model="1") if row.kind == "session" else row for row in result.rows)
    )
    gone = replace(named, rows=tuple(row for row in named.rows if row.name != "edge_seg cpu int8"))
    assert compare(named, gone).losses == [
        f"LOSS: edge_seg cpu int8, batch {batch} ran before and took no part now" for batch in (1, 4)
    ]
    assert compare(named, replace(gone, models=[])).losses == [], "the model took no part at all"
    elsewhere = replace(gone, settings={**gone.settings, "devices": ["cuda:0"]})
    assert compare(named, elsewhere).losses == [], "it was asked for on another device"


def test_a_reference_that_is_gone_is_one_loss(result):
    before = one_row(result, "edge_seg cpu int8", agreement=0.999)
    rows = tuple(
        replace(row, status="failed", reason="planted") if row.name == REFERENCE else replace(row, agreement=None)
        for row in before.rows
    )
    assert compare(before, replace(before, rows=rows)).losses == [
        f"LOSS: {REFERENCE}, batch {batch} ran before and failed now" for batch in (1, 4)
    ]


def test_names_of_a_result_cannot_command_the_terminal(result, tmp_path, capsys):
    values = json.loads(result.to_json())
    for row in values["rows"] + values["clip_rows"]:
        row["name"] += "\x1b]0;PWNED\x07\nLOSS: forged"
    values["environment"]["packages"]["evil\x1b[2J"] = "1"
    before, after = tmp_path / "a.json", tmp_path / "b.json"
    before.write_text(json.dumps(values))
    values["environment"]["revision"] = "x\x9b2J"
    values["environment"]["packages"]["evil\x1b[2J"] = "2"
    after.write_text(json.dumps(values))
    assert command.main(["compare", str(before), str(after)]) == 0
    out = capsys.readouterr().out
    assert all(line == harmless(line) for line in out.splitlines())
    assert "\nLOSS" not in out
    for part in ("Keras predict?]0;PWNED??LOSS: forged", "evil?[2J: 1 -> 2", "-> x?2J"):
        assert part in out


@pytest.mark.parametrize("text", ["[" * 100_000, "no JSON"], ids=["deep", "words"])
def test_a_damaged_result_is_a_wrong_call_and_no_loss(result, text, tmp_path, capsys):
    (tmp_path / "a.json").write_text(result.to_json())
    (tmp_path / "b.json").write_text(text)
    assert command.main(["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "b.json is not a benchmark's results.json" in line
