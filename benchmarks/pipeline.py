"""End to end: a clip decoded, segmented, overlaid and encoded, as `edge-seg predict` does it and by a naive loop.

Contenders take turns as elsewhere, each in a worker of its own. After each of its clips, an edge_seg contender also
runs its stages one at a time: their CPU time shows how many frames/s these cores allow.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg.threads import available_threads

from .cases import NAIVE, REFERENCE, Contender
from .environment import file_hash, others_cores
from .measure import interleave, ratio, relative_spread
from .process import CANNOT_BE_HAD, Say, Start, Worker, WorkerError
from .rows import ClipRow
from .settings import Settings

# Most frames of the naive loop's turn, which is many times slower and just as steady.
NAIVE_FRAMES = 20


def describe_clip(path: Path, limit: int | None) -> dict[str, Any]:
    """Name, digest, size and number of frames of a clip, at most `limit`; they are counted where it does not say.

    Raises:
        MediaError: the clip cannot be opened.
    """
    from edge_seg.video import VideoFile

    with VideoFile(path) as video:
        height, width = video.info.size or (0, 0)
        frames = video.info.frame_count or sum(1 for _ in itertools.islice(video, limit))
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
    cpu_s: float = 0.0

    def open(self, batch: int) -> None:
        """Load the model in the worker; a failure is kept in `failure`."""
        try:
            self.worker.ask("open-clip", contender=self.contender.to_dict(), batch=batch)
        except WorkerError as error:
            self.failure = error

    def turn(self, request: dict[str, Any]) -> list[float]:
        """Run the clip end to end, then (for a session) its stages alone; returns the clip's seconds."""
        answer = self.worker.ask("clip", **request)
        self.cpu_s += answer["all_cpu_s"]
        if self.contender.kind == "session":
            stages = self.worker.ask("stages", **request)
            self.cpu_s += stages["all_cpu_s"]
            answer["alone"] = stages["cpu_ms"]
        self.answers.append(answer)
        return [answer["seconds"]]


def measure_clip(
    settings: Settings, contenders: Sequence[Contender], scratch: Path, *, say: Say, start: Start = Worker
) -> tuple[list[ClipRow], float | None]:
    """Run the clip through the naive loop and every session, `clip_repeats` times in turn, at the first batch size.

    Returns:
        The rows, and the cores that other programs kept busy meanwhile, as in `suite.Measured`.
    """
    batch, repeats = settings.batch_sizes[0], settings.clip_repeats
    with ExitStack() as stack:
        seats = [
            ClipSeat(contender, stack.enter_context(start(contender.name))) for contender in clip_contenders(contenders)
        ]
        say(f"end to end: loading {len(seats)} contenders")
        for seat in seats:
            seat.open(batch)

        def failed(index: int, error: Exception) -> None:
            if not isinstance(error, WorkerError):
                raise error
            seats[index].failure = error

        turns = {
            index: partial(seat.turn, _request(settings, seat.contender, scratch))
            for index, seat in enumerate(seats)
            if seat.failure is None
        }
        others = others_cores(
            lambda: interleave(
                turns, repeats, failed=failed, after_round=lambda n: say(f"end to end: round {n + 1} of {repeats}")
            ),
            lambda: sum(seat.cpu_s for seat in seats),
        )
    rows = [_clip_row(seat, batch, available_threads()) for seat in seats]
    naive = next((row for row in rows if row.name == NAIVE and row.status == "ok"), None)
    return [_times_naive(row, naive) for row in rows], others


def clip_contenders(contenders: Sequence[Contender]) -> list[Contender]:
    """The naive loop, if the reference takes part, and every session."""
    naive = [replace(one, name=NAIVE, kind="naive") for one in contenders if one.name == REFERENCE]
    return [*naive, *(one for one in contenders if one.kind == "session")]


def _request(settings: Settings, contender: Contender, scratch: Path) -> dict[str, Any]:
    limit = settings.clip_frames
    if contender.kind == "naive":
        limit = min(limit or NAIVE_FRAMES, NAIVE_FRAMES)
    return {"clip": str(settings.clip), "limit": limit, "target": str(scratch / "overlay.mp4")}


def _times_naive(row: ClipRow, naive: ClipRow | None) -> ClipRow:
    if naive is None or row.status != "ok":
        return row
    # Compared within rounds, as elsewhere. These are frames/s, not times, so the row is the numerator.
    compared = ratio(row.repeats_fps, naive.repeats_fps)
    return replace(row, times_naive=compared.median if compared else None)


def _clip_row(seat: ClipSeat, batch: int, cores: int) -> ClipRow:
    contender, answers, failure = seat.contender, seat.answers, seat.failure
    known = {key: asdict(contender)[key] for key in ("name", "precision", "device", "model")}
    if failure is not None:
        skipped = contender.optional and failure.kind in CANNOT_BE_HAD
        return ClipRow(**known, batch=batch, status="skipped" if skipped else "failed", reason=str(failure))
    speeds = [answer["frames"] / answer["seconds"] for answer in answers]
    allowed = [1000.0 * cores / sum(answer["alone"].values()) for answer in answers if "alone" in answer]
    shares = [speed / most for speed, most in zip(speeds, allowed, strict=False)]
    return ClipRow(
        **known,
        batch=batch,
        frames=answers[-1]["frames"],
        frames_per_s=float(np.median(speeds)),
        spread=relative_spread(speeds),
        repeats_fps=tuple(speeds),
        stage_ms=_medians([answer["stage_ms"] for answer in answers]),
        alone_cpu_ms=_medians([answer["alone"] for answer in answers if "alone" in answer]),
        allowed_fps=float(np.median(allowed)) if allowed else None,
        share_of_allowed=float(np.median(shares)) if shares else None,
        # Of the first clip only: stages run alone after it hold two seconds of decoded frames.
        peak_mb=answers[0]["peak_mb"],
    )


def _medians(records: Sequence[dict[str, float]]) -> dict[str, float]:
    """Stage -> median over repeats; empty without records."""
    stages = dict.fromkeys(stage for record in records for stage in record)
    return {stage: float(np.median([record[stage] for record in records])) for stage in stages}
