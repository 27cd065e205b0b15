"""Stage times in constant memory: exact means, medians and 95th percentiles of a random sample. Knows no pipeline."""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass

SAMPLE_SIZE = 4096


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """Milliseconds per frame in one stage, over `count` frames."""

    mean_ms: float
    median_ms: float
    p95_ms: float
    count: int


class Stopwatch:
    """Collects the seconds that one stage takes. One thread adds; any may read once that thread has ended."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._count = 0
        self._sample: list[float] = []
        self._random = random.Random(0)

    def add(self, seconds: float, *, frames: int = 1) -> None:
        """Record `seconds` spent on `frames` frames together."""
        for _ in range(frames):
            self._add_one(seconds / frames)

    def _add_one(self, seconds: float) -> None:
        self._sum += seconds
        self._count += 1
        if len(self._sample) < SAMPLE_SIZE:
            self._sample.append(seconds)
        elif (place := self._random.randrange(self._count)) < SAMPLE_SIZE:
            self._sample[place] = seconds

    def absorb(self, other: Stopwatch) -> None:
        """Add what another stopwatch collected; the mean stays exact, and each gets its share of the sample."""
        self._sum += other._sum
        self._count += other._count
        if len(self._sample) + len(other._sample) <= SAMPLE_SIZE:
            self._sample += other._sample
            return
        part = round(SAMPLE_SIZE * other._count / self._count)
        self._sample = self._random.sample(self._sample, SAMPLE_SIZE - part) + self._random.sample(other._sample, part)

    def summary(self) -> StageTime | None:
        """Statistics of what was collected, or None if nothing was."""
        if not self._count:
            return None
        ordered = sorted(self._sample)
        return StageTime(
            mean_ms=1000 * self._sum / self._count,
            median_ms=1000 * statistics.median(ordered),
            p95_ms=1000 * ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
            count=self._count,
        )
