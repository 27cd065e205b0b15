"""Frames through a model, with decoding, inference and output overlapping: threads and two bounded queues.

Memory is that of the queues and of the batches under way, however long the source. Knows no file formats: it is handed
a `Source`, something with `predict_labels`, and a `Sink`.

    source --(reader thread)--> frames --(this thread: batches, inference)--> labelled --(writer thread)--> sink

Where the device gains by it, two batches run at once: each uses what the other leaves idle (a core, or a GPU while the
other copies). Results keep the order of the frames.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .account import frame_counts
from .channel import Channel
from .errors import MediaError
from .labelling import Labelled, Labeller, PipelineOptions, Predictor
from .media import Frame, Source, SourceInfo
from .memory import amount, available_memory
from .phrases import counted
from .timings import StageTime, Stopwatch

# Bytes of frames that one queue may hold: 43 frames of 1920x1080, 10 of 3840x2160.
QUEUE_BYTES = 1 << 28
STAGES = ("decode", "resize", "inference", "smooth", "paint", "write")


class Sink(Protocol):
    """Where labelled frames go. All calls come from one thread, in the order of the frames."""

    def write(self, frame: Frame, labels: np.ndarray, watches: dict[str, Stopwatch]) -> None:
        """Take a frame and its labels, (h, w) uint8 at the model's size; record "paint" and "write" times.

        A frame that was not segmented comes with the same array object as the last one that was.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class PipelineReport:
    """How a run went.

    Attributes:
        frames: what became of every frame, as in a `StreamReport`.
        wall_s: seconds from the first read to the last write.
        stages: stage -> milliseconds per frame.
        age: milliseconds from a live frame's arrival until it is written, None for files.
        flicker: share of pixels (0..1, at the model's size) that change class from one segmented frame to the next,
            the mean over all pairs; None with fewer than two such frames.
        raw_flicker: the same for the model's own labels, before `postprocess`.
        error: the error that ended the run, or None.
        interrupted: the run was asked to stop before the end.
        limited: the run reached its limit.
    """

    frames: dict[str, int]
    wall_s: float
    stages: dict[str, StageTime] = field(default_factory=dict)
    age: StageTime | None = None
    flicker: float | None = None
    raw_flicker: float | None = None
    error: Exception | None = None
    interrupted: bool = False
    limited: bool = False

    @property
    def written(self) -> int:
        """Frames in the output."""
        return self.frames["segmented"] + self.frames["skipped"]

    @property
    def frames_per_s(self) -> float:
        """Frames a second from end to end."""
        return self.written / self.wall_s if self.wall_s > 0 else 0.0


def _queue_depth(info: SourceInfo, batch_size: int) -> int:
    """Capacity of each queue: a batch and two more frames, to keep both sides busy, within `QUEUE_BYTES`."""
    if info.live:
        # A live source keeps the newest frame itself; a longer queue would only delay frames.
        return 1
    depth = batch_size + 2
    return max(2, min(depth, QUEUE_BYTES // _frame_bytes(info))) if info.size else depth


def _check_memory(info: SourceInfo, frames: int) -> None:
    """Raise `MediaError` if so many frames need more memory than is free: the system would kill the process."""
    needed, free = frames * _frame_bytes(info), available_memory()
    if free is not None and needed > free:
        assert info.size is not None
        height, width = info.size
        raise MediaError(
            f"{info.name}: {counted(frames, 'frame')} of {width}x{height} are under way at this batch size and need "
            f"about {amount(needed)}; {amount(free)} are free. Take a smaller batch."
        )


def _frame_bytes(info: SourceInfo) -> int:
    """Bytes of one BGR frame; 0 if the size is not known yet."""
    return info.size[0] * info.size[1] * 3 if info.size else 0


class Pipeline:
    """One run of a source through a model into a sink.

    Args:
        source: open for reading; read on a thread of its own.
        predictor: a Segmenter; if its device runs several batches at once, used from as many threads.
        sink: takes labelled frames, on a thread of its own.
        options: batch, stride, limit.
        postprocess: (labels, image) -> labels, for each segmented frame, in order; both at the model's size, and not
            to be modified.
        on_progress: called with the number of frames written so far, on the writer's thread.

    Raises:
        MediaError: the frames under way need more memory than is free.
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
        self._source, self._sink = source, sink
        self._options = options or PipelineOptions()
        self._stop = threading.Event()
        self._on_progress = on_progress
        # Whether a read may block for ever, waiting for data from outside.
        self._waits = source.info.live or source.info.kind == "pipe"
        # Whether a read may block even after `stop`. Reads of a pipe wait in short steps, except on Windows.
        self._hangs = source.info.live or (source.info.kind == "pipe" and os.name == "nt")
        depth = _queue_depth(source.info, self._options.batch_size)
        under_way = 2 * depth + self._options.longest_window * (predictor.runs_at_once + 1)
        _check_memory(source.info, min(under_way, self._options.limit or under_way))
        self._frames: Channel[Frame] = Channel(depth)
        self._labelled: Channel[Labelled] = Channel(depth)
        self.watches = {stage: Stopwatch() for stage in STAGES}
        self._ages = Stopwatch()
        self._labeller = Labeller(predictor, self._options, self.watches, postprocess)
        self._error: BaseException | None = None
        self._left_out = self._segmented = self._skipped = self._delivered = 0
        self._interrupted = self._limited = False

    def request_stop(self) -> None:
        """Stop reading and finish what is under way. Safe in a signal handler."""
        self._stop.set()
        if self._waits:
            self._source.stop()

    def run(self) -> PipelineReport:
        """Run to the end of the source, its limit, a stop or an error; the report says which. No `Exception` is raised.

        KeyboardInterrupt and the like, `SystemExit` in a callback too, end both threads and are then raised again.
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
            # The reader may hang in a dead connection or pipe. It is a daemon thread, and its frames are discarded.
            for thread, patience_s in ((writer, None), (reader, 1.0 if self._hangs else None)):
                if thread.ident is not None:
                    thread.join(patience_s)
        if self._error is not None and not isinstance(self._error, Exception):
            raise self._error
        return self._report(time.perf_counter() - started, self._error)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run one stage; any error stops the others, which would wait for this stage for ever."""
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
        watch, live = self.watches["decode"], self._source.info.live
        try:
            while not self._note_end():
                # A live frame is taken when its turn has come: one taken sooner would not be the newest by then.
                if live and not self._frames.wait_until_wanted():
                    break
                started = time.perf_counter()
                frame = next(frames, None)
                if frame is None:
                    # A pipe also ends when it is stopped: note if that is why.
                    if self._source.info.kind == "pipe":
                        self._note_end()
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

    def _note_end(self) -> bool:
        """Whether to stop reading; also records the reason."""
        self._limited = self._options.limit is not None and self._delivered >= self._options.limit
        self._interrupted = self._stop.is_set() and not self._limited
        return self._limited or self._interrupted

    def _infer(self) -> None:
        labelled = self._labeller.label(self._frames, live=self._source.info.live)
        with contextlib.closing(labelled):
            for item in labelled:
                if not self._labelled.put(item):
                    break
        self._labelled.close()

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
        summaries = {stage: watch.summary() for stage, watch in self.watches.items()}
        return PipelineReport(
            frames=frame_counts(
                self._source.counts,
                segmented=self._segmented,
                skipped=self._skipped,
                lost=self._delivered - self._segmented - self._skipped,
                left_out=self._left_out,
            ),
            wall_s=wall_s,
            stages={stage: summary for stage, summary in summaries.items() if summary is not None},
            age=self._ages.summary(),
            flicker=self._labeller.flicker.share,
            raw_flicker=self._labeller.raw_flicker.share,
            error=error,
            interrupted=self._interrupted,
            limited=self._limited,
        )
