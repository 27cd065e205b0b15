"""Two results side by side: how many times faster each contender became, with its spread, and what was lost.

Knows only results. Code and packages may differ; a different processor, number of cores, data or amount of work makes a
comparison meaningless, and so does another model, unless the comparison is of models. A loss is a drop beyond the noise
of both runs in speed, mean IoU or agreement with Keras, or a contender that no longer runs; a peer that is no longer
installed is no loss. Where the machine itself was faster or slower in one run (`drift`), speed is what is left of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edge_seg.errors import ConfigurationError

from .cases import PEERS, REFERENCE
from .drift import LEAST_REPEATS, clip_speed, drift_of_clips, drift_of_rows, noise_of, row_speed, within
from .environment import processor
from .measure import Ratio
from .rows import ClipRow, Result, Row
from .table import align, percent

# Points of mean IoU that another summation order may cost; equal labels of the same frames give equal figures.
IOU_NOISE = 0.05
# The same for agreement with Keras' labels, which is the only one of the two where there is no truth.
AGREEMENT_NOISE = 0.05
ROW_HEAD = ("contender", "batch", "before ms", "after ms", "times faster", "quartiles", "", "x Keras", "mean IoU")
END_TO_END = ", end to end"
CLIP_HEAD = ("end to end", "batch", "before frames/s", "after frames/s", "times faster", "quartiles", "")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One contender in both results.

    Attributes:
        name, batch: of the contender.
        before, after: ms/frame, or frames/s for a clip, as measured.
        speed: how many times faster it became, with quartiles over all pairs of repeats; without the machine's drift.
        verdict: "faster", "slower", "no difference" (within the noise, or the quartiles enclose 1), or "too few
            repeats".
        noise: share of the time that counts as noise, see `drift.noise_of`. A speed from 1 / (1 + noise) to 1 + noise
            is within it.
        losses: "speed" if it is slower by more than the noise, "mean IoU" if that fell by more than `IOU_NOISE` or is
            missing now, "agreement" likewise.
        keras_before, keras_after: times faster than Keras in the same run, which a slow machine does not change.
        mean_iou, agreement: change in points; None if either result has none.
    """

    name: str
    batch: int
    before: float
    after: float
    speed: Ratio
    verdict: str
    noise: float
    losses: tuple[str, ...] = ()
    keras_before: float | None = None
    keras_after: float | None = None
    mean_iou: float | None = None
    agreement: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison of two results.

    Attributes:
        changes, clip_changes: of the contenders that ran in both.
        notes: what differs besides, a line each.
        broken: a line for each contender that ran and then was lost.
        drift, clip_drift: how many times faster the processor was in the second run; 1 within the noise.
    """

    changes: tuple[Change, ...]
    clip_changes: tuple[Change, ...]
    notes: tuple[str, ...]
    broken: tuple[str, ...] = ()
    drift: float = 1.0
    clip_drift: float = 1.0

    @property
    def losses(self) -> list[str]:
        """A line for each loss; empty if nothing was lost."""
        found = [
            f"LOSS: {change.name}, batch {change.batch}{where}: {_loss(change, kind)}"
            for changes, where in ((self.changes, ""), (self.clip_changes, END_TO_END))
            for change in changes
            for kind in change.losses
        ]
        return [*found, *(f"LOSS: {name}" for name in self.broken)]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**asdict(self), "losses": self.losses}


def unlike(before: Result, after: Result, *, other_models: bool = False) -> list[str]:
    """Why two results cannot be compared, a line each; empty if they can. `other_models` lets models differ."""
    pairs = (
        ("processor", processor(before.environment), processor(after.environment)),
        ("usable cores", before.environment["cores"], after.environment["cores"]),
        ("GPUs", before.environment["gpus"], after.environment["gpus"]),
        ("data", _data(before), _data(after)),
        ("input size", before.settings["size"], after.settings["size"]),
        ("batch sizes", before.settings["batch_sizes"], after.settings["batch_sizes"]),
        ("frames a repeat", before.settings["frames"], after.settings["frames"]),
        ("clip", _clip(before), _clip(after)),
    )
    models = [] if other_models else _other_models(before, after)
    found = [f"{what}: {_text(first)} against {_text(second)}" for what, first, second in pairs if first != second]
    return [*found, *(f"model {label}: {old} against {new}" for label, old, new in models)]


def _other_models(before: Result, after: Result) -> list[tuple[str, str, str]]:
    """(label, old digest, new digest) of each model label that names different models in the two runs."""
    old, new = ({model["label"]: model["digest"] for model in result.models} for result in (before, after))
    return [(label, old[label], new[label]) for label in old if new.get(label, old[label]) != old[label]]


def compare(before: Result, after: Result, *, other_models: bool = False) -> Comparison:
    """Compare two results of the same work; `other_models` lets models be other files.

    Raises:
        ConfigurationError: the runs differ in what they measured (the message names each difference), or have no
            contender in common.
    """
    reasons = unlike(before, after, other_models=other_models)
    if reasons:
        raise ConfigurationError(
            f"These results cannot be compared, they measured different work or machines: {'; '.join(reasons)}. "
            "Run both on one machine with the same options; --other-models compares different models."
        )
    judged = any(row.name == REFERENCE and row.status == "ok" for row in after.rows)
    pairs, clip_pairs = _common(before.rows, after.rows), _common(before.clip_rows, after.clip_rows)
    drift, clip_drift = drift_of_rows(before, after, pairs), drift_of_clips(before, after, clip_pairs)
    changes = tuple(_row_change(*pair, drift=drift, judged=judged) for pair in pairs)
    clip_changes = tuple(_clip_change(*pair, drift=clip_drift) for pair in clip_pairs)
    if not changes and not clip_changes:
        raise ConfigurationError("These results have no contender in common that ran in both.")
    broken = (*_broken(before.rows, after.rows), *_broken(before.clip_rows, after.clip_rows), *_gone(before, after))
    return Comparison(
        changes=changes,
        clip_changes=clip_changes,
        notes=(*_drift_notes(drift, clip_drift), *_notes(before, after)),
        broken=broken,
        drift=drift,
        clip_drift=clip_drift,
    )


def render_comparison(comparison: Comparison) -> str:
    """The comparison as text for a terminal."""
    blocks = []
    if comparison.changes:
        blocks.append(align([ROW_HEAD, *(_cells(change) for change in comparison.changes)]))
    if comparison.clip_changes:
        blocks.append(align([CLIP_HEAD, *(_cells(change)[: len(CLIP_HEAD)] for change in comparison.clip_changes)]))
    lines = [*comparison.losses, *comparison.notes]
    blocks.append("\n".join(f"  {line}" for line in lines))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _row_change(before: Row, after: Row, *, drift: float, judged: bool) -> Change:
    """`judged`: whether the second run has a reference; a lost reference is one loss, not one for each row."""
    assert before.ms_median is not None
    assert after.ms_median is not None
    speed, noise = row_speed(before, after), noise_of(before, after)
    if after.device == "cpu":
        speed = _without(speed, drift)
    enough = min(len(before.repeats_ms), len(after.repeats_ms)) >= LEAST_REPEATS
    points, same = _points(before.mean_iou, after.mean_iou), _points(before.agreement, after.agreement)
    fallen = [
        kind
        for kind, old, change, bound in (
            ("mean IoU", before.mean_iou, points, IOU_NOISE),
            ("agreement", before.agreement, same, AGREEMENT_NOISE),
        )
        if old is not None and (change is None or change < -bound) and (judged or kind != "agreement")
    ]
    return Change(
        name=after.name,
        batch=after.batch,
        before=before.ms_median,
        after=after.ms_median,
        speed=speed,
        verdict=_verdict(speed, noise, enough=enough),
        noise=noise,
        losses=(*(_slower(speed, noise) if enough else ()), *fallen),
        keras_before=before.ratio,
        keras_after=after.ratio,
        mean_iou=points,
        agreement=same,
    )


def _points(before: float | None, after: float | None) -> float | None:
    """The change of a share in points; None if either is unknown."""
    return None if before is None or after is None else 100 * (after - before)


def _clip_change(before: ClipRow, after: ClipRow, *, drift: float) -> Change:
    assert before.frames_per_s is not None
    assert after.frames_per_s is not None
    speed, noise = clip_speed(before, after), noise_of(before, after)
    if after.device == "cpu":
        speed = _without(speed, drift)
    enough = min(len(before.repeats_fps), len(after.repeats_fps)) >= LEAST_REPEATS
    return Change(
        name=after.name,
        batch=after.batch,
        before=before.frames_per_s,
        after=after.frames_per_s,
        speed=speed,
        verdict=_verdict(speed, noise, enough=enough),
        noise=noise,
        losses=_slower(speed, noise) if enough else (),
    )


def _without(speed: Ratio, drift: float) -> Ratio:
    return Ratio(speed.median / drift, speed.low / drift, speed.high / drift)


def _slower(speed: Ratio, noise: float) -> tuple[str, ...]:
    """("speed",) if the median is below 1 by more than the noise and even the upper quartile is below 1."""
    return ("speed",) if not within(speed.median, noise) and speed.high < 1.0 else ()


def _loss(change: Change, kind: str) -> str:
    points, bound = {
        "mean IoU": (change.mean_iou, IOU_NOISE),
        "agreement": (change.agreement, AGREEMENT_NOISE),
    }.get(kind, (None, 0.0))
    if points is not None:
        return f"{kind} {points:+.2f} points, beyond {bound}"
    if kind != "speed":
        return f"{kind} is no number any more"
    return f"{change.speed.median:.2f} times as fast, beyond the noise of {percent(change.noise, 0)}"


def _verdict(speed: Ratio, noise: float, *, enough: bool) -> str:
    if not enough:
        return "too few repeats"
    if speed.low <= 1.0 <= speed.high or within(speed.median, noise):
        return "no difference"
    return "faster" if speed.low > 1.0 else "slower"


def _common(before: Sequence[Any], after: Sequence[Any]) -> list[tuple[Any, Any]]:
    known = {(row.name, row.batch): row for row in before if row.status == "ok"}
    return [(known[row.name, row.batch], row) for row in after if row.status == "ok" and (row.name, row.batch) in known]


def _broken(before: Sequence[Row | ClipRow], after: Sequence[Row | ClipRow]) -> list[str]:
    """A line for each row that ran before but failed or was skipped now; a skipped peer is just not installed."""
    now = {_titled(row): row for row in after if row.status != "ok"}
    return [
        f"{title} ran before and {'failed' if now[title].status == 'failed' else 'was skipped'} now"
        for title in (_titled(row) for row in before if row.status == "ok")
        if title in now and not (now[title].status == "skipped" and getattr(now[title], "kind", "") in PEERS)
    ]


def _gone(before: Result, after: Result) -> list[str]:
    """A line for each of edge_seg's rows that is missing now though its model took part, as when a device broke."""
    now, asked = {_titled(row) for row in after.rows}, after.settings.get("devices")
    there = {model["label"] for model in after.models}
    models = {model["digest"] for model in before.models if model["label"] in there}
    return [
        f"{_titled(row)} ran before and took no part now"
        for row in before.rows
        if row.status == "ok"
        and row.kind == "session"
        and row.model in models
        and _titled(row) not in now
        and (asked is None or row.device in asked)
    ]


def _titled(row: Row | ClipRow) -> str:
    """A row's unique name within its result."""
    return f"{row.name}, batch {row.batch}{END_TO_END if isinstance(row, ClipRow) else ''}"


def _drift_notes(drift: float, clip_drift: float) -> list[str]:
    """What the machine's own change of speed means for the table, a line for inference and one for the clip."""
    told = (
        (drift, "as contenders tell that are not edge_seg's"),
        (clip_drift, f"{END_TO_END[2:]}, as the naive loop tells"),
    )
    return [
        f"the processor itself was {max(speed, 1 / speed):.2f} times {'faster' if speed > 1 else 'slower'} in the "
        f'second run, {how}: "times faster" leaves that out'
        for speed, how in told
        if speed != 1.0
    ]


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
    notes += [f"the {label} model is another file" for label, _, _ in _other_models(before, after)]
    ran = [{_titled(row) for row in result.everything if row.status == "ok"} for result in (before, after)]
    return [*notes, *(f"only in one of the two: {title}" for title in sorted(ran[0] ^ ran[1]))]


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
