"""Local cameras by index, through OpenCV, and a watch for drivers that repeat an unplugged camera's last frame.

Knows nothing about queues or reconnection: `live.py` reads a camera like any other connection.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from .errors import MediaError
from .live import TIME_BASE
from .media import Frame, Source, SourceEnd, SourceInfo
from .opencv import cv2

FROZEN_S = 5.0


class RepetitionWatch:
    """Detects a frame that only repeats the last one. A sensor's noise never repeats, so that is not a new frame.

    One watch is used across reconnections: a dead camera that is opened again shows the same frame as before.
    """

    def __init__(self) -> None:
        self._last: np.ndarray | None = None

    def repeats(self, image: np.ndarray) -> bool:
        """Whether `image` (H, W, 3) uint8 equals the previous one to the last bit; remembers it for the next call."""
        last, self._last = self._last, image
        if last is None or last.shape != image.shape:
            return False
        # A few rows are enough to tell nearly all frames apart.
        return np.array_equal(last[::16], image[::16]) and np.array_equal(last, image)


class Camera(Source):
    """A local camera (V4L2, AVFoundation or Media Foundation).

    The driver of an unplugged camera may keep returning its last frame. Repetitions are not passed on but counted as
    dropped; after `FROZEN_S` of nothing else, the source ends.

    Args:
        index: the camera's number.
        watch: the watch of an earlier connection, which remembers the camera's last frame.

    Raises:
        MediaError: there is no such camera, or it cannot be opened.
    """

    def __init__(self, index: int, *, watch: RepetitionWatch | None = None) -> None:
        super().__init__()
        name = f"camera {index}"
        device = Path(f"/dev/video{index}")
        if sys.platform == "linux" and not device.exists():
            found = ", ".join(sorted(path.name.removeprefix("video") for path in Path("/dev").glob("video*"))) or "none"
            raise MediaError(f"{name}: there is no {device}. Cameras here: {found}.")
        self._capture = cv2.VideoCapture(index)
        if not self._capture.isOpened():
            raise MediaError(f"{name}: cannot be opened. Another program may be using it, or permission is missing.")
        # At most one frame of delay, where the driver obeys.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        height, width = (int(self._capture.get(key)) for key in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self._watch = watch or RepetitionWatch()
        self._stopped = False
        self.info = SourceInfo(
            name=name,
            kind="camera",
            size=(height, width),
            rate=Fraction(rate).limit_denominator(1001) if 0 < rate <= 1000 else None,
            time_base=TIME_BASE,
            live=True,
        )

    def _frames(self) -> Iterator[Frame]:
        started = changed_at = time.monotonic()
        while not self._stopped:
            came, image = self._capture.read()
            now = time.monotonic()
            if not came:
                self.end = SourceEnd(at_s=now - started, early=True, reason="the camera gives no picture any more")
                return
            self.counts.read += 1
            if not self._watch.repeats(image):
                changed_at = now
                yield self._frame(image, now - started, now)
                continue
            self.counts.dropped += 1
            if now - changed_at > FROZEN_S:
                reason = f"the camera has repeated one picture for {FROZEN_S:g} s, as an unplugged one does"
                self.end = SourceEnd(at_s=now - started, early=True, reason=reason)
                return

    def _frame(self, image: np.ndarray, time_s: float, now: float) -> Frame:
        return Frame(
            image=image,
            index=self.counts.read - 1,
            pts=round(time_s / TIME_BASE),
            time_base=TIME_BASE,
            name=self.info.name,
            captured_at=now,
        )

    def stop(self) -> None:
        self._stopped = True

    def _release(self) -> None:
        with contextlib.suppress(cv2.error):
            self._capture.release()
