"""How times are measured and summarized: rounds in which contenders take turns, medians, ratios, spreads, noise.

Knows nothing of models, processes or files: a contender is a function that returns the seconds of each of its calls
in one turn. Everything but `interleave` is arithmetic on measured numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from edge_seg.errors import ConfigurationError

# A run is noisy if the repeats of a contender spread by more than this share of their median.
NOISE_BOUND = 0.10
# Fewest repeats that have quartiles: those of three values are half their range, that of one is no spread at all.
QUARTILES_FROM = 5
# A run is noisy if other programs keep more than this share of the usable cores busy.
OTHERS_BOUND = 0.10
Key = TypeVar("Key")


@dataclass(frozen=True)
class Summary:
    """The times of one contender at one batch size.

    Attributes:
        ms_median, ms_p95: milliseconds a frame, over all calls of all repeats.
        frames_per_s: 1000 / ms_median.
        spread: how far the repeats' own medians lie apart, see `relative_spread`.
        repeats_ms: median milliseconds a frame of each repeat, in the order they ran.
        calls: number of calls timed.
    """

    ms_median: float
    ms_p95: float
    frames_per_s: float
    spread: float | None
    repeats_ms: tuple[float, ...]
    calls: int


@dataclass(frozen=True)
class Ratio:
    """How many times faster than another: the median, and the quartiles as its spread."""

    median: float
    low: float
    high: float


def interleave(
    turns: Mapping[Key, Callable[[], Sequence[float]]],
    repeats: int,
    *,
    failed: Callable[[Key, Exception], None],
    after_round: Callable[[int], None] = lambda _: None,
) -> dict[Key, list[tuple[float, ...]]]:
    """Give every contender one turn a round, for `repeats` rounds.

    Each round begins with another contender, and none always runs after the same one. If a turn raises, `failed` is
    called, and that contender is left out of the following rounds.

    Returns:
        For each contender the seconds of each call, in one tuple for each repeat.
    """
    times: dict[Key, list[tuple[float, ...]]] = {key: [] for key in turns}
    alive = list(turns)
    for index in range(repeats):
        for key in [alive[place] for place in turn_order(len(alive), index)]:
            try:
                times[key].append(tuple(turns[key]()))
            except Exception as error:
                alive.remove(key)
                failed(key, error)
        after_round(index)
    return times


def turn_order(count: int, number: int) -> list[int]:
    """The order of `count` contenders in round `number`, a row of a Williams square: over all rows each comes first
    once and follows each other one once (twice, over twice as many rows, if `count` is odd)."""
    zigzag = [place // 2 + 1 if place % 2 else (count - place // 2) % count for place in range(count)]
    row = [(place + number) % count for place in zigzag]
    return row[::-1] if count % 2 and number // count % 2 else row


def summarize(repeats: Sequence[Sequence[float]], batch: int) -> Summary:
    """Summarize seconds a call (a sequence for each repeat, each call of `batch` frames) as milliseconds a frame."""
    if not repeats or not all(len(calls) for calls in repeats):
        raise ConfigurationError("A summary needs at least one repeat of at least one call.")
    per_frame = [np.asarray(calls, np.float64) * 1000.0 / batch for calls in repeats]
    medians = [float(np.median(calls)) for calls in per_frame]
    everything = np.concatenate(per_frame)
    median = float(np.median(everything))
    return Summary(
        ms_median=median,
        ms_p95=float(np.percentile(everything, 95)),
        frames_per_s=1000.0 / median,
        spread=relative_spread(medians),
        repeats_ms=tuple(medians),
        calls=len(everything),
    )


def relative_spread(values: Sequence[float]) -> float | None:
    """Interquartile range over median, which a single outlier does not affect; with fewer than `QUARTILES_FROM` values
    their whole range over median, of which quartiles would show only a part; None for one value.
    """
    if len(values) < 2:
        return None
    ends = (25, 50, 75) if len(values) >= QUARTILES_FROM else (0, 50, 100)
    low, middle, high = np.percentile(np.asarray(values, np.float64), ends)
    return float((high - low) / middle) if middle else 0.0


def is_noisy(spread: float | None, others_cores: float | None, cores: int) -> bool:
    """Whether repeats lie too far apart, or other programs computed too much meanwhile; None counts as neither."""
    return (spread or 0.0) > NOISE_BOUND or (others_cores or 0.0) > OTHERS_BOUND * cores


def ratio(reference_ms: Sequence[float], ms: Sequence[float]) -> Ratio | None:
    """How many times faster `ms` is than `reference_ms`, compared within each round; None without a common round.

    What slows the machine for a whole round slows both, and does not change their ratio.
    """
    rounds = [slow / fast for slow, fast in zip(reference_ms, ms, strict=False)]
    if not rounds:
        return None
    low, median, high = np.percentile(rounds, (25, 50, 75))
    return Ratio(float(median), float(low), float(high))


def ratio_between_runs(before_ms: Sequence[float], after_ms: Sequence[float]) -> Ratio:
    """How many times faster `after_ms` is than `before_ms`, measured in different runs.

    Rounds of different runs do not correspond, so every pair of repeats counts.
    """
    pairs = np.divide.outer(np.asarray(before_ms, np.float64), np.asarray(after_ms, np.float64))
    low, median, high = np.percentile(pairs, (25, 50, 75))
    return Ratio(float(median), float(low), float(high))
