"""Accuracy against speed: the models of several results in one picture, at every precision and device.

Knows only results. An untrained network has a speed but no accuracy, and is drawn as a line, not a point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_seg.errors import ConfigurationError
from edge_seg.phrases import counted

from .chart import FAMILIES, logarithmic, saved_figure, style
from .environment import processor
from .rows import Result, Row

MARKS = {"fp32": "o", "fp16": "s", "int8": "D"}
HUES = (FAMILIES["session"][2], FAMILIES["torch"][2], FAMILIES["peer"][2], FAMILIES["keras"][3])
# Of the words beside a point: darker, to be read as small text.
WORDS = {FAMILIES[name][2]: FAMILIES[name][3] for name in ("session", "torch", "peer")}


@dataclass(frozen=True, kw_only=True)
class Member:
    """One row of one result: a model at a precision, on a device, with its frames/s and mean IoU (None: untrained)."""

    model: str
    row: Row
    mean_iou: float | None


def family(results: Sequence[tuple[str, Result]]) -> list[Member]:
    """The rows of edge_seg's sessions, and of Keras compiled to compare them with, at batch 1.

    Args:
        results: each network's name and result.

    Raises:
        ConfigurationError: the results are of different machines or frames, or have no row at that batch size.
    """
    first = results[0][1]
    for name, result in results:
        for what, one, other in (
            ("processor", processor(first.environment), processor(result.environment)),
            ("usable cores", first.environment["cores"], result.environment["cores"]),
            ("data", first.data["digest"], result.data["digest"]),
        ):
            if one != other:
                raise ConfigurationError(
                    f"{name} was measured on another {what} than {results[0][0]} ({other}, {one}); measure both alike."
                )
    members = [
        Member(model=name, row=row, mean_iou=row.mean_iou if trained(result) else None)
        for name, result in results
        for row in result.rows
        if row.status == "ok" and row.batch == 1 and row.kind in ("session", "keras-compiled")
    ]
    if not members:
        raise ConfigurationError("No result has a row at batch 1; measure with --batch-sizes 1.")
    return members


def trained(result: Result) -> bool:
    """Whether the run behind a result was trained; an untrained network has labels, but no accuracy."""
    return any(model.get("recipe") for model in result.models)


def draw_family(results: Sequence[tuple[str, Result]], path: Path) -> None:
    """Write the picture as PNG. Raises as `family`, and `MissingDependencyError` without matplotlib."""
    members = family(results)
    names = list(dict.fromkeys(member.model for member in members))
    with saved_figure(path, (8.6, 4.8)) as figure:
        axes = figure.subplots()
        # Of untrained networks only the files are drawn, not Keras, with their names at different heights.
        points = [one for one in members if one.mean_iou is not None]
        lines = [one for one in members if one.mean_iou is None and one.row.kind == "session"]
        for member in points:
            _draw_point(axes, member, HUES[names.index(member.model) % len(HUES)])
        for place, member in enumerate(lines):
            _draw_line(axes, member, HUES[names.index(member.model) % len(HUES)], 0.98 - 0.3 * (place % 3))
        _scale(axes, members)
        sizes = {name: "x".join(map(str, result.settings["size"])) for name, result in results}
        for place, name in enumerate(names):
            axes.plot([], [], "o", color=HUES[place % len(HUES)], label=f"{name}, {sizes[name]}")
        axes.legend(
            frameon=False,
            loc="upper right",
            bbox_to_anchor=(1.0, -0.045),
            borderaxespad=0.1,
            ncols=len(names),
            fontsize=9,
        )
        first = results[0][1]
        machine = f"{processor(first.environment)}, {counted(first.environment['cores'], 'core')}, batch 1"
        style(axes, f"Accuracy against speed: {machine}", "frames/s (logarithmic)", grid="both")
        axes.set_ylabel(f"mean IoU, %: {first.data['frames']} frames of {first.data['name']}")


def _label(row: Row) -> str:
    return "Keras compiled" if row.kind == "keras-compiled" else f"{row.precision}, {row.device}"


def _draw_point(axes: Any, member: Member, hue: str) -> None:
    row, keras = member.row, member.row.kind == "keras-compiled"
    place = (row.frames_per_s, 100 * (member.mean_iou or 0.0))
    # A ring, which shows around the fp32 file's point where both are in one place.
    size, fill = (13, "none") if keras else (9, hue)
    axes.plot(*place, MARKS.get(row.precision, "o"), ms=size, color=hue, mfc=fill, mew=1.6)
    # Keras' point is close to its fp32 file's, so its name goes below.
    axes.annotate(
        f"{_label(row)}\n{row.frames_per_s:.1f}/s", place, (0, -10 if keras else 10), textcoords="offset points",
        ha="center", va="top" if keras else "bottom", fontsize=8.2, color=WORDS.get(hue, hue),
        bbox={"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 0.8},
    )  # fmt: skip


def _draw_line(axes: Any, member: Member, hue: str, height: float) -> None:
    row = member.row
    axes.axvline(row.frames_per_s, color=hue, lw=1.2, ls="--", alpha=0.8)
    axes.annotate(
        f"{_label(row)}, {row.frames_per_s:.1f}/s (untrained)", (row.frames_per_s, height), (-3, 0),
        xycoords=("data", "axes fraction"), textcoords="offset points", rotation=90, ha="right", va="top",
        fontsize=8, color=hue,
    )  # fmt: skip


def _scale(axes: Any, members: Sequence[Member]) -> None:
    values = [100 * member.mean_iou for member in members if member.mean_iou is not None] or [0.0, 100.0]
    middle, half = (min(values) + max(values)) / 2, max(3.0, (max(values) - min(values)) * 0.8)
    axes.set_ylim(middle - half, middle + half)
    speeds = [member.row.frames_per_s or 1.0 for member in members]
    logarithmic(axes, min(speeds) / 1.5, max(speeds) * 1.5)
