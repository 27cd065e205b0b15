"""How much faster or slower the machine itself was in the second of two runs.

Told by the contenders that no change of edge_seg's code reaches: with the same packages and weights, what slowed them
slowed all. Knows only results.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from .cases import NAIVE
from .measure import Ratio, ratio_between_runs
from .rows import ClipRow, Result, Row

# Two runs of one program on a quiet machine differ by up to this share of their time, however steady each is.
SPEED_NOISE = 0.03
# With fewer repeats their spread is unknown.
LEAST_REPEATS = 3
# Kinds of contender that run edge_seg's own code, or not on the processor alone.
_NO_YARDSTICK = ("session", "cuda-bound")


def noise_of(before: Row | ClipRow, after: Row | ClipRow) -> float:
    """Share of the time that counts as noise: the wider spread of the two rows, at least `SPEED_NOISE`."""
    return max(SPEED_NOISE, before.spread or 0.0, after.spread or 0.0)


def within(speed: float, noise: float) -> bool:
    """Whether noise alone may have made either run so much faster. A ratio both ways: no speed is below 1 - noise where
    repeats spread by their whole median."""
    return 1.0 / (1.0 + noise) <= speed <= 1.0 + noise


def row_speed(before: Row, after: Row) -> Ratio:
    """How many times faster a contender became, by the clock."""
    return ratio_between_runs(before.repeats_ms, after.repeats_ms)


def clip_speed(before: ClipRow, after: ClipRow) -> Ratio:
    """How many times faster a contender became on the clip; frames/s, not time: the faster one has more."""
    return ratio_between_runs(after.repeats_fps, before.repeats_fps)


def drift_of_rows(before: Result, after: Result, pairs: Sequence[tuple[Row, Row]]) -> float:
    """How many times faster the processor was in the second run, 1 within the noise: the median over the yardsticks.

    Args:
        before, after: the two results.
        pairs: each contender's rows, where it ran in both.
    """
    told = [
        (row_speed(old, new).median, noise_of(old, new))
        for old, new in pairs
        if old.kind not in _NO_YARDSTICK and old.device == new.device == "cpu" and old.model == new.model
        if min(len(old.repeats_ms), len(new.repeats_ms)) >= LEAST_REPEATS
    ]
    return _drift(before, after, told)


def drift_of_clips(before: Result, after: Result, pairs: Sequence[tuple[ClipRow, ClipRow]]) -> float:
    """The same while the clip ran, told by the naive loop."""
    told = [
        (clip_speed(old, new).median, noise_of(old, new))
        for old, new in pairs
        if old.name == NAIVE and old.model == new.model
        if min(len(old.repeats_fps), len(new.repeats_fps)) >= LEAST_REPEATS
    ]
    return _drift(before, after, told)


def _drift(before: Result, after: Result, told: list[tuple[float, float]]) -> float:
    if not told or _packages(before) != _packages(after):
        return 1.0
    speed, noise = (statistics.median(values) for values in zip(*told, strict=True))
    return 1.0 if within(speed, noise) else speed


def _packages(result: Result) -> dict[str, str]:
    """All but edge_seg's own, which no yardstick uses, and the Python that runs them."""
    packages = {name: version for name, version in result.environment["packages"].items() if name != "edge-seg"}
    return {**packages, "python": result.environment["python"]}
