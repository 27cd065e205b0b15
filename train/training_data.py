"""A training's data: images and masks, checked and split, and frames without masks. Knows nothing of networks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_seg.errors import DatasetError

from .augment import Pair
from .classes import ClassList
from .dataset import Sample, dataset_folders, read_image
from .options import FitOptions
from .preflight import WARNINGS_TOLD, PreflightReport, check_dataset, print_warnings
from .recipes import Recipe
from .run import open_run
from .splits import split_samples
from .stores import PairStore
from .teacher import opinion_bytes, refuse_many, unlabelled_frames


@dataclass(frozen=True)
class TrainingData:
    """The images that a call of fit names.

    Attributes:
        samples: all labelled images; `training` and `validation`, their two parts.
        frames: images without masks, each (H, W, 3) uint8 BGR.
    """

    samples: list[Sample]
    training: list[Sample]
    validation: list[Sample]
    frames: Sequence[np.ndarray] = ()

    def pairs(self, classes: ClassList) -> Sequence[Pair]:
        """The pairs to train on, read on access; the frames come last, with masks unlabelled throughout."""
        return PairStore(self.training, self.frames, classes.unlabelled)


def find_data(recipe: Recipe, options: FitOptions) -> TrainingData:
    """Check and split the dataset that a call of fit names, and read its frames without masks.

    Raises:
        ConfigurationError: nothing is left to train on, or more than a teacher's opinions may take.
        DatasetError: bad files, each named, or nothing labelled.
    """
    folders = dataset_folders(options.dataset, "train", images=options.images, masks=options.masks)
    classes = options.classes
    report = check_dataset(*folders, classes)
    print_warnings(report, WARNINGS_TOLD)
    samples = list(report.samples)
    training, validation = split_samples(samples, recipe, options.seed)
    if recipe.ignore_unlabelled and classes.unlabelled is not None:
        refuse_unlabelled(report, training, validation, classes)
    opinion = 0
    if options.teacher:
        opinion = opinion_bytes(open_run(options.teacher), recipe.input_size)
        refuse_many(len(training), opinion)
    size = read_image(training[0].image).shape[:2]
    frames = unlabelled_frames(options.unlabelled, size, labelled=len(training), opinion=opinion)
    return TrainingData(samples, training, validation, frames)


def refuse_unlabelled(
    report: PreflightReport, training: Sequence[Sample], validation: Sequence[Sample], classes: ClassList
) -> None:
    """Raise `DatasetError` if there is nothing to learn: every pixel of the training images is unlabelled.

    If that is so of the validation images, a line on stderr warns: the network is trained, but never scored.
    """
    if validation and nothing_labelled(report, validation, classes):
        print(
            f"warning: nothing is labelled in the masks of the {len(validation)} validation images: no score will say "
            "how good the network is. `python -m train inspect` shows what masks hold.",
            file=sys.stderr,
        )
    if nothing_labelled(report, training, classes):
        assert classes.unlabelled is not None
        what = f"{classes.unlabelled} ({classes.names[classes.unlabelled]})"
        raise DatasetError(
            f"The masks of the {len(training)} training images hold nothing but {what}, "
            "which is left out of training; expected ids of classes. `python -m train inspect` shows what masks hold."
        )


def nothing_labelled(report: PreflightReport, samples: Sequence[Sample], classes: ClassList) -> bool:
    """Whether every pixel of these samples is unlabelled."""
    stems = {sample.stem for sample in samples}
    pixels = report.class_pixels[[sample.stem in stems for sample in report.samples]].sum(axis=0)
    return bool(pixels.sum() == pixels[classes.unlabelled])
