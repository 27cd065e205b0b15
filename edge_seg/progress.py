"""What a user sees during a run: remarks and, on a terminal, a progress bar; on stderr by default. Knows no frames."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from typing import TextIO

from .console import harmless

REDRAW_S = 0.1
BAR_WIDTH = 24
# A shorter bar tells nothing: on a narrow terminal it is left out.
LEAST_BAR = 6
# What is left of a source's name beside a bar.
LEAST_TITLE = 10


class Progress:
    """Remarks and, on a terminal, a progress bar on `stream`, stderr by default. Safe from several threads."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._bar = self._stream.isatty()
        self._lock = threading.Lock()
        self._title, self._total = "", 0
        self._started_at = self._drawn_at = 0.0
        self._drawn = False

    def note(self, text: object) -> None:
        """Write a line that stays: a text, or an event of a source."""
        with self._lock:
            self._wipe()
            self._write(f"{harmless(str(text))}\n")

    def begin(self, title: str, total: int | None) -> None:
        """Begin a new source of `total` frames, None when unknown."""
        with self._lock:
            self._title, self._total = harmless(title), total or 0
            self._started_at = time.monotonic()
            self._drawn_at = 0.0

    def update(self, done: int) -> None:
        """Draw the bar at `done` frames, at most ten times a second."""
        now = time.monotonic()
        if not self._bar or now - self._drawn_at < REDRAW_S:
            return
        with self._lock:
            self._drawn_at = now
            self._write(f"\r\x1b[K{self._line(done, now)}")
            self._drawn = True

    def end(self) -> None:
        """Remove the bar."""
        with self._lock:
            self._wipe()

    def _wipe(self) -> None:
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False

    def _write(self, text: str) -> None:
        """Write to the stream. If its disk is full, only remarks are lost; if its reader is gone, the run ends."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError:
            pass

    def _line(self, done: int, now: float) -> str:
        speed = done / max(1e-6, now - self._started_at)
        columns = columns_of(self._stream)
        if self._total:
            # The total comes from a header, which may be wrong: the bar stops when full, the count goes on.
            left = max(0, self._total - done) / speed if speed else 0.0
            text = f"{done}/{self._total}  {speed:.1f} frames/s  {_clock(left)} left"
            text = f"{bar(done / self._total, columns - len(text) - LEAST_TITLE - 4)}{text}"
        else:
            text = f"{done} frames  {speed:.1f} frames/s  {_clock(now - self._started_at)}"
        # A line that wrapped could not be wiped.
        room = columns - len(text) - 3
        if room < 2:
            return text[: columns - 1]
        title = self._title if len(self._title) <= room else f"…{self._title[1 - room :]}"
        return f"{title}  {text}"


def bar(share: float, room: int) -> str:
    """A bar filled to `share`, and a space, in at most `room` characters; "" where that is too few to tell anything."""
    width = min(BAR_WIDTH, room - 3)
    if width < LEAST_BAR:
        return ""
    filled = round(min(1.0, share) * width)
    return f"[{'#' * filled}{'.' * (width - filled)}] "


def columns_of(stream: TextIO) -> int:
    """How wide the terminal behind `stream` is; stdout, which the system is asked about otherwise, may be a file."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or shutil.get_terminal_size().columns
    except (OSError, ValueError):
        return shutil.get_terminal_size().columns


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
