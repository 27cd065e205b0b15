"""Frames and sources of frames, whatever they come from. Knows neither FFmpeg nor models.

A source is a context manager and an iterable of `Frame`. While it is read, `counts` says what has happened so far;
afterwards, `end` says where it ended and where it should have. A live source also keeps its latest `events`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from .errors import MediaError
from .native import keep_in_children

# 8K video has 33 million pixels; above twice that, a header is more likely a decompression bomb than a picture.
MAX_PIXELS = 2**26
STANDARD_INPUT = "standard input"
# Tags of a source file that are copied to its overlay and mask.
TAGS = frozenset({"creation_time", "location", "title"})
# A limit, so that a camera that drops out for days does not fill the memory.
MAX_EVENTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One picture of a source.

    Attributes:
        image: (H, W, 3) uint8 BGR, upright (rotation applied).
        index: position in the source, from 0; gaps mean frames that gave no picture or were dropped.
        pts: presentation time in units of `time_base`.
        time_base: seconds per unit of `pts`.
        duration: how long it is shown, in units of `time_base`; 0 when unknown.
        corrupt: damaged: concealed by the decoder, or predicted from a damaged picture.
        name: the file or (redacted) address it came from.
        captured_at: `time.monotonic()` at arrival, live sources only.
    """

    image: np.ndarray
    index: int
    pts: int
    time_base: Fraction
    duration: int = 0
    corrupt: bool = False
    name: str = ""
    captured_at: float | None = None

    @property
    def time_s(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """What is known about a source before its first frame.

    Attributes:
        name: printable, without credentials.
        kind: "video", "images", "stream", "camera" or "pipe".
        size: (height, width) of the upright frames, None for images (each has its own).
        rate: frames a second on average, None when unknown.
        time_base: seconds per unit of pts.
        frame_count: what the header declares, for display only; None when unknown.
        end_s: time at which the last frame should end, None when unknown.
        live: whether frames come at their own pace and the newest matters most.
        pixel_aspect: width of a pixel over its height, upright.
        rotation: the turn and mirroring applied, in words; empty if none.
        hdr: transfer function of a high dynamic range, "PQ" or "HLG"; empty for ordinary video.
        audio: codec of the audio track, None without one.
        timed: whether frames carry timestamps; in raw H.264 and in motion JPEG they do not.
        tags: the file's own "creation_time", "location" and "title", as far as it has them.
        track, tracks: which video track this is, from 1, and how many there are.
    """

    name: str
    kind: str
    size: tuple[int, int] | None = None
    rate: Fraction | None = None
    time_base: Fraction = Fraction(1, 90000)
    frame_count: int | None = None
    end_s: float | None = None
    live: bool = False
    pixel_aspect: Fraction = Fraction(1)
    rotation: str = ""
    hdr: str = ""
    audio: str | None = None
    timed: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)
    track: int = 1
    tracks: int = 1


@dataclass
class SourceCounts:
    """What happened to a source's frames so far: `read` = those delivered + `failed` + `dropped`.

    Attributes:
        read: every frame the source had, delivered or not.
        failed: frames that gave no picture at all.
        dropped: frames of a live source that a newer one replaced, that came after reading had stopped, or that
            repeat a dead camera's last picture; in damaged files, old pictures that came after newer ones.
        corrupt: delivered, but damaged: concealed by the decoder, or predicted from a damaged picture.
        damaged_packets: packets that arrived damaged, or that the decoder refused.
        resized: delivered, but resized to the first frame's size.
        retimed: delivered with a corrected time, because their own was missing or ran backwards.
        reconnects: times a live source was opened again.
    """

    read: int = 0
    failed: int = 0
    dropped: int = 0
    corrupt: int = 0
    damaged_packets: int = 0
    resized: int = 0
    retimed: int = 0
    reconnects: int = 0

    def add(self, other: SourceCounts) -> None:
        """Add another source's counts to these."""
        for key, value in vars(other).items():
            setattr(self, key, getattr(self, key) + value)


@dataclass(frozen=True, kw_only=True)
class Event:
    """A change in the state of a live source.

    Attributes:
        state: "stalled" (connected, but no picture comes), "lost" (the connection broke or could not be opened), "live"
            (pictures come again) or "ended".
        at_s: seconds since the source was opened.
        text: a line that names the source, without credentials.
    """

    state: str
    at_s: float
    text: str

    def __str__(self) -> str:
        return self.text


def ignore_event(event: Event) -> None:
    """Ignore an event: the default for those who are told of events."""


class Gap(NamedTuple):
    """A stretch of time without frames: its length, where it begins, and in which file; empty by default."""

    seconds: float = 0.0
    at_s: float = 0.0
    name: str = ""

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s at {self.at_s:.2f} s"


NO_GAP = Gap()


@dataclass
class SourceEnd:
    """Where a source ended. `early` is None while that is unknown: still being read, or reading stopped first. `gap` is
    the longest stretch without a frame, `missing` the longest one next to which packets were damaged."""

    at_s: float = 0.0
    expected_s: float | None = None
    early: bool | None = None
    reason: str = ""
    gap: Gap = NO_GAP
    missing: Gap = NO_GAP


class Source(ABC):
    """A context manager whose frames can be read once. Use it in the process that opened it and from one thread; `stop`
    may be called from any.

    Subclasses implement `_frames`, and `_release` if they hold files, devices or threads.
    """

    info: SourceInfo

    def __init__(self) -> None:
        self._asked = self._closed = False
        # A forked child has none of the decoder's threads, and shares its file position with the parent.
        self._process = os.getpid()
        keep_in_children(self)
        self.counts = SourceCounts()
        self.end = SourceEnd()
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)

    def __iter__(self) -> Iterator[Frame]:
        """Frames in order, decoded on demand.

        Raises:
            MediaError: the source is closed, was opened before a fork, or was iterated before.
        """
        self._demand_own_process()
        if self._closed or self._asked:
            state = "is closed" if self._closed else "was read already"
            raise MediaError(f"{self.info.name}: {state}; open it again to read it.")
        self._asked = True
        return self._watched(self._frames())

    def _watched(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """The same frames, but only for the process that opened the source."""
        try:
            for frame in frames:
                yield frame
                self._demand_own_process()
        finally:
            frames.close()  # type: ignore[attr-defined]

    def _demand_own_process(self) -> None:
        if os.getpid() != self._process:
            raise MediaError(f"{self.info.name}: was opened before a fork; open it in the process that reads it.")

    @abstractmethod
    def _frames(self) -> Iterator[Frame]:
        """The generator behind `__iter__`."""

    def stop(self) -> None:
        """Ask the source to end soon; this wakes up a blocked live source. Safe from any thread."""
        return

    def close(self) -> None:
        """Release files, devices and threads. Harmless when called twice, or in a forked child."""
        if not self._closed:
            self._closed = True
            # In a forked child these are the parent's to release, and closing a decoder would wait for ever.
            if os.getpid() == self._process:
                self.stop()
                self._release()

    def _release(self) -> None:
        """Release what the source holds; called once, after `stop`."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
