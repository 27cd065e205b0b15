"""The arithmetic on numbers whose answer is known, and the order of turns. No clock is asserted on."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measure import interleave, is_noisy, ratio, ratio_between_runs, relative_spread, summarize, turn_order
from edge_seg.errors import ConfigurationError


def test_a_summary_is_per_frame_and_over_all_calls():
    summary = summarize([(0.4, 0.8), (0.4, 1.2)], batch=4)
    assert summary.ms_median == pytest.approx(150.0)
    assert summary.frames_per_s == pytest.approx(1000 / 150)
    assert summary.repeats_ms == pytest.approx((150.0, 200.0))
    assert summary.ms_p95 == pytest.approx(285.0)
    assert summary.calls == 4


@pytest.mark.parametrize("repeats", [[], [()], [(1.0,), ()]])
def test_a_summary_of_nothing_is_refused(repeats):
    with pytest.raises(ConfigurationError, match="at least one"):
        summarize(repeats, 1)


def test_ratios_survive_a_machine_that_slows_down():
    # The machine becomes ten times slower on the way: absolute times say nothing, the ratio stays exactly 4.
    slowdown = (1, 2, 5, 10)
    found = ratio([100 * s for s in slowdown], [25 * s for s in slowdown])
    assert found is not None
    assert (found.median, found.low, found.high) == pytest.approx((4, 4, 4))


def test_a_ratio_needs_a_common_round():
    assert ratio([], [1.0]) is None
    found = ratio([10.0, 20.0, 30.0], [10.0])
    assert found is not None
    assert found.median == 1.0


def test_the_ratio_between_runs_uses_every_pair():
    found = ratio_between_runs([10.0, 20.0], [10.0])
    assert found.median == pytest.approx(1.5)
    assert found.low < found.median < found.high


def test_spread_ignores_one_stray_repeat_and_sees_two_levels():
    assert relative_spread([10, 10, 10, 10, 90]) == 0
    assert relative_spread([10, 10, 20, 20]) > 0.5


@pytest.mark.parametrize("repeats", [[100, 100, 112], [100, 112], [100, 104, 106, 112]])
def test_too_few_repeats_for_quartiles_are_judged_by_their_whole_range(repeats):
    assert is_noisy(relative_spread(repeats), None, 2)


def test_one_repeat_has_no_spread():
    assert relative_spread([7]) is None
    assert summarize([(1.0, 2.0)], 1).spread is None


@given(st.lists(st.floats(0.1, 1e3), min_size=2, max_size=9), st.floats(0.01, 100))
def test_spread_does_not_depend_on_the_unit(values, unit):
    assert relative_spread([value * unit for value in values]) == pytest.approx(relative_spread(values), abs=1e-9)


def test_every_contender_has_one_turn_a_round():
    order = []
    turns = {name: (lambda name=name: order.append(name) or [1.0]) for name in "abcd"}
    times = interleave(turns, 3, failed=lambda *_: pytest.fail("none failed"))
    assert "".join(order) == "abdc" + "bcad" + "cdba"
    assert times == {name: [(1.0,)] * 3 for name in "abcd"}


@pytest.mark.parametrize("count", range(2, 13))
def test_each_begins_once_and_follows_each_other_one_alike(count):
    rounds = count if count % 2 == 0 else 2 * count
    orders = [turn_order(count, number) for number in range(rounds)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert len({order[0] for order in orders[:count]}) == count
    followed = [pair for order in orders for pair in itertools.pairwise(order)]
    assert len(set(followed)) == count * (count - 1)
    assert {followed.count(pair) for pair in set(followed)} == {rounds // count}


def test_a_failing_turn_ends_that_contender_alone():
    failures, count = {}, iter(range(99))

    def breaks():
        if next(count) == 1:
            raise RuntimeError("planted")
        return [2.0]

    times = interleave(
        {"good": lambda: [1.0], "bad": breaks}, 4, failed=lambda key, error: failures.update({key: str(error)})
    )
    assert failures == {"bad": "planted"}
    assert times == {"good": [(1.0,)] * 4, "bad": [(2.0,)]}
