"""A source's own clock, which may start anywhere, restart or stand still, as times that only increase.

Knows nothing about decoders: it is given each frame's own time, in the order of the frames.
"""

from __future__ import annotations

from fractions import Fraction

# A clock that falls back by more than this was restarted; by less, a single time is wrong.
CLOCK_RESTART_S = 0.5
# A 33-bit clock wraps around after this long. libav takes one that falls back far for one that wrapped: its times go on
# past the end of the first round, after a pause longer than any recording makes.
CLOCK_ROUND_S = 2**33 / 90000
LONGEST_PAUSE_S = 60.0


class Clock:
    """Converts the frames' own times to strictly increasing times.

    Args:
        time_base: seconds a unit, of all times passed in and returned.
        origin_s: seconds on the source's clock that count as zero.
        rounds: whether the source's clock has 33 bits and so wraps around.
    """

    def __init__(self, time_base: Fraction, origin_s: float, *, rounds: bool) -> None:
        self._time_base, self._rounds = time_base, rounds
        self._origin = round(origin_s / time_base)
        # The last frame's own time, and the time it was given.
        self.own: int | None = None
        self._last: int | None = None

    def time(self, own: int | None, duration: int) -> tuple[int, bool, bool]:
        """(the next frame's time, whether the clock was restarted before it, whether its own time was unusable).

        `duration` is at least 1.
        """
        before, self.own = self.own, own
        last, anew, useless = self._last, False, False
        if own is None:
            pts, useless = 0 if last is None else last + duration, True
        else:
            pts = own - self._origin
            if last is not None and self._begins_anew(before, pts, last):
                self._origin -= last + duration - pts
                pts, anew = last + duration, True
            elif last is not None and pts <= last:
                # libx264 and MP4 refuse time that stands still or runs backwards.
                pts, useless = last + 1, True
        self._last = pts
        return pts, anew, useless

    def falls_back(self, own: int) -> bool:
        """Whether a frame's own time lies further before the last frame's than a single wrong time would."""
        return self._last is not None and (self._last + self._origin - own) * self._time_base > CLOCK_RESTART_S

    def _begins_anew(self, before: int | None, pts: int, last: int) -> bool:
        """Whether the clock was restarted between the last frame (own time `before`, pts `last`) and the next."""
        if (last - pts) * self._time_base > CLOCK_RESTART_S:
            return True
        if before is None or not self._rounds:
            return False
        return ran_over(float(before * self._time_base), float((pts + self._origin) * self._time_base))


def ran_over(before_s: float, after_s: float) -> bool:
    """Whether, between two times on its clock, libav counted a wrap where the clock in truth fell back."""
    return after_s - before_s > LONGEST_PAUSE_S and after_s // CLOCK_ROUND_S > before_s // CLOCK_ROUND_S
