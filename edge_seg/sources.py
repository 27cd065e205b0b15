"""Open an item as a `Source` of frames: live ones reconnect, several files are read as one. Knows no models and no
outputs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from .diagnose import reading
from .errors import MediaError, MissingDependencyError, RefusedError, raise_if_interrupted
from .items import Item, expand_sources
from .media import Event, Frame, Source, ignore_event
from .redact import redact

FIRST_REOPENING_S = 1.0
QUICKEST_REOPENING_S, SLOWEST_REOPENING_S = 2.5, 10.0


def open_item(
    item: Item,
    *,
    give_up_s: float = 30.0,
    wait_s: float = 0.0,
    on_event: Callable[[Event], None] = ignore_event,
    stopped: Callable[[], bool] = lambda: False,
) -> Source:
    """Open one item for reading.

    Args:
        item: as `expand_sources` gave it.
        give_up_s: live sources end after this long without a frame.
        wait_s: how long to retry a live source that cannot be opened, unless it refused the password.
        on_event: called when a live source is waited for, stalls, breaks or comes back; `str(event)` is a line of text.
        stopped: whether to stop waiting.

    Raises:
        MediaError: it cannot be opened; the message names it.
        MissingDependencyError: PyAV is not installed, or does not load.
    """
    if item.problem:
        raise MediaError(item.problem)
    if item.kind == "image":
        from .images import ImageFiles

        return ImageFiles([Path(item.location)])
    if item.kind in ("video", "pipe"):
        demand_pyav()
        from .video import VideoFile

        return VideoFile(item.location if item.kind == "video" else None, track=item.track, stopped=stopped)
    from .live import STALL_S, LiveSource

    stall_s = min(STALL_S, give_up_s)
    connect = _camera(item) if item.kind == "camera" else _connection(item, stall_s, stopped)
    first = _connected(connect, wait_s, on_event, stopped)
    if not first.info.live:
        return first
    return LiveSource(connect, first, stall_s=stall_s, give_up_s=give_up_s, on_event=on_event)


def _connected(
    connect: Callable[[], Source], wait_s: float, on_event: Callable[[Event], None], stopped: Callable[[], bool]
) -> Source:
    """Open the first connection, retrying for `wait_s`: a camera just switched on is not ready yet."""
    began = time.monotonic()
    said = False
    while True:
        try:
            return connect()
        except RefusedError:
            raise
        except MediaError as error:
            if stopped() or time.monotonic() - began >= wait_s:
                raise
            if not said:
                on_event(Event(state="lost", at_s=0.0, text=f"{error} Waiting up to {wait_s:g} s for it."))
            said = True
        again = min(time.monotonic() + FIRST_REOPENING_S, began + wait_s)
        while time.monotonic() < again and not stopped():
            time.sleep(0.05)


def _camera(item: Item) -> Callable[[], Source]:
    from .camera import Camera, RepetitionWatch

    watch = RepetitionWatch()
    return lambda: Camera(int(item.location), watch=watch)


def _connection(item: Item, stall_s: float, stopped: Callable[[], bool]) -> Callable[[], Source]:
    """A function that opens an address. After the first time its timeout is twice what the last opening took, from 2.5
    to 10 s, so that an attempt that hangs does not hide a camera that is back."""
    demand_pyav()
    from .video import VideoFile

    limit_s: float | None = None

    def connect() -> Source:
        nonlocal limit_s
        began_at = time.monotonic()
        source = VideoFile(
            item.location,
            network=True,
            track=item.track,
            open_timeout_s=limit_s,
            read_timeout_s=stall_s,
            stopped=stopped,
        )
        limit_s = min(SLOWEST_REOPENING_S, max(QUICKEST_REOPENING_S, 2 * (time.monotonic() - began_at)))
        return source

    return connect


def demand_pyav() -> None:
    """Load PyAV, which only videos and addresses need."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise_if_interrupted(error)
        raise MissingDependencyError(
            f"PyAV cannot be loaded ({error}). Install it: pip install --force-reinstall av"
        ) from error


def open_source(
    source: str | os.PathLike[str] | int, *, track: int = 1, stopped: Callable[[], bool] = lambda: False
) -> Source:
    """Open whatever a SOURCE names as one stream of frames; a folder or a glob gives its files one after the other.

    Args:
        source, track: see `expand_sources`.
        stopped: whether to stop waiting for it.

    Raises:
        ConfigurationError: it names nothing that can be read, or a track below 1.
        MediaError: it cannot be opened.
        MissingDependencyError: PyAV is not installed, or does not load.
    """
    with reading(redact(str(source))):
        items = expand_sources([source], track=track)
    return open_item(items[0], stopped=stopped) if len(items) == 1 else SourceChain(items)


class SourceChain(Source):
    """Several items as one stream: `index` counts on, `name` says which file, times are each file's own.

    Its end is that of the last file, or of the first one that ended early; the reason names each that did. Unless a
    file has ended early, `early` is None until the last one has ended.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        super().__init__()
        self._items = tuple(items)
        self._open: Source | None = open_item(self._items[0])
        self._stopped = False
        name = f"{len(self._items)} files"
        self.info = replace(self._open.info, name=name, frame_count=None, end_s=None, size=None, audio=None)

    def _frames(self) -> Iterator[Frame]:
        for item in self._items:
            before = self.counts.read
            with self._open or open_item(item) as source:
                self._open = source
                try:
                    for frame in source:
                        yield replace(frame, index=before + frame.index)
                        if self._stopped:
                            break
                finally:
                    # Also if the caller stops in the middle of a file.
                    self._add(source, last=item is self._items[-1])
            self._open = None
            if self._stopped:
                return

    def stop(self) -> None:
        self._stopped = True

    def _release(self) -> None:
        if self._open is not None:
            self._open.close()

    def _add(self, source: Source, *, last: bool) -> None:
        self.counts.add(source.counts)
        end = source.end
        if end.early:
            end = replace(end, reason=f"{source.info.name}: {end.reason}")
        elif not last:
            end = replace(end, early=None)
        gap, missing = max(self.end.gap, end.gap), max(self.end.missing, end.missing)
        if self.end.early:
            end = replace(self.end, reason="; ".join(filter(None, (self.end.reason, end.reason))))
        self.end = replace(end, gap=gap, missing=missing)
