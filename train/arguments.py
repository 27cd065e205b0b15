"""Command-line values that several commands share; argparse reports what these types raise in one line and exits 2."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_seg.arguments import name, positive
from edge_seg.errors import ConfigurationError

from .augmentation import BOUNDS
from .dataset import composed

__all__ = [
    "add_class_options",
    "add_folder_options",
    "augmentations",
    "byte",
    "drives",
    "folder",
    "names",
    "natural",
    "one_source",
    "path",
    "positive",
    "refuse_data_folder",
    "scales",
    "seed",
    "size",
]


def size(text: str) -> tuple[int, int]:
    """ "352x480" -> (352, 480): height, then width, in pixels."""
    match = re.fullmatch(r"(\d+)[xX](\d+)", text.strip())
    if not match or 0 in (found := (int(match[1]), int(match[2]))):
        raise argparse.ArgumentTypeError(f"expected a size as HEIGHTxWIDTH, like 224x224; got {text!r}")
    return found


def path(text: str) -> Path:
    """The path of a file or folder, not empty."""
    return Path(name(text))


def folder(text: str) -> Path:
    """The path of a folder that exists or can be made."""
    found = path(text)
    for place in (found, *found.parents):
        if place.is_dir():
            break
        if place.exists():
            raise argparse.ArgumentTypeError(f"{str(place)!r} is a file; name a folder")
    return found


def natural(text: str) -> int:
    """A whole number, 0 or above: a seed (numpy takes no other) or an index."""
    if not text.strip().isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or above; got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """A seed that Keras accepts: 0 to 2**32 - 1."""
    found = natural(text)
    if found >= 2**32:
        raise argparse.ArgumentTypeError(f"expected a seed below 2**32; got {text!r}")
    return found


def scales(text: str) -> tuple[float, ...]:
    """ "0.75,1,1.25" -> (0.75, 1.0, 1.25), each from 0.25 to 4."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0.25 <= scale <= 4 for scale in found):
        raise argparse.ArgumentTypeError(
            f"expected scales between 0.25 and 4 with commas between, like 0.75,1,1.25; got {text!r}"
        )
    return found


def drives(text: str) -> tuple[str, ...]:
    """ "0006R0,0016E5" -> ("0006R0", "0016E5"): names of drives, `composed`, none empty or repeated."""
    found = tuple(part.strip() for part in composed(text).split(","))
    if not all(found) or len(set(found)) != len(found):
        raise argparse.ArgumentTypeError(f"expected different names of drives with commas between; got {text!r}")
    return found


def augmentations(text: str) -> dict[str, Any]:
    """ "light=0,scale=0.8:1.5" -> {"light": 0.0, "scale": (0.8, 1.5)}: fields of `Augmentation`, each once."""
    found: dict[str, Any] = {}
    for part in text.split(","):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in BOUNDS or key in found:
            raise argparse.ArgumentTypeError(
                f"expected NAME=NUMBER with commas between, different names out of {', '.join(BOUNDS)}; got {part!r}"
            )
        try:
            numbers = tuple(map(float, value.split(":")))
        except ValueError:
            numbers = ()
        if len(numbers) != (2 if key == "scale" else 1):
            example = "scale=0.8:1.5" if key == "scale" else f"{key}=1"
            raise argparse.ArgumentTypeError(f"expected a value as in {example}; got {part!r}")
        found[key] = numbers if key == "scale" else numbers[0]
    return found


def names(text: str) -> tuple[str, ...]:
    """ "sky,road" -> ("sky", "road"): class names in the order of their ids, none empty or repeated."""
    found = tuple(part.strip() for part in text.split(","))
    if len(found) < 2 or not all(found) or len(set(found)) != len(found) or len(found) > 256:
        raise argparse.ArgumentTypeError(f"expected 2 to 256 different class names with commas between; got {text!r}")
    # Names are printed to terminals, which obey control characters; a model file refuses those, too.
    if not all(name.isprintable() for name in found):
        raise argparse.ArgumentTypeError(f"expected class names of printable characters; got {text!a}")
    return found


IGNORE_HELP = "a value of the masks beside the classes' ids that means unlabelled, often 255"


def byte(text: str) -> int:
    """A value of an 8-bit mask, 0 to 255."""
    if not text.strip().isdecimal() or int(text) > 255:
        raise argparse.ArgumentTypeError(f"expected a value of an 8-bit mask, 0 to 255; got {text!r}")
    return int(text)


def add_folder_options(add: Callable[..., Any]) -> None:
    """Add the options that name plain folders instead of a dataset, through a parser's `add_argument`."""
    add("--images", type=path, metavar="DIR", help="plain image folder, instead of DATASET (default: none)")
    add("--masks", type=path, metavar="DIR", help="plain mask folder, of the same names (default: none)")


def add_class_options(add: Callable[..., Any], *, start: str = "") -> None:
    """Add the options that say what masks hold, through a parser's `add_argument`.

    `start`: text before each default in the help.
    """
    add(
        "--classes",
        type=names,
        metavar="A,B,...",
        help=f"class names in the order of their ids, commas between (default: {start}CamVid's 12)",
    )
    add(
        "--unlabelled-class",
        metavar="NAME",
        help=f'name of the class that means not labelled, or "none" (default: {start}unlabelled, if there is one)',
    )
    add(
        "--ignore-id",
        type=byte,
        metavar="N",
        help=f"{IGNORE_HELP} (default: {start}none)",
    )


def refuse_data_folder(args: argparse.Namespace) -> None:
    """Raise `ConfigurationError` if --out lies in a data folder: output would overwrite images or be taken for them."""
    given = vars(args)
    if given.get("out") is None:
        return
    root, out = given.get("dataset"), given["out"].resolve()
    folders = [root / f"{kind}_prepped_{split}" for kind in ("images", "annotations") for split in ("train", "test")
               if root]  # fmt: skip
    folders += [given[name] for name in ("images", "masks") if given.get(name)]
    folders += [name for name in given.get("unlabelled") or () if name.is_dir()]
    for folder in folders:
        if out.is_relative_to(folder.resolve()):
            raise ConfigurationError(
                f"--out {given['out']} lies in {folder}, whose pictures are data: what is written there would take "
                "their places, or be taken for one of them; choose another --out."
            )


def one_source(args: argparse.Namespace) -> None:
    """Raise `ConfigurationError` if a dataset and plain folders are both given: one of them would be ignored."""
    if args.dataset and (args.images or args.masks):
        raise ConfigurationError("Give either a dataset folder or --images and --masks, not both.")
