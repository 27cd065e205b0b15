"""A growth file as one picture: a panel for each axis, with cost, or memory against the length of a clip.

Knows the points of `growth` and matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge_seg.phrases import counted

from .chart import FAINT, FAMILIES, INK, saved_figure, style
from .environment import processor
from .measure import is_noisy

# In the legend's order: a hue for each family, a line style for each precision.
LINES = {
    "Keras predict": (FAMILIES["keras"][1], "-"),
    "Keras compiled": (FAMILIES["keras"][3], "-"),
    "fp32": (FAMILIES["session"][1], "--"),
    "int8": (FAMILIES["session"][2], "-"),
}
NAMES = {"batch": "batch", "resolution": "resolution", "threads": "threads", "length": "clip length"}
Points = Sequence[dict[str, Any]]


def draw_growth(growth: dict[str, Any], path: Path) -> None:
    """Write the picture as PNG. Raises `MissingDependencyError` without matplotlib."""
    panels: dict[str, Callable[[Any, Points], None]] = {
        "batch": _draw_batch,
        "resolution": _draw_resolution,
        "threads": _draw_threads,
        "length": _draw_length,
    }
    shown = [axis for axis in panels if growth["axes"].get(axis)]
    columns = 2 if len(shown) > 1 else 1
    lines, cores = -(-len(shown) // columns), growth["environment"]["cores"]
    with saved_figure(path, (6.2 * columns, 0.7 + 3.7 * lines)) as figure:
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
        for place, axis in enumerate(shown, start=1):
            noisy = noisy_points(growth["axes"][axis], cores)
            points = [{**point, "noisy": point in noisy} for point in growth["axes"][axis]]
            panels[axis](figure.add_subplot(lines, columns, place), points)
        machine = growth["environment"]
        against = ", ".join(NAMES[axis] for axis in shown)
        title = f"Cost against {against}: {processor(machine)}, {counted(cores, 'core')}"
        if any(noisy_points(growth["axes"][axis], cores) for axis in shown):
            title += "; hollow: noisy"
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")


def noisy_points(points: Points, cores: int) -> list[dict[str, Any]]:
    """The points whose repeats lay far apart, or during which other programs computed."""
    return [
        point
        for point in points
        if point["status"] == "ok" and is_noisy(point.get("spread"), point.get("others_cores"), cores)
    ]


def _draw_batch(axes: Any, points: Points) -> None:
    _lines(axes, points, "ms_median")
    _doubling(axes, [point["value"] for point in points])
    axes.set_ylim(0, 1.35 * max((point["ms_median"] for point in points if point["status"] == "ok"), default=1.0))
    style(axes, "Batch: milliseconds a frame", "frames a call", grid="y")
    axes.legend(frameon=False, fontsize=8.5, loc="upper right", ncols=2)


def _draw_resolution(axes: Any, points: Points) -> None:
    from matplotlib.ticker import LogLocator

    _lines(axes, points, "ms_median")
    sides = sorted({point["value"] for point in points})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sides, [f"{side:g}²" for side in sides])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    reference = [point for point in points if point["precision"] == "int8" and point["status"] == "ok"]
    if reference:
        start = reference[0]
        height = [0.45 * start["ms_median"] * (side / start["value"]) ** 2 for side in sides]
        axes.plot(sides, height, ":", color=FAINT, lw=1)
        axes.annotate(
            "as the pixels", (sides[-1], height[-1]), (0, -22), textcoords="offset points", ha="right", va="top",
            fontsize=8.2, color=FAINT,
        )  # fmt: skip
    style(axes, "Resolution: milliseconds a frame (both axes logarithmic)", "input size, pixels", grid="both")
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")


def _draw_threads(axes: Any, points: Points) -> None:
    _lines(axes, points, "frames_per_s", gain=True)
    threads = sorted({point["value"] for point in points})
    axes.set_xticks(threads, [f"{count:g}" for count in threads])
    axes.margins(x=0.12)
    axes.set_ylim(bottom=0)
    style(axes, "Threads: frames/s, and times one thread", "threads", grid="y")
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")


def _draw_length(axes: Any, points: Points) -> None:
    ok = [point for point in points if point["status"] == "ok"]
    shades = ("#9bd8cf", "#4fb3a5", "#0d5951", INK)
    for number, point in enumerate(ok):
        if not point["samples"]:
            continue
        seconds, memory = zip(*point["samples"], strict=True)
        share = [100 * second / seconds[-1] for second in seconds]
        label = f"{point['value']:g} min, {point['frames']:,} frames: peak {point['peak_mb']:,.0f} MB"
        axes.plot(share, memory, color=shades[min(number, 3)], lw=1.6, label=label)
    axes.set_ylim(0, 1.45 * (max((point["peak_mb"] or 0.0 for point in ok), default=0.0) or 1.0))
    style(
        axes,
        "Clip length: resident memory, MB",
        "% of the clip done (--save jsonl, most frames decoded only)",
        grid="y",
    )
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")


def _lines(axes: Any, points: Points, figure: str, *, gain: bool = False) -> None:
    """Draw a line for each contender, noisy points hollow; `gain` labels it with the last value over the first."""
    for name in dict.fromkeys(point["name"] for point in points):
        mine = [point for point in points if point["name"] == name and point["status"] == "ok"]
        if not mine:
            continue
        colour, dashes = _line(mine[0])
        heights = [point[figure] for point in mine]
        label = f"{name}, {heights[-1] / heights[0]:.2f}x" if gain else name
        values = [point["value"] for point in mine]
        axes.plot(values, heights, dashes, color=colour, lw=1.8, marker="o", ms=4.5, label=label)
        hollow = [place for place, point in enumerate(mine) if point["noisy"]]
        x, y = ([series[place] for place in hollow] for series in (values, heights))
        axes.plot(x, y, "o", ms=4.5, color=colour, mfc="white")


def _line(point: dict[str, Any]) -> tuple[str, str]:
    return LINES.get(point["name"], LINES.get(point["precision"], (INK, ":")))


def _doubling(axes: Any, values: Sequence[float]) -> None:
    """Make the x axis logarithmic, with one step for each doubling."""
    ticks = sorted(set(values))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
