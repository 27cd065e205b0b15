"""What an evaluation found, as text, tables, JSON and pictures. Measures nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg.console import put
from edge_seg.files import replacing
from edge_seg.preprocess import resize_labels

from .evaluation import FULL_FRAME, Evaluation, Result, Shown, Subject
from .files import write_csv
from .metrics import Scores, none_if_nan


def print_evaluation(subject: Subject, evaluation: Evaluation) -> None:
    """Print a table for each protocol and variant: each class, then the means."""
    height, width = evaluation.size
    images, speed = len(evaluation.images), f"{evaluation.label_ms:.1f} ms/frame"
    put(f"{subject.name} on {subject.split}: {images} images, labelled at {speed}")
    for result in evaluation.results:
        size = "each mask's own size" if result.protocol == FULL_FRAME else f"{height}x{width}"
        put("", f"{result.protocol} ({size}), {result.variant}", *table_lines(result.scores, subject.classes.names))


def table_lines(found: Scores, classes: Sequence[str]) -> list[str]:
    """TP, FP, FN and both IoUs of each class, then both means and accuracies."""
    width = max(len("class"), *map(len, classes))
    lines = [f" id  {'class':<{width}} {'TP':>11} {'FP':>11} {'FN':>11}  {'IoU':>6}  {'IoU where labelled':>18}"]
    for i, name in enumerate(classes):
        counts = f"{found.tp[i]:>11} {found.fp[i]:>11} {found.fn[i]:>11}"
        ious = f"{_figure(found.iou_with_unlabelled[i]):>6}  {_figure(found.iou[i]):>18}"
        lines.append(f" {i:>2}  {name:<{width}} {counts}  {ious}")
    for name, whole, labelled in (
        ("mean IoU", found.mean_iou_with_unlabelled, found.mean_iou),
        ("global accuracy", found.accuracy_with_unlabelled, found.accuracy),
    ):
        lines.append(f"     {name:<15}  {_figure(whole)} with unlabelled, {_figure(labelled)} without unlabelled")
    return lines


def _figure(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


def write_evaluation(
    subject: Subject, evaluation: Evaluation, folder: Path, *, options: dict[str, Any] | None = None
) -> None:
    """Write summary.json, the CSV tables and the pictures; confusion and pictures are of full frame, plain."""
    from . import pictures  # matplotlib takes seconds to load, which `--help` and a wrong call need not wait for

    classes, palette = subject.classes.names, subject.palette
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for result in evaluation.results for row in _class_rows(result, classes)]
    header = ("protocol", "variant", "id", "class", "tp", "fp", "fn", "iou_with_unlabelled", "iou", "accuracy")
    write_csv(folder / "classes.csv", header, rows)
    images = [(item.sample.stem, _cell(item.mean_iou), _cell(item.accuracy)) for item in evaluation.images]
    write_csv(folder / "images.csv", ("image", "mean_iou", "accuracy"), images)
    full = evaluation.result(FULL_FRAME).scores
    confusion_rows = [(name, *row) for name, row in zip(classes, full.confusion.tolist(), strict=True)]
    write_csv(folder / "confusion.csv", ("truth", *classes), confusion_rows)
    with replacing(folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary(subject, evaluation, options or {}), indent=2) + "\n")
    title = f"{subject.split}, {len(evaluation.images)} images, full frame"
    pictures.confusion_picture(full.confusion, classes, folder / "confusion.png", title=f"Confusion, {title}")
    pictures.iou_bars(full.iou, classes, palette, folder / "iou.png", title=f"IoU by class, {title}")
    for name, shown in (("best", evaluation.best), ("worst", evaluation.worst), ("samples", evaluation.evenly)):
        if shown:
            draw_shown(subject, shown, folder / f"{name}.png")
        else:
            (folder / f"{name}.png").unlink(missing_ok=True)  # of an earlier evaluation


def draw_shown(subject: Subject, shown: Sequence[Shown], path: Path) -> None:
    """Draw frames, truths, predictions and errors of a few images."""
    from . import pictures

    frames, truths = zip(*(subject.read(item.score.sample) for item in shown), strict=True)
    found = [resize_labels(item.labels, truth.shape) for item, truth in zip(shown, truths, strict=True)]
    titles = [f"{item.score.sample.stem}: mean IoU {_figure(item.score.mean_iou)}" for item in shown]
    classes = subject.classes
    pictures.sample_predictions(
        frames, truths, found, classes.names, subject.palette, path, titles=titles, unlabelled=classes.unlabelled
    )


def summary(subject: Subject, evaluation: Evaluation, options: dict[str, Any]) -> dict[str, Any]:
    """Everything but the images' scores, as plain JSON types."""
    return {
        "model": subject.name,
        "split": subject.split,
        "images": len(evaluation.images),
        "input_size": list(evaluation.size),
        "options": options,
        "label_ms": round(evaluation.label_ms, 3),
        "classes": list(subject.classes.names),
        "unlabelled": subject.classes.unlabelled,
        "results": [_result_record(result, subject.classes.names) for result in evaluation.results],
    }


def _result_record(result: Result, classes: Sequence[str]) -> dict[str, Any]:
    found = result.scores
    return {
        "protocol": result.protocol,
        "variant": result.variant,
        **found.to_dict(),
        "iou": {name: none_if_nan(iou) for name, iou in zip(classes, found.iou, strict=True)},
        "confusion": found.confusion.tolist(),
    }


def _class_rows(result: Result, classes: Sequence[str]) -> list[tuple[Any, ...]]:
    found = result.scores
    return [
        (
            *(result.protocol, result.variant, i, name, found.tp[i], found.fp[i], found.fn[i]),
            *(_cell(found.iou_with_unlabelled[i]), _cell(found.iou[i]), _cell(found.class_accuracy[i])),
        )
        for i, name in enumerate(classes)
    ]


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6f}"
