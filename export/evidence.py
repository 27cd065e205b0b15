"""What a model is judged on: frames, their true labels where known, and Keras' labels and logits.

Chooses the frames (the run's validation images, a test folder, rendered scenes), streams calibration frames and runs
Keras. Knows nothing of ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from edge_seg.errors import ConfigurationError, DatasetError
from edge_seg.preprocess import resize_frame, resize_labels, scale_frames
from edge_seg.spec import CAMVID_CLASSES
from train.dataset import Sample, read_ids, read_image
from train.fcn8 import logits_model
from train.preflight import check_pairs, refuse_problems
from train.run import Run

KERAS_BATCH = 4
LOGIT_FRAMES = 4
# Far from every scene that training draws, whatever its seed, and from the bundled clip, so that the proof has no frame
# that was trained on.
FIRST_SEED = 730_000
MOMENTS, SECONDS_APART = 3, 6.0
RENDERED_OPTIONS = "--gate-on rendered, --calibration-data rendered"
# Two float32 sums of the same thousands of products differ by about this share of the largest value.
NEAR_TIE = 1e-5
UNDECIDED_SHARE = 2e-5
# A class that covers less than this share of a frame does not make the frame varied.
VARIED_SHARE = 0.005


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Frames at one size.

    Attributes:
        source: where the frames come from, in words.
        frames: (N, H, W, 3) uint8 BGR.
        truth: (N, H, W) uint8 class ids; None where unknown.
    """

    source: str
    frames: np.ndarray
    truth: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Pictures, and Keras' labels and logits.

    Attributes:
        pictures: the frames.
        labels: (N, H, W) uint8, Keras' argmax.
        logits: (K, H, W, classes) float32 of the first K frames, K up to 4.
        undecided: (N,) share of each frame's pixels whose two best logits are nearly equal.
    """

    pictures: Pictures
    labels: np.ndarray
    logits: np.ndarray
    undecided: np.ndarray


def pictures_of(
    run: Run, split: str, size: tuple[int, int], *, data: Path | None, count: int, first: int = 0
) -> Pictures:
    """Frames to compare ONNX with Keras on.

    Args:
        run: the run that is exported.
        split: "val", "test" or "rendered", see `gate_split`.
        size: (height, width) in pixels.
        data: a dataset to use instead of the one the run recorded.
        count: most frames; images are picked evenly.
        first: at which street rendered scenes begin.

    Raises:
        DatasetError, ConfigurationError: the images that were asked for are not available.
    """
    if split == "rendered":
        return rendered_pictures(run.classes, size, count, first=first)
    samples = spread(find(run, split, data), count)
    # Resized as at run time; masks by nearest neighbour.
    frames = np.stack([resize_frame(read_image(sample.image), size) for sample in samples])
    truth = np.stack([resize_labels(read_ids(sample), size) for sample in samples])
    words = {"val": "validation images", "test": "test images"}[split]
    return Pictures(source=f"{len(samples)} {words}", frames=frames, truth=truth)


def gate_split(run: Run, *, data: Path | None, asked: str) -> tuple[str, str]:
    """The split to use: for "auto", "val" if the run's validation images are found, else "rendered"; and in that case a
    line that says why, since rendered scenes prove less.

    With a dataset named by the user, "auto" is "val" in any case: `find` then raises if it lacks those images.
    """
    if asked != "auto" or data is not None:
        return "val" if asked == "auto" else asked, ""
    try:
        find(run, "val", data)
    except (DatasetError, ConfigurationError) as error:
        # The cause names the problem alone; `find` adds a cure for a user who asked for these images.
        reason = str(error.__cause__ or error).splitlines()[0].split(". ")[0].rstrip(".:")
        return "rendered", f"the run's validation images are not at hand ({reason}): gated on rendered scenes"
    return "val", ""


def check_pictures(run: Run, split: str, *, data: Path | None, count: int) -> None:
    """Check each image and mask of a split that will be used.

    Raises what `find` raises, and `DatasetError` that names every bad file.
    """
    refuse_problems(check_pairs(spread(find(run, split, data), count), run.class_list))


def rendered_pictures(classes: tuple[str, ...], size: tuple[int, int], count: int, *, first: int = 0) -> Pictures:
    """Rendered road scenes, three moments of each street, with true labels if `classes` are CamVid's."""
    from train.scenes import LEAST_SIDE, Scene, render

    pairs = []
    for index in range(count):
        # Planning a street takes most of the time, so each gives several frames.
        street, moment = divmod(index, MOMENTS)
        scene = Scene.from_seed(FIRST_SEED + first + street)
        # Smaller frames are rendered at the least size and shrunk.
        height, width = (max(side, LEAST_SIDE) for side in size)
        pairs.append(render(scene, time_s=SECONDS_APART * moment, height=height, width=width))
    frames = np.stack([resize_frame(frame, size) for frame, _ in pairs])
    truth = np.stack([resize_labels(labels, size) for _, labels in pairs]) if classes == CAMVID_CLASSES else None
    return Pictures(source=f"{count} rendered scenes", frames=frames, truth=truth)


def calibration_frames(
    run: Run, size: tuple[int, int], *, data: Path | None, source: str, count: int
) -> Iterator[np.ndarray]:
    """Frames for int8, one at a time: training images ("train") or rendered scenes; (H, W, 3) uint8 BGR."""
    if source == "rendered":
        # Other streets than the gate's; one street at a time, to hold few frames.
        for index in range(0, count, MOMENTS):
            few = min(MOMENTS, count - index)
            yield from rendered_pictures(run.classes, size, few, first=100_000 + index // MOMENTS).frames
        return
    for sample in spread(find(run, "train", data), count):
        yield resize_frame(read_image(sample.image), size)


def find(run: Run, split: str, data: Path | None) -> list[Sample]:
    """The samples of a run's split, none missing. Raises `DatasetError` or `ConfigurationError` with the cure."""
    recorded = run.config.get("data", {})
    if data is None and (not recorded or (split == "test" and not recorded.get("root"))):
        raise ConfigurationError(
            f"{run.folder} records no dataset; name one with --data DATASET, "
            f"or use rendered scenes ({RENDERED_OPTIONS})."
        )
    if split != "test" and not recorded.get(split):
        raise ConfigurationError(
            f"{run.folder} records no {split!r} images: it was fitted without, or shipped without their names. "
            f"Use rendered scenes ({RENDERED_OPTIONS}), or a test folder (--gate-on test --data DATASET)."
        )
    try:
        return run.samples(split, data)
    except DatasetError as error:
        first, *problems = str(error).splitlines()
        first = first.removesuffix(error.cure).rstrip()  # It names options of `train`.
        cure = f"Name the run's dataset with --data DATASET, or use rendered scenes ({RENDERED_OPTIONS})"
        # With problems, the first line ends in a colon and must come just before them.
        raise DatasetError(
            f"{cure}. {first}" if problems else f"{first} {cure}.", tuple(problem.strip() for problem in problems)
        ) from error


def spread(samples: list[Sample], count: int) -> list[Sample]:
    """At most `count` samples, evenly spread over the list."""
    return [samples[index] for index in spread_places(len(samples), count)]


def spread_places(total: int, count: int) -> np.ndarray:
    """At most `count` of `total` places, evenly spread over all."""
    return np.linspace(0, total - 1, min(total, count)).round().astype(int)


def ask_keras(model: keras.Model, pictures: Pictures) -> Evidence:
    """Run the Keras network over pictures in small batches.

    Raises:
        ConfigurationError: Keras' logits are not finite, so there is nothing to compare with.
    """
    network = logits_model(model)
    labels, logits, undecided = [], [], []
    for first in range(0, len(pictures.frames), KERAS_BATCH):
        scores = network.predict_on_batch(scale_frames(pictures.frames[first : first + KERAS_BATCH]))
        if not np.isfinite(scores).all():
            raise ConfigurationError("The Keras network itself gives values that are not finite; train it again.")
        labels.append(scores.argmax(axis=-1).astype(np.uint8))
        undecided.append(share_undecided(scores))
        if first < LOGIT_FRAMES:
            logits.append(np.asarray(scores, np.float32))
    return Evidence(
        pictures=pictures,
        labels=np.concatenate(labels),
        logits=np.concatenate(logits)[:LOGIT_FRAMES],
        undecided=np.concatenate(undecided),
    )


def share_undecided(logits: np.ndarray) -> np.ndarray:
    """Share of each frame's pixels whose two best logits differ by less than rounding error: (N, H, W, C) -> (N,)."""
    best = np.partition(logits, -2, axis=-1)[..., -2:]
    close = best[..., 1] - best[..., 0] < NEAR_TIE * np.abs(logits).max()
    return np.asarray(close.mean(axis=(1, 2)))


def golden_evidence(model: keras.Model, candidates: Pictures, count: int) -> Evidence:
    """The `count` candidates whose Keras labels show the most classes: uniform labels would prove nothing.

    Frames with many near-ties come last: the label of such pixels is chance, even on a sound device.
    """
    every = ask_keras(model, candidates)

    def rank(index: int) -> tuple[bool, int]:
        return bool(every.undecided[index] > UNDECIDED_SHARE), -visible_classes(every.labels[index])

    best = sorted(sorted(range(len(every.labels)), key=rank)[:count])
    pictures = Pictures(source=candidates.source, frames=candidates.frames[best])
    return Evidence(
        pictures=pictures, labels=every.labels[best], logits=every.logits[:0], undecided=every.undecided[best]
    )


def visible_classes(labels: np.ndarray) -> int:
    """How many classes cover at least half a percent of a picture."""
    return int(np.count_nonzero(np.bincount(labels.ravel()) >= VARIED_SHARE * labels.size))
