"""`python -m train study`: measure by short trainings what each part of the default recipe gives, or each width.

A study is a list of variants of one base recipe, each trained with the same seeds and schedule. Finished runs are kept,
so that a study that was stopped continues where it stopped. Scores are of the validation images, which are split off
the training folder by time or by drive: choices made by them have not seen the test folder. Knows nothing of layers or
losses.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_seg.errors import ConfigurationError, DatasetError, ModelFileError
from edge_seg.files import replacing

from . import arguments
from .classes import CAMVID, CAMVID_RARE
from .dataset import data_hash, find_samples
from .files import CONFIG_NAME
from .fit_arguments import add_workers

if TYPE_CHECKING:
    from .recipes import Recipe

Widths = tuple[tuple[int, int, int, int, int], tuple[int, int]]
NARROW: Widths = ((16, 32, 64, 128, 128), (128, 128))
WIDTHS: dict[str, Widths] = {
    "8": ((8, 16, 32, 64, 64), (64, 64)),
    "16": NARROW,
    "24": ((24, 48, 96, 192, 192), (192, 192)),
    "32": ((32, 64, 128, 256, 256), (256, 256)),
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to train: a name for the table, changes to the recipe, widths, and whether ImageNet kernels are used."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] = field(default_factory=dict)
    widths: Widths = NARROW
    pretrained: bool = True


def run_folder(study: Path, variant: str, seed: int) -> Path:
    """Where a study keeps the run of a variant and a seed."""
    return study / f"{variant.replace(' ', '-')}-seed{seed}"


def part_variants() -> list[Variant]:
    """The default recipe, and the same without each of its parts."""

    def without(name: str, *, pretrained: bool = True, **changes: Any) -> Variant:
        return Variant(name=f"without {name}", changes=changes, pretrained=pretrained)

    def unaugmented(name: str, *parts: str) -> Variant:
        return Variant(name=f"without {name}", augmentation=dict.fromkeys(parts, 0.0))

    return [
        Variant(name="all parts"),
        without("ImageNet kernels", pretrained=False),
        without("class weights", weighted=False),
        without("soft Jaccard", jaccard=0.0),
        without("moving average", ema=0.0),
        without("rendered scenes", rendered_share=0.0),
        unaugmented("rare objects", "paste", "rare_focus"),
        unaugmented("light and lens", "light", "lens"),
        unaugmented("night", "night"),
        unaugmented("other surfaces", "repaint"),
        without("linear skips", skip_activation="relu"),
        without("batch normalisation and ImageNet kernels", batch_norm=False, pretrained=False),
    ]


def width_variants() -> list[Variant]:
    """The default recipe at each width, named by the filters of block 1."""
    return [Variant(name=f"width {name}", widths=widths) for name, widths in WIDTHS.items()]


STUDIES = {"parts": part_variants, "widths": width_variants}


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m train study`."""
    add = parser.add_argument
    add("study", choices=tuple(STUDIES), help="parts: the recipe without each part; widths: the recipe at each width")
    add("dataset", type=arguments.path, metavar="DATASET", help="folder in the dataset1 layout, of CamVid's 12 classes")
    add("--out", type=arguments.folder, required=True, metavar="DIR", help="folder of the runs, the table and the JSON")
    add("--epochs", type=arguments.positive, default=10, metavar="N", help="of each training (default: %(default)s)")
    add("--crop-size", type=arguments.size, default=(160, 224), metavar="HxW", help="training crop (default: 160x224)")
    add("--batch-size", type=arguments.positive, default=8, metavar="N", help="images a step (default: %(default)s)")
    add("--seeds", type=seeds, default=(1, 2), metavar="N,N", help="one training a seed (default: 1,2)")
    add(
        "--hold-out",
        type=arguments.drives,
        default=(),
        metavar="DRIVE,DRIVE",
        help="score by whole drives that are held out, instead of the end of each (default: none)",
    )
    add("--weights", type=arguments.path, metavar="FILE", help="ImageNet kernels, as for fit (default: none)")
    add_workers(add)


def seeds(text: str) -> tuple[int, ...]:
    """argparse type: "1,2" -> (1, 2)."""
    parts = [part.strip() for part in text.split(",")]
    found = tuple(arguments.seed(part) for part in parts if part.isdecimal())
    if len(found) != len(parts) or len(set(found)) != len(found):
        raise argparse.ArgumentTypeError(f"expected different whole numbers with commas between, got {text!r}")
    return found


def run_study(args: argparse.Namespace) -> int:
    """Run `python -m train study`; returns the exit code."""
    from .fcn8 import check_input_size
    from .memory import keep_freed_memory

    check_input_size(args.crop_size)
    keep_freed_memory()
    variants = STUDIES[args.study]()
    check_data(variants[0], args)
    if args.weights is None:
        # Without a weights file, the variant that leaves the kernels out would equal the base.
        variants = [variant for variant in variants if variant.name != "without ImageNet kernels"]
    records = []
    # Seed by seed, so that a study stopped early holds every variant at least once.
    for drawn in args.seeds:
        for variant in variants:
            records.append(train_variant(variant, drawn, args))
            write_study(args.out, args.study, variants, records)
    print(study_table(variants, records))
    print(f"done: {args.out / args.study}.md, {args.study}.json")
    return 0


def check_data(variant: Variant, args: argparse.Namespace) -> None:
    """See that a study's images will do, before any is trained on.

    Raises:
        ConfigurationError: no image is held out to score trainings by.
        DatasetError: bad files, each named.
    """
    from .preflight import check_pairs, refuse_problems
    from .recipes import RECIPES
    from .splits import split_samples

    samples = find_samples(args.dataset)
    recipe = replace(RECIPES["default"], held_out=args.hold_out, **variant.changes)
    _, validation = split_samples(samples, recipe, args.seeds[0])
    if not validation:
        raise ConfigurationError(
            f"{args.dataset}: of {len(samples)} image(s) a share of {recipe.validation_share:g} holds none out, and "
            "trainings are compared by the images held out; give more images."
        )
    # `fit` would offer its own cure for other classes' masks, which a study has no options for.
    refuse_problems(check_pairs(samples, CAMVID))


def train_variant(variant: Variant, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train one variant, or read what an earlier call trained, and return its scores as plain JSON types."""
    import keras

    from .fit import fit
    from .options import FitOptions
    from .policy import auto_policy

    folder = run_folder(args.out, variant.name, seed)
    recipe = study_recipe(variant, args.epochs, args.crop_size, args.batch_size, args.hold_out)
    weights = args.weights if variant.pretrained else None
    if not _finished(folder, recipe, weights, args.dataset):
        print(f"study: {variant.name}, seed {seed}", file=sys.stderr)
        fit(
            recipe,
            FitOptions(
                out=folder, dataset=args.dataset, images=None, masks=None, block_widths=variant.widths[0],
                head_widths=variant.widths[1], weights=weights, seed=seed, policy=auto_policy(),
                resume=(folder / CONFIG_NAME).exists(), tensorboard=False, brief=True, workers=args.workers,
            ),
        )  # fmt: skip
        keras.backend.clear_session()
    return run_scores(folder, variant.name, seed)


def study_recipe(
    variant: Variant,
    epochs: int,
    crop_size: tuple[int, int],
    batch_size: int,
    held_out: tuple[str, ...] = (),
) -> Recipe:
    """The default recipe at a study's schedule, with the variant's changes."""
    from .recipes import RECIPES

    base = RECIPES["default"]
    assert base.augmentation is not None
    shortened = replace(
        base,
        epochs=epochs,
        crop_size=crop_size,
        batch_size=batch_size,
        held_out=held_out,
        augmentation=replace(base.augmentation, **variant.augmentation),
    )
    return replace(shortened, **variant.changes)


def run_scores(folder: Path, name: str, seed: int) -> dict[str, Any]:
    """The scores of a finished run's last epoch: mean IoU, accuracy and IoU by class, on its validation images.

    Classes that are in neither truth nor prediction are left out.

    Raises:
        DatasetError: nothing is labelled in those images.
        ModelFileError: its history.csv is damaged, or has no scores.
    """
    from .history import read_history

    path = folder / "history.csv"
    try:
        last = read_history(path)[-1]
        unscored = not last["val_mean_iou"]
        mean_iou, accuracy = (float(last[name] or 0) for name in ("val_mean_iou", "val_accuracy"))
        ious = {
            key.removeprefix("iou_"): float(value) for key, value in last.items() if key.startswith("iou_") and value
        }
    except (LookupError, ValueError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{path}: holds no scores of a last epoch ({error}). Copy the run again.") from error
    if unscored:
        raise DatasetError(
            f"{folder}: nothing is labelled in the images held out, and trainings are compared by them; the ends of "
            "the drives need masks."
        )
    return {"variant": name, "seed": seed, "mean_iou": mean_iou, "accuracy": accuracy, "iou": ious}


def write_study(out: Path, study: str, variants: Sequence[Variant], records: Sequence[dict[str, Any]]) -> None:
    """Write OUT/STUDY.json and OUT/STUDY.md, each whole or not at all."""
    with replacing(out / f"{study}.json") as temporary:
        temporary.write_text(json.dumps({"study": study, "runs": list(records)}, indent=2) + "\n")
    with replacing(out / f"{study}.md") as temporary:
        temporary.write_text(study_table(variants, records) + "\n")


def study_table(variants: Sequence[Variant], records: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: each variant's mean IoU over its seeds, their spread, and its difference from the first.

    The difference is the mean of those of the seeds that both have been trained with, since a seed may be kind to all
    variants; its own spread is between these.
    """
    by_name = {
        variant.name: [record for record in records if record["variant"] == variant.name] for variant in variants
    }
    lines = [
        "| variant | mean IoU | seeds | spread | difference | its spread | pole | sign | pedestrian | bicyclist |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    base = {run["seed"]: run["mean_iou"] for run in by_name[variants[0].name]}
    for name, runs in by_name.items():
        if not runs:
            continue
        scores = [run["mean_iou"] for run in runs]
        changes = [100 * (run["mean_iou"] - base[run["seed"]]) for run in runs if run["seed"] in base]
        change, spread = (f"{statistics.fmean(changes):+.1f}", f"{_range(changes):.1f}") if changes else ("–", "–")
        if name == variants[0].name:
            change = spread = ""
        classes = " | ".join(_class_mean(runs, key) for key in CAMVID_RARE)
        lines.append(
            f"| {name} | {statistics.fmean(scores):.3f} | {len(scores)} | {100 * _range(scores):.1f} "
            f"| {change} | {spread} | {classes} |"
        )
    return "\n".join(lines)


def _class_mean(runs: Sequence[dict[str, Any]], name: str) -> str:
    found = [run["iou"][name] for run in runs if name in run["iou"]]
    return f"{statistics.fmean(found):.2f}" if found else "–"


def _range(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _finished(folder: Path, recipe: Recipe, weights: Path | None, dataset: Path) -> bool:
    """Whether the folder holds this very training, finished. Raises `ConfigurationError` if it holds another."""
    from .run import open_run

    if not (folder / CONFIG_NAME).exists():
        return False
    run = open_run(folder)
    config = run.config
    same = config.get("recipe") == json.loads(json.dumps(recipe.to_dict()))
    if not same or config.get("weights") != (weights.name if weights else None):
        raise ConfigurationError(f"{folder} holds a run of another schedule; choose another --out.")
    if run.data.get("hash") != data_hash(find_samples(dataset)):
        raise ConfigurationError(f"{folder} holds a run on other data than {dataset}; choose another --out.")
    return "training" in config
