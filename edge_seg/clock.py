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
        # Whether any frame had a time of its own.
        self._told = False
        # Of a live source, when its last frame came, and how far its first frame's time is ahead of our clock.
        self._came = self._lead = 0

    def time(self, own: int | None, duration: int, *, came: int | None = None) -> tuple[int, bool, bool]:
        """(the next frame's time, whether the clock was restarted before it, whether its own time was unusable).

        Args:
            own: the frame's own time, None if it has none.
            duration: of a frame, at least 1.
            came: when the frame of a live source came, by our clock, which tells what its own does not: how long a
                pause was, and the time of frames that have none. None for sources that keep no pace.
        """
        before, self.own = self.own, own
        told, self._told = self._told, self._told or own is not None
        last, anew, useless = self._last, False, False
        if last is None:
            # Of a live source, the first frame's time is where counting begins; RTSP brings none with it.
            pts, useless = 0 if own is None else own - self._origin, own is None and came is None
        elif own is None:
            pts, useless = self._next(last, duration, came), True
        else:
            pts = own - self._origin
            begins = came is not None and not told and pts <= last
            if begins or self._begins_anew(before, pts, last):
                # A decoder may have held the last frame back during the pause.
                step = max(self._next(last, duration, came), last if came is None else self._lead + came)
                self._origin -= step - pts
                pts, anew = step, not begins
            elif pts <= last:
                # libx264 and MP4 refuse time that stands still or runs backwards. Some cameras' clocks never move.
                still = came is not None and own == before
                pts, useless = self._next(last, duration, came) if still else last + 1, True
        if came is not None:
            self._lead, self._came = pts - came if last is None else self._lead, came
        self._last = pts
        return pts, anew, useless

    def _next(self, last: int, duration: int, came: int | None) -> int:
        """The time of a frame whose own clock does not tell it; `last` is that of the frame before it."""
        return last + (duration if came is None else max(1, came - self._came))

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
