"""`python -m train evaluate`: the scores of a run, or of an exported ONNX file, as a table, CSV, JSON and pictures.

Keras is imported only once a run is opened. The measuring is in `train.evaluation`, what is written in `train.results`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import edge_seg
from edge_seg.arguments import model_named
from edge_seg.console import put
from edge_seg.errors import ConfigurationError
from edge_seg.spec import palette_for

from . import arguments
from .classes import ClassList
from .dataset import find_samples
from .evaluation import Evaluation, Subject, evaluate_samples
from .files import refuse_link
from .history import read_history
from .labelers import KerasLabeler, open_keras, open_onnx
from .night import NEEDED
from .preflight import WARNINGS_TOLD, check_pairs, print_warnings, refuse_problems
from .quiet import import_keras_quietly
from .report import write_report
from .results import draw_shown, print_evaluation, write_evaluation


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
        metavar="DATASET",
        help="folder in the dataset1 layout (default: the one the run recorded)",
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        help="the run's own training or validation images, or the test folder (default: val; test for an .onnx file)",
    )
    arguments.add_folder_options(parser.add_argument)
    parser.add_argument(
        "--ignore-id", type=arguments.byte, metavar="N", help=f"{arguments.IGNORE_HELP} (default: the run's)"
    )
    parser.add_argument(
        "--out",
        type=arguments.folder,
        metavar="DIR",
        help="folder for tables and pictures (default: evaluate-SPLIT in the run, ./NAME-evaluate-SPLIT for .onnx and "
        "what is bundled; with -by-night after SPLIT)",
    )
    parser.add_argument(
        "--input-size",
        type=arguments.size,
        metavar="HxW",
        help="size that the network runs at, multiples of 32 (default: the run's)",
    )
    parser.add_argument("--flip", action="store_true", help="also average with the mirrored input (default: no)")
    parser.add_argument(
        "--scales",
        type=arguments.scales,
        default=(1.0,),
        metavar="S,S",
        help="also average over these input scales, like 0.75,1,1.25 (default: 1)",
    )
    parser.add_argument(
        "--night",
        action="store_true",
        help="relight each image by its mask as by night, always alike for one name (default: no)",
    )
    parser.add_argument("--batch", type=arguments.positive, default=8, metavar="N", help="frames a call (default: 8)")


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


def write_run_pictures(run: Any, model: Any = None) -> Path:
    """Make the pictures, tables and page of a finished run: curves.png, samples.png, evaluate-val/ and report.html.

    Args:
        run: a `train.run.Run` whose history is written.
        model: its plain network at the run's input size; loaded if None.

    Returns:
        The page's path. A run without a validation split shows a few of its training images instead of an evaluation.
    """
    from .pictures import curves  # matplotlib takes seconds to load

    history = run.folder / "history.csv"
    if history.is_file():
        curves(read_history(history), run.folder / "curves.png")
    validated = bool(run.data.get("val"))
    samples = run.samples("val" if validated else "train")
    if model is None:
        labeler = open_keras(run, input_size=None, batch=8, flip=False, scales=(1.0,))
    else:
        labeler = KerasLabeler(model, run.fcn8.input_size)
    subject = Subject(
        name=str(run.folder),
        split="val" if validated else "train",
        samples=samples if validated else samples[:: max(1, len(samples) // 4)][:4],
        classes=run.class_list,
        palette=palette_for(run.classes),
        labeler=labeler,
    )
    evaluation = evaluate_subject(subject)
    draw_shown(subject, evaluation.evenly, run.folder / "samples.png")
    if validated:
        write_evaluation(subject, evaluation, run.folder / "evaluate-val")
    return write_report(run.folder)


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


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\revaluating {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)
