"""A source through a Segmenter, result by result, for a caller's own loop, with a report on its frames.

Knows no outputs and no threads: the caller's loop sets the pace.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from .account import StreamReport, frame_counts, losses, source_facts
from .errors import ConfigurationError, MediaError, warn_caller
from .media import Source, SourceCounts
from .phrases import counted
from .preprocess import check_frame
from .redact import redact
from .segmentation import Segmentation


@dataclass(frozen=True, slots=True)
class Given:
    """A frame (H, W, 3) uint8 BGR as it was given, and what its result copies."""

    image: np.ndarray
    index: int
    time_s: float | None
    name: str


Segment = Callable[[list[Given]], list[Segmentation]]


class Capture(Protocol):
    """The methods of `cv2.VideoCapture` that are used."""

    def read(self) -> tuple[bool, Any]:
        """(whether there is a frame, the frame)."""
        ...

    def isOpened(self) -> bool:
        """Whether frames may come."""
        ...


@dataclass
class _Progress:
    """How far a stream has come. Separate from the stream: if the generator referred to that, the cycle would keep its
    file open after the caller's loop was left, until Python's collector runs."""

    source: Source | None
    taken: int = 0
    segmented: int = 0
    closed: bool = False


class ResultStream(Iterator[Segmentation]):
    """A lazy iterator of results, and a context manager; `report` says what became of the frames.

    Memory is that of one batch, however long the source. A source that breaks off before its declared end, or loses
    frames, gives what it has, then a `RuntimeWarning` that says so; one that fails gives what came before, then its
    error. One thread takes the results; any other may call `close`.

    Args:
        segment: frames as they were given -> results, from a Segmenter.
        batch_size: frames per call of `segment`.
        source: a path, an address, a camera's index, "-", an open `Source`, a `cv2.VideoCapture`, or any iterable of
            frames.

    Raises:
        ConfigurationError: `source` is none of these.
    """

    def __init__(self, segment: Segment, batch_size: int, source: Any) -> None:
        if isinstance(source, np.ndarray) and source.ndim == 3:
            raise ConfigurationError("Expected a source, got a single frame; `segment(frame)` takes one.")
        if isinstance(source, bytes) or not (
            isinstance(source, (str, int, os.PathLike)) or hasattr(source, "__iter__") or _is_capture(source)
        ):
            raise ConfigurationError(
                "A source is a path, an address, a camera's index or an iterable of frames; "
                f"got {type(source).__name__}."
            )
        # Not the source itself: a stream that is kept for its report keeps no frames.
        self._name = _printable(source)
        self._progress = _Progress(source if isinstance(source, Source) else None)
        self._results = _results(segment, batch_size, source, self._progress)

    def __next__(self) -> Segmentation:
        if self._progress.closed:
            self._let_go()
            raise StopIteration
        return next(self._results)

    def __enter__(self) -> ResultStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._progress.closed else f"{counted(self._progress.segmented, 'frame')} segmented"
        return f"ResultStream({self._name!r}, {state})"

    def close(self) -> None:
        """Stop here and release the source. Safe from any thread, and when called twice.

        Files and cameras that the stream opened are closed. Of an iterable or a `cv2.VideoCapture` it lets go: one that
        nobody else holds ends here, a generator by its `finally`, and one that the caller holds stays open.

        A loop in another thread ends with the frames that are being segmented, or at once if it is waiting for a live
        source or connecting to one; if it is waiting for the caller's own iterable, when that gives its next frame.
        libav cannot be interrupted: an opening that was given up goes on until its timeout, for which the end of the
        program waits, and a camera that has gone silent stays connected for up to 8 s.
        """
        self._progress.closed = True
        if not self._let_go() and self._progress.source is not None:
            self._progress.source.stop()

    def _let_go(self) -> bool:
        """Release the source, unless another thread is taking a result; returns whether it was released."""
        try:
            self._results.close()
        except ValueError as error:
            if "already executing" not in str(error):
                raise
            return False
        return True

    @property
    def report(self) -> StreamReport:
        """What became of the frames so far; it balances once the stream has ended or was closed."""
        source, taken, segmented = self._progress.source, self._progress.taken, self._progress.segmented
        counts = SourceCounts(read=taken) if source is None else source.counts
        facts = {"source": self._name} if source is None else source_facts(source)
        return StreamReport(frames=frame_counts(counts, segmented=segmented, lost=taken - segmented), **facts)


def _is_capture(given: Any) -> bool:
    return hasattr(given, "read") and hasattr(given, "isOpened")


def _captured(capture: Capture) -> Iterator[np.ndarray]:
    if not capture.isOpened():
        raise MediaError("The VideoCapture is not open: no such file or camera, or OpenCV cannot read it.")
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield frame


def _printable(given: Any) -> str:
    """The name of a source that is not open; like that of an open one, without credentials."""
    if isinstance(given, (str, os.PathLike)):
        return redact(str(given))
    return f"camera {given}" if isinstance(given, int) else type(given).__name__


def _results(segment: Segment, batch_size: int, given: Any, progress: _Progress) -> Generator[Segmentation]:
    with contextlib.ExitStack() as stack:
        items: Iterable[Any] = given
        if isinstance(items, (str, int, os.PathLike)):
            from .sources import open_source

            try:
                opened = open_source(items, stopped=lambda: progress.closed)
            except MediaError:
                if progress.closed:
                    return
                raise
            items = progress.source = stack.enter_context(opened)
            if progress.closed:  # Meanwhile, when `close` had no source to stop yet.
                return
        frames = iter(_captured(given) if _is_capture(given) else items)
        # A caller's own camera may write all its frames into one array, one after the other.
        copied = batch_size > 1 and not isinstance(items, Source)
        if isinstance(items, Source):
            # A live source completes its counts only when its iterator is closed.
            stack.callback(frames.close)  # type: ignore[attr-defined]
        for batch in _batches(frames, batch_size, progress, copied=copied):
            results = segment(batch)
            progress.segmented += len(results)
            yield from results
        if isinstance(items, Source) and not progress.closed:
            _warn_of_losses(items)


def _batches(frames: Iterable[Any], size: int, progress: _Progress, *, copied: bool) -> Iterator[list[Given]]:
    """The items' frames in batches of `size`; items are counted as they come.

    If the iterable raises an error, the items before it are given first: how many results there are does not depend on
    the batch size.
    """
    batch: list[Given] = []
    try:
        for item in frames:
            image, index = getattr(item, "image", item), getattr(item, "index", progress.taken)
            # A named tuple without such a field has a method of this name.
            index = progress.taken if callable(index) else index
            progress.taken += 1
            image = check_frame(image)
            image = image.copy() if copied else image
            batch.append(Given(image, index, getattr(item, "time_s", None), getattr(item, "name", "")))
            if progress.closed:
                break
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _warn_of_losses(source: Source) -> None:
    """Warn if a source ended early or lost frames."""
    name, end = source.info.name, source.end
    if end.early:
        warn_caller(f"{name} ended early, at {end.at_s:.2f} s: {end.reason}")
    elif lost := losses(source):
        warn_caller(f"{name}: {lost}")
