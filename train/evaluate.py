"""`python -m train evaluate`: the scores of a run, or of an exported ONNX file, as a table, CSV, JSON and pictures.

The command and what it writes; the measuring is in `train.evaluation`. Keras is imported only once a run is opened.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

import edge_seg
from edge_seg.arguments import model_named
from edge_seg.console import put
from edge_seg.errors import ConfigurationError
from edge_seg.files import replacing
from edge_seg.overlay import Palette
from edge_seg.preprocess import resize_labels
from edge_seg.spec import palette_for

from . import arguments
from .augment import Pair
from .classes import ClassList
from .dataset import Sample, find_samples, read_pair
from .evaluation import FULL_FRAME, Evaluation, Result, Shown, evaluate_samples
from .files import refuse_link, write_csv
from .labelers import Labeler, open_keras, open_onnx
from .metrics import Scores, none_if_nan
from .night import NEEDED, make_night
from .preflight import WARNINGS_TOLD, check_pairs, print_warnings, refuse_problems
from .quiet import import_keras_quietly


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and the samples that it is evaluated on.

    Attributes:
        name: the run's folder or the model file, as it was given.
        split: "train", "val", "test" or "plain folders".
        samples: the pairs to evaluate on.
        classes, palette: of the model; `classes.ignored` is of the samples' masks.
        labeler: what labels frames.
        night: relight each image as if at night first.
    """

    name: str
    split: str
    samples: Sequence[Sample]
    classes: ClassList
    palette: Palette
    labeler: Labeler
    night: bool = False

    def read(self, sample: Sample) -> Pair:
        """A sample's image, (H, W, 3) uint8 BGR, and mask, (H, W) uint8."""
        image, mask = read_pair(sample)
        if self.night:
            # Seeded by the image's name: the same night for every model, whatever else is evaluated.
            ids = {name: index for index, name in enumerate(self.classes.names)}
            image = make_night(image, mask, ids, np.random.default_rng(crc32(sample.stem.encode(errors="replace"))))
        return image, mask


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m train evaluate`."""
    parser.add_argument(
        "model",
        metavar="RUN",
        type=arguments.path,
        help="a run's folder, an exported .onnx file, or best or fast, the bundled ones",
    )
    parser.add_argument(
        "dataset",
        nargs="?",
        type=arguments.path,
        help="folder in the dataset1 layout (default: the one the run recorded)",
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        help="the run's own training or validation images, or the test folder (default: val; test for an .onnx file)",
    )
    parser.add_argument(
        "--images", type=arguments.path, help="plain image folder, instead of a dataset (default: none)"
    )
    parser.add_argument("--masks", type=arguments.path, help="plain mask folder, of the same names (default: none)")
    parser.add_argument(
        "--ignore-id", type=arguments.byte, metavar="N", help=f"{arguments.IGNORE_HELP} (default: the run's)"
    )
    parser.add_argument(
        "--out",
        type=arguments.folder,
        help="folder for tables and pictures (default: evaluate-SPLIT in the run, ./NAME-evaluate-SPLIT for .onnx and "
        "what is bundled; with -by-night after SPLIT)",
    )
    parser.add_argument(
        "--input-size", type=arguments.size, help="HxW the network runs at, multiples of 32 (default: the run's)"
    )
    parser.add_argument("--flip", action="store_true", help="also average with the mirrored input (default: no)")
    parser.add_argument(
        "--scales",
        type=arguments.scales,
        default=(1.0,),
        help="also average over these input scales, like 0.75,1,1.25 (default: 1)",
    )
    parser.add_argument(
        "--night",
        action="store_true",
        help="relight each image by its mask as by night, always alike for one name (default: no)",
    )
    parser.add_argument("--batch", type=arguments.positive, default=8, help="frames a call (default: 8)")


def run_evaluate(args: argparse.Namespace) -> int:
    """Evaluate as the parsed arguments say; 0 when done.

    Raises:
        EdgeSegError: with its exit code and one clear line; `DatasetError` names every bad file.
    """
    if args.images and (args.dataset or args.split):
        raise ConfigurationError("--images and --masks are evaluated whole; leave the dataset and --split out.")
    args.model = model_named(str(args.model))
    # A folder is a run, even if its name ends in .onnx.
    onnx = args.model.is_file() or (args.model.suffix.lower() == ".onnx" and not args.model.is_dir())
    subject = _onnx_subject(args) if onnx else _run_subject(args)
    if args.night:
        if any(name not in subject.classes.names for name in NEEDED):
            raise ConfigurationError(
                f"--night relights streets by the classes {', '.join(NEEDED)}; got a model of "
                f"{', '.join(subject.classes.names)}."
            )
        subject = replace(subject, split=f"{subject.split} by night", night=True)
    folder_name = f"evaluate-{subject.split.replace(' ', '-')}"
    # Nothing is written into the package: a user's pictures do not belong among the bundled files.
    apart = onnx or args.model.resolve().is_relative_to(Path(edge_seg.__file__).parent)
    out = args.out or (Path(f"{args.model.stem}-{folder_name}") if apart else args.model / folder_name)
    if not args.out:
        refuse_link(out)
    evaluation = evaluate_subject(subject, batch=args.batch)
    print_evaluation(subject, evaluation)
    options = {"flip": args.flip, "scales": list(args.scales), "ignore_id": subject.classes.ignored}
    write_evaluation(subject, evaluation, out, options=options)
    put("", f"written to {out}: summary.json, classes.csv, images.csv, confusion.csv and pictures")
    if not apart and args.out is None:
        from .report import write_report

        put(f"page brought up to date: {write_report(args.model)}")
    return 0


def evaluate_subject(subject: Subject, *, batch: int = 8) -> Evaluation:
    """Check the files, then evaluate; raises `DatasetError` that names every bad file."""
    curable = subject.classes.unlabelled is not None
    report = check_pairs(subject.samples, subject.classes, curable=curable)
    print_warnings(refuse_problems(report), WARNINGS_TOLD)
    return evaluate_samples(
        subject.labeler,
        subject.samples,
        classes=len(subject.classes),
        unlabelled=subject.classes.unlabelled,
        batch=batch,
        read=subject.read,
        on_batch=_progress,
    )


def _run_subject(args: argparse.Namespace) -> Subject:
    import_keras_quietly()
    from .run import open_run

    run = open_run(args.model)
    asked = run.class_list if args.ignore_id is None else replace(run.class_list, ignored=args.ignore_id)
    known = checked_ignored(asked)
    run = replace(run, config={**run.config, "ignored": known.ignored})
    if args.images or args.masks:
        split, samples = "plain folders", find_samples(None, images=args.images, masks=args.masks, classes=known)
    else:
        split = args.split or "val"
        samples = run.samples(split, args.dataset)
    labeler = open_keras(run, input_size=args.input_size, batch=args.batch, flip=args.flip, scales=args.scales)
    return Subject(
        name=str(args.model),
        split=split,
        samples=samples,
        classes=known,
        palette=palette_for(run.classes),
        labeler=labeler,
    )


def _onnx_subject(args: argparse.Namespace) -> Subject:
    if args.split not in (None, "test"):
        raise ConfigurationError(
            f"An ONNX file records no {args.split!r} split; evaluate it with --split test, or its run."
        )
    if args.flip or args.scales != (1.0,):
        raise ConfigurationError(
            "--flip and --scales average probabilities, which an ONNX file does not give; evaluate its run."
        )
    plain = bool(args.images or args.masks)
    labeler, spec = open_onnx(args.model, input_size=args.input_size, batch=args.batch)
    known = checked_ignored(ClassList(names=spec.classes, unlabelled=spec.unlabelled, ignored=args.ignore_id))
    samples = find_samples(args.dataset, "test", images=args.images, masks=args.masks, classes=known)
    return Subject(
        name=str(args.model),
        split="plain folders" if plain else "test",
        samples=samples,
        classes=known,
        palette=spec.palette,
        labeler=labeler,
    )


def checked_ignored(classes: ClassList) -> ClassList:
    """The classes, less a redundant `ignored`; raises `ConfigurationError` if masks cannot hold the value."""
    if classes.ignored is None or classes.ignored == classes.unlabelled:
        return replace(classes, ignored=None)
    if classes.unlabelled is None or classes.ignored < len(classes):
        raise ConfigurationError(
            f"--ignore-id {classes.ignored}: expected a value of the masks above the {len(classes)} classes' ids, and "
            "a model with an unlabelled class."
        )
    return classes


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


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\revaluating {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)
