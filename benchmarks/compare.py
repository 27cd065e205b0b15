"""Two results side by side: how many times faster each contender became, with its spread; unlike runs are refused.

Knows results alone. Different code, packages or models are what one compares; a different processor, number of cores,
data or work is what makes a comparison a lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edge_seg.errors import ConfigurationError

from .measure import Ratio, ratio_between_runs
from .rows import ClipRow, Result, Row
from .table import align

ROW_HEAD = ("contender", "batch", "before ms", "after ms", "times faster", "quartiles", "", "x Keras", "mean IoU")
CLIP_HEAD = ("end to end", "batch", "before fps", "after fps", "times faster", "quartiles", "")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One contender in both results.

    Attributes:
        name, batch: of the contender.
        before, after: ms/frame, or frames/s for a clip.
        speed: times faster after than before; quartiles over all pairs of repeats.
        verdict: "faster", "slower", or "no difference" where the quartiles enclose 1.
        keras_before, keras_after: times faster than Keras in its own run, which a slow machine leaves alone.
        mean_iou: change in points, None where one has none.
    """

    name: str
    batch: int
    before: float
    after: float
    speed: Ratio
    verdict: str
    keras_before: float | None = None
    keras_after: float | None = None
    mean_iou: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two like results say of one another."""

    changes: tuple[Change, ...]
    clip_changes: tuple[Change, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


def unlike(before: Result, after: Result) -> list[str]:
    """Why two results cannot be compared, a line each; empty when they can."""
    pairs = (
        ("processor", before.environment["cpu"], after.environment["cpu"]),
        ("usable cores", before.environment["cores"], after.environment["cores"]),
        ("GPUs", before.environment["gpus"], after.environment["gpus"]),
        ("data", _data(before), _data(after)),
        ("input size", before.settings["size"], after.settings["size"]),
        ("batch sizes", before.settings["batch_sizes"], after.settings["batch_sizes"]),
        ("frames a repeat", before.settings["frames"], after.settings["frames"]),
        ("clip", _clip(before), _clip(after)),
    )
    return [f"{what}: {_text(first)} against {_text(second)}" for what, first, second in pairs if first != second]


def compare(before: Result, after: Result) -> Comparison:
    """Compare two results of like runs.

    Raises:
        ConfigurationError: the runs are unlike, each difference named, or have no contender in common.
    """
    reasons = unlike(before, after)
    if reasons:
        raise ConfigurationError(
            f"These results cannot be compared, they measured different work or machines: {'; '.join(reasons)}. "
            "Run both on one machine with the same options."
        )
    changes = tuple(_row_change(*pair) for pair in _common(before.rows, after.rows))
    clip_changes = tuple(_clip_change(*pair) for pair in _common(before.clip_rows, after.clip_rows))
    if not changes and not clip_changes:
        raise ConfigurationError("These results have no contender in common that ran in both.")
    return Comparison(changes=changes, clip_changes=clip_changes, notes=tuple(_notes(before, after)))


def render_comparison(comparison: Comparison) -> str:
    """As text for a terminal."""
    blocks = []
    if comparison.changes:
        blocks.append(align([ROW_HEAD, *(_cells(change) for change in comparison.changes)]))
    if comparison.clip_changes:
        blocks.append(align([CLIP_HEAD, *(_cells(change)[: len(CLIP_HEAD)] for change in comparison.clip_changes)]))
    blocks.append("\n".join(f"  {note}" for note in comparison.notes))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _row_change(before: Row, after: Row) -> Change:
    assert before.ms_median is not None
    assert after.ms_median is not None
    speed = ratio_between_runs(before.repeats_ms, after.repeats_ms)
    known = before.mean_iou is not None and after.mean_iou is not None
    return Change(
        name=after.name,
        batch=after.batch,
        before=before.ms_median,
        after=after.ms_median,
        speed=speed,
        verdict=_verdict(speed),
        keras_before=before.ratio,
        keras_after=after.ratio,
        mean_iou=100 * (after.mean_iou - before.mean_iou) if known else None,  # type: ignore[operator]
    )


def _clip_change(before: ClipRow, after: ClipRow) -> Change:
    assert before.frames_per_s is not None
    assert after.frames_per_s is not None
    # Frames/s, not time: the faster run is the one with the larger number.
    speed = ratio_between_runs(after.repeats_fps, before.repeats_fps)
    return Change(
        name=after.name,
        batch=after.batch,
        before=before.frames_per_s,
        after=after.frames_per_s,
        speed=speed,
        verdict=_verdict(speed),
    )


def _verdict(speed: Ratio) -> str:
    if speed.low <= 1.0 <= speed.high:
        return "no difference"
    return "faster" if speed.low > 1.0 else "slower"


def _common(before: Sequence[Any], after: Sequence[Any]) -> list[tuple[Any, Any]]:
    known = {(row.name, row.batch): row for row in before if row.status == "ok"}
    return [(known[row.name, row.batch], row) for row in after if row.status == "ok" and (row.name, row.batch) in known]


def _notes(before: Result, after: Result) -> list[str]:
    notes = [
        f"the {which} run was a noisy one" for which, result in (("first", before), ("second", after)) if result.noisy
    ]
    old, new = before.environment["packages"], after.environment["packages"]
    notes += [
        f"{name}: {old.get(name)} -> {new.get(name)}" for name in sorted({*old, *new}) if old.get(name) != new.get(name)
    ]
    if before.environment["revision"] != after.environment["revision"]:
        notes.append(f"revision: {before.environment['revision']} -> {after.environment['revision']}")
    models = [{model["label"]: model["digest"] for model in result.models} for result in (before, after)]
    notes += [
        f"the {label} model is another file"
        for label in models[0]
        if models[0][label] != models[1].get(label, models[0][label])
    ]
    ran = [{(row.name, row.batch) for row in result.everything if row.status == "ok"} for result in (before, after)]
    notes += [f"only in one of the two: {name}, batch {batch}" for name, batch in sorted(ran[0] ^ ran[1])]
    return notes


def _cells(change: Change) -> tuple[str, ...]:
    keras = (
        "-"
        if None in (change.keras_before, change.keras_after)
        else f"{change.keras_before:.2f} -> {change.keras_after:.2f}"
    )
    return (
        change.name,
        str(change.batch),
        f"{change.before:.2f}",
        f"{change.after:.2f}",
        f"{change.speed.median:.2f}",
        f"{change.speed.low:.2f}-{change.speed.high:.2f}",
        change.verdict,
        keras,
        "-" if change.mean_iou is None else f"{change.mean_iou:+.2f}",
    )


def _data(result: Result) -> tuple[str, int, str]:
    return result.data["name"], result.data["frames"], result.data["digest"]


def _clip(result: Result) -> tuple[Any, ...]:
    return (result.clip.get("name"), result.clip.get("digest"), result.clip.get("frames"))


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(str(item) for item in value) or "none"
    return str(value)
