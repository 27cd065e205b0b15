"""Accuracy of a contender's labels: mean IoU against the truth, pixel agreement with Keras.

Knows arrays of class ids; nothing of where they come from. Mean IoU leaves the unlabelled class out, as is usual, and
classes that no frame shows, of which a single pixel would cost points; it is taken at each frame's own size. Agreement
is over every pixel at the model's size, before any resizing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_seg.errors import ConfigurationError
from edge_seg.preprocess import resize_labels
from train.metrics import confusion_matrix, none_if_nan, scores


@dataclass(frozen=True)
class Accuracy:
    """Shares in 0..1; None if undefined (no class present, no reference)."""

    mean_iou: float | None
    agreement: float | None


def measure_accuracy(
    labels: np.ndarray,
    truth: Sequence[np.ndarray] | None,
    *,
    classes: int,
    unlabelled: int | None,
    reference: np.ndarray | None = None,
) -> Accuracy:
    """Compare labels (N, height, width) uint8 with the truth of N frames, and with the reference's labels.

    Args:
        labels: at the model's size.
        truth: (H, W) uint8 each, of any size: labels are resized to it by nearest neighbour; None if unknown, and then
            there is no mean IoU.
        classes: number of classes.
        unlabelled: id left out of the mean, or None.
        reference: Keras' labels of the same frames, at the model's size.

    Raises:
        ConfigurationError: counts, shapes or ids that do not fit one another.
    """
    agreed = None if reference is None else agreement(labels, reference)
    if truth is None:
        return Accuracy(mean_iou=None, agreement=agreed)
    if len(labels) != len(truth):
        raise ConfigurationError(f"{len(labels)} frames of labels for {len(truth)} frames of truth.")
    found = scores(confusion_of(labels, truth, classes), unlabelled)
    return Accuracy(mean_iou=none_if_nan(found.mean_iou_of_truth), agreement=agreed)


def confusion_of(labels: np.ndarray, truth: Iterable[np.ndarray], classes: int) -> np.ndarray:
    """Pixels of each true class by found class, over all frames, each at its truth's own size."""
    confusion = np.zeros((classes, classes), np.int64)
    for found, true in zip(labels, truth, strict=True):
        confusion += confusion_matrix(true, resize_labels(found, true.shape), classes)
    return confusion


def agreement(labels: np.ndarray, reference: np.ndarray) -> float:
    """Share of pixels on which two sets of labels agree."""
    if labels.shape != reference.shape:
        raise ConfigurationError(
            f"labels of shape {labels.shape} cannot be compared with a reference of {reference.shape}."
        )
    return float(np.mean(labels == reference))
