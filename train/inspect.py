"""`python -m train inspect`: counts and pictures of a dataset, and every bad file of it named at once.

Trains nothing and imports no Keras. Pictures are drawn of the good files even where others are bad.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np

from edge_seg.console import harmless
from edge_seg.errors import ConfigurationError
from edge_seg.preprocess import resize_frame, resize_labels
from edge_seg.spec import CAMVID_CLASSES, palette_for

from . import arguments
from .classes import class_list
from .dataset import SPLITS, dataset_folders, read_ids, read_image
from .files import write_csv
from .preflight import PreflightReport, preflight, print_warnings, problem_summary

WARNINGS_SHOWN = 20
MOST_SAMPLES = 50


def add_inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m train inspect`."""
    parser.add_argument(
        "dataset",
        nargs="?",
        type=arguments.path,
        metavar="DATASET",
        help="folder in the dataset1 layout; not needed with --images and --masks",
    )
    parser.add_argument(
        "--out",
        required=True,
        type=arguments.folder,
        metavar="DIR",
        help="folder for classes.csv and the pictures; made if missing",
    )
    parser.add_argument(
        "--split",
        choices=SPLITS,
        help="which half of the layout alone (default: train, and the files of test checked too)",
    )
    arguments.add_folder_options(parser.add_argument)
    arguments.add_class_options(parser.add_argument)
    parser.add_argument(
        "--input-size",
        type=arguments.size,
        default=(224, 224),
        metavar="HxW",
        help="size to show images at (default: 224x224)",
    )
    parser.add_argument(
        "--samples",
        type=arguments.positive,
        default=3,
        metavar="N",
        help="random images to show, up to 50 (default: 3)",
    )
    parser.add_argument(
        "--seed", type=arguments.natural, default=0, metavar="N", help="which random images (default: 0)"
    )


def run_inspect(args: argparse.Namespace) -> int:
    """Inspect as the parsed arguments say; 0 when every file is good, 1 when any is not.

    A dataset's test split is checked as well, unless one split is asked for.

    Raises:
        ConfigurationError: options that do not go together.
        DatasetError: a folder that does not exist.
    """
    arguments.one_source(args)
    if args.split and args.images:
        raise ConfigurationError("--split is of a dataset folder; leave it out with --images and --masks.")
    if args.samples > MOST_SAMPLES:
        raise ConfigurationError(
            f"--samples must be at most {MOST_SAMPLES}, which one picture holds; got {args.samples}."
        )
    given = class_list(args.classes or CAMVID_CLASSES, args.unlabelled_class, args.ignore_id)
    classes = given.names
    look = partial(preflight, classes=given, on_pair=_progress)
    folders = dataset_folders(args.dataset, args.split or "train", images=args.images, masks=args.masks)
    report = look(*folders)
    args.out.mkdir(parents=True, exist_ok=True)
    if report.samples:
        _print_summary(report, classes)
        write_class_table(report, classes, args.out / "classes.csv")
        draw_pictures(report, classes, args.out, input_size=args.input_size, samples=args.samples, seed=args.seed)
        print(f"\nwritten to {args.out}: classes.csv, classes.png, masks.png, samples.png")
    _print_faults(report)
    other = None if args.split else other_split(args.dataset)
    if other is None:
        return 1 if report.problems else 0
    # Otherwise a bad mask in the test split would only be found when the trained network is scored.
    rest = look(*other)
    print(f"test split: {len(rest.samples)} good pairs of {rest.images} images and {rest.masks} masks")
    _print_faults(rest)
    return 1 if report.problems or rest.problems else 0


def other_split(dataset: Path | None) -> tuple[Path, Path] | None:
    """The test split's folders, where the dataset has any of them."""
    folders = [dataset / f"{kind}_prepped_test" for kind in ("images", "annotations")] if dataset else []
    return dataset_folders(dataset, "test") if any(folder.is_dir() for folder in folders) else None


def write_class_table(report: PreflightReport, classes: tuple[str, ...], path: Path) -> None:
    """classes.csv: id, name, pixels, share of all pixels, images the class appears in."""
    pixels, images = _totals(report)
    share = pixels / pixels.sum()
    rows = [(i, name, pixels[i], f"{share[i]:.6f}", images[i]) for i, name in enumerate(classes)]
    write_csv(path, ("id", "class", "pixels", "share", "images"), rows)


def draw_pictures(
    report: PreflightReport,
    classes: tuple[str, ...],
    folder: Path,
    *,
    input_size: tuple[int, int],
    samples: int,
    seed: int,
) -> None:
    """Draw classes.png, masks.png and samples.png of a report's good pairs, of which there must be at least one."""
    from . import pictures  # matplotlib takes seconds to load, which `--help` and a wrong call need not wait for

    palette = palette_for(classes)
    pixels, _ = _totals(report)
    title = f"Share of all pixels, {len(report.samples)} images"
    pictures.class_share_plot(pixels / pixels.sum(), classes, palette, folder / "classes.png", title=title)
    richest = report.samples[int(np.argmax((report.class_pixels > 0).sum(axis=1)))]
    pictures.class_masks(
        read_image(richest.image), read_ids(richest), classes, palette, folder / "masks.png", title=richest.stem
    )
    order = np.random.default_rng(seed).permutation(len(report.samples))[:samples]
    chosen = [report.samples[index] for index in sorted(order)]
    frames, masks = [read_image(sample.image) for sample in chosen], [read_ids(sample) for sample in chosen]
    small_frames = [resize_frame(frame, input_size) for frame in frames]
    small_masks = [resize_labels(mask, input_size) for mask in masks]
    titles = [sample.stem for sample in chosen]
    path = folder / "samples.png"
    pictures.annotation_samples(frames, masks, small_frames, small_masks, classes, palette, path, titles=titles)


def _totals(report: PreflightReport) -> tuple[np.ndarray, np.ndarray]:
    """(C,) pixels of each class, and (C,) images it appears in."""
    return report.class_pixels.sum(axis=0), (report.class_pixels > 0).sum(axis=0)


def _print_summary(report: PreflightReport, classes: tuple[str, ...]) -> None:
    pixels, images = _totals(report)
    sizes = ", ".join(f"{width}x{height} ({count})" for (height, width), count in list(report.sizes.items())[:6])
    more = f" and {len(report.sizes) - 6} more sizes" if len(report.sizes) > 6 else ""
    print(f"{len(report.samples)} good pairs of {report.images} images and {report.masks} masks")
    print(f"sizes (width x height): {sizes}{more}")
    print(f"classes present: {np.count_nonzero(pixels)} of {len(classes)}\n")
    width = max(len("class"), *map(len, classes))
    print(f"{'id':>3}  {'class':<{width}}  {'pixels':>12}  {'share':>7}  {'images':>6}")
    for index, name in enumerate(classes):
        share = pixels[index] / pixels.sum()
        print(f"{index:>3}  {name:<{width}}  {pixels[index]:>12}  {100 * share:>5.2f} %  {images[index]:>6}")


def _print_faults(report: PreflightReport) -> None:
    """Print some of the warnings, then all problems."""
    print_warnings(report, WARNINGS_SHOWN)
    if report.problems:
        print(f"error: {problem_summary(report)}", *map(harmless, report.problems), sep="\n  ", file=sys.stderr)


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done % 16 == 0 or done == total):
        print(f"\rchecking {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)
