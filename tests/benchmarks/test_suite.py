"""One batch size over real worker processes with fake contenders: failures become rows, the others go on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.cases import REFERENCE
from benchmarks.suite import measure_batch

from .conftest import fake_contender


@pytest.fixture
def quiet():
    return lambda _: None


def test_failures_are_rows_and_the_rest_goes_on(make_work, start_fake, quiet):
    work = make_work(
        fake_contender("works"),
        fake_contender("raises"),
        fake_contender("dies-loading"),
        fake_contender("dies-later"),
        fake_contender("wrong-ids"),
        fake_contender("no-device", optional=True),
    )
    rows = {row.name: row for row in measure_batch(work, 2, say=quiet, start=start_fake).rows}
    assert {name: row.status for name, row in rows.items()} == {
        REFERENCE: "ok",
        "works": "ok",
        "raises": "failed",
        "dies-loading": "failed",
        "dies-later": "failed",
        "wrong-ids": "failed",
        "no-device": "skipped",
    }
    assert "exit code 4" in rows["dies-later"].reason
    assert "prediction has ids" in rows["wrong-ids"].reason
    assert rows["raises"].ms_median is None
    good = rows["works"]
    assert (good.mean_iou, good.agreement) == (1.0, 1.0)
    assert good.detail == "a fake"
    # Six frames a turn in batches of two, three rounds.
    assert (good.calls, len(good.repeats_ms)) == (9, 3)
    assert good.ratio > 0
    assert (good.ratio_low, good.ratio_high) == (None, None), "three rounds have no quartiles"


def test_five_rounds_have_quartiles(make_work, start_fake, quiet):
    work = replace(make_work(fake_contender("works")), repeats=5)
    good = measure_batch(work, 2, say=quiet, start=start_fake).rows[1]
    assert good.ratio_low <= good.ratio <= good.ratio_high


def test_a_device_asked_for_by_name_fails_instead_of_being_skipped(make_work, start_fake, quiet):
    rows = measure_batch(make_work(fake_contender("no-device")), 1, say=quiet, start=start_fake).rows
    assert rows[1].status == "failed"
    assert "no such device" in rows[1].reason


def test_without_the_reference_there_is_no_ratio(make_work, start_fake, quiet):
    work = make_work(fake_contender("works"))
    broken = replace(work, contenders=(replace(fake_contender("raises"), name=REFERENCE), *work.contenders[1:]))
    first, second = measure_batch(broken, 1, say=quiet, start=start_fake).rows
    assert first.status == "failed"
    assert second.status == "ok"
    assert (second.ratio, second.agreement) == (None, None)
    assert second.mean_iou == 1.0
