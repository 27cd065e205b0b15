"""The confusion matrix of a segmentation and the scores read from it. Knows class ids, nothing of images or models.

With n[i, j] the pixels of true class i that were called class j (Long, Shelhamer and Darrell 2015, section 5):

    IoU of class i        n[i, i] / (sum_j n[i, j] + sum_j n[j, i] - n[i, i]) = TP / (TP + FP + FN)
    accuracy of class i   n[i, i] / sum_j n[i, j]
    global accuracy       sum_i n[i, i] / sum_ij n[i, j]

Each score is given twice, because two conventions are in use:

- *with unlabelled*: every pixel counts and the unlabelled class is a class like any other. The notebook this project
  began from averages this way, over the ids 0 to the largest id in the truth: for CamVid all 12.
- *without unlabelled*: pixels whose truth is the unlabelled class are left out altogether, and the mean is over the
  other classes, for CamVid 11 (as SegNet, Badrinarayanan, Kendall and Cipolla 2015, and the field since).
  A labelled pixel that is called unlabelled remains a miss of its class.

A class found in neither truth nor prediction has no IoU (nan) and takes no part in a mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_seg.errors import ConfigurationError


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count pixels by true class (row) and predicted class (column).

    Args:
        truth, predicted: class ids of one shape, integers in 0..classes-1.
        classes: number of classes.

    Returns:
        (classes, classes) int64.

    Raises:
        ConfigurationError: shapes differ, or an id is out of range.
    """
    if truth.shape != predicted.shape:
        raise ConfigurationError(f"truth and prediction must have one shape; got {truth.shape} and {predicted.shape}.")
    if truth.size == 0:
        return np.zeros((classes, classes), np.int64)
    for name, ids in (("truth", truth), ("prediction", predicted)):
        if ids.min() < 0 or ids.max() >= classes:
            raise ConfigurationError(f"{name} has ids {ids.min()} to {ids.max()}; expected 0 to {classes - 1}.")
    # 12 classes give codes below 144: int32 is ample and twice as fast as int64 here.
    codes = truth.astype(np.int32).ravel() * np.int32(classes) + predicted.ravel()
    return np.bincount(codes, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of a confusion matrix; arrays have one entry a class, nan where a class has no such score.

    Attributes:
        confusion: (C, C) int64, true class by predicted class.
        tp, fp, fn: (C,) int64 pixels, over every pixel, the unlabelled ones too (the notebook's).
        iou_with_unlabelled: (C,) float, over every pixel (the notebook's).
        iou: (C,) float, over labelled pixels (the field's); nan for the unlabelled class.
        mean_iou_with_unlabelled: the notebook's mean: ids 0 to the largest in the truth.
        mean_iou: the field's mean: every class but the unlabelled.
        accuracy_with_unlabelled, accuracy: global accuracy over every pixel, over labelled pixels.
        class_accuracy: (C,) float, share of each true class that was found.
        mean_class_accuracy: its mean over every class but the unlabelled.
    """

    confusion: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    iou_with_unlabelled: np.ndarray
    iou: np.ndarray
    mean_iou_with_unlabelled: float
    mean_iou: float
    accuracy_with_unlabelled: float
    accuracy: float
    class_accuracy: np.ndarray
    mean_class_accuracy: float

    def to_dict(self) -> dict[str, float | None]:
        """The single figures, for JSON: nan becomes None."""
        names = ("mean_iou", "mean_iou_with_unlabelled", "accuracy", "accuracy_with_unlabelled", "mean_class_accuracy")
        return {name: none_if_nan(getattr(self, name)) for name in names}

    @property
    def mean_iou_of_truth(self) -> float:
        """`mean_iou` over the classes that the truth shows: a stray pixel of another would halve that of two."""
        return _mean(self.iou[self.confusion.sum(axis=1) > 0])


def scores(confusion: np.ndarray, unlabelled: int | None) -> Scores:
    """Read every score from a (C, C) confusion matrix; `unlabelled` is the id the field leaves out, or None."""
    tp, fp, fn = _counts(confusion)
    iou_all = _ratio(tp, tp + fp + fn)
    labelled = np.ones(len(confusion), bool)
    if unlabelled is not None:
        labelled[unlabelled] = False
    kept = confusion * labelled[:, None]
    kept_tp, kept_fp, kept_fn = _counts(kept)
    iou = np.where(labelled, _ratio(kept_tp, kept_tp + kept_fp + kept_fn), np.nan)
    class_accuracy = _ratio(tp, tp + fn)
    in_truth = np.flatnonzero(confusion.sum(axis=1))
    largest = in_truth[-1] + 1 if in_truth.size else 0
    return Scores(
        confusion=confusion,
        tp=tp,
        fp=fp,
        fn=fn,
        iou_with_unlabelled=iou_all,
        iou=iou,
        mean_iou_with_unlabelled=_mean(iou_all[:largest]),
        mean_iou=_mean(iou),
        accuracy_with_unlabelled=_share(tp.sum(), confusion.sum()),
        accuracy=_share(kept_tp.sum(), kept.sum()),
        class_accuracy=class_accuracy,
        mean_class_accuracy=_mean(class_accuracy[labelled]),
    )


def none_if_nan(value: float) -> float | None:
    """nan -> None, which JSON can hold."""
    return None if np.isnan(value) else float(value)


def _counts(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tp = np.diag(confusion).copy()
    return tp, confusion.sum(axis=0) - tp, confusion.sum(axis=1) - tp


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, nan where whole is 0."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _share(part: int, whole: int) -> float:
    """part / whole, nan where whole is 0."""
    return float(part / whole) if whole else float("nan")


def _mean(values: np.ndarray) -> float:
    """Mean of what is not nan; nan when nothing is left."""
    found = values[~np.isnan(values)]
    return float(found.mean()) if found.size else float("nan")
