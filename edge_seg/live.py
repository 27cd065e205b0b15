"""Sources that do not wait: network cameras and local ones. Only the newest frame is kept; replaced ones are counted.

A thread of its own reads the connection, so that a slow consumer drops frames instead of falling minutes behind. A
stall or a lost connection is reported, tried again with growing pauses, and given up after a deadline; no frame is ever
invented. Knows nothing about FFmpeg or models: any `Source` can be a connection.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

from .errors import MediaError, RefusedError
from .media import Event, Frame, Source, SourceCounts, SourceEnd, ignore_event
from .preprocess import resize_frame
from .redact import redact

TIME_BASE = Fraction(1, 90000)
# From the start of one attempt to that of the next: a camera that is back is noticed within the longest pause plus the
# time to open it.
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 2.0
STALL_S = 8.0
LONGEST_OPENING_S = 20.0
# A camera has reset its clock if, from one frame to the next, it outruns ours by so much or falls back by so much.
AHEAD_S = 60.0
BACK_S = 0.5
# A pause is shortened by what our times are ahead, by a clock that ran fast or old frames sent at once, but to no less.
SHORTEST_PAUSE_S = 0.05
# A connection should end by itself when it stalls; one later than that by so much hangs.
GRACE_S = 1.0
Connect = Callable[[], Source]


class LiveSource(Source):
    """The newest frames of a connection that is opened again when it breaks.

    Frames carry the connection's own timestamps counted from the first frame; across a break, or where the camera
    resets its clock, they go on by ours. Frames without timestamps get the time of their arrival.

    Args:
        connect: opens a new connection, a `Source`; raises `MediaError` when it cannot. After a `RefusedError` it is
            not called again: cameras lock out clients that insist.
        first: the connection already open.
        stall_s: seconds without a frame after which the connection counts as dead and is opened again.
        give_up_s: seconds without a frame after which the source ends.
        on_event: called, from any thread, when the connection stalls, breaks, comes back or ends. An error it raises
            ends the source and is raised to the consumer of its frames.
    """

    def __init__(
        self,
        connect: Connect,
        first: Source,
        *,
        stall_s: float = STALL_S,
        give_up_s: float = 30.0,
        on_event: Callable[[Event], None] = ignore_event,
    ) -> None:
        super().__init__()
        self.info = replace(first.info, live=True, frame_count=None, end_s=None, time_base=TIME_BASE, audio=None)
        self._connect = connect
        self._first: Source | None = first
        self._stall_s, self._give_up_s = stall_s, give_up_s
        self._on_event = on_event
        self._callback_error: BaseException | None = None
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._stopping = threading.Event()
        # A read that never returns cannot be stopped, only disowned: its thread then has an old generation.
        self._generation = 0
        self._started_at = time.monotonic()
        self._expected_by = float("inf")
        self._refused = ""
        self._last_arrival = self._started_at
        self._said: set[str] = set()
        self._first_arrival = self._offset_s = self._last_time_s = 0.0
        self._last_pts = -1
        # Frames that came, were replaced, were resized; the counts of earlier connections, and of the present one.
        self._taken = self._replaced = self._fitted = 0
        self._before, self._present = SourceCounts(), SourceCounts()

    def _frames(self) -> Iterator[Frame]:
        self._started_at = self._last_arrival = time.monotonic()
        first, self._first = self._first, None
        self._start_reader(first)
        try:
            yield from self._as_they_come()
        finally:
            self.stop()
            with self._changed:
                self._drop_newest()

    def _as_they_come(self) -> Iterator[Frame]:
        last_frame_at = time.monotonic()
        while True:
            frame = self._wait(last_frame_at + self._give_up_s)
            now = time.monotonic()
            if frame is not None:
                last_frame_at = now
                self.end.at_s = frame.time_s
                yield frame
            elif self._stopping.is_set():
                self.end = SourceEnd(at_s=self.end.at_s, early=False)
                return
            elif self._refused or now >= last_frame_at + self._give_up_s:
                self._give_up(self._refused or f"no frame for {self._give_up_s:g} s")
                return
            elif now >= self._expected_by:
                self._outage("stalled", "no sign of life; opening it again")
                self._start_reader(None)

    def _wait(self, deadline: float) -> Frame | None:
        """The newest frame once there is one; None if stopped or refused, at `deadline`, or if the reader hangs."""
        with self._changed:
            until = min(deadline, self._expected_by)
            self._changed.wait_for(
                lambda: self._newest or self._refused or self._callback_error or self._stopping.is_set(),
                max(0.0, until - time.monotonic()),
            )
            if self._callback_error is not None:
                raise self._callback_error
            frame, self._newest = self._newest, None
            return frame

    def stop(self) -> None:
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def _release(self) -> None:
        with self._changed:
            self._generation += 1
        # The reader closes the connection it was given; one that was never read is closed here. libav cannot be
        # interrupted, and closing a container amid a read is not safe: a silent camera stays connected until its read
        # times out, after `STALL_S`.
        if self._first is not None:
            self._first.close()

    def _give_up(self, reason: str) -> None:
        self._say("ended", reason)
        if self._callback_error is not None:
            raise self._callback_error
        if not self.counts.read:
            raise MediaError(f"{self.info.name}: {reason}; not one frame came.")
        self.end = SourceEnd(at_s=self.end.at_s, early=True, reason=reason)

    # The reader's thread

    def _start_reader(self, connection: Source | None) -> None:
        with self._changed:
            self._generation += 1
            generation = self._generation
            self._settle(SourceCounts())
            self._expected_by = time.monotonic() + (
                LONGEST_OPENING_S if connection is None else self._stall_s + GRACE_S
            )
        name = f"edge_seg-live-{generation}"
        threading.Thread(target=self._read, args=(generation, connection), name=name, daemon=True).start()

    def _current(self, generation: int) -> bool:
        return generation == self._generation and not self._stopping.is_set()

    def _read(self, generation: int, connection: Source | None) -> None:
        """Read one connection after the other until stopped or disowned."""
        pause_s = FIRST_PAUSE_S
        while self._current(generation):
            began_at, taken = time.monotonic(), self._taken
            state, problem = self._serve(generation, connection)
            connection = None
            if not self._current(generation):
                return
            if self._refused:
                with self._changed:
                    self._changed.notify_all()
                return
            self._outage(state, f"{problem}; trying again")
            pause_s = FIRST_PAUSE_S if self._taken > taken else pause_s
            self._expect(generation, pause_s + LONGEST_OPENING_S)
            # The time that the attempt took counts as pause.
            self._stopping.wait(max(0.0, began_at + pause_s - time.monotonic()))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _serve(self, generation: int, connection: Source | None) -> tuple[str, str]:
        """Take frames from one connection to its end; returns ("stalled" or "lost", what ended it)."""
        try:
            with connection or self._reconnect() as opened:
                self._expect(generation, self._stall_s + GRACE_S)
                for frame in opened:
                    if not self._current(generation):
                        break
                    self._take(generation, frame, opened)
                self._close_account(generation, opened.counts)
                reason = opened.end.reason
                return "stalled" if reason.startswith("no picture") else "lost", reason or "the connection ended"
        except RefusedError as error:
            if self._current(generation):
                self._refused = self._bare(error)
            return "lost", self._bare(error)
        except MediaError as error:
            return "lost", self._bare(error)
        except Exception as error:  # A thread that dies silently would look like a stall.
            return "lost", f"{type(error).__name__}: {self._bare(error)}"

    def _close_account(self, generation: int, counts: SourceCounts) -> None:
        """Take a connection's final counts; it may have given no frame at all."""
        with self._changed:
            if generation == self._generation:
                if counts is not self._present:
                    self._settle(counts)
                self._tally()

    def _bare(self, error: Exception) -> str:
        """An error's message without the source's name, which every event's text begins with."""
        return redact(str(error)).removeprefix(f"{self.info.name}: ").rstrip(".")

    def _reconnect(self) -> Source:
        self.counts.reconnects += 1
        return self._connect()

    def _expect(self, generation: int, within_s: float) -> None:
        """Give the reader `within_s` seconds to show a sign of life."""
        with self._changed:
            if self._current(generation):
                self._expected_by = time.monotonic() + within_s

    def _take(self, generation: int, frame: Frame, connection: Source) -> None:
        """Make a frame the newest one; the one it replaces is dropped and counted."""
        arrived = time.monotonic()
        with self._changed:
            if not self._current(generation):
                return
            frame = self._fitting(frame, connection)
            pts = self._continued(frame, connection, arrived)
            self._expected_by = arrived + self._stall_s + GRACE_S
            self._drop_newest()
            self._taken += 1
            self.counts.corrupt += frame.corrupt
            self._tally()
            duration = round(frame.duration * frame.time_base / TIME_BASE)
            index = self.counts.read - 1
            self._newest = replace(
                frame, index=index, pts=pts, time_base=TIME_BASE, duration=duration, captured_at=arrived
            )
            self._changed.notify_all()
        if self._said:
            self._said.clear()
            self._say("live", f"pictures again after {arrived - self._last_arrival:.1f} s")
        self._last_arrival = arrived

    def _fitting(self, frame: Frame, connection: Source) -> Frame:
        """The frame at the size of the very first one, which sets the source's size here."""
        if not self._taken:
            self.info = replace(self.info, size=frame.image.shape[:2], rotation=connection.info.rotation)
        elif self.info.size is not None and frame.image.shape[:2] != self.info.size:
            self._fitted += 1
            return replace(frame, image=resize_frame(frame.image, self.info.size))
        return frame

    def _continued(self, frame: Frame, connection: Source, arrived: float) -> int:
        """The frame's time in `TIME_BASE` since the very first one: by its own clock, or by ours across a break or
        where its own was reset."""
        time_s = frame.time_s if connection.info.timed else arrived - self._started_at
        passed_s, waited_s = time_s - self._last_time_s, arrived - self._last_arrival
        if not self._taken:
            self._first_arrival = arrived
        least_s = float(self._last_pts * TIME_BASE) + min(waited_s, SHORTEST_PAUSE_S)
        ours_s = max(arrived - self._first_arrival, least_s) if self._taken else 0.0
        if connection.counts is not self._present:
            self._settle(connection.counts)
            self._offset_s = ours_s - time_s
        elif passed_s < -BACK_S or passed_s > waited_s + AHEAD_S:
            self._offset_s = ours_s - time_s
            self._before.retimed += 1
        self._last_time_s = time_s
        self._last_pts = max(self._last_pts + 1, round((time_s + self._offset_s) / TIME_BASE))
        return self._last_pts

    # Events and counts

    def _outage(self, state: str, text: str) -> None:
        """Report that no frames come, each reason once until they come again."""
        if text not in self._said:
            self._said.add(text)
            self._say(state, text)

    def _say(self, state: str, text: str) -> None:
        event = Event(
            state=state, at_s=round(time.monotonic() - self._started_at, 2), text=f"{self.info.name}: {text}."
        )
        self.events.append(event)
        try:
            self._on_event(event)
        except BaseException as error:
            # Raised here, it could end the reader's thread unnoticed; `_wait` raises it to the consumer instead.
            with self._changed:
                self._callback_error = error
                self._changed.notify_all()

    def _drop_newest(self) -> None:
        self._replaced += self._newest is not None
        self._newest = None
        self._tally()

    def _settle(self, counts: SourceCounts) -> None:
        """Add the previous connection's counts to those of earlier ones; `counts` are the present one's from now on."""
        self._before.add(self._present)
        self._present = counts

    def _tally(self) -> None:
        before, present, counts = self._before, self._present, self.counts
        repeated = before.dropped + present.dropped
        counts.failed = before.failed + present.failed
        counts.damaged_packets = before.damaged_packets + present.damaged_packets
        counts.retimed = before.retimed + present.retimed
        counts.resized = before.resized + present.resized + self._fitted
        counts.dropped = self._replaced + repeated
        counts.read = self._taken + counts.failed + repeated
