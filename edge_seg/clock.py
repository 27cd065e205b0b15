"""A source's own clock as times that never fall back: where it began, was started anew, or stood still.

Knows no decoder: it is handed each frame's own time, in the order of the frames.
"""

from __future__ import annotations

from fractions import Fraction

# Who falls back by more has started its clock anew; by less, a single time is wrong.
CLOCK_RESTART_S = 0.5
# A clock of 33 bits runs over after so long. One that falls back far, libav takes for one that ran over: it goes on
# past the end of the first round, after a pause that no recording makes.
CLOCK_ROUND_S = 2**33 / 90000
LONGEST_PAUSE_S = 60.0


class Clock:
    """Own times of frames -> times from zero on, strictly increasing.

    Args:
        time_base: seconds a unit, of all times that come and go.
        origin_s: seconds on the source's clock that count as zero.
        rounds: whether it is one of 33 bits.
    """

    def __init__(self, time_base: Fraction, origin_s: float, *, rounds: bool) -> None:
        self._time_base, self._rounds = time_base, rounds
        self._origin = round(origin_s / time_base)
        # The last frame's own time, and the one it was given.
        self.own: int | None = None
        self._last: int | None = None

    def time(self, own: int | None, duration: int) -> tuple[int, bool, bool]:
        """(the next frame's time, whether the clock was started anew before it, whether its own was of no use).

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

    def falls_back(self, own: int | None) -> bool:
        """Whether a frame's own time lies before the last frame's by more than a wrong one would."""
        if own is None or self._last is None:
            return False
        return (self._last + self._origin - own) * self._time_base > CLOCK_RESTART_S

    def _begins_anew(self, before: int | None, pts: int, last: int) -> bool:
        """Whether the clock was started anew between two frames: by their own times, and by what passed."""
        if (last - pts) * self._time_base > CLOCK_RESTART_S:
            return True
        if before is None or not self._rounds:
            return False
        return ran_over(float(before * self._time_base), float((pts + self._origin) * self._time_base))


def ran_over(before_s: float, after_s: float) -> bool:
    """Whether libav made one round more of a clock that in truth fell back, by the seconds of two moments on it."""
    return after_s - before_s > LONGEST_PAUSE_S and after_s // CLOCK_ROUND_S > before_s // CLOCK_ROUND_S
