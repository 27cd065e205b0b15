"""Time without frames within a source: how long, where, and if packets were damaged. Knows nothing about decoders."""

from __future__ import annotations

from .media import Frame, Gap, SourceEnd

LEAST_GAP_S, LEAST_GAP_FRAMES = 1.0, 10
BESIDE_S = 0.5


class GapWatch:
    """Compares each frame with the one before it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._hurt, self._hurt_at_s = 0, float("-inf")

    def note(self, before: Frame | None, frame: Frame, end: SourceEnd, *, hurt: int) -> None:
        """Keep the longest gap in `end`; `hurt` is how many packets and frames were damaged or lost so far."""
        beside = before is not None and before.time_s - self._hurt_at_s <= BESIDE_S
        damaged = beside or hurt > self._hurt
        if hurt > self._hurt:
            self._hurt, self._hurt_at_s = hurt, frame.time_s
        if before is None:
            return
        ends_s = before.time_s + float(before.duration * before.time_base)
        gap_s, frame_s = frame.time_s - ends_s, float(frame.duration * frame.time_base)
        if gap_s <= max(LEAST_GAP_S, LEAST_GAP_FRAMES * frame_s):
            return
        gap = Gap(gap_s, ends_s, self._name)
        end.gap = max(end.gap, gap)
        # The recorder may have paused; but where a packet was damaged, frames are missing.
        if damaged:
            end.missing = max(end.missing, gap)
