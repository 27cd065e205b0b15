"""A result as text: tables for a terminal, whose cells the page and README use too, and how a table is laid out.

Knows rows and how to format numbers; nothing of files or pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_seg import phrases

from .environment import processor
from .rows import ClipRow, Result, Row

HEAD = ("contender", "ms/frame", "p95", "frames/s", "x Keras", "quartiles", "peak MB", "mean IoU", "agreement",
        "GOP/s", "of peak", "of limit")  # fmt: skip
NONE = "-"


def render(result: Result) -> str:
    """The whole result as text: heading, tables, problems and notes."""
    blocks = [heading(result)]
    for batch in result.settings["batch_sizes"]:
        rows = [row for row in result.rows if row.batch == batch]
        blocks.append(f"batch {batch}\n" + align([HEAD, *(cells(row) for row in rows)]))
    if result.clip_rows:
        blocks.append(f"end to end: {clip_line(result.clip)}\n" + align(clip_table(result.clip_rows)))
    if result.limits.get("peaks"):
        blocks.append("what this machine can do at the most\n" + align(limit_table(result.limits)))
    blocks.append("\n".join(f"  {line}" for line in remarks(result)))
    return "\n\n".join(block for block in blocks if block) + "\n"


def heading(result: Result) -> str:
    """Three lines: data, machine and method."""
    machine, settings, data = result.environment, result.settings, result.data
    cores = phrases.counted(machine["cores"], "core")
    size = "x".join(str(side) for side in settings["size"])
    repeats = phrases.counted(settings["repeats"], "interleaved repeat")
    method = f"{repeats} of {phrases.counted(settings['frames'], 'frame')} each, {timed_calls(result)}"
    return "\n".join(
        (
            f"{data['name']}: {phrases.counted(data['frames'], 'frame')}, segmented at {size}",
            f"{processor(machine)}, {cores}, Python {machine['python']}, {machine['os']}",
            f"{method}; the whole took {result.duration_s:.0f} s",
        )
    )


def timed_calls(result: Result) -> str:
    """Number of timed calls of each contender at each batch size, in words."""
    calls = sorted({row.calls for row in result.rows if row.status == "ok"})
    return f"{' or '.join(map(str, calls)) or 'no'} timed call{'' if calls == [1] else 's'} of each contender"


def cells(row: Row) -> tuple[str, ...]:
    """The cells of one row, in the columns of `HEAD`."""
    if row.status != "ok":
        return (row.name, row.status, *[NONE] * (len(HEAD) - 2))
    return (
        row.name,
        number(row.ms_median, 1),
        number(row.ms_p95, 1),
        number(row.frames_per_s, 1),
        number(row.ratio, 2),
        NONE if row.ratio_low is None else f"{row.ratio_low:.2f}-{row.ratio_high:.2f}",
        number(row.peak_mb, 0),
        percent(row.mean_iou, 2),
        percent(row.agreement, 3),
        number(row.gflops, 0),
        percent(row.share_of_peak, 0),
        percent(row.share_of_limit, 0),
    )


def clip_table(rows: Sequence[ClipRow]) -> list[tuple[str, ...]]:
    """Head and rows of the end-to-end table, with a column for each stage that any contender has."""
    # In the order of the fullest row: the naive loop lacks one.
    fullest = sorted(rows, key=lambda row: len(row.stage_ms), reverse=True)
    stages = list(dict.fromkeys(stage for row in fullest for stage in row.stage_ms))
    head = (
        "contender",
        "batch",
        "frames/s",
        "x naive",
        "possible",
        "of possible",
        *(f"{stage} ms" for stage in stages),
        "peak MB",
    )
    return [head, *(_clip_cells(row, stages) for row in rows)]


def _clip_cells(row: ClipRow, stages: Sequence[str]) -> tuple[str, ...]:
    speeds = number(row.frames_per_s, 1) if row.status == "ok" else row.status
    times = (number(row.stage_ms.get(stage), 1) for stage in stages)
    limits = (number(row.times_naive, 1), number(row.allowed_fps, 1), percent(row.share_of_allowed, 0))
    return (row.name, str(row.batch), speeds, *limits, *times, number(row.peak_mb, 0))


def limit_table(limits: dict[str, Any]) -> list[tuple[str, ...]]:
    """Head and rows of the limits: each arithmetic's peak, with the library that reached it, and memory bandwidth."""
    rows = [("limit", "", "by")]
    for name, peak in limits["peaks"].items():
        reached = "none here" if peak["gflops"] is None else peak_speed(name, peak)
        rows.append((name, reached, f"{peak['library']}, {peak['what']}" if peak["library"] else "see the notes"))
    memory = limits["bandwidth"]
    parts = ", ".join(f"{key.removesuffix('_gb_s')} {memory[key]:.1f}" for key in memory if key.endswith("_gb_s"))
    return [*rows, ("memory", f"{memory['best_gb_s']:.1f} GB/s", parts)]


def peak_speed(arithmetic: str, peak: dict[str, Any]) -> str:
    """A peak in its unit: whole numbers are no floating-point operations."""
    return f"{peak['gflops']:,.0f} {'GOP/s' if arithmetic == 'int8' else 'GFLOP/s'}"


def clip_line(clip: dict[str, Any]) -> str:
    """The clip in words."""
    return f"{clip['name']}, {clip['width']}x{clip['height']}, {clip['frames']} frames, decoded to encoded overlay"


def remarks(result: Result) -> list[str]:
    """A line for each row that failed or was skipped, and the notes."""
    lost = [row for row in result.everything if row.status != "ok"]
    return [*(f"{row.status}: {row.name}, batch {row.batch}: {row.reason}" for row in lost), *result.notes]


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns, the first to the left, the others to the right; the head is underlined."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join((lines[0], "-" * len(lines[0]), *lines[1:]))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table, the first its head: the first column to the left, the others to the right."""
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(share: float | None, digits: int) -> str:
    """0.5 -> "50.00 %"."""
    return NONE if share is None else phrases.percent(share, digits)


def number(value: float | None, digits: int) -> str:
    """1234.5 -> "1,234.5"."""
    return NONE if value is None else f"{value:,.{digits}f}"
