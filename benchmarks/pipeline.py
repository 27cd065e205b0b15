"""From end to end: a clip decoded, segmented, overlaid and encoded, by what `edge-seg predict` itself runs.

Knows the call and what it answers; every stage is edge_seg's own. Contenders take turns as they do elsewhere, each in a
worker of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg.errors import MediaError

from .cases import Contender
from .environment import file_hash, peak_memory_mb
from .measure import interleave, relative_spread
from .process import CANNOT_BE_HAD, Worker, WorkerError
from .rows import ClipRow
from .settings import Settings

Say = Callable[[str], None]
Start = Callable[[str], Worker]


def describe_clip(path: Path, limit: int | None) -> dict[str, Any]:
    """Name, digest, size and number of frames of a clip, of which at most `limit` take part.

    Raises:
        MediaError: it cannot be opened.
    """
    from edge_seg.video import VideoFile

    with VideoFile(path) as video:
        height, width = video.info.size or (0, 0)
        frames = video.info.frame_count or 0
    return {
        "name": path.name,
        "digest": file_hash(path),
        "width": width,
        "height": height,
        "frames": min(frames, limit) if limit else frames,
    }


@dataclass
class ClipSeat:
    """A contender's worker and what it has answered so far."""

    contender: Contender
    worker: Worker
    failure: WorkerError | None = None
    answers: list[dict[str, Any]] = field(default_factory=list)

    def open(self, batch: int) -> None:
        """Load the model; remember a failure."""
        try:
            self.worker.ask("open-clip", contender=self.contender.to_dict(), batch=batch)
        except WorkerError as error:
            self.failure = error

    def turn(self, request: dict[str, Any]) -> list[float]:
        """One clip from end to end; its seconds."""
        self.answers.append(self.worker.ask("clip", **request))
        return [self.answers[-1]["seconds"]]


def measure_clip(
    settings: Settings, contenders: Sequence[Contender], scratch: Path, *, say: Say, start: Start = Worker
) -> list[ClipRow]:
    """Run the clip through every session contender, `clip_repeats` times in turn, at the first batch size."""
    batch, repeats = settings.batch_sizes[0], settings.clip_repeats
    with ExitStack() as stack:
        seats = [
            ClipSeat(contender, stack.enter_context(start(contender.name)))
            for contender in contenders
            if contender.kind == "session"
        ]
        say(f"end to end: loading {len(seats)} contenders")
        for seat in seats:
            seat.open(batch)

        def failed(index: int, error: Exception) -> None:
            if not isinstance(error, WorkerError):
                raise error
            seats[index].failure = error

        request = {"clip": str(settings.clip), "limit": settings.clip_frames, "target": str(scratch / "overlay.mp4")}
        turns = {index: partial(seat.turn, request) for index, seat in enumerate(seats) if seat.failure is None}
        interleave(turns, repeats, failed=failed, after_round=lambda n: say(f"end to end: round {n + 1} of {repeats}"))
    return [_clip_row(seat, batch) for seat in seats]


def _clip_row(seat: ClipSeat, batch: int) -> ClipRow:
    contender, answers, failure = seat.contender, seat.answers, seat.failure
    known = {key: asdict(contender)[key] for key in ("name", "precision", "device", "model")}
    if failure is not None:
        skipped = contender.optional and failure.kind in CANNOT_BE_HAD
        return ClipRow(**known, batch=batch, status="skipped" if skipped else "failed", reason=str(failure))
    speeds = [answer["frames"] / answer["seconds"] for answer in answers]
    stages = list(dict.fromkeys(stage for answer in answers for stage in answer["stage_ms"]))
    return ClipRow(
        **known,
        batch=batch,
        frames=answers[-1]["frames"],
        frames_per_s=float(np.median(speeds)),
        spread=relative_spread(speeds),
        repeats_fps=tuple(speeds),
        stage_ms={stage: float(np.median([answer["stage_ms"][stage] for answer in answers])) for stage in stages},
        peak_mb=answers[-1]["peak_mb"],
    )


class ClipRunner:
    """In the worker: a model on a device, and clips through it, by the pipeline that `edge-seg predict` runs."""

    def __init__(self, contender: Contender, batch: int) -> None:
        from edge_seg.segmenter import Segmenter

        self._segmenter = Segmenter(contender.path, device=contender.device, batch_size=batch)
        self._batch = batch

    def run(self, clip: Path, limit: int | None, target: Path) -> dict[str, Any]:
        """One clip to one overlay, opening and finishing of both files timed too.

        Raises:
            MediaError: a clip that cannot be read or an overlay that cannot be written to its end.
        """
        from edge_seg.outputs import OutputStyle, VideoOutputs
        from edge_seg.pipeline import Pipeline, PipelineOptions
        from edge_seg.video import VideoFile

        began = time.perf_counter()
        with VideoFile(clip) as source:
            paths = {"overlay": target}
            sink = VideoOutputs(paths, lambda: source.info, self._segmenter.spec, style=OutputStyle(), audio_from=clip)
            options = PipelineOptions(batch_size=self._batch, limit=limit)
            report = Pipeline(source, self._segmenter, sink, options=options).run()
            if report.error is not None:
                sink.abort()
                raise report.error
            written, _ = sink.close(whole=True)
        seconds = time.perf_counter() - began
        if not written or written[0].frames != report.segmented:
            raise MediaError(f"{clip}: {report.segmented} frames were segmented, but not all are in the overlay.")
        stage_ms = {stage: spent.mean_ms for stage, spent in report.stages.items()}
        return {"frames": report.segmented, "seconds": seconds, "stage_ms": stage_ms, "peak_mb": peak_memory_mb()}
