"""Which held-out images the networks that a training is given were trained on: of those it knows more than of new ones.

Knows names of images alone, as runs record them; reads no image and no weights.
"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

from edge_seg.console import harmless

from .files import DAMAGE
from .options import FitOptions, recipe_from
from .run import Run, open_run
from .splits import split_samples

if TYPE_CHECKING:
    from .dataset import Sample
    from .training_data import TrainingData


def seen_held_out(options: FitOptions, data: TrainingData, data_hash: str) -> dict[str, Any] | None:
    """What a run records of its held-out images that --start's or --teacher's network was trained on; says it, too.

    Args:
        data_hash: of `data`, as runs record it; only of a network trained on the same data is anything known.

    Returns:
        How many there are, and their names, those that it may have been trained on among them; None without any.
    """
    held_out = {sample.stem for sample in data.validation}
    seen: set[str] = set()
    for option, folder in (("--start", options.start), ("--teacher", options.teacher)):
        if folder is None or (run := open_run(folder)).data.get("hash") != data_hash:
            continue
        known = trained_on(run, data.samples)
        theirs = held_out if known is None else held_out & known
        if not theirs:
            continue
        was = "was" if known is not None else "may have been, which it does not record,"
        few = f"{len(theirs)} of the {len(held_out)} held-out images"
        words = f"{option} {folder} {was} trained on {few}: their scores will be too good. {_cure(run)}"
        print(f"warning: {harmless(words)}", file=sys.stderr)
        seen |= theirs
    return {"count": len(seen), "names": sorted(seen)} if seen else None


def trained_on(run: Run, samples: list[Sample]) -> set[str] | None:
    """Names of the images that a network was trained on, or what it came from; None where that cannot be told.

    Args:
        run: a run on these very images.
        samples: all of them.
    """
    if "train" in run.data:
        return run.seen.union(run.data["train"])
    # Shipped without names, which its split gives again.
    try:
        training, validation = split_samples(samples, recipe_from(run.config["recipe"]), int(run.config["seed"]))
    except DAMAGE:
        return None
    if run.config.get("trained_on") != {"train": len(training), "val": len(validation)}:
        return None
    return run.seen | {sample.stem for sample in training}


def _cure(run: Run) -> str:
    """How to hold out what a network's own training held out."""
    recipe = run.config.get("recipe") or {}
    try:
        if recipe.get("held_out"):
            split = f"--hold-out {shlex.quote(','.join(recipe['held_out']))}"
        elif recipe.get("validation_share"):
            split = f"--split {recipe.get('split')} --validation-share {recipe['validation_share']:g}"
            split += f" --seed {run.config.get('seed')}" if recipe.get("split") == "random" else ""
        else:
            return "It held out none; score by other images."
    except DAMAGE:
        return "It does not record what it held out; score by other images."
    return f"Hold out what it held out: {split}."
