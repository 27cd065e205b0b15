"""One batch size of a benchmark: a worker for each contender, their labels, interleaved times and rows.

Knows workers and rows. Once all have loaded, only one computes at a time; the others are blocked on their pipes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg.errors import ConfigurationError
from train.classes import ClassList

from .accuracy import Accuracy, measure_accuracy
from .cases import REFERENCE, Contender
from .data import FrameSet
from .environment import others_cores
from .measure import QUARTILES_FROM, interleave, ratio, summarize
from .process import CANNOT_BE_HAD, Say, Start, Worker, WorkerError
from .rows import Row


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What to measure at each batch size.

    Attributes:
        contenders: with the reference among them, or there are no ratios.
        data: frames and truth.
        size: the model's (height, width).
        classes: of the model.
        repeats, frames: turns of each contender, frames a turn.
        scratch: folder for frames at the model's size, and the workers' labels.
        reference: labels for agreement, (N, height, width) uint8, if no contender is the reference.
    """

    contenders: Sequence[Contender]
    data: FrameSet
    size: tuple[int, int]
    classes: ClassList
    repeats: int
    frames: int
    scratch: Path
    reference: np.ndarray | None = None


@dataclass(frozen=True)
class Measured:
    """One batch size: its rows, and how many cores other programs kept busy while they were timed (None if unknown, as
    in a container with fewer cores than the machine)."""

    rows: list[Row]
    others_cores: float | None


@dataclass
class Seat:
    """A contender's worker and what it has answered so far."""

    contender: Contender
    worker: Worker
    detail: str = ""
    arithmetic: str = ""
    failure: WorkerError | None = None
    labels: np.ndarray | None = None
    turns: list[dict[str, Any]] = field(default_factory=list)
    times: list[tuple[float, ...]] = field(default_factory=list)
    peak_mb: float | None = None

    def attempt(self, step: Callable[[], None]) -> None:
        """Do a step unless an earlier one failed; a failure is kept in `failure`."""
        if self.failure is None:
            try:
                step()
            except WorkerError as error:
                self.failure = error

    def loaded(self) -> None:
        """Wait for the worker to load the model, and keep its detail and arithmetic."""
        answer = self.worker.receive()
        self.detail, self.arithmetic = answer["detail"], answer["arithmetic"]


def measure_batch(work: Workload, batch: int, *, say: Say, start: Start = Worker) -> Measured:
    """Measure every contender at one batch size; if one fails, it gets a failed row and the others go on."""
    with ExitStack() as stack:
        seats = [Seat(contender, stack.enter_context(start(contender.name))) for contender in work.contenders]
        # All inputs are closed before any worker is waited for: after an error, one that still loads takes up to 10 s.
        stack.callback(_dismiss, seats)
        say(f"batch {batch}: loading {len(seats)} contenders")
        _load(seats, work, batch)
        for seat in seats:
            say(f"batch {batch}: labels of {seat.contender.name}")
            seat.attempt(partial(_label, seat, work))
        others = others_cores(
            lambda: _take_turns(seats, work, batch, say),
            lambda: sum(turn["all_cpu_s"] for seat in seats for turn in seat.turns),
        )
        for seat in seats:
            seat.attempt(partial(_remember_peak, seat))
    reference = next((seat for seat in seats if seat.contender.name == REFERENCE and seat.failure is None), None)
    return Measured([_row(seat, reference, work, batch) for seat in seats], others)


def _dismiss(seats: Sequence[Seat]) -> None:
    for seat in seats:
        seat.worker.dismiss()


def labels_of(contender: Contender, work: Workload, batch: int, *, say: Say, start: Start = Worker) -> np.ndarray:
    """A contender's labels for the work's frames, (N, height, width) uint8, untimed; raises `WorkerError`."""
    say(f"labels of {contender.name}, to compare with")
    with start(contender.name) as worker:
        seat = Seat(contender, worker)
        _load([seat], work, batch)
        seat.attempt(partial(_label, seat, work))
    if seat.failure is not None:
        raise seat.failure
    assert seat.labels is not None
    return seat.labels


def _load(seats: Sequence[Seat], work: Workload, batch: int) -> None:
    """Load all contenders in parallel: nothing is timed yet, and TensorFlow takes seconds to import."""
    inputs = work.scratch / "inputs.npy"
    np.save(inputs, work.data.inputs(work.size))
    for seat in seats:
        request = {"contender": seat.contender.to_dict(), "batch": batch, "frames": str(inputs)}
        seat.attempt(partial(seat.worker.send, "load", **request))
    for seat in seats:
        seat.attempt(seat.loaded)


def _label(seat: Seat, work: Workload) -> None:
    target = work.scratch / "labels.npy"
    seat.worker.ask("label", to=str(target))
    seat.labels = np.load(target)


def _take_turns(seats: Sequence[Seat], work: Workload, batch: int, say: Say) -> None:
    alive = [seat for seat in seats if seat.failure is None]
    calls = max(1, -(-work.frames // batch))

    def turn(seat: Seat) -> Sequence[float]:
        answer = seat.worker.ask("time", calls=calls)
        seat.turns.append(answer)
        return answer["seconds"]

    def failed(index: int, error: Exception) -> None:
        if not isinstance(error, WorkerError):
            raise error
        alive[index].failure = error

    turns = {index: partial(turn, seat) for index, seat in enumerate(alive)}
    times = interleave(
        turns, work.repeats, failed=failed, after_round=lambda n: say(f"batch {batch}: round {n + 1} of {work.repeats}")
    )
    for index, seat in enumerate(alive):
        seat.times = times[index]


def _remember_peak(seat: Seat) -> None:
    seat.peak_mb = seat.worker.ask("memory")["peak_mb"]


def _row(seat: Seat, reference: Seat | None, work: Workload, batch: int) -> Row:
    contender = seat.contender
    known: dict[str, Any] = {key: getattr(contender, key) for key in ("name", "kind", "precision", "device", "model")}
    known |= {"detail": seat.detail, "arithmetic": seat.arithmetic, "batch": batch}
    try:
        accuracy = _accuracy(seat, reference, work)
    except (WorkerError, ConfigurationError) as error:
        skipped = contender.optional and getattr(error, "kind", "") in CANNOT_BE_HAD
        return Row(**known, status="skipped" if skipped else "failed", reason=str(error))
    summary = summarize(seat.times, batch)
    compared = ratio(summarize(reference.times, batch).repeats_ms, summary.repeats_ms) if reference else None
    spread = compared if len(summary.repeats_ms) >= QUARTILES_FROM else None
    return Row(
        **known,
        ms_median=summary.ms_median,
        ms_p95=summary.ms_p95,
        frames_per_s=summary.frames_per_s,
        spread=summary.spread,
        repeats_ms=summary.repeats_ms,
        calls=summary.calls,
        ratio=compared.median if compared else None,
        ratio_low=spread.low if spread else None,
        ratio_high=spread.high if spread else None,
        cores=sum(turn["cpu_s"] for turn in seat.turns) / sum(map(sum, seat.times)),
        idle_share=_idle_share(seat.turns),
        peak_mb=seat.peak_mb,
        mean_iou=accuracy.mean_iou,
        agreement=accuracy.agreement,
    )


def _accuracy(seat: Seat, reference: Seat | None, work: Workload) -> Accuracy:
    """Accuracy of the seat's labels; raises the worker's failure, or `ConfigurationError` for impossible labels."""
    if seat.failure is not None:
        raise seat.failure
    assert seat.labels is not None
    return measure_accuracy(
        seat.labels,
        work.data.truth,
        classes=len(work.classes),
        unlabelled=work.classes.unlabelled,
        reference=reference.labels if reference else work.reference,
    )


def _idle_share(turns: Sequence[dict[str, Any]]) -> float:
    idle_s = sum(turn["idle_s"] for turn in turns)
    return sum(turn["idle_cpu_s"] for turn in turns) / idle_s if idle_s else 0.0
