"""What a run begins with: a call's options, config.json made from them, and how `--resume` reads it back and compares.

Knows nothing of batches, steps or networks; reads no weights.
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_seg.errors import ConfigurationError

from .augmentation import Augmentation
from .checkpoint import has_checkpoint
from .classes import CAMVID, ClassList
from .dataset import data_hash
from .fcn8 import Fcn8Config
from .files import CONFIG_NAME, DAMAGE, WEIGHTS_NAME, refuse_link
from .fit_arguments import POLICIES
from .recipes import Recipe
from .run import Run, open_run, versions
from .teacher import frames_hash, teacher_record

if TYPE_CHECKING:
    from .training_data import TrainingData

# The options whose full paths config.json records.
PATHS = ("weights", "start", "teacher")


@dataclass(frozen=True)
class Inherited:
    """Which of the given weights a network took.

    Attributes:
        whole: whether a network that normalises took blocks 1 and 2, and all blocks to be frozen, unchanged.
        loaded: names of the encoder's layers that took given kernels, or a part of them where not `whole`; in a network
            that continues without normalisation, those that took them all.
        began: filters of blocks 1 to 5, conv6 and conv7 of the finished network that it began from; empty without one.
    """

    whole: bool = False
    loaded: tuple[str, ...] = ()
    began: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What one call of fit was asked for, besides the recipe.

    Attributes:
        out: folder of the run; `dataset`, or `images` and `masks`, the folders of its data.
        weights: ImageNet kernels, an .h5 or .npz; `start`: a finished run's folder to go on from.
        teacher: a finished run's folder whose opinion of the images is learnt too, or None.
        unlabelled: pictures, clips and folders of them, learnt from the teacher alone.
        classes: what the masks hold.
        inherited: what a resumed run recorded about its given weights. Its checkpoint holds every weight, so neither
            `weights` nor `start` is read.
        brief: validate only after the last epoch and draw nothing: a study needs only the scores.
        every: validate and write a checkpoint every this many epochs, and after the last.
        workers: processes that draw batches, 0 for threads; None for a default by cores.
    """

    out: Path
    dataset: Path | None
    images: Path | None
    masks: Path | None
    block_widths: tuple[int, int, int, int, int]
    head_widths: tuple[int, int]
    weights: Path | None
    start: Path | None = None
    teacher: Path | None = None
    unlabelled: tuple[Path, ...] = ()
    seed: int
    policy: str
    resume: bool
    tensorboard: bool
    classes: ClassList = CAMVID
    license: str = ""
    devices: tuple[str, ...] = ()
    inherited: Inherited | None = None
    brief: bool = False
    every: int = 1
    workers: int | None = None


def fcn8_config(recipe: Recipe, options: FitOptions) -> Fcn8Config:
    """The configuration of the network that a recipe and the options describe."""
    return Fcn8Config(
        classes=len(options.classes),
        input_size=recipe.input_size,
        block_widths=options.block_widths,
        head_widths=options.head_widths,
        skip_activation=recipe.skip_activation,
    )


def run_config(
    recipe: Recipe,
    options: FitOptions,
    data: TrainingData,
) -> dict[str, Any]:
    """Everything the run is made from, as JSON."""
    return {
        "fcn8": fcn8_config(recipe, options).to_dict(),
        "classes": list(options.classes.names),
        "unlabelled": options.classes.unlabelled,
        "ignored": options.classes.ignored,
        "recipe": recipe.to_dict(),
        "seed": options.seed,
        "policy": options.policy,
        "weights": options.weights.name if options.weights else None,
        "start": Run(options.start, {}).name if options.start else None,
        "teacher": teacher_record(options.teacher) if options.teacher else None,
        "paths": {name: _recorded(getattr(options, name)) for name in PATHS},
        "license": options.license,
        "data": {
            "root": _recorded(options.dataset),
            "images": _recorded(options.images),
            "masks": _recorded(options.masks),
            "hash": data_hash(data.samples),
            "train": [sample.stem for sample in data.training],
            "val": [sample.stem for sample in data.validation],
            "unlabelled": list(map(_recorded, options.unlabelled)),
            "frames": {"count": len(data.frames), "hash": frames_hash(data.frames)} if len(data.frames) else None,
        },
        "versions": versions(),
    }


def _recorded(path: Path | None) -> str | None:
    """A path as config.json keeps it: from the root, since a run may be opened from any folder."""
    return os.path.abspath(path) if path else None


def read_begun(out: Path) -> tuple[Recipe, FitOptions]:
    """Recipe and options of the run in a folder, as they were given when it began.

    Raises:
        ConfigurationError: the folder records no training to go on with.
        ModelFileError: its config.json is damaged.
    """
    run = open_run(out)
    config = run.config
    try:
        data, network, record = config["data"], Fcn8Config.from_dict(config["fcn8"]), config["encoder"]
        paths = {name: _path(config["paths"][name]) for name in PATHS}
        inherited = Inherited(bool(record["whole"]), tuple(map(str, record["loaded"])), tuple(record["began"]))
        seed, policy = int(config["seed"]), str(config["policy"])
        if seed not in range(2**32) or policy not in POLICIES:
            raise ValueError(f"seed {seed}, policy {policy!a}")
        return recipe_from(config["recipe"]), FitOptions(
            out=out, dataset=_path(data["root"]), images=_path(data["images"]), masks=_path(data["masks"]),
            block_widths=network.block_widths, head_widths=network.head_widths,
            weights=paths["weights"], start=paths["start"], teacher=paths["teacher"], seed=seed,
            unlabelled=tuple(map(Path, data["unlabelled"])),
            classes=run.class_list, policy=policy, resume=True, tensorboard=False,
            license=str(config.get("license", "")),
            inherited=inherited if has_checkpoint(out) else None,
        )  # fmt: skip
    except DAMAGE as error:
        raise ConfigurationError(
            f"--resume: {out / CONFIG_NAME} does not say how its run began ({type(error).__name__}: {error}); "
            "train it again with another --out."
        ) from error


def recipe_from(record: dict[str, Any]) -> Recipe:
    """A recipe from `Recipe.to_dict`'s JSON; fields unknown to this version are dropped, and then show as changed."""
    values = _known(Recipe, record)
    if values.get("augmentation") is not None:
        values["augmentation"] = Augmentation(**_known(Augmentation, values["augmentation"]))
    return Recipe(**values)


def _known(kind: type[Any], record: dict[str, Any]) -> dict[str, Any]:
    """The entries of a JSON record that a dataclass has fields for; its lists are tuples there."""
    kept = {field.name: record[field.name] for field in fields(kind) if field.name in record}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()}


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def refuse_folder(options: FitOptions) -> None:
    """Raise `ConfigurationError` if there is no run to resume, or a run or files elsewhere that would be overwritten.

    Reads no data.
    """
    refuse_link(options.out / "evaluate-val")
    begun = (options.out / CONFIG_NAME).exists()
    if options.resume and not begun:
        raise ConfigurationError(f"--resume: {options.out} holds no run to go on with.")
    if begun and not options.resume:
        raise ConfigurationError(
            f"{options.out} already holds a run; go on with it by --resume, or choose another --out."
        )
    if begun and (options.out / WEIGHTS_NAME).exists() and not has_checkpoint(options.out):
        raise ConfigurationError(
            f"--resume: {options.out} holds a finished network and no checkpoint to go on from; begin another run from "
            f"it: --start {shlex.quote(str(options.out))}, with another --out."
        )


def refuse_changes(options: FitOptions, config: dict[str, Any]) -> None:
    """Raise `ConfigurationError` unless a run is resumed with the same recipe, precision and data."""
    stored = open_run(options.out).config
    ours = json.loads(json.dumps(config))
    for known in (stored, ours):  # May change: a smaller one cures a loss that became NaN.
        known["recipe"].pop("learning_rate", None)
    keys = ("classes", "unlabelled", "ignored", "fcn8", "recipe", "seed", "policy", "weights", "start", "teacher")
    changed = [line for key in keys for line in differences(stored.get(key), ours[key], key)]
    changed += differences(stored["data"]["hash"], ours["data"]["hash"], "data")
    changed += differences(stored["data"].get("frames"), ours["data"]["frames"], "frames")
    if changed:
        raise ConfigurationError(
            f"--resume: the run in {options.out} began with other options; give them again: {'; '.join(changed)}."
        )


def differences(stored: Any, ours: Any, name: str) -> list[str]:
    """ "recipe.epochs is 4 there, 60 here" for each value of two JSON trees that is not the same."""
    if isinstance(stored, dict) and isinstance(ours, dict):
        names = sorted({*stored, *ours})
        return [line for key in names for line in differences(stored.get(key), ours.get(key), f"{name}.{key}")]
    return [] if stored == ours else [f"{name} is {_plain(stored)} there, {_plain(ours)} here"]


def _plain(value: Any) -> str:
    if value in (None, "", []):
        return "none"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
