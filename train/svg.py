"""Line charts as SVG text for a page, in the page's own colours (CSS variables), so that they fit light and dark alike.

Knows numbers and names; nothing of runs. Class names used: `axis`, `grid`, `label`, `line`, `dot`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

# Pixels of a chart, and of a sparkline.
WIDTH, HEIGHT = 520, 250
SPARK_WIDTH, SPARK_HEIGHT = 150, 44


@dataclass(frozen=True)
class Line:
    """One line of a chart: name, (N,) values (nan where there is none) and a CSS colour.

    A `joined` line continues across missing values; any other is broken there.
    """

    name: str
    values: np.ndarray
    color: str
    joined: bool = False


def line_chart(xs: np.ndarray, lines: Sequence[Line], *, title: str = "") -> str:
    """A chart with an axis, a grid and each line's name at its end; "" where there is nothing to draw.

    Args:
        xs: (N,) places, ascending.
        lines: what to draw.
        title: what a screen reader says before the lines' names and last values; the page shows it above.
    """
    drawn = [line for line in lines if np.isfinite(line.values).any()]
    if not drawn:
        return ""
    low, high = _span(np.concatenate([line.values for line in drawn]))
    left, right, top, bottom = 56, 112, 10, 26
    first, last = float(xs[0]), float(xs[-1])
    if first == last:  # a lone place stands in the middle, with no other named beside it
        first, last = first - 0.5, last + 0.5

    def x_of(x: float) -> float:
        return left + (x - first) / (last - first) * (WIDTH - left - right)

    def y_of(y: float) -> float:
        return top + (high - y) / (high - low) * (HEIGHT - top - bottom)

    notes = [f"{escape(line.name)} {_last(line.values):.3g}" for line in drawn]
    told = f"{escape(title)}{': ' if title else ''}{', '.join(notes)}"
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}">']
    for tick in ticks(low, high, 5):
        y = y_of(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="axis" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in ticks(first, last, 8):
        if tick == int(tick):
            x = x_of(tick)
            parts.append(f'<text class="axis" x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{tick:g}</text>')
    ends = _spread([y_of(_last(line.values)) for line in drawn], 14)
    for line, end, note in zip(drawn, ends, notes, strict=True):
        parts += _line_parts(line, [(x_of(x), y_of(y)) for x, y in zip(xs, line.values, strict=True)], xs)
        parts.append(f'<text class="label" x="{WIDTH - right + 8}" y="{end + 4:.1f}" fill="{line.color}">{note}</text>')
    return "".join([*parts, "</svg>"])


def sparkline(xs: np.ndarray, values: np.ndarray, color: str) -> str:
    """A small line without an axis, from 0 to 1, over ascending places; "" where there is nothing to draw."""
    if not np.isfinite(values).any():
        return ""
    step = (SPARK_WIDTH - 6) / ((xs[-1] - xs[0]) or 1)
    points = [
        (3 + (x - xs[0]) * step, 3 + (1 - value) * (SPARK_HEIGHT - 6)) for x, value in zip(xs, values, strict=True)
    ]
    floor = f'<line class="grid" x1="0" x2="{SPARK_WIDTH}" y1="{SPARK_HEIGHT - 3}" y2="{SPARK_HEIGHT - 3}"/>'
    lines = "".join(_polylines(points, color))
    return f'<svg viewBox="0 0 {SPARK_WIDTH} {SPARK_HEIGHT}" aria-hidden="true">{floor}{lines}</svg>'


def ticks(low: float, high: float, count: int) -> list[float]:
    """At most about `count` round numbers (1, 2 or 5 times a power of ten apart) within low..high."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    start = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(start, math.floor(high / step + 1e-9) + 1)]


def _line_parts(line: Line, points: Sequence[tuple[float, float]], xs: np.ndarray) -> list[str]:
    """The line, and an invisible dot at each point with a tooltip of its value."""
    dots = []
    for (x, y), value, place in zip(points, line.values, xs, strict=True):
        if math.isfinite(y):
            tip = f"<title>{escape(line.name)} {value:.4g} at {place:g}</title>"
            dots.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="6">{tip}</circle>')
    shown = [point for point in points if math.isfinite(point[1])] if line.joined else points
    return [*_polylines(shown, line.color), *dots]


def _polylines(points: Sequence[tuple[float, float]], color: str) -> Iterator[str]:
    """The line through the points, broken where one is nan; a lone point becomes a dot."""
    run: list[tuple[float, float]] = []
    for point in (*points, (math.nan, math.nan)):
        if math.isfinite(point[1]):
            run.append(point)
            continue
        if len(run) == 1:
            yield f'<circle cx="{run[0][0]:.1f}" cy="{run[0][1]:.1f}" r="3" fill="{color}"/>'
        elif run:
            text = " ".join(f"{x:.1f},{y:.1f}" for x, y in run)
            yield f'<polyline class="line" points="{text}" stroke="{color}"/>'
        run = []


def _span(values: np.ndarray) -> tuple[float, float]:
    found = values[np.isfinite(values)]
    low, high = float(found.min()), float(found.max())
    margin = (high - low) * 0.06 or 0.1 * (abs(high) or 1.0)
    return (0.0 if 0 <= low <= 0.25 * high else low - margin), high + margin


def _last(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)][-1])


def _spread(places: Sequence[float], gap: float) -> list[float]:
    """The same places moved apart downwards until none is nearer than `gap` to the next."""
    moved = list(places)
    previous = -math.inf
    for index in sorted(range(len(moved)), key=lambda item: moved[item]):
        moved[index] = previous = max(moved[index], previous + gap)
    return moved
