"""`python -m benchmarks smoothing`: the effect of `predict --smooth N` on mean IoU and flicker, for each N.

Rendered drives have exact labels for every frame, and so show what it costs to hold a class for too long; real clips
have none, and show only how steady the labels become. Drives are encoded as videos first. Speed is not measured.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg import Segmenter, bundled_model
from edge_seg.errors import ConfigurationError
from edge_seg.opencv import cv2
from edge_seg.preprocess import resize_labels, stack_frames
from edge_seg.spec import CAMVID_CLASSES
from edge_seg.steady import Flicker, Smoother
from edge_seg.video import VideoFile
from train.arguments import path, positive
from train.metrics import none_if_nan, scores
from train.scenes import SHOWCASE_SEED, SHOWCASE_STYLE, Scene, clip_frames
from train.ship import write_frames

from .accuracy import confusion_of
from .arguments import hold_list, whole_numbers
from .environment import environment, file_hash
from .process import Say
from .report import begun, check_save, save_json
from .settings import DEFAULT_OUT
from .table import markdown

FILE_NAME = "smoothing.json"
RATE = 25
SIZE = (480, 640)  # of a drive's frames, as in the bundled clip
CLIP_FRAMES = 75


@dataclass(frozen=True)
class Drive:
    """A rendered drive: its name in the tables, its scene's seed and style, and its length in frames."""

    name: str
    seed: int
    style: str | None
    frames: int


DRIVES = (
    Drive("bundled clip", SHOWCASE_SEED, SHOWCASE_STYLE, 200),
    Drive("suburb", 7, "suburb", 50),
    Drive("town", 12, "town", 50),
    Drive("country", 31, "country", 40),
)


@dataclass
class Shown:
    """One video's frames, and their labels.

    Attributes:
        images: (N, h, w, 3) uint8 BGR, at the network's size.
        labels: (N, h, w) uint8, the network's.
        truth: (N, H, W) uint8 at the video's size; None for a real clip.
    """

    images: np.ndarray
    labels: np.ndarray
    truth: np.ndarray | None = None

    def every(self, stride: int) -> Shown:
        """The same with only every `stride`th frame."""
        truth = None if self.truth is None else self.truth[::stride]
        return Shown(self.images[::stride], self.labels[::stride], truth)


def add_smoothing_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks smoothing`."""
    add = parser.add_argument
    add("--model", type=Path, default=bundled_model(), metavar="FILE", help="model file (default: the bundled one)")
    add("--holds", type=hold_list, default=(2, 3, 4, 6), metavar="N,N", help="values of --smooth (default: 2,3,4,6)")
    add("--strides", type=whole_numbers, default=(1, 2, 3), metavar="N,N", help="values of --stride (default: 1,2,3)")
    add("--clip", type=path, action="append", default=[], metavar="FILE",
        help=f"a real clip, whose first {CLIP_FRAMES} frames say how steady it becomes; give it again for more "
        "(default: none)")  # fmt: skip
    add("--limit", type=positive, metavar="N", help="most frames of a drive or clip (default: 200 of the bundled clip, "
        f"40 to 50 of the other drives, {CLIP_FRAMES} of clips)")  # fmt: skip
    add(
        "--save",
        type=path,
        default=DEFAULT_OUT / FILE_NAME,
        metavar="FILE",
        help="JSON to write (default: %(default)s)",
    )


def run_smoothing(options: argparse.Namespace, *, say: Say) -> int:
    """Carry out `python -m benchmarks smoothing`; returns the exit code."""
    check_save(options.save)
    found = measure_smoothing(
        options.model, options.clip, holds=options.holds, strides=options.strides, limit=options.limit, say=say
    )
    say("")
    save_json(found, options.save)
    print(smoothing_tables(found))
    return 0


def measure_smoothing(
    model: Path, clips: Sequence[Path], *, holds: Sequence[int], strides: Sequence[int], limit: int | None, say: Say
) -> dict[str, Any]:
    """Measure every figure; returns plain JSON types.

    Raises:
        ModelFileError: the file is not an edge_seg model.
        ConfigurationError: the model has other classes than the rendered drives.
        MediaError: a clip cannot be read.
    """
    for clip in clips:
        VideoFile(clip).close()  # Fail now if it cannot be read, not after minutes of rendering.
    held = (1, *(hold for hold in holds if hold != 1))
    drives, real = [], []
    with Segmenter(model) as segmenter, tempfile.TemporaryDirectory(prefix="edge_seg_smoothing_") as scratch:
        spec = segmenter.spec
        if spec.classes != CAMVID_CLASSES:
            raise ConfigurationError(
                f"{model}: expected a model of the rendered drives' classes, CamVid's 12; got "
                f"{len(spec.classes)}: {', '.join(spec.classes)}."
            )
        for drive in DRIVES:
            say(f"{drive.name}: rendering and segmenting")
            shown = show_drive(segmenter, drive, Path(scratch) / "drive.mp4", limit)
            drives.append({"name": drive.name, **drive_record(shown, spec.classes, spec.unlabelled, held, strides)})
        for clip in clips:
            say(f"{clip.name}: segmenting")
            with VideoFile(clip) as video:
                frames = (frame.image for frame in islice(video, min(limit or CLIP_FRAMES, CLIP_FRAMES)))
                shown = Shown(*segment(segmenter, frames))
            real.append({"name": clip.name, "digest": file_hash(clip), **steadiness_record(shown, held)})
    return {
        **begun("smoothing", environment()),
        "model": {"name": model.name, "digest": file_hash(model), "size": list(spec.input_size)},
        "drives": drives,
        "clips": real,
    }


def show_drive(segmenter: Segmenter, drive: Drive, place: Path, limit: int | None) -> Shown:
    """Render a drive, encode it at `place`, decode and segment it."""
    seconds = min(drive.frames, limit or drive.frames) / RATE
    truth: list[np.ndarray] = []

    def frames() -> Iterator[np.ndarray]:
        scene = Scene.from_seed(drive.seed, style=drive.style)
        for image, labels in clip_frames(scene, seconds=seconds, rate=RATE, height=SIZE[0], width=SIZE[1]):
            truth.append(labels)
            yield image

    write_frames(place, frames(), size=SIZE, rate=RATE)
    with VideoFile(place) as video:
        shown = Shown(*segment(segmenter, (frame.image for frame in video)))
    shown.truth = np.stack(truth)
    return shown


def segment(segmenter: Segmenter, frames: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Frames at the network's size, (N, h, w, 3) uint8 BGR, and their labels, (N, h, w) uint8."""
    batches = [stack_frames([frame], segmenter.input_size) for frame in frames]
    return np.concatenate(batches), np.concatenate([segmenter.predict_labels(batch) for batch in batches])


def smoothed(shown: Shown, hold: int) -> np.ndarray:
    """Labels (N, h, w) uint8 as `predict --smooth` would show them."""
    if hold == 1:
        return shown.labels
    smoother = Smoother(hold)
    return np.stack([smoother(*pair) for pair in zip(shown.labels, shown.images, strict=True)])


def drive_record(
    shown: Shown, classes: Sequence[str], unlabelled: int | None, holds: Sequence[int], strides: Sequence[int]
) -> dict[str, Any]:
    """A drive's scores for each stride and hold, mean IoU over the classes that it shows, and its steadiness."""
    assert shown.truth is not None
    by_stride = {}
    for stride in strides:
        some = shown.every(stride)
        assert some.truth is not None
        by_hold = {}
        for hold in holds:
            found = scores(confusion_of(smoothed(some, hold), some.truth, len(classes)), unlabelled)
            by_hold[str(hold)] = {
                "mean_iou": none_if_nan(found.mean_iou_of_truth),
                "iou": {name: none_if_nan(value) for name, value in zip(classes, found.iou, strict=True)},
            }
        by_stride[str(stride)] = by_hold
    small = shown.images.shape[1:3]
    truth = np.stack([resize_labels(labels, small) for labels in shown.truth])
    return {"strides": by_stride, "true": steadiness(truth, shown.images), **steadiness_record(shown, holds)}


def steadiness_record(shown: Shown, holds: Sequence[int]) -> dict[str, Any]:
    """Number of frames, and the steadiness for each hold."""
    return {
        "frames": len(shown.labels),
        "steadiness": {str(hold): steadiness(smoothed(shown, hold), shown.images) for hold in holds},
    }


def steadiness(labels: np.ndarray, images: np.ndarray) -> dict[str, float | None]:
    """Shares of changed pixels: `flicker` as `predict` reports it, and `along_motion`, which follows what the eye sees.

    Args:
        labels: (N, h, w) uint8 class ids of consecutive frames.
        images: (N, h, w, 3) uint8 BGR, the frames.

    Returns:
        Shares, 0..1; None for a single frame. `along_motion` compares each pixel with where it came from, by a finer
        flow than `Smoother`'s; pixels from outside the picture are not counted.
    """
    plain = Flicker()
    for one in labels:
        plain.add(one)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    height, width = labels.shape[1:]
    places = np.dstack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)))
    greys = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in images]
    changes = []
    for index in range(1, len(labels)):
        came_from = places + flow.calc(greys[index], greys[index - 1], None)  # type: ignore[call-overload]
        inside = (came_from >= 0).all(axis=-1) & (came_from[..., 0] <= width - 1) & (came_from[..., 1] <= height - 1)
        before = cv2.remap(labels[index - 1], came_from, None, cv2.INTER_NEAREST)  # type: ignore[call-overload]
        changes.append(float((before != labels[index])[inside].mean()) if inside.any() else 0.0)
    return {"flicker": plain.share, "along_motion": float(np.mean(changes)) if changes else None}


def smoothing_tables(found: dict[str, Any]) -> str:
    """Markdown tables of mean IoU, flicker, and the change of mean IoU by stride, with a column for each video."""
    drives, clips = found["drives"], found["clips"]
    strides = list(drives[0]["strides"])
    holds = list(drives[0]["steadiness"])

    def name_of(hold: str) -> str:
        return "as the model says" if hold == "1" else f"`--smooth {hold}`"

    names = [drive["name"] for drive in drives]
    mean_iou = [
        [name_of(hold), *(_points(drive["strides"][strides[0]][hold]["mean_iou"]) for drive in drives)]
        for hold in holds
    ]
    tables = [f"Mean IoU in percent, {_said(strides[0])}:", markdown([["", *names], *mean_iou])]
    steady = [["true labels", *(_pair(drive["true"]) for drive in drives), *[""] * len(clips)]]
    steady += [[name_of(hold), *(_pair(video["steadiness"][hold]) for video in [*drives, *clips])] for hold in holds]
    tables += ["Flicker in percent, as reported / along the motion, every frame:"]
    tables += [markdown([["", *names, *(clip["name"] for clip in clips)], *steady])]
    for hold in holds[1:]:
        rows = [[_said(s), *(_gain(drive["strides"][s], hold) for drive in drives)] for s in strides]
        tables += [f"Change of mean IoU by {name_of(hold)}, in points:", markdown([["", *names], *rows])]
    return "\n\n".join(tables)


def _said(stride: str) -> str:
    return "every frame" if stride == "1" else f"`--stride {stride}`"


def _points(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def _pair(steady: dict[str, float | None]) -> str:
    return f"{_points(steady['flicker'])} / {_points(steady['along_motion'])}"


def _gain(by_hold: dict[str, Any], hold: str) -> str:
    before, after = by_hold["1"]["mean_iou"], by_hold[hold]["mean_iou"]
    return "" if None in (before, after) else f"{100 * (after - before):+.1f}"
