"""A run's page, RUN/report.html: one self-contained file that shows what the folder holds, to read or to send.

Reads config.json, history.csv and evaluate-*/, leaves out what is missing, and says what it leaves out because it is
damaged: a run may come from anyone. Makes no pictures of its own.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from edge_seg.console import harmless
from edge_seg.files import replacing
from edge_seg.overlay import Palette
from edge_seg.phrases import counted
from edge_seg.spec import CAMVID_CLASSES, palette_for

from .evaluation import FULL_FRAME
from .files import DAMAGE
from .history import column, read_history
from .metrics import scores
from .svg import Line, line_chart, sparkline

PAGE_NAME = "report.html"
DAY_NAMES = {
    "val": "Validation images",
    "test": "Test folder",
    "train": "Training images",
    "plain-folders": "Plain folders",
}
SPLIT_NAMES = DAY_NAMES | {f"{split}-by-night": f"{name}, relit as by night" for split, name in DAY_NAMES.items()}
Made = TypeVar("Made")
PICTURES_NOTE = "On the right, errors are red, and pixels that are not labelled, which count neither way, dark."
STYLE = Path(__file__).with_name("report.css").read_text()


def write_report(folder: Path | str) -> Path:
    """Write the page of a run's folder from what is there; returns its path.

    What is damaged is left out, and named on the page and, a line each, on stderr.
    """
    folder = Path(folder)
    damaged: list[str] = []

    def whole(path: Path, read: Callable[[Path], Made], without: Made) -> Made:
        try:
            return read(path) if path.is_file() else without
        except (OSError, StopIteration, cv2.error, *DAMAGE) as error:
            words = (str(error) or type(error).__name__).splitlines()[0].removeprefix(f"{path}: ")
            damaged.append(f"{path.relative_to(folder)} ({words[:200]})")
            return without

    nothing: tuple[tuple[str, ...], str, str] = (CAMVID_CLASSES, "", "")
    classes, note, settings = whole(folder / "config.json", _config_parts, nothing)
    rows: list[dict[str, str]] = whole(folder / "history.csv", read_history, [])
    found = [whole(path, _evaluation_parts, ("", "")) for path in _summaries(folder)]
    evaluations = [parts for parts in found if all(parts)]
    sections = [
        _heading(folder, note, rows, [cards for cards, _ in evaluations], damaged),
        _curves_section(rows),
        _classes_over_time(rows, classes, palette_for(classes)),
        *(section for _, section in evaluations),
        "" if evaluations else _pictures_section(folder, ("samples",)),
        settings,
    ]
    for name in damaged:
        print(f"warning: {harmless(f'{folder / PAGE_NAME} leaves out, damaged: {name}')}", file=sys.stderr)
    title = escape(folder.resolve().name)
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body>{''.join(section for section in sections if section)}</body></html>\n"
    )
    with replacing(folder / PAGE_NAME) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")
    return folder / PAGE_NAME


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def _summaries(folder: Path) -> list[Path]:
    """The summaries in the folders evaluate-*, validation first."""
    order = list(SPLIT_NAMES)

    def place(path: Path) -> tuple[int, str]:
        split = _split(path.parent)
        return order.index(split) if split in order else len(order), split

    return sorted(folder.glob("evaluate-*/summary.json"), key=place)


def _split(folder: Path) -> str:
    return folder.name.removeprefix("evaluate-")


def _heading(
    folder: Path, note: str, rows: Sequence[dict[str, str]], evaluations: Sequence[str], damaged: Sequence[str]
) -> str:
    """The run's name, what it was trained on, the cards of evaluations and history, and what is left out."""
    cards = [*evaluations]
    if rows:
        seconds = float(np.nansum(column(rows, "seconds")))
        number, noun = counted(len(rows), "epoch").split()
        cards.append(_card(number, f"{noun} in {_duration(seconds)}"))
    none = "" if rows or evaluations else '<p class="note">This run has no history and no evaluation yet.</p>'
    if damaged:
        none = f'<p class="note">{escape("Left out, damaged: " + "; ".join(damaged))}</p>'
    title = f'<h1>{escape(folder.resolve().name)}</h1><p class="note">{escape(note)}</p>'
    return f'{title}{none}<div class="cards">{"".join(cards)}</div>'


def _config_parts(path: Path) -> tuple[tuple[str, ...], str, str]:
    """What config.json says: the classes, the heading's line on recipe and images, and the section of settings."""
    config = _read_json(path)
    recipe = config.get("recipe", {})
    name = recipe.get("name", "") if isinstance(recipe, dict) else str(recipe)
    data = config.get("data", {})
    counts = [
        f"{len(data[key])} {word} images"
        for key, word in (("train", "training"), ("val", "validation"))
        if data.get(key)
    ]
    classes = tuple(map(str, config.get("classes", CAMVID_CLASSES)))
    return classes, ", ".join([*([f"recipe {name}"] if name else []), *counts]), _config_section(config)


def _evaluation_parts(path: Path) -> tuple[str, str]:
    """The cards for the heading, and the section, of an evaluation's summary.json."""
    record, place = _read_json(path), path.parent
    full = _full_frame(record)
    split = SPLIT_NAMES.get(_split(place), _split(place)).lower()
    with_all = _figure(full["mean_iou_with_unlabelled"])
    mean = _card(_figure(full["mean_iou"]), f"mean IoU, {split} ({with_all} with unlabelled)")
    cards = mean + _card(_figure(full["accuracy"]), f"global accuracy, {split}")
    return cards, _evaluation_section(place, record, palette_for(tuple(record["classes"])))


def _curves_section(rows: Sequence[dict[str, str]]) -> str:
    """Loss, mean IoU, accuracy and learning rate over the epochs."""
    if not rows:
        return ""
    epochs = column(rows, "epoch")
    cards = []
    for name, title in (("loss", "Loss"), ("mean_iou", "Mean IoU"), ("accuracy", "Accuracy")):
        lines = [
            Line("train", column(rows, name), "var(--train)"),
            Line("val", column(rows, f"val_{name}"), "var(--val)", joined=True),
        ]
        cards.append((title, line_chart(epochs, lines, title=title)))
    rate = Line("rate", column(rows, "learning_rate"), "var(--train)")
    cards.append(("Learning rate", line_chart(epochs, [rate], title="Learning rate")))
    drawn = "".join(f'<div class="card"><h3>{title}</h3>{chart}</div>' for title, chart in cards if chart)
    return f'<h2>Training</h2><div class="two">{drawn}</div>'


def _classes_over_time(rows: Sequence[dict[str, str]], classes: Sequence[str], palette: Palette) -> str:
    """A small chart for each class: twelve lines in one chart would hide one another."""
    cells = []
    rows = [row for row in rows if row.get("val_loss")]
    for name, color in zip(classes, palette, strict=True):
        values = column(rows, f"iou_{name}")
        if spark := sparkline(column(rows, "epoch"), values, "rgb(var(--accent))"):
            note = f"<span>{values[np.isfinite(values)][-1]:.3f} at the end</span>"
            cells.append(f'<div class="card"><h3>{_swatch(color)}{escape(name)}</h3>{spark}{note}</div>')
    if not cells:
        return ""
    return (
        '<h2>IoU of each class over the epochs</h2><p class="note">On the validation images, each from 0 to 1.</p>'
        f'<div class="spark">{"".join(cells)}</div>'
    )


def _evaluation_section(place: Path, record: dict[str, Any], palette: Palette) -> str:
    classes = record["classes"]
    confusion = np.array(_full_frame(record)["confusion"], np.int64)
    split = SPLIT_NAMES.get(_split(place), _split(place))
    height, width = record["input_size"]
    table = _class_table(confusion, record["unlabelled"], classes, palette)
    note = f"{record['images']} images, network at {height}x{width} (height x width), tables at full frame"
    return (
        f'<h2>{escape(split)}</h2><p class="note">{escape(note)}</p>'
        f'<div class="card wide">{_protocol_table(record["results"])}</div>'
        f'<div class="two"><div class="card wide">{table}</div>'
        f'<div class="card wide"><h3>Share of each true class (row) called each class (column), %</h3>'
        f"{_matrix(confusion, classes)}</div></div>{_pictures_section(place, ('best', 'worst'))}"
    )


def _protocol_table(results: Iterable[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(item['protocol'])}, {escape(item['variant'])}</td>"
        f"<td>{_figure(item['mean_iou'])}</td><td>{_figure(item['mean_iou_with_unlabelled'])}</td>"
        f"<td>{_figure(item['accuracy'])}</td><td>{_figure(item['accuracy_with_unlabelled'])}</td></tr>"
        for item in results
    )
    head = "<th></th><th>mean IoU</th><th>with unlabelled</th><th>accuracy</th><th>with unlabelled</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _class_table(confusion: np.ndarray, unlabelled: int | None, classes: Sequence[str], palette: Palette) -> str:
    found = scores(confusion, unlabelled)
    rows = "".join(
        f"<tr><td>{_swatch(color)}{escape(name)}</td><td>{found.tp[i]:,}</td><td>{found.fp[i]:,}</td><td>{found.fn[i]:,}</td>"
        f"<td>{_figure(found.iou_with_unlabelled[i])}</td><td>{_figure(found.iou[i])}</td></tr>"
        for i, (name, color) in enumerate(zip(classes, palette, strict=True))
    )
    head = "<th>class</th><th>TP</th><th>FP</th><th>FN</th><th>IoU</th><th>IoU, labelled pixels</th>"
    return f'<table class="narrow"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _matrix(confusion: np.ndarray, classes: Sequence[str]) -> str:
    totals = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    head = "".join(f"<th><div>{escape(name)}</div></th>" for name in classes)
    body = ""
    for row, (name, shares) in enumerate(zip(classes, confusion / totals, strict=True)):
        cells = "".join(_matrix_cell(share, row == col) for col, share in enumerate(shares))
        body += f"<tr><th>{escape(name)}</th>{cells}</tr>"
    return f'<table class="matrix"><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>'


def _matrix_cell(share: float, own: bool) -> str:
    text = f"{100 * share:.0f}" if share >= 0.005 else ""
    # At most 0.75, so that the text stays readable in both colour schemes.
    style = f"background: rgba(var(--accent), {0.04 + 0.71 * share:.3f})"
    return f'<td{" class=own" if own else ""} style="{style}">{text}</td>'


def _pictures_section(folder: Path, names: Iterable[str]) -> str:
    captions = {"best": "Best images", "worst": "Worst images", "samples": "Sample predictions"}
    parts: list[str] = []
    for name in names:
        if source := _embedded(folder / f"{name}.png"):
            caption = captions[name]
            note = "" if parts else f'<p class="note">{PICTURES_NOTE}</p>'
            parts.append(
                f"<h3>{caption}</h3>{note}"
                f'<figure><img alt="{caption}: image, truth, prediction and errors of each" src="{source}"></figure>'
            )
    return "".join(parts)


def _embedded(path: Path) -> str:
    """A picture as a data URL, JPEG to keep the page small; "" where there is none."""
    # Not by imread, which ends the process if a folder's name is not UTF-8.
    data = np.frombuffer(path.read_bytes() if path.is_file() else b"", np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if picture is None:
        return ""
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _config_section(config: dict[str, Any]) -> str:
    """The run's settings, and the versions that computed it; long lists, as of images, become their length."""
    if not config:
        return ""
    plain = {key: value for key, value in config.items() if key != "versions"}
    settings = _pairs_table(_flat(plain))
    versions = _pairs_table(config.get("versions", {}).items())
    return (
        '<h2>Configuration</h2><div class="two">'
        f'<div class="card"><h3>Run</h3>{settings}</div><div class="card"><h3>Versions</h3>{versions}</div></div>'
    )


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            long = len(value) > 16
            pairs.append(
                (f"{prefix}{key}", f"{len(value)} entries" if long else ", ".join(str(item) for item in value) or "–")
            )
        else:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            pairs.append((f"{prefix}{key}", "–" if value in (None, "") else text))
    return pairs


def _pairs_table(pairs: Iterable[tuple[str, Any]]) -> str:
    rows = "".join(f"<tr><td>{escape(str(key))}</td><td>{escape(str(value))}</td></tr>" for key, value in pairs)
    return f'<table class="pairs">{rows}</table>'


def _full_frame(record: dict[str, Any]) -> dict[str, Any]:
    return next(item for item in record["results"] if (item["protocol"], item["variant"]) == (FULL_FRAME, "plain"))


def _card(figure: str, text: str) -> str:
    return f'<div class="card"><b>{escape(figure)}</b><span>{escape(text)}</span></div>'


def _swatch(color: tuple[int, int, int]) -> str:
    return f'<i class="swatch" style="background: rgb{color}"></i>'


def _figure(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.3f}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
