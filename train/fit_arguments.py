"""The options of `python -m train fit`, and their argparse types. Imports no Keras: `--help` should not wait for it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

from .arguments import (
    add_class_options,
    add_folder_options,
    augmentations,
    drives,
    folder,
    natural,
    path,
    positive,
    seed,
    size,
)

RECIPE_NAMES = ("default", "notebook")
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


def add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m train fit`."""
    _add_data(parser.add_argument_group("data"))
    _add_recipe(parser.add_argument_group("recipe"))
    _add_network(parser.add_argument_group("network"))
    _add_running(parser.add_argument_group("running"))


def _add_data(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "dataset",
        nargs="?",
        type=path,
        metavar="DATASET",
        help="folder in the dataset1 layout (default: --images and --masks)",
    )
    add("--out", type=folder, required=True, metavar="RUN", help="folder of the run to make")
    add_folder_options(add)
    add(
        "--unlabelled",
        type=path,
        nargs="+",
        metavar="PATH",
        help="pictures, clips (two frames a second) or folders of them, learnt from --teacher alone; it takes every "
        "name behind it, so give DATASET first (default: none)",
    )
    add_class_options(add, start="as in --start, or ")
    add("--split", choices=("random", "time"), help="validation split (default: time; notebook recipe: random)")
    add("--validation-share", type=float, metavar="S", help="share of the images held out (default: 0.15)")
    add(
        "--hold-out",
        type=drives,
        dest="held_out",
        metavar="DRIVE,DRIVE",
        help="hold out whole drives instead, by what the names of their images share before the number: validation is "
        "of streets that were not trained on (default: none)",
    )


def _add_recipe(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--recipe", choices=RECIPE_NAMES, help="how to train (default: default)")
    add(
        "--epochs",
        type=positive,
        metavar="N",
        help="passes over the training images (default: 60; notebook recipe: 10)",
    )
    add("--batch-size", type=positive, metavar="N", help="images a step (default: 6; notebook recipe: 32)")
    add(
        "--learning-rate",
        type=float,
        metavar="R",
        help="peak learning rate (default: 1e-3; --start without normalisation: 1e-4; notebook recipe: 1e-2)",
    )
    add(
        "--batch-norm",
        action=argparse.BooleanOptionalAction,
        help="normalise while training, folded into the weights at the end "
        "(default: yes; --start at its own widths or larger ones: no, with other classes: yes; notebook recipe: no)",
    )
    add(
        "--freeze-blocks",
        type=int,
        choices=range(6),
        metavar="N",
        help="blocks 1 to N, 0 to 5, keep the kernels that --start gave them whole, or --weights, 0 to 2, which makes "
        "steps quicker (default: 1; notebook recipe: 0)",
    )
    add(
        "--rendered-share",
        type=float,
        metavar="S",
        help="share of rendered scenes among training images (default: 0.12; notebook recipe: 0)",
    )
    add(
        "--augment",
        type=augmentations,
        metavar="NAME=N,NAME=N",
        help="other augmentation than the recipe's: light (1, a strength), lens (0.3 of the crops), night (0.15), "
        "repaint (0.3), paste (0.38, where the other image holds a rare class), rare_focus (0.25, where the image "
        "holds one), flip (0.5), rotate_deg (4), aspect (1.2), scale (0.6:1.8) (default: what stands in brackets)",
    )
    add(
        "--weight-offset",
        type=float,
        metavar="C",
        help="classes weigh 1 / ln(C + share of the pixels) in the loss: the larger, the more alike, and the less "
        "often a rare class is called (default: 1.1)",
    )
    add("--seed", type=seed, metavar="N", help="of every random draw (default: 1)")
    add(
        "--crop-size",
        type=size,
        metavar="HxW",
        help="size of a training crop of the image at --input-size (default: 256x320 at most; notebook recipe: none)",
    )


def _add_network(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--block-widths", type=widths(5), metavar="A,B,C,D,E",
        help="filters of blocks 1 to 5 (default: as in --start, or 64,128,256,512,512)")  # fmt: skip
    add("--head-widths", type=widths(2), metavar="A,B",
        help="filters of conv6, conv7 (default: as in --start, or 4096,4096)")  # fmt: skip
    add("--weights", type=path, metavar="FILE", help="ImageNet kernels: VGG16's notop .h5, or an .npz (default: none)")
    add(
        "--start",
        type=path,
        metavar="RUN",
        help="go on from a finished network with new data or a new schedule; with smaller widths from its strongest "
        "filters, with larger ones beside fresh filters: a run, or edge_seg/assets/keras (default: none)",
    )
    add(
        "--teacher",
        type=path,
        metavar="RUN",
        help="learn its opinion of each image too, half and half with the masks: a finished run, or "
        "edge_seg/assets/keras (default: none)",
    )
    add(
        "--input-size",
        type=size,
        metavar="HxW",
        help="size of the network (default: as in --start, or 352x480; notebook recipe: 224x224)",
    )
    add(
        "--license",
        metavar="TEXT",
        help="terms of use of the resulting weights, one line, carried into exported files "
        "(default: none; with --start or --teacher, those of its weights)",
    )


def _add_running(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    text = "precision of training; auto: float32 for notebook, mixed_bfloat16 for default where the hardware has it"
    add("--policy", choices=("auto", *POLICIES), help=text)
    add(
        "--devices",
        type=device_names,
        default=(),
        metavar="D,D",
        help="devices that share each batch, as gpu:0,gpu:1 (default: every GPU that is visible, else the CPU)",
    )
    add_workers(add)
    add(
        "--every",
        type=positive,
        default=1,
        metavar="N",
        help="validate and write a checkpoint after each N-th epoch alone, and after the last, where a GPU takes less "
        "time for an epoch than they do (default: 1)",
    )
    add("--tensorboard", action="store_true", help="also write TensorBoard logs to RUN/tensorboard (default: no)")
    add(
        "--resume",
        action="store_true",
        help="go on from the last good checkpoint in RUN, with the options it began with (default: start anew)",
    )


def add_workers(add: Callable[..., Any]) -> None:
    """Add `--workers`, through a parser's `add_argument`."""
    add(
        "--workers",
        type=natural,
        metavar="N",
        help="processes that draw the batches; 0: threads of the training's own "
        "(default: 0 up to 4 cores, above that one a core less one, at most 32)",
    )


def device_names(text: str) -> tuple[str, ...]:
    """argparse type: "gpu:0,gpu:1" -> its parts, each once."""
    parts = tuple(part.strip().lower() for part in text.split(","))
    if len(set(parts)) != len(parts) or not all(re.fullmatch(r"(cpu|gpu|tpu):\d+", part) for part in parts):
        raise argparse.ArgumentTypeError(f"expected different devices with commas between, as gpu:0, got {text!r}")
    return parts


def widths(count: int) -> Any:
    """argparse type: `count` positive numbers with commas between."""

    def parse(text: str) -> tuple[int, ...]:
        parts = text.split(",")
        if len(parts) != count or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
            raise argparse.ArgumentTypeError(f"expected {count} positive numbers with commas between, got {text!r}")
        return tuple(int(part) for part in parts)

    return parse
