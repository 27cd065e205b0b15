"""Score labels against truth over a list of samples: at the model's size, as the notebook, and at each mask's own size.

Knows labelers and masks; opens no run, prints nothing, writes nothing. Memory grows by only one short record a sample:
labels are kept only of the few images to be shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np

from edge_seg.errors import ConfigurationError
from edge_seg.overlay import Palette
from edge_seg.preprocess import resize_labels

from .augment import Pair
from .classes import ClassList
from .dataset import Sample, read_pair
from .labelers import Labeler
from .metrics import Scores, confusion_matrix, scores
from .night import make_night

MODEL_SIZE, FULL_FRAME = "model size", "full frame"
# How many of the best, the worst and the evenly spaced images are kept to be shown.
SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and the samples that it is evaluated on.

    Attributes:
        name: the run's folder or the model file, as it was given.
        split: "train", "val", "test" or "plain folders".
        samples: the pairs to evaluate on.
        classes, palette: of the model; `classes.ignored` is of the samples' masks.
        labeler: what labels frames.
        night: relight each image as if at night first.
    """

    name: str
    split: str
    samples: Sequence[Sample]
    classes: ClassList
    palette: Palette
    labeler: Labeler
    night: bool = False

    def read(self, sample: Sample) -> Pair:
        """A sample's image, (H, W, 3) uint8 BGR, and mask, (H, W) uint8."""
        image, mask = read_pair(sample)
        if self.night:
            # Seeded by the image's name: the same night for every model, whatever else is evaluated.
            ids = {name: index for index, name in enumerate(self.classes.names)}
            image = make_night(image, mask, ids, np.random.default_rng(crc32(sample.stem.encode(errors="replace"))))
        return image, mask


@dataclass(frozen=True)
class Result:
    """The scores of one protocol ("model size" or "full frame") and variant ("plain" or "augmented")."""

    protocol: str
    variant: str
    scores: Scores


@dataclass(frozen=True)
class ImageScore:
    """One image at full frame, labelled the plain way; mean IoU is over the classes in it, nan if it has no label."""

    sample: Sample
    mean_iou: float
    accuracy: float


@dataclass(frozen=True)
class Shown:
    """An image whose labels, (height, width) uint8 at the model's size, were kept to be shown."""

    score: ImageScore
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The outcome of an evaluation.

    Attributes:
        size: (height, width) of the model.
        results: model size before full frame, plain before augmented.
        images: one score an image.
        best, worst: images of highest and lowest mean IoU, best first and worst first; no image is in both.
        evenly: evenly spaced images of the list.
        label_ms: milliseconds to label a frame, plain and augmented together, without reading files; with several
            batches the first, in which frameworks initialise themselves, is left out.
    """

    size: tuple[int, int]
    results: tuple[Result, ...]
    images: tuple[ImageScore, ...]
    best: tuple[Shown, ...]
    worst: tuple[Shown, ...]
    evenly: tuple[Shown, ...]
    label_ms: float

    def result(self, protocol: str) -> Result:
        """The plain result of a protocol."""
        return next(result for result in self.results if (result.protocol, result.variant) == (protocol, "plain"))


@dataclass
class _Shortlist:
    """The best and worst images so far, and the evenly spaced ones."""

    even: frozenset[int]
    ranked: list[Shown] = field(default_factory=list)
    evenly: list[Shown] = field(default_factory=list)

    def add(self, index: int, shown: Shown) -> None:
        if index in self.even:
            self.evenly.append(shown)
        if not np.isnan(shown.score.mean_iou):
            self.ranked = sorted((*self.ranked, shown), key=lambda item: -item.score.mean_iou)
            # With more than twice as many, the one in the middle is among neither the best nor the worst.
            if len(self.ranked) > 2 * SHOWN:
                del self.ranked[SHOWN]

    def best_and_worst(self) -> tuple[tuple[Shown, ...], tuple[Shown, ...]]:
        count = min(SHOWN, (len(self.ranked) + 1) // 2)
        worst = self.ranked[count:][::-1][:SHOWN]
        return tuple(self.ranked[:count]), tuple(worst)


def evaluate_samples(
    labeler: Labeler,
    samples: Sequence[Sample],
    *,
    classes: int,
    unlabelled: int | None,
    batch: int = 8,
    read: Callable[[Sample], Pair] = read_pair,
    on_batch: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Label every sample and score it.

    Args:
        labeler: what labels frames.
        samples: at least one; their files are assumed to be good (`train.preflight`).
        classes: number of classes.
        unlabelled: id of the unlabelled class, or None.
        batch: frames read and labelled at a time.
        read: a sample's image, (H, W, 3) uint8 BGR, and mask, (H, W) uint8.
        on_batch: called with (samples done, samples in all) after each batch.

    Raises:
        ConfigurationError: no samples.
    """
    if not samples:
        raise ConfigurationError("There is no image to evaluate.")
    totals = {
        (protocol, variant): np.zeros((classes, classes), np.int64)
        for variant in labeler.variants
        for protocol in (MODEL_SIZE, FULL_FRAME)
    }
    even = frozenset(np.linspace(0, len(samples) - 1, min(SHOWN, len(samples))).round().astype(int).tolist())
    shortlist, images, times = _Shortlist(even), [], []
    for chunk in _chunks(samples, batch):
        frames, truths = zip(*map(read, chunk), strict=True)
        began = time.perf_counter()
        labels = labeler.label(frames)
        times.append((time.perf_counter() - began, len(chunk)))
        for variant, found in zip(labeler.variants, labels, strict=True):
            for sample, truth, small in zip(chunk, truths, found, strict=True):
                totals[MODEL_SIZE, variant] += confusion_matrix(resize_labels(truth, labeler.size), small, classes)
                full = confusion_matrix(truth, resize_labels(small, truth.shape), classes)
                totals[FULL_FRAME, variant] += full
                if variant == "plain":
                    images.append(_image_score(sample, full, unlabelled))
                    shortlist.add(len(images) - 1, Shown(images[-1], small.copy()))
        if on_batch:
            on_batch(len(images), len(samples))
    best, worst = shortlist.best_and_worst()
    return Evaluation(
        size=labeler.size,
        results=tuple(Result(*key, scores(confusion, unlabelled)) for key, confusion in totals.items()),
        images=tuple(images),
        best=best,
        worst=worst,
        evenly=tuple(shortlist.evenly),
        label_ms=_ms_a_frame(times),
    )


def _ms_a_frame(times: Sequence[tuple[float, int]]) -> float:
    """Milliseconds a frame, from the (seconds, frames) of each batch."""
    timed = times[1:] or times
    return 1000 * sum(seconds for seconds, _ in timed) / sum(frames for _, frames in timed)


def _image_score(sample: Sample, confusion: np.ndarray, unlabelled: int | None) -> ImageScore:
    found = scores(confusion, unlabelled)
    return ImageScore(sample, found.mean_iou_of_truth, found.accuracy)


def _chunks(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]
