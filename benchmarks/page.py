"""A result as one self-contained HTML page: chart, tables, method and environment. Reads and writes no files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

from .rows import Result
from .table import HEAD, cells, clip_line, clip_table, heading, limit_table, remarks

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 1160px; margin: 2.5rem auto;
  padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; }
.lead { color: #55616d; white-space: pre-line; margin: 0 0 1.2rem; }
img { width: 100%; box-sizing: border-box; padding: 10px; background: #fff; border: 1px solid #e4e8ec;
  border-radius: 8px; }
.wide { overflow-x: auto; }
@media (max-width: 600px) { .wide img { width: 1000px; } }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 13.5px; }
th { font-weight: 600; color: #55616d; border-bottom: 2px solid #cfd6dd; }
th, td { padding: .32rem .5rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tbody tr:nth-child(even) { background: #f6f8f9; }
tr.bad td { color: #a03a34; }
.notes { background: #fff6e5; border-left: 4px solid #e0a63a; padding: .6rem 1rem; border-radius: 4px;
  margin: 0 0 1.2rem; }
.notes p { margin: .2rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0 0 1rem; }
dt { color: #55616d; }
dd { margin: 0; overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) {
  body { background: #14191e; color: #dde3e9; }
  .lead, th, dt { color: #9aa7b3; }
  th { border-color: #3a444e; }
  tbody tr:nth-child(even) { background: #1b2228; }
  .notes { background: #2c2515; }
  tr.bad td { color: #ea8f88; }
}
"""
METHOD = """Each contender runs in a process of its own, from uint8 BGR frames at the model's size to uint8 class ids:
scaling and argmax count for all. They take turns, one computing while the others wait, each round begun by another one;
times Keras is the median over rounds of the ratio within a round, with its quartiles from five rounds on, so that what
slows the whole machine for a round or longer leaves it alone; what comes and goes faster does not. Peak memory is the
process' own (VmHWM). Mean IoU leaves the unlabelled class out and is taken at each frame's own size; agreement is the
share of pixels with the label of Keras predict, at the model's size. Operations are counted from the ONNX file, a
multiply-add as two; "of peak" is the share of the fastest product or convolution that any library at hand reached in
the same arithmetic, "of limit" that of the roofline, for which each layer takes as long as its operations at that peak
or its weights from memory. From end to end, "possible" is the cores over the CPU time of the stages, each run alone."""


def render_page(result: Result, chart_png: bytes) -> str:
    """The page as text, with the chart embedded."""
    tables = [
        f"<h2>Batch {batch}</h2>" + _table(HEAD, [cells(row) for row in result.rows if row.batch == batch])
        for batch in result.settings["batch_sizes"]
    ]
    if result.limits.get("peaks"):
        head, *body = limit_table(result.limits)
        tables.append("<h2>What this machine can do at the most</h2>" + _table(head, body))
    if result.clip_rows:
        head, *body = clip_table(result.clip_rows)
        tables.append(f"<h2>From end to end: {escape(clip_line(result.clip))}</h2>" + _table(head, body))
    picture = base64.b64encode(chart_png).decode("ascii")
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>edge_seg benchmark</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{STYLE}</style></head><body>",
            f'<h1>edge_seg benchmark</h1><p class="lead">{escape(heading(result))}</p>',
            _notes(result),
            '<div class="wide"><img alt="Speed, mean IoU and memory of each contender, and the time of each stage" '
            f'src="data:image/png;base64,{picture}"></div>',
            *tables,
            f"<h2>How it was measured</h2><p>{escape(METHOD)}</p>",
            "<h2>Models</h2>" + "".join(_list(model) for model in result.models),
            "<h2>Environment</h2>" + _list({**result.environment, "measured": result.created}),
            "</body></html>\n",
        )
    )


def _notes(result: Result) -> str:
    lines = remarks(result)
    paragraphs = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f'<div class="notes">{paragraphs}</div>' if lines else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr{' class=bad' if row[1] in ('failed', 'skipped') or row[2] in ('failed', 'skipped') else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _list(values: dict[str, Any]) -> str:
    lines = "".join(
        f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(_text(value))}</dd>" for key, value in values.items()
    )
    return f"<dl>{lines}</dl>"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value) or "none"
    return "none" if value is None else str(value)
