"""A whole benchmark, from settings to a result: calls the other modules in order, and notes if a run was noisy."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_seg.modelfile import read_model_header
from train.classes import ClassList

from .data import FrameSet, load_data
from .environment import environment
from .field import Field, find_field
from .measure import NOISE_BOUND, OTHERS_BOUND
from .pipeline import describe_clip, measure_clip
from .process import Say, Start, Worker
from .roofline import against_limits, ask_limits, ask_operations, best_limits, summed
from .rows import OUTRUN, ClipRow, Result, Row
from .settings import Settings, check_run, model_files, read_config, run_classes
from .suite import Workload, measure_batch
from .table import percent

# A worker that uses more than this share of a core while it waits for its turn disturbs the others.
IDLE_BOUND = 0.03
# At any precision, a network's own file agrees with it on a larger share of pixels.
STRANGER_BOUND = 0.95


def run_benchmark(settings: Settings, *, say: Say, start: Start = Worker) -> Result:
    """Measure everything the settings ask for.

    Raises:
        ModelFileError, DatasetError, MediaError: a run, model, dataset or clip is unusable.
        ConfigurationError: models do not fit together, or a device does not exist.
    """
    began, created = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    surroundings = environment()
    run_digest = check_run(settings.run)
    clip = describe_clip(settings.clip, settings.clip_frames) if settings.clip else {}
    # Each before what takes minutes, scenes and exports, so that a wrong file or a missing dataset is reported at once.
    model_files(settings.models)
    say("reading the data" if settings.data else "rendering the data")
    data = load_data(settings.data, limit=settings.data_limit, classes=run_classes(settings.run))
    field = find_field(settings, run_digest, say)
    limits = ask_limits(settings.limits, say=say, start=start)
    counts, uncounted = ask_operations(field.files, field.size, start=start)
    measured, clip_rows, others = _measured(settings, field, data, say, start)
    # Measured before and after, as a busy moment would make the limits too low and rows exceed them.
    limits = best_limits(limits, ask_limits(settings.limits, say=say, start=start))
    rows = (*(against_limits(row, counts, limits) for row in measured), *field.failed)
    noise = noise_notes(rows, clip_rows, others, surroundings)
    return Result(
        created=created,
        duration_s=round(time.monotonic() - began, 1),
        environment=surroundings,
        settings=_recorded(settings, field.size),
        data=data.to_dict(),
        clip=clip,
        models=_models(settings, field, run_digest),
        rows=rows,
        clip_rows=tuple(clip_rows),
        notes=(
            *settings.notes,
            *noise,
            *stranger_notes(rows, settings.run),
            *field.notes,
            *limit_notes(limits, uncounted),
        ),
        limits=limits,
        operations=summed(counts),
        noisy=any(note.startswith("NOISY") for note in noise),
    )


def _measured(
    settings: Settings, field: Field, data: FrameSet, say: Say, start: Start
) -> tuple[list[Row], list[ClipRow], list[float | None]]:
    """The rows at each batch size, those of the clip, and the cores that other programs kept busy in each part."""
    spec = read_model_header(field.files[0].path).spec
    with tempfile.TemporaryDirectory(prefix="edge_seg_bench_") as scratch:
        work = Workload(
            contenders=field.contenders,
            data=data,
            size=field.size,
            classes=ClassList(names=spec.classes, unlabelled=spec.unlabelled),
            repeats=settings.repeats,
            frames=settings.frames,
            scratch=Path(scratch),
        )
        parts = [measure_batch(work, batch, say=say, start=start) for batch in settings.batch_sizes]
        rows, others = [row for part in parts for row in part.rows], [part.others_cores for part in parts]
        if settings.clip is None:
            return rows, [], others
        clip_rows, clip_others = measure_clip(settings, field.contenders, Path(scratch), say=say, start=start)
    return rows, clip_rows, [*others, clip_others]


def noise_notes(
    rows: Collection[Row], clip_rows: Iterable[ClipRow], others: Iterable[float | None], surroundings: dict[str, Any]
) -> list[str]:
    """Reasons to doubt this run or its peaks, one line each; empty if there are none.

    `others`: the cores that other programs kept busy while each part was timed, None if unknown.
    """
    everything: list[Row | ClipRow] = [*rows, *clip_rows]
    wide = sorted(
        (row for row in everything if (row.spread or 0.0) > NOISE_BOUND), key=lambda row: -(row.spread or 0.0)
    )
    notes = []
    if wide:
        named = ", ".join(f"{row.name} batch {row.batch} {percent(row.spread, 0)}" for row in wide[:4]) + (
            ", ..." if len(wide) > 4 else ""
        )
        notes.append(
            f"NOISY: repeats of {len(wide)} of {len(everything)} rows spread by more than {percent(NOISE_BOUND, 0)} "
            f"({named}). "
            "Ratios, which are taken within rounds, bear slowness that lasts for rounds, and no shorter one."
        )
    most = max((cores or 0.0 for cores in others), default=0.0)
    if most > OTHERS_BOUND * surroundings["cores"]:
        notes.append(
            f"NOISY: other programs kept {most:.2f} of {surroundings['cores']} core(s) busy: trust neither "
            "times nor ratios. Stop them, and run again."
        )
    restless = [row for row in rows if (row.idle_share or 0.0) > IDLE_BOUND]
    if restless:
        named = ", ".join(f"{row.name} batch {row.batch} {percent(row.idle_share, 0)}" for row in restless[:4])
        notes.append(f"NOISY: contenders computed while they should have waited ({named} of a core).")
    outrun = [row for row in rows if (row.share_of_peak or 0.0) > OUTRUN]
    if outrun:
        named = ", ".join(f"{row.name} batch {row.batch}" for row in outrun[:4])
        notes.append(f"OUTRUN: {named} outran the peak, which was measured too low: its share says little.")
    return notes


def stranger_notes(rows: Iterable[Row], run: Path) -> list[str]:
    """A line if model files hardly agree with the reference, as files of another network would."""
    strangers = [row for row in rows if row.agreement is not None and row.agreement < STRANGER_BOUND]
    if not strangers:
        return []
    named = ", ".join(dict.fromkeys(f"{row.name} {percent(row.agreement, 1)}" for row in strangers[:4]))
    return [
        f"ANOTHER NETWORK? So few pixels agree with the Keras run {run}: {named}. Give the run that the file was "
        "exported from: --run RUN."
    ]


def limit_notes(limits: dict[str, Any], uncounted: str) -> list[str]:
    """A line for each limit that was not measured or has no units on this machine."""
    problem = limits.get("problem")
    missing = [f"no {name} peak: {peak['reason']}" for name, peak in limits.get("peaks", {}).items() if peak["reason"]]
    return [*([f"limits were not measured: {problem}"] if problem else []), *missing, *filter(None, [uncounted])]


def _recorded(settings: Settings, size: tuple[int, int]) -> dict[str, Any]:
    return {
        "size": list(size),
        "batch_sizes": list(settings.batch_sizes),
        "repeats": settings.repeats,
        "frames": settings.frames,
        "clip_repeats": settings.clip_repeats,
        "options": settings.extent,
        "devices": list(settings.devices) if settings.devices is not None else None,
    }


def _models(settings: Settings, field: Field, run_digest: str) -> list[dict[str, Any]]:
    files = [
        {"file": file.path.name, "label": file.label, "precision": file.precision, "digest": file.digest}
        for file in field.files
    ]
    run = {"file": settings.run.name, "label": "Keras run", "precision": "fp32", "digest": run_digest}
    return [{**run, "recipe": _recipe(settings.run)}, *files]


def _recipe(run: Path) -> str | None:
    """Name of the recipe that a run was trained with; None for an untrained network."""
    recipe = read_config(run).get("recipe")
    return recipe.get("name", "unnamed") if isinstance(recipe, dict) else recipe
