"""Which images are trained on and which are held out: at random, the end of each drive, or whole drives.

Knows only names; reads no image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_seg.errors import ConfigurationError

from .dataset import Sample, composed

if TYPE_CHECKING:
    from .recipes import Recipe

MOST_NAMED = 8
# A name that ends in a date and a time of day, parted: without it, each minute would be a drive of its own.
_TIME_OF_DAY = re.compile(r"(\d{4}[-_.]?\d\d[-_.]?\d\d)[-_T ](?:[01]\d|2[0-3])([-_.])[0-5]\d\2[0-5]\d$")
_NUMBER = re.compile(r"[_-]?[a-z]*\d+$")


def split_samples(samples: list[Sample], recipe: Recipe, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Training and validation samples, split as the recipe says.

    Raises:
        ConfigurationError: nothing is left to train on, or a drive that is to be held out has no image.
    """
    if recipe.held_out:
        training, validation = drive_split(samples, recipe.held_out)
    elif recipe.split == "random":
        training, validation = random_split(samples, 1.0 - recipe.validation_share, seed)
    else:
        training, validation = time_split(samples, recipe.validation_share)
    if not training:
        option = f"--hold-out {','.join(recipe.held_out)}"
        share = f"--validation-share {recipe.validation_share}"
        raise ConfigurationError(
            f"{len(samples)} image(s) with {option if recipe.held_out else share} leave none to train on."
        )
    return training, validation


def random_split(samples: list[Sample], train_share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """The notebook's split: a random `train_share` (rounded down) for training, the rest for validation."""
    order = np.random.default_rng(seed).permutation(len(samples))
    # Of 5 images 1 - 0.8 makes 0.99999...: what floating point lacks is no image less.
    count = int(round(len(samples) * train_share, 9))
    chosen = set(order[:count].tolist())
    return [s for i, s in enumerate(samples) if i in chosen], [s for i, s in enumerate(samples) if i not in chosen]


def time_split(samples: list[Sample], validation_share: float) -> tuple[list[Sample], list[Sample]]:
    """Hold out the end of each drive, so that validation and training frames are neighbours at only one cut a drive.

    Frames of a drive share the name before their number (`0016E5_07959` belongs to drive `0016E5`, and
    `2026-11-28_08-59-00` to the day) and are in the order of their numbers: `drive_10` comes after `drive_9`. Where
    most drives are too short to hold anything out (names without numbers, say, or clips of three frames), all frames
    count as one drive in the order of their names.
    """
    drives = by_drive(samples)
    held_out = sum(_held_out(frames, validation_share) for frames in drives.values())
    if 2 * held_out <= validation_share * len(samples):
        drives = {"": sorted(samples, key=_by_name)}
    cuts = [(frames, len(frames) - _held_out(frames, validation_share)) for frames in drives.values()]
    return [frame for frames, cut in cuts for frame in frames[:cut]], [
        frame for frames, cut in cuts for frame in frames[cut:]
    ]


def drive_split(samples: list[Sample], held_out: Sequence[str]) -> tuple[list[Sample], list[Sample]]:
    """Hold out whole drives, by their names: validation is of streets that were not trained on.

    Raises:
        ConfigurationError: one of them has no image.
    """
    drives, held_out = by_drive(samples), [composed(name) for name in held_out]
    if missing := [name for name in held_out if name not in drives]:
        raise ConfigurationError(
            f"--hold-out: no image is of {_some(missing)}. By what stands before their numbers, they are of "
            f"{_some(sorted(filter(None, drives)))}."
        )
    return [frame for name, frames in drives.items() if name not in held_out for frame in frames], [
        frame for name in held_out for frame in drives[name]
    ]


def by_drive(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Drive -> its frames in the order of their numbers; a drive is what names share before number or time of day."""
    drives: dict[str, list[Sample]] = {}
    for sample in samples:
        drives.setdefault(sample.stem[: _drive_ends(sample.stem)], []).append(sample)
    for frames in drives.values():
        frames.sort(key=_number)
    return drives


def _drive_ends(stem: str) -> int:
    """How much of a name is its drive's."""
    if timed := _TIME_OF_DAY.search(stem):
        return timed.end(1)
    numbered = _NUMBER.search(stem)
    return numbered.start() if numbered else len(stem)


def _some(names: Sequence[str]) -> str:
    """A few names for a message, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED]) or 'no drive'}{more}"


def _held_out(frames: list[Sample], share: float) -> int:
    return round(len(frames) * share)


def _by_name(sample: Sample) -> list[str | int]:
    """A key that puts `2_left` before `10_left`."""
    parts = re.split(r"(\d+)", sample.stem)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def _number(sample: Sample) -> int:
    """The digits behind the drive, as one number."""
    digits = re.sub(r"\D", "", sample.stem[_drive_ends(sample.stem) :])
    return int(digits) if digits else 0
