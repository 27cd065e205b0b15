"""The commands that make what ships with the project: the clip, the weights in half the bytes, and README's picture.

`python -m train clip` renders a drive to an MP4; `python -m train ship` cuts a run's folder down to its network,
float16 weights and the facts of its training, without paths of the machine it was trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from edge_seg import Segmenter
from edge_seg.arguments import number
from edge_seg.codecs import EncodeOptions
from edge_seg.encode import VideoWriter
from edge_seg.errors import ConfigurationError
from edge_seg.files import replacing
from edge_seg.overlay import legend
from edge_seg.sources import open_source

from . import arguments
from .files import CONFIG_NAME, WEIGHTS_NAME
from .scenes import LEAST_SIDE, SHOWCASE_SEED, SHOWCASE_STYLE, STYLES, Scene, clip_frames

POSTER_WIDTH = 960
# The parts of a run's config that ship: enough to rebuild the network and to say how it was made.
SHIPPED_KEYS = (
    "fcn8",
    "classes",
    "unlabelled",
    "ignored",
    "recipe",
    "seed",
    "policy",
    "weights",
    "start",
    "teacher",
    "averaged",
    "license",
    "training",
    "versions",
)


def write_frames(path: Path, frames: Iterable[np.ndarray], *, size: tuple[int, int], rate: int, crf: int = 27) -> int:
    """Encode frames of (height, width) pixels, uint8 BGR, as the bundled clip is encoded; returns their number.

    Raises:
        MediaError: the file cannot be written.
    """
    options = EncodeOptions(crf=crf, preset="slow")
    writer = VideoWriter(path, size=size, time_base=Fraction(1, rate), rate=Fraction(rate), options=options)
    try:
        for index, frame in enumerate(frames):
            writer.write(frame, pts=index, duration=1)
    except BaseException:
        writer.abort()
        raise
    return writer.close().frames


def ship_run(folder: Path, out: Path, *, input_size: tuple[int, int] | None = None) -> int:
    """Copy a finished run as float16 weights and the shipped part of its config; returns the weights' size in bytes.

    Args:
        folder, out: the run, and the folder to make of it.
        input_size: (height, width) that the shipped network is to be run and exported at; the run's own where None. Its
            recipe keeps the size that it was trained at.

    Raises:
        ConfigurationError: `out` holds this run or another; a folder made by an earlier `ship` is replaced.
        ModelFileError: the run is damaged or has not finished.
    """
    from .run import load_model, open_run, save_float16, save_run

    run = open_run(folder)
    if run.weights.resolve() == (out / WEIGHTS_NAME).resolve():
        raise ConfigurationError(f"--out {out} is the run itself; choose another folder.")
    if (out / CONFIG_NAME).exists() and "trained_on" not in open_run(out).config:
        raise ConfigurationError(f"--out {out} holds a run, whose weights would be lost; choose another folder.")
    model = load_model(run)
    config = {key: run.config[key] for key in SHIPPED_KEYS if key in run.config}
    if input_size is not None:
        config["fcn8"] = run.fcn8.with_size(input_size).to_dict()
    data = run.data
    config["data"] = {"hash": data.get("hash"), "images": None, "masks": None, "root": None}
    if data.get("seen"):
        config["data"]["seen"] = data["seen"]  # The run's own training images follow from its split.
    # A run that was itself shipped has no names left to count, only the recorded numbers.
    counts = {"train": len(data.get("train", ())), "val": len(data.get("val", ()))}
    config["trained_on"] = run.config.get("trained_on", counts)
    out.mkdir(parents=True, exist_ok=True)
    save_float16(model, out / WEIGHTS_NAME)
    save_run(out, config)
    return (out / WEIGHTS_NAME).stat().st_size


def write_poster(model: Path, clip: Path, path: Path, *, index: int) -> None:
    """README's picture: a clip's frame beside its overlay, over the legend of classes.

    Args:
        model: the ONNX file that segments it.
        clip: a video.
        path: the PNG to write.
        index: which frame, from 0.

    Raises:
        ConfigurationError: the clip has no such frame.
    """
    with Segmenter(model, device="cpu") as segmenter:
        with open_source(clip) as source:
            frame = next((item.image for item in source if item.index == index), None)
        if frame is None:
            raise ConfigurationError(f"--frame {index}: {clip} has fewer frames.")
        classes, palette = segmenter.spec.classes, segmenter.spec.palette
        pair = np.hstack([frame, segmenter.segment(frame).plot(alpha=0.55)])
    size = POSTER_WIDTH, round(POSTER_WIDTH * pair.shape[0] / pair.shape[1])
    picture = np.vstack(
        [cv2.resize(pair, size, interpolation=cv2.INTER_AREA), legend(classes, palette, width=POSTER_WIDTH)]
    )
    with replacing(path) as temporary:
        # Not imwrite, which reports a full disk only by its return value.
        temporary.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def add_clip_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m train clip`."""
    add = parser.add_argument
    add("--out", type=arguments.path, required=True, metavar="FILE.mp4", help="the clip to make")
    add("--seed", type=arguments.natural, default=SHOWCASE_SEED, metavar="N",
        help="which street (default: %(default)s, README's)")  # fmt: skip
    add("--style", choices=STYLES, default=SHOWCASE_STYLE, help="kind of street (default: %(default)s)")
    add("--seconds", type=_seconds, default=8.0, metavar="S", help="length (default: %(default)s)")
    add("--rate", type=arguments.positive, default=25, metavar="N", help="frames a second (default: %(default)s)")
    add("--size", type=arguments.size, default=(480, 640), metavar="HxW", help="of a frame (default: 480x640)")
    add("--crf", type=int, default=27, metavar="N", help="x264's quality, 0 best to 51 (default: %(default)s)")


def _seconds(text: str) -> float:
    """argparse type: a length up to an hour; less than one frame is refused later, once the rate is known."""
    return number(text, 0, 3600)


def run_clip(args: argparse.Namespace) -> int:
    """Run `python -m train clip`; returns the exit code."""
    if args.out.suffix.lower() != ".mp4":
        raise ConfigurationError(f"--out must name a file ending in .mp4; got {str(args.out)!r}.")
    if round(args.seconds * args.rate) < 1:
        raise ConfigurationError(f"--seconds {args.seconds:g} at --rate {args.rate} is less than one frame.")
    if min(args.size) < LEAST_SIDE:
        height, width = args.size
        raise ConfigurationError(f"--size must be at least {LEAST_SIDE}x{LEAST_SIDE}, got {height}x{width}.")
    scene, (height, width) = Scene.from_seed(args.seed, style=args.style), args.size
    drive = clip_frames(scene, seconds=args.seconds, rate=args.rate, height=height, width=width)
    frames = write_frames(args.out, (frame for frame, _ in drive), size=args.size, rate=args.rate, crf=args.crf)
    print(f"{args.out}: {frames} frames, {args.out.stat().st_size / 1e6:.2f} MB")
    return 0


def add_ship_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m train ship`."""
    parser.add_argument("run_folder", type=arguments.path, metavar="RUN", help="a finished run")
    parser.add_argument(
        "--out", type=arguments.folder, required=True, metavar="DIR", help="folder for config.json and float16 weights"
    )
    parser.add_argument(
        "--input-size",
        type=arguments.size,
        metavar="HxW",
        help="size to run and export it at, if another than it was trained at (default: the run's)",
    )


def run_ship(args: argparse.Namespace) -> int:
    """Run `python -m train ship`; returns the exit code."""
    size_bytes = ship_run(args.run_folder, args.out, input_size=args.input_size)
    print(f"{args.out}: float16 weights, {size_bytes / 1e6:.1f} MB")
    return 0


def add_poster_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m train poster`."""
    parser.add_argument("model", type=arguments.path, metavar="MODEL", help="ONNX file")
    parser.add_argument("clip", type=arguments.path, metavar="CLIP", help="video")
    parser.add_argument("--out", type=arguments.path, required=True, metavar="FILE.png", help="the picture to make")
    parser.add_argument(
        "--frame", type=arguments.natural, default=40, metavar="N", help="which of its frames (default: %(default)s)"
    )


def run_poster(args: argparse.Namespace) -> int:
    """Run `python -m train poster`; returns the exit code."""
    if args.out.suffix.lower() != ".png":
        raise ConfigurationError(f"--out must name a file ending in .png; got {str(args.out)!r}.")
    write_poster(args.model, args.clip, args.out, index=args.frame)
    print(args.out)
    return 0
