"""Frames through a model, decode, inference and output overlapping: threads and two bounded queues.

Memory is that of the queues, whatever the length. Knows no file formats: it is handed a `Source`, something with
`predict_labels`, and a `Sink`.

    source --(reader thread)--> frames --(this thread: batches, inference)--> labelled --(writer thread)--> sink

Where the device gains by it, two batches are inferred at once: what one run leaves idle, a core or a GPU's copies, the
other one fills. Results keep the order of the frames.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .account import SHARES, frame_counts
from .channel import Channel
from .crew import Crew
from .errors import ConfigurationError
from .media import Frame, Source, SourceCounts
from .preprocess import stack_frames
from .spec import ModelSpec
from .steady import Flicker
from .timings import StageTime, Stopwatch

STAGES = ("decode", "resize", "inference", "smooth", "paint", "write")
# Frames that may wait for a batch to fill when only some of them are segmented.
LONGEST_WINDOW = 24


class Predictor(Protocol):
    """The part of a Segmenter the pipeline needs."""

    spec: ModelSpec

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the frames it takes."""
        ...

    @property
    def runs_at_once(self) -> int:
        """How many calls of `predict_labels` on threads of their own its device gains by."""
        ...

    def predict_labels(self, batch: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 -> (N, H, W) uint8."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Inferred:
    """What inference made of a window's chosen frames: the batch, its labels, and the seconds both took."""

    batch: np.ndarray
    labels: np.ndarray
    resize_s: float
    inference_s: float


# Frames in order, the places of those to be segmented, and what becomes of them.
_Window = tuple[list[Frame], list[int], "Future[_Inferred] | None"]


def _is_due(under_way: deque[_Window], at_once: int) -> bool:
    """Whether the first window should be waited for and passed on before more is begun."""
    runs = sum(inferred is not None for _, _, inferred in under_way)
    return under_way[0][2] is None or runs >= at_once or len(under_way) > LONGEST_WINDOW


class Sink(Protocol):
    """Where labelled frames go. All calls come from one thread, in the order of the frames."""

    def write(self, frame: Frame, labels: np.ndarray, watches: dict[str, Stopwatch]) -> None:
        """Take a frame and its class ids, (h, w) uint8 at the model's size; record "paint" and "write" times.

        A frame that was not segmented comes with the very array of the last one that was.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    """What to segment.

    Attributes:
        batch_size: frames a run of the model.
        stride: every Nth frame is segmented, and its labels are shown on those between.
        limit: stop after so many frames, None for all.
        drop_corrupt: leave out frames the decoder found damaged.
    """

    batch_size: int = 1
    stride: int = 1
    limit: int | None = None
    drop_corrupt: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "stride"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be 1 or more; got {getattr(self, name)}.")
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError(f"limit must be 1 or more; got {self.limit}.")


@dataclass(frozen=True, kw_only=True)
class PipelineReport:
    """What became of every frame: read = segmented + failed + dropped + skipped.

    Attributes:
        read: frames the source had, as far as it was read.
        segmented: written with labels of their own.
        skipped: written with the labels of an earlier frame (stride).
        failed: gave no picture, or were lost to the error.
        dropped: replaced by a newer one (live), or left out as damaged.
        wall_s: from the first read to the last write.
        stages: milliseconds a frame by stage.
        age: milliseconds from a live frame's arrival to its being written, None for files.
        flicker: share of pixels (0..1, at the model's size) that change class from one segmented frame to the next,
            the mean of all; None before there are two.
        raw_flicker: the same of the labels as the model gave them, before `postprocess`.
        error: what ended the run, None if nothing did.
        interrupted: it was asked to stop before the end.
        limited: it reached its limit.
    """

    read: int
    segmented: int
    skipped: int
    failed: int
    dropped: int
    wall_s: float
    stages: dict[str, StageTime] = field(default_factory=dict)
    age: StageTime | None = None
    flicker: float | None = None
    raw_flicker: float | None = None
    error: Exception | None = None
    interrupted: bool = False
    limited: bool = False

    def frames(self, counts: SourceCounts) -> dict[str, int]:
        """The frames' account: the run's, and what the source's own counts add to it."""
        own = {key: getattr(self, key) for key in ("read", *SHARES)}
        return {**frame_counts(counts), **own}

    @property
    def written(self) -> int:
        """Frames in the output."""
        return self.segmented + self.skipped

    @property
    def frames_per_s(self) -> float:
        """Frames a second from end to end."""
        return self.written / self.wall_s if self.wall_s > 0 else 0.0


class Pipeline:
    """One run of a source through a model into a sink.

    Args:
        source: open for reading; read from a thread of its own.
        predictor: a Segmenter, used from the calling thread.
        sink: takes labelled frames, on a thread of its own.
        options: batch, stride, limit.
        postprocess: (labels, image) -> labels, for each frame that was segmented, in order; both at the model's size,
            to be left as they are.
        on_progress: called with the number of frames written so far, on the writer's thread.
    """

    def __init__(
        self,
        source: Source,
        predictor: Predictor,
        sink: Sink,
        *,
        options: PipelineOptions | None = None,
        postprocess: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self._source, self._predictor, self._sink = source, predictor, sink
        self._options = options or PipelineOptions()
        self._stop = threading.Event()
        self._postprocess, self._on_progress = postprocess, on_progress
        # Whether reading may wait for others, for ever.
        self._waits = source.info.live or source.info.kind == "pipe"
        # Whether it may wait even where it was told to stop. A pipe is looked at in short waits, but on Windows.
        self._hangs = source.info.live or (source.info.kind == "pipe" and os.name == "nt")
        # A live source keeps the newest frame itself; a queue behind it would only make frames old.
        depth = 1 if source.info.live else 2 * self._options.batch_size + 2
        self._frames: Channel[Frame] = Channel(depth)
        self._labelled: Channel[tuple[Frame, np.ndarray, bool]] = Channel(depth)
        self.watches = {stage: Stopwatch() for stage in STAGES}
        self._ages = Stopwatch()
        self._raw_flicker, self._flicker = Flicker(), Flicker()
        self._error: BaseException | None = None
        self._left_out = self._segmented = self._skipped = self._delivered = 0
        self._interrupted = self._limited = False

    def request_stop(self) -> None:
        """Stop reading and finish what is under way. Safe in a signal handler."""
        self._stop.set()
        if self._waits:
            self._source.stop()

    def run(self) -> PipelineReport:
        """Run to the end of the source, its limit, a stop or an error; the report says which. Never raises for frames.

        KeyboardInterrupt and the like, `SystemExit` in a callback too, end both threads before they go on.
        """
        started = time.perf_counter()
        reader, writer = (
            threading.Thread(target=self._guarded, args=(work,), name=f"edge_seg-{name}", daemon=True)
            for name, work in (("read", self._read), ("write", self._write))
        )

        def work() -> None:
            for thread in (reader, writer):
                thread.start()
            self._infer()

        try:
            self._guarded(work)
        finally:
            # The reader may hang in a dead connection or pipe: it is a daemon, and its frames go nowhere any more.
            for thread, patience_s in ((writer, None), (reader, 1.0 if self._hangs else None)):
                if thread.ident is not None:
                    thread.join(patience_s)
        if self._error is not None and not isinstance(self._error, Exception):
            raise self._error
        return self._report(time.perf_counter() - started, self._error)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run one stage; its error stops the others, whatever it is: they would wait for it for ever."""
        try:
            work()
        except BaseException as error:
            if self._error is None or not isinstance(error, Exception):
                self._error = error
            self._cancel()

    def _cancel(self) -> None:
        self._source.stop()
        self._frames.cancel()
        self._labelled.cancel()

    def _read(self) -> None:
        frames = iter(self._source)
        watch = self.watches["decode"]
        try:
            while not self._done_reading():
                started = time.perf_counter()
                frame = next(frames, None)
                if frame is None:
                    # What is piped in ends where it is stopped.
                    if self._source.info.kind == "pipe":
                        self._done_reading()
                    break
                watch.add(time.perf_counter() - started)
                if frame.corrupt and self._options.drop_corrupt:
                    self._left_out += 1
                    continue
                self._delivered += 1
                if not self._frames.put(frame):
                    break
        finally:
            frames.close()  # type: ignore[attr-defined]
            self._frames.close()

    def _done_reading(self) -> bool:
        self._limited = self._options.limit is not None and self._delivered >= self._options.limit
        self._interrupted = self._stop.is_set() and not self._limited
        return self._limited or self._interrupted

    def _infer(self) -> None:
        # A live frame is wanted soon rather than many at a time.
        with Crew(1 if self._source.info.live else self._predictor.runs_at_once) as crew:
            self._infer_with(crew)
        self._labelled.close()

    def _infer_with(self, crew: Crew) -> None:
        options, live = self._options, self._source.info.live
        window: list[Frame] = []
        chosen: list[int] = []
        under_way: deque[_Window] = deque()
        last = np.zeros(self._predictor.input_size, np.uint8)
        for count, frame in enumerate(self._frames):
            if count % options.stride == 0:
                chosen.append(len(window))
            window.append(frame)
            full = len(chosen) >= options.batch_size or len(window) >= max(options.batch_size, LONGEST_WINDOW)
            # Live frames do not wait for company.
            if full or not chosen or (live and self._frames.empty()):
                under_way.append(self._begin(crew, window, chosen))
                window, chosen = [], []
            while under_way and _is_due(under_way, crew.size):
                last = self._pass_on(under_way.popleft(), last)
        under_way.append(self._begin(crew, window, chosen))
        while under_way:
            last = self._pass_on(under_way.popleft(), last)

    def _begin(self, crew: Crew, window: list[Frame], chosen: list[int]) -> _Window:
        """Begin to segment the chosen frames of a window."""
        images = [window[place].image for place in chosen]
        return window, chosen, crew.start(self._predict, images) if images else None

    def _pass_on(self, under_way: _Window, last: np.ndarray) -> np.ndarray:
        """Wait for a window's labels and pass all of it on; returns the labels shown last."""
        window, chosen, inferred = under_way
        labels = iter(self._settle(inferred.result()) if inferred is not None else [])
        for place, frame in enumerate(window):
            own = place in chosen
            if own:
                last = next(labels)
            if not self._labelled.put((frame, last, own)):
                break
        return last

    def _predict(self, images: list[np.ndarray]) -> _Inferred:
        started = time.perf_counter()
        batch = stack_frames(images, self._predictor.input_size)
        resized = time.perf_counter()
        labels = self._predictor.predict_labels(batch)
        ended = time.perf_counter()
        return _Inferred(batch=batch, labels=labels, resize_s=resized - started, inference_s=ended - resized)

    def _settle(self, inferred: _Inferred) -> list[np.ndarray]:
        """The labels to show for each frame of a batch; in the order of the frames, from one thread."""
        count = len(inferred.labels)
        self.watches["resize"].add(inferred.resize_s, frames=count)
        self.watches["inference"].add(inferred.inference_s, frames=count)
        return [self._shown(*pair) for pair in zip(inferred.labels, inferred.batch, strict=True)]

    def _shown(self, labels: np.ndarray, image: np.ndarray) -> np.ndarray:
        """The labels to show for a frame the model said `labels` of."""
        self._raw_flicker.add(labels)
        if self._postprocess is not None:
            started = time.perf_counter()
            labels = self._postprocess(labels, image)
            self.watches["smooth"].add(time.perf_counter() - started)
        self._flicker.add(labels)
        return labels

    def _write(self) -> None:
        for frame, labels, own in self._labelled:
            self._sink.write(frame, labels, self.watches)
            if own:
                self._segmented += 1
            else:
                self._skipped += 1
            if frame.captured_at is not None:
                self._ages.add(time.monotonic() - frame.captured_at)
            if self._on_progress is not None:
                self._on_progress(self._segmented + self._skipped)

    def _report(self, wall_s: float, error: Exception | None) -> PipelineReport:
        counts = self._source.counts
        lost = self._delivered - self._segmented - self._skipped
        summaries = {stage: watch.summary() for stage, watch in self.watches.items()}
        return PipelineReport(
            read=counts.read,
            segmented=self._segmented,
            skipped=self._skipped,
            failed=counts.failed + lost,
            dropped=counts.dropped + self._left_out,
            wall_s=wall_s,
            stages={stage: summary for stage, summary in summaries.items() if summary is not None},
            age=self._ages.summary(),
            flicker=self._flicker.share,
            raw_flicker=self._raw_flicker.share,
            error=error,
            interrupted=self._interrupted,
            limited=self._limited,
        )
