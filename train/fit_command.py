"""`python -m train fit` as a command: its options become a recipe and a `FitOptions`, its outcome an exit code.

Imports Keras.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_seg.console import complain
from edge_seg.errors import ConfigurationError, EdgeSegError

from .arguments import one_source
from .begin import check_frozen
from .checkpoint import kept
from .classes import CAMVID, ClassList, changed, missing
from .dataset import refuse_gone
from .distribute import join_hosts
from .fcn8 import Fcn8Config, check_input_size
from .files import CONFIG_NAME
from .fit import fit
from .memory import keep_freed_memory
from .night import NEEDED
from .options import FitOptions, read_begun
from .policy import auto_policy
from .recipes import RECIPES, Recipe
from .run import Run, joint_terms, open_run

START_RATE = 1e-4
RECIPE_VALUES = (
    "epochs",
    "batch_size",
    "learning_rate",
    "batch_norm",
    "freeze_blocks",
    "input_size",
    "crop_size",
    "rendered_share",
    "weight_offset",
    "split",
    "validation_share",
    "held_out",
)


def run_fit(args: argparse.Namespace) -> int:
    """Run `python -m train fit`; returns the exit code."""
    one_source(args)
    refuse_two_splits(args)
    refuse_taken_dataset(args)
    keep_freed_memory()
    join_hosts()
    # `fit` refuses to resume in a folder without a run.
    recipe, options = options_begun(args) if args.resume and (args.out / CONFIG_NAME).exists() else options_anew(args)
    check_recipe(recipe)
    try:
        run = fit(recipe, options)
    except KeyboardInterrupt:
        begun = (options.out / CONFIG_NAME).exists()
        command = f": python -m train fit --out {shlex.quote(str(options.out))} --resume" if begun else "."
        print(f"stopped. {kept(options.out)}{command}", file=sys.stderr)
        return 1
    except OSError as error:
        if isinstance(error, EdgeSegError):
            raise
        where = f"{error.filename}: " if error.filename else ""
        complain(f"{where}{error.strerror or error}. {kept(options.out)}.")
        return 1
    if run.folder != options.out:
        print(f"done: the first host has written {options.out}{os.sep}")
        return 0
    print(f"done: {run.folder}{os.sep} (model.weights.h5, history.csv, curves.png, report.html)")
    return 0


def refuse_two_splits(args: argparse.Namespace) -> None:
    """Raise `ConfigurationError` if both whole drives and a share are to be held out."""
    if args.held_out and (args.split or args.validation_share is not None):
        raise ConfigurationError("--hold-out takes the place of --split and --validation-share: leave one out.")


def refuse_taken_dataset(args: argparse.Namespace) -> None:
    """Raise `ConfigurationError` if --unlabelled took DATASET, given after it, as one more of its own paths."""
    if not args.unlabelled or args.dataset or args.images or args.masks:
        return
    last = args.unlabelled[-1]
    if not args.resume or (last / "images_prepped_train").is_dir():
        raise ConfigurationError(
            f"--unlabelled takes every name behind it, {str(last)!r} too, so that there is no DATASET; give DATASET "
            "first, before the options."
        )


def options_anew(args: argparse.Namespace) -> tuple[Recipe, FitOptions]:
    """Recipe and options of a new run; raises `ConfigurationError` if what was asked for conflicts."""
    refuse_other_weights(args)
    start = open_run(args.start) if args.start else None
    known = start.class_list if start else CAMVID
    classes = changed(known, args.classes, args.unlabelled_class, args.ignore_id)
    refuse_ignored(args.recipe, classes)
    recipe = replace(RECIPES[args.recipe or "default"], **given(args, RECIPE_VALUES))
    if args.weight_offset is not None and not recipe.weighted:
        raise ConfigurationError(
            f"--weight-offset: to the recipe {recipe.name} all classes weigh alike; leave one of the two out."
        )
    recipe = augmented(suited(recipe, classes, rendered=bool(args.rendered_share)), args.augment, classes)
    check_teacher(recipe, classes, args.teacher, args.unlabelled or ())
    network = asked_network(args, start, classes)
    if start:
        recipe = started(recipe, network, start, classes, args)
    if recipe.crop_size and args.crop_size is None:
        # The rest of a larger crop would lie outside the image.
        height, width = map(min, recipe.crop_size, recipe.input_size)
        recipe = replace(recipe, crop_size=(height, width))
    check_frozen(recipe, network.widths, args.start, args.weights)
    return recipe, FitOptions(
        out=args.out, dataset=args.dataset, images=args.images, masks=args.masks,
        block_widths=network.block_widths, head_widths=network.head_widths,
        weights=args.weights, start=args.start, teacher=args.teacher, unlabelled=tuple(args.unlabelled or ()),
        seed=1 if args.seed is None else args.seed, policy=chosen_policy(args.policy or "auto", recipe),
        resume=args.resume, tensorboard=args.tensorboard, classes=classes, license=terms(args), devices=args.devices,
        every=args.every, workers=args.workers,
    )  # fmt: skip


def refuse_other_weights(args: argparse.Namespace) -> None:
    """Raise `ConfigurationError` if --start is combined with --weights or a recipe other than the default."""
    if args.start and (args.weights or args.recipe not in (None, "default")):
        raise ConfigurationError(
            "--start brings its own weights, for the default recipe: give it without --weights and --recipe."
        )


def refuse_ignored(recipe: str | None, classes: ClassList) -> None:
    """Raise `ConfigurationError` if the notebook's recipe, which counts every pixel, is told to ignore some."""
    if recipe == "notebook" and classes.ignored is not None:
        raise ConfigurationError(
            "--ignore-id: the notebook's recipe counts the unlabelled class like any other; leave one of the two out."
        )


def suited(recipe: Recipe, classes: ClassList, *, rendered: bool) -> Recipe:
    """The recipe, for classes other than CamVid's without rendered scenes, or night if they lack what it needs.

    Raises `ConfigurationError` if `rendered` scenes were asked for with such classes.
    """
    if classes.is_camvid:
        return recipe
    if rendered:
        raise ConfigurationError("--rendered-share: scenes are rendered with CamVid's classes alone; leave it out.")
    augmentation = recipe.augmentation
    if augmentation is not None and missing(classes.ids, NEEDED):
        augmentation = replace(augmentation, night=0.0)
    return replace(recipe, rendered_share=0.0, augmentation=augmentation)


def augmented(recipe: Recipe, changes: dict[str, Any] | None, classes: ClassList) -> Recipe:
    """The recipe with other values in its augmentation.

    Raises `ConfigurationError` if it has none, a value is out of bounds, or night needs classes that are missing.
    """
    if not changes:
        return recipe
    if recipe.augmentation is None:
        raise ConfigurationError(f"--augment: the recipe {recipe.name} augments nothing; leave one of the two out.")
    if changes.get("night") and (lacking := missing(classes.ids, NEEDED)):
        raise ConfigurationError(
            f"--augment night: streets are relit by classes that are not here: {', '.join(lacking)}; leave it out."
        )
    return replace(recipe, augmentation=replace(recipe.augmentation, **changes))


def started(recipe: Recipe, network: Fcn8Config, start: Run, classes: ClassList, args: argparse.Namespace) -> Recipe:
    """The recipe of a network that begins from a finished one, of the same widths, narrower or wider."""
    recipe = replace(
        recipe,
        skip_activation=network.skip_activation,
        input_size=args.input_size or network.input_size or recipe.input_size,
    )
    if narrower(network.widths, start.fcn8.widths):
        if args.batch_norm is False:
            raise ConfigurationError(
                "--no-batch-norm: a part of a network goes on only with normalisation; give it with the network's own "
                "widths or larger ones."
            )
        return recipe
    # The scores of classes that it does not know have everything to learn, so normalisation stays the default.
    fresh = start.classes != classes.names
    if args.batch_norm or (fresh and args.batch_norm is None):
        return recipe
    # Its normalisation has been folded into its weights, which large steps would ruin.
    rate = START_RATE if args.learning_rate is None else args.learning_rate
    return replace(recipe, batch_norm=False, learning_rate=rate)


def narrower(widths: Sequence[int], finished: Sequence[int]) -> bool:
    """Whether any layer has fewer filters than in a finished network."""
    return any(ours < theirs for ours, theirs in zip(widths, finished, strict=True))


def options_begun(args: argparse.Namespace) -> tuple[Recipe, FitOptions]:
    """What the run in `--out` began with, overridden by what was given; `fit` refuses contradictions."""
    recipe, options = read_begun(args.out)
    recipe = replace(recipe, **given(args, RECIPE_VALUES), **({"name": args.recipe} if args.recipe else {}))
    recipe = augmented(recipe, args.augment, options.classes)
    names = ("block_widths", "head_widths", "weights", "start", "teacher", "unlabelled", "seed", "policy", "license")
    changes = given(args, names)
    if "unlabelled" in changes:
        changes["unlabelled"] = tuple(changes["unlabelled"])
    if "policy" in changes:
        changes["policy"] = chosen_policy(changes["policy"], recipe)
    data = ("dataset", "images", "masks")
    if given(args, data):
        changes |= {name: getattr(args, name) for name in data}
    else:
        refuse_gone(args.out, options.dataset, options.images, options.masks)
    running = {name: getattr(args, name) for name in ("tensorboard", "devices", "every", "workers")}
    options = replace(options, **running, **changes)
    if options.inherited is None and options.weights and not args.weights and not options.weights.is_file():
        raise ConfigurationError(
            f"--resume: the run in {args.out} began with {options.weights}, which is not there; give it with --weights."
        )
    ignored = options.classes.ignored if args.ignore_id is None else args.ignore_id
    options = replace(options, classes=changed(options.classes, args.classes, args.unlabelled_class, ignored))
    if options.inherited is None and options.start:
        refuse_other_start(options.start, options)
    check_teacher(recipe, options.classes, options.teacher, options.unlabelled)
    return recipe, options


def chosen_policy(asked: str, recipe: Recipe) -> str:
    """The precision asked for; of "auto", that which suits recipe and hardware."""
    if asked != "auto":
        return asked
    return "float32" if recipe.is_notebook else auto_policy()


def given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The named options that have a value on the command line."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def asked_network(args: argparse.Namespace, start: Run | None, classes: ClassList) -> Fcn8Config:
    """The network of the widths asked for, or else of those of the one to start from."""
    asked = given(args, ("block_widths", "head_widths"))
    if start is None:
        return Fcn8Config(**asked)
    return replace(start.fcn8, classes=len(classes), **asked)


def check_teacher(recipe: Recipe, classes: ClassList, teacher: Path | None, unlabelled: Sequence[Path]) -> None:
    """Raise `ConfigurationError` for a teacher that does not suit this training, or frames that no teacher labels.

    Raises `ModelFileError` for a teacher that has not finished, before minutes are spent on reading the data.
    """
    if teacher is None:
        if unlabelled:
            raise ConfigurationError(
                "--unlabelled: frames without masks are learnt from a teacher; give --teacher too."
            )
        return
    if recipe.is_notebook:
        raise ConfigurationError("--teacher: the notebook's recipe learns from masks alone; leave one of the two out.")
    run = open_run(teacher)
    if run.classes != classes.names:
        raise ConfigurationError(
            f"--teacher {teacher}: expected a network of the classes {', '.join(classes.names)}; "
            f"got {', '.join(run.classes)}."
        )
    if unlabelled and classes.unlabelled is None:
        raise ConfigurationError("--unlabelled: frames without masks need an unlabelled class; name one.")
    run.finished_weights()


def refuse_other_start(start: Path, options: FitOptions) -> None:
    """Raise `ConfigurationError` if --start is now a network of other widths than the one that a run began from."""
    finished, expected = open_run(start).fcn8.widths, tuple(open_run(options.out).config["encoder"]["began"])
    if finished != expected:
        raise ConfigurationError(
            f"--start {start}: expected the network of {','.join(map(str, expected))} filters that the run began from, "
            f"got {','.join(map(str, finished))}."
        )


def terms(args: argparse.Namespace) -> str:
    """The terms asked for; else those of the start and the teacher, which also bind what is made from them."""
    if args.license is not None:
        return str(args.license)
    return joint_terms(*(open_run(folder) for folder in (args.start, args.teacher) if folder))


def check_recipe(recipe: Recipe) -> None:
    """Raise `ConfigurationError` for values that no training can have."""
    for size_asked in (recipe.input_size, recipe.crop_size):
        if size_asked is not None:
            check_input_size(size_asked)
    if recipe.crop_size is not None and recipe.augmentation is None:
        raise ConfigurationError(
            f"--crop-size: the recipe {recipe.name} trains on whole images; leave it out, or give --input-size."
        )
    for name in ("rendered_share", "validation_share"):
        if not 0.0 <= getattr(recipe, name) < 1.0:
            raise ConfigurationError(f"--{name.replace('_', '-')} must lie in 0 <= x < 1, got {getattr(recipe, name)}.")
    if not 1.0 < recipe.weight_offset <= 100.0:
        raise ConfigurationError(f"--weight-offset must lie in 1 < x <= 100, got {recipe.weight_offset}.")
    if not 0.0 < recipe.learning_rate < 100.0:
        raise ConfigurationError(f"--learning-rate must lie in 0 < x < 100, got {recipe.learning_rate}.")
