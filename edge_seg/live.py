"""Sources that do not wait: network cameras and local ones. The newest frame counts; what it replaces is counted.

A thread of its own reads the connection, so that a slow consumer drops frames instead of falling minutes behind. A
stall or a lost connection is said, waited out with growing pauses, and given up after a deadline; no frame is ever
invented. Knows neither FFmpeg nor models: whatever yields frames can be a connection.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from .errors import MediaError
from .media import Frame, Source, SourceEnd, SourceInfo
from .opencv import cv2

TIME_BASE = Fraction(1, 90000)
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0
LONGEST_OPENING_S = 20.0
Connect = Callable[[], Source]


def ignore_event(text: str) -> None:
    """Where events go when nobody listens."""


class LiveSource(Source):
    """The newest frames of a connection that is opened again when it breaks.

    Frames carry the connection's own timestamps counted from the first frame; across a break they go on by the clock.

    Args:
        connect: opens a new connection, a `Source`; raises `MediaError` when it cannot.
        first: the connection already open.
        stall_s: without a frame for so long, the connection is taken for dead and opened again.
        give_up_s: without a frame for so long, the source ends.
        on_event: called with a line of text when the connection stalls, breaks or comes back; from any thread.
    """

    def __init__(
        self,
        connect: Connect,
        first: Source,
        *,
        stall_s: float = 10.0,
        give_up_s: float = 30.0,
        on_event: Callable[[str], None] = ignore_event,
    ) -> None:
        super().__init__()
        self.info = replace(first.info, live=True, frame_count=None, end_s=None, time_base=TIME_BASE, audio=None)
        self._connect, self._first = connect, first
        self._give_up_s = give_up_s
        # The connection's own time limits come first; this is for the read that ignores them.
        self._watchdog_s = max(1.5 * stall_s, LONGEST_OPENING_S)
        self._on_event = on_event
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._stopping = threading.Event()
        # A read that never returns cannot be stopped, only disowned: its thread then has an old generation.
        self._generation = 0
        self._started_at = self._alive_at = time.monotonic()
        self._offset_s = 0.0
        self._last_pts = -1
        self._seen = 0

    def __iter__(self) -> Iterator[Frame]:
        self._started_at = self._alive_at = time.monotonic()
        self._start_reader(self._first)
        try:
            yield from self._frames()
        finally:
            self.stop()
            with self._changed:
                self.counts.dropped += self._newest is not None
                self._newest = None

    def _frames(self) -> Iterator[Frame]:
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
            elif now >= last_frame_at + self._give_up_s:
                self._give_up()
                return
            elif now >= self._alive_at + self._watchdog_s:
                self._on_event(f"{self.info.name}: no sign of life for {now - self._alive_at:.0f} s; opening it again.")
                self._start_reader(None)

    def _wait(self, deadline: float) -> Frame | None:
        """The newest frame as soon as there is one; None when stopped, at `deadline`, or when the reader hangs."""
        with self._changed:
            until = min(deadline, self._alive_at + self._watchdog_s)
            self._changed.wait_for(lambda: self._newest or self._stopping.is_set(), max(0.0, until - time.monotonic()))
            frame, self._newest = self._newest, None
            return frame

    def stop(self) -> None:
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        self.stop()
        with self._changed:
            self._generation += 1

    def _give_up(self) -> None:
        reason = f"no frame for {self._give_up_s:g} s"
        if not self.counts.read:
            raise MediaError(f"{self.info.name}: {reason}; not one frame came.")
        self.end = SourceEnd(at_s=self.end.at_s, early=True, reason=reason)

    def _start_reader(self, connection: Source | None) -> None:
        with self._changed:
            self._generation += 1
            generation = self._generation
            self._alive_at = time.monotonic()
        name = f"edge_seg-live-{generation}"
        threading.Thread(target=self._read, args=(generation, connection), name=name, daemon=True).start()

    def _current(self, generation: int) -> bool:
        return generation == self._generation and not self._stopping.is_set()

    def _read(self, generation: int, connection: Source | None) -> None:
        """Read one connection after the other until stopped or disowned."""
        pause_s = FIRST_PAUSE_S
        while self._current(generation):
            problem = "the connection ended"
            try:
                with connection or self._reconnect() as opened:
                    for frame in opened:
                        if not self._current(generation):
                            return
                        self._take(generation, frame, opened)
                        pause_s = FIRST_PAUSE_S
                    problem = opened.end.reason or problem
                    self.counts.failed += opened.counts.failed
                    self.counts.read += opened.counts.failed
            except MediaError as error:
                problem = str(error)
            except Exception as error:  # A thread that dies silently would look like a stall.
                problem = f"{type(error).__name__}: {error}"
            connection = None
            self._alive_at = time.monotonic()
            if self._current(generation):
                self._on_event(f"{self.info.name}: {problem}; trying again in {pause_s:g} s.")
                self._stopping.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _reconnect(self) -> Source:
        self.counts.reconnects += 1
        return self._connect()

    def _take(self, generation: int, frame: Frame, connection: Source) -> None:
        """Put a frame in the one place there is; the one it replaces is dropped and counted."""
        arrived = time.monotonic()
        if frame.index == 0:
            self._offset_s = arrived - self._started_at - frame.time_s if self._seen else -frame.time_s
        pts = max(self._last_pts + 1, round((frame.time_s + self._offset_s) / TIME_BASE))
        duration = round(frame.duration * frame.time_base / TIME_BASE)
        if frame.image.shape[:2] != self.info.size and self.info.size is not None and self._seen:
            height, width = self.info.size
            image = cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_LINEAR)
            frame = replace(frame, image=image)
            self.counts.resized += 1
        elif not self._seen:
            self.info = replace(self.info, size=frame.image.shape[:2], rotation=connection.info.rotation)
        with self._changed:
            if not self._current(generation):
                return
            self._alive_at = arrived
            self.counts.read += 1
            self.counts.corrupt += frame.corrupt
            self.counts.dropped += self._newest is not None
            self._newest = replace(
                frame, index=self._seen, pts=pts, time_base=TIME_BASE, duration=duration, captured_at=arrived
            )
            self._seen, self._last_pts = self._seen + 1, pts
            self._changed.notify_all()


class Camera(Source):
    """A local camera by its index, through OpenCV (V4L2, AVFoundation or Media Foundation).

    A driver of an unplugged camera may go on handing out its last picture; pictures that are the same to the last bit
    for `frozen_s` are taken for that, since a sensor's noise never repeats.

    Raises:
        MediaError: there is no such camera, or it gives no picture.
    """

    def __init__(self, index: int, *, frozen_s: float = 5.0) -> None:
        super().__init__()
        name = f"camera {index}"
        device = Path(f"/dev/video{index}")
        if sys.platform == "linux" and not device.exists():
            found = ", ".join(sorted(path.name.removeprefix("video") for path in Path("/dev").glob("video*"))) or "none"
            raise MediaError(f"{name}: there is no {device}. Cameras here: {found}.")
        self._capture = cv2.VideoCapture(index)
        if not self._capture.isOpened():
            raise MediaError(f"{name}: cannot be opened. Another program may be using it, or permission is missing.")
        # One picture of delay at most, where the driver lets itself be told.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        height, width = (int(self._capture.get(key)) for key in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self._frozen_s = frozen_s
        self._closed = False
        self.info = SourceInfo(
            name=name,
            kind="camera",
            size=(height, width),
            rate=Fraction(rate).limit_denominator(1001) if 0 < rate <= 1000 else None,
            time_base=TIME_BASE,
            live=True,
        )

    def __iter__(self) -> Iterator[Frame]:
        started = changed_at = time.monotonic()
        previous, index = b"", 0
        while not self._closed:
            came, image = self._capture.read()
            now = time.monotonic()
            if not came:
                self.end = SourceEnd(at_s=now - started, early=True, reason="the camera gives no picture any more")
                return
            fingerprint = image[::16, ::16].tobytes()
            if fingerprint != previous:
                previous, changed_at = fingerprint, now
            elif now - changed_at > self._frozen_s:
                reason = f"the camera has repeated one picture for {self._frozen_s:g} s"
                self.end = SourceEnd(at_s=now - started, early=True, reason=reason)
                return
            pts = round((now - started) / TIME_BASE)
            self.counts.read += 1
            yield Frame(image=image, index=index, pts=pts, time_base=TIME_BASE, name=self.info.name, captured_at=now)
            index += 1

    def stop(self) -> None:
        self._closed = True

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(cv2.error):
            self._capture.release()
