"""A result as one picture: throughput, accuracy, memory, and the time of each stage end to end.

Knows rows and matplotlib; the tables hold everything that it shows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg.errors import MissingDependencyError
from edge_seg.phrases import counted

from .cases import NAIVE
from .environment import processor
from .measure import QUARTILES_FROM
from .rows import ClipRow, Result, Row
from .table import clip_line

INK = "#1f2933"
FAINT = "#6b7785"
GRID = "#e4e8ec"
# One hue for each family; darker shades for larger batches.
FAMILIES = {
    "keras": ("#c3cad2", "#939ea9", "#626e7a", "#3d4752"),
    "session": ("#9bd8cf", "#4fb3a5", "#1f8478", "#0d5951"),
    "torch": ("#c9b6ec", "#9d80d8", "#7450b8", "#4c2f86"),
    "peer": ("#efd3a8", "#e0ad62", "#b97f2b", "#7d5214"),
}
STAGES = ("#4878a8", "#e0a63a", "#1f8478", "#b9605a", "#7450b8", "#8a96a3")


def import_pyplot() -> Any:
    """matplotlib's pyplot, set up to draw into files. Raises `MissingDependencyError` without it."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependencyError("matplotlib is not installed. Install it: pip install -e '.[bench]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


@contextlib.contextmanager
def saved_figure(path: Path, size: tuple[float, float], *, x_ticks: str = INK) -> Iterator[Any]:
    """A figure of (width, height) inches in the colours of all pictures, written as PNG at the end of the block.

    Raises `MissingDependencyError` without matplotlib.
    """
    plt = import_pyplot()
    colours = {"text.color": INK, "axes.labelcolor": INK, "xtick.color": x_ticks, "ytick.color": INK}
    with plt.rc_context({"font.size": 9.5, **colours}):
        figure = plt.figure(figsize=size, layout="constrained")
        yield figure
        figure.savefig(path, dpi=130, facecolor="white")
        plt.close(figure)


def draw_chart(result: Result, path: Path) -> None:
    """Write the picture as PNG. Raises `MissingDependencyError` without matplotlib."""
    rows = [row for row in result.rows if row.status == "ok"]
    # The naive loop's inference takes so long that no other stage would be visible.
    clip_rows = [row for row in result.clip_rows if row.status == "ok" and row.name != NAIVE]
    names = list(dict.fromkeys(row.name for row in rows))
    batches = sorted({row.batch for row in rows})
    # A contender's row needs room for its bars and for two lines of text beside them.
    top = max(2.8, 1.3 + len(names) * max(0.38, 0.27 * len(batches) ** 0.75))
    bottom = 1.5 + 0.5 * len(clip_rows) if clip_rows else 0.0
    with saved_figure(path, (12.5, 1.0 + top + bottom), x_ticks=FAINT) as figure:
        parts: Any = figure.subfigures(2, 1, height_ratios=(top, bottom)) if clip_rows else (figure, None)
        upper, lower = parts
        speed, quality, memory = upper.subplots(
            1, 3, sharey=True, width_ratios=(2.4, 1, 1.1), gridspec_kw={"wspace": 0.1}
        )
        _draw_speed(speed, rows, names, batches)
        _draw_quality(quality, rows, names, batches)
        _draw_memory(memory, rows, names, batches)
        if lower is not None:
            _draw_stages(lower.subplots(), clip_rows, result.clip)
        figure.suptitle(_title(result), x=0.01, ha="left", fontsize=11.5, fontweight="bold")


def _title(result: Result) -> str:
    noisy = "   NOISY RUN, see the notes" if result.noisy else ""
    size = "x".join(str(side) for side in result.settings["size"])
    machine = f"{processor(result.environment)}, {counted(result.environment['cores'], 'core')}"
    return f"FCN8 at {size} on {machine}: {result.data['name']}, {counted(result.data['frames'], 'frame')}{noisy}"


def _family(kind: str) -> tuple[str, ...]:
    return FAMILIES["keras" if kind.startswith("keras") else kind if kind in FAMILIES else "peer"]


def _shade(row: Row, batches: Sequence[int]) -> str:
    shades = _family(row.kind)
    return shades[min(batches.index(row.batch) + (1 if len(batches) < 3 else 0), len(shades) - 1)]


def _bars(rows: Sequence[Row], names: Sequence[str], batches: Sequence[int]) -> list[tuple[Row, float, float]]:
    """(row, position, thickness) of each bar: contenders from the top down, batch sizes side by side."""
    thickness = 0.8 / max(1, len(batches))
    return [
        (row, names.index(row.name) - 0.4 + thickness * (batches.index(row.batch) + 0.5), thickness * 0.92)
        for row in rows
    ]


def _draw_speed(axes: Any, rows: Sequence[Row], names: Sequence[str], batches: Sequence[int]) -> None:
    widest = max((1000 / np.percentile(row.repeats_ms, 25) for row in rows), default=1.0)
    for row, place, thickness in _bars(rows, names, batches):
        speed = row.frames_per_s or 0.0
        axes.barh(place, speed, thickness, color=_shade(row, batches))
        low, high = (1000 / np.percentile(row.repeats_ms, q) for q in (75, 25))
        if len(row.repeats_ms) >= QUARTILES_FROM:
            axes.plot((low, high), (place, place), color=INK, lw=1.1, solid_capstyle="butt")
        times = f"   {row.ratio:.1f}x" if row.ratio is not None else ""
        axes.text(max(speed, high) + widest * 0.012, place, f"{speed:.1f}{times}", va="center", fontsize=8.2)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(1, len(names)) - 0.5, -0.5)
    axes.set_xlim(0, widest * 1.2)
    shown = ", ".join(str(batch) for batch in batches) + (" from the top down" if len(batches) > 1 else "")
    note = f"batch {shown}; line: quartiles of the repeats; times: median of the ratios in each round"
    style(axes, "frames/s, and times Keras predict", note)


def _draw_quality(axes: Any, rows: Sequence[Row], names: Sequence[str], batches: Sequence[int]) -> None:
    known = [row for row in rows if row.mean_iou is not None]
    for row in known:
        value = 100 * (row.mean_iou or 0.0)
        axes.plot(value, names.index(row.name), "o", ms=8, color=_family(row.kind)[2], alpha=0.75, mew=0)
    for place, name in enumerate(names):
        mine = [row for row in rows if row.name == name]
        lowest = min((100 * row.mean_iou for row in mine if row.mean_iou is not None), default=None)
        agreement = min((100 * row.agreement for row in mine if row.agreement is not None), default=None)
        if lowest is not None:
            axes.annotate(
                f"{lowest:.2f}", (lowest, place), (0, 6), textcoords="offset points", ha="center", fontsize=8.2
            )
        if agreement is not None:
            text, words = (lowest or 0.0, place), f"{agreement:.3f} % agree"
            axes.annotate(words, text, (0, -12.5), textcoords="offset points", ha="center", fontsize=7.6, color=FAINT)
    values = [100 * (row.mean_iou or 0.0) for row in known] or [0.0]
    # At least two points to either side, so that differences of hundredths do not look large.
    middle, half = (min(values) + max(values)) / 2, max(2.0, (max(values) - min(values)) * 0.9)
    axes.set_xlim(middle - half, middle + half)
    lowest_of_all = "; the lowest of all batches" if len(batches) > 1 else ""
    style(axes, "mean IoU, %", f"and pixels that agree with Keras predict{lowest_of_all}")


def _draw_memory(axes: Any, rows: Sequence[Row], names: Sequence[str], batches: Sequence[int]) -> None:
    widest = max((row.peak_mb or 0.0 for row in rows), default=1.0)
    for row, place, thickness in _bars([row for row in rows if row.peak_mb is not None], names, batches):
        axes.barh(place, row.peak_mb, thickness, color=_shade(row, batches))
        axes.text((row.peak_mb or 0.0) + widest * 0.02, place, f"{row.peak_mb:,.0f}", va="center", fontsize=8.2)
    axes.set_xlim(0, widest * 1.2)
    style(axes, "peak memory, MB", "")


def _draw_stages(axes: Any, rows: Sequence[ClipRow], clip: dict[str, Any]) -> None:
    stages = list(dict.fromkeys(stage for row in rows for stage in row.stage_ms))
    thickness = 0.84 / max(1, len(stages))
    for index, row in enumerate(rows):
        for position, stage in enumerate(stages):
            place = index - 0.42 + thickness * (position + 0.5)
            axes.barh(
                place,
                row.stage_ms.get(stage, 0.0),
                thickness * 0.9,
                color=STAGES[position % len(STAGES)],
                label=stage if index == 0 else None,
            )
    labels = [f"{row.name}, batch {row.batch}\n{row.frames_per_s:.1f} frames/s" for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.legend(ncols=len(stages), frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.1)
    style(axes, "end to end: ms a frame of each stage; stages overlap", clip_line(clip))


def logarithmic(axes: Any, low: float, high: float) -> None:
    """Make the x axis logarithmic from `low` to `high`, labelled at 1, 2, 3 and 5 times the powers of ten."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if str(f"{value:e}")[0] in "235" else "")
    axes.tick_params(which="minor", length=0)


def style(axes: Any, title: str, label: str, *, grid: str = "x") -> None:
    """Apply the common style of all panels: title and label to the left, a faint grid, no frame."""
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(label, fontsize=8.2, color=FAINT, loc="left")
    axes.grid(axis=grid, color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
