"""Losses and metrics on logits that leave out unlabelled pixels, as is usual. Backend-neutral (`keras.ops`)."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from .distribute import device_share, summed_over_devices

# Share of the loss that a teacher's opinion has.
TEACHER_SHARE = 0.5


def class_weights(shares: np.ndarray, unlabelled: int | None, offset: float) -> np.ndarray:
    """Weight of each class, 1 / ln(offset + share) (ENet, Paszke et al. 2016, there 1.02).

    Their scale does not matter: the loss divides by their sum.

    Args:
        shares: (classes,) share of each class among the labelled training pixels, 0..1.
        unlabelled: id whose weight is 0.
        offset: above 1; the larger, the more alike the weights.
    """
    weights = 1.0 / np.log(offset + shares)
    if unlabelled is not None:
        weights[unlabelled] = 0.0
    return weights.astype(np.float32)


def class_ids(y_true: Any, y_pred: Any) -> Any:
    """The int32 class ids (N, H, W) of a batch's truth, which may also hold a teacher's opinion."""
    return ops.cast(y_true[..., 0] if len(y_true.shape) == len(y_pred.shape) else y_true, "int32")


class SegmentationLoss(keras.losses.Loss):
    """Weighted cross-entropy plus a soft Jaccard term, over labelled pixels; with a teacher, also its opinion.

    loss = sum_p w[y_p] CE_p / sum_p w[y_p]  +  jaccard * (1 - mean over classes present of sum p y / sum (p + y - p y))

    The second term is the mean IoU itself with probabilities in place of decisions (Rahman and Wang, 2016).
    Truth (N, H, W) class ids; predictions (N, H, W, classes) logits.

    Truth of (N, H, W, 1 + classes) holds a teacher's probabilities t, times 255, after the ids. Then

    loss = (1 - TEACHER_SHARE) * the above  +  TEACHER_SHARE * sum_p v_p CE(t_p, p) / sum_p v_p,   v_p = sum_c w[c] t_pc

    over all pixels, labelled or not (Hinton and others, 2015, arXiv 1503.02531, at a temperature of 1).

    The sums are over the whole batch, however many devices share it: a mean of the devices' quotients would be a
    different loss for each number of devices.
    """

    def __init__(self, weights: np.ndarray, *, jaccard: float = 0.0) -> None:
        """
        Args:
            weights: (classes,) of each class, 0 for the one that is left out.
            jaccard: weight of the soft Jaccard term, 0 for none.
        """
        super().__init__(name="segmentation_loss", reduction=None)
        self.weights = np.asarray(weights, np.float32)
        self.jaccard = jaccard

    def call(self, y_true: Any, y_pred: Any) -> Any:
        classes = len(self.weights)
        logits = ops.cast(y_pred, "float32")
        taught = len(y_true.shape) == len(y_pred.shape)
        truth = class_ids(y_true, y_pred)
        weight = ops.take(ops.convert_to_tensor(self.weights), truth)
        entropy = ops.sparse_categorical_crossentropy(truth, logits, from_logits=True)
        sums = [ops.sum(entropy * weight), ops.sum(weight)]
        if taught:
            sums += self._disagreement(y_true[..., 1:], logits)
        if self.jaccard:
            sums += self._overlaps(truth, logits, weight, classes)
        entropies, weights, *others = summed_over_devices(sums)
        loss = entropies / (weights + 1e-6)
        teacher, overlaps = (others[:2], others[2:]) if taught else ([], others)
        if self.jaccard:
            both, truths, probabilities = overlaps
            union = probabilities + truths - both
            present = ops.cast(truths > 0, "float32")
            share = ops.sum(present * both / (union + 1e-6)) / (ops.sum(present) + 1e-6)
            loss = loss + self.jaccard * (1.0 - share)
        if taught:
            disagreement, voices = teacher
            loss = (1.0 - TEACHER_SHARE) * loss + TEACHER_SHARE * disagreement / (voices + 1e-6)
        return device_share(loss)

    def _disagreement(self, opinion: Any, logits: Any) -> list[Any]:
        """Sum over pixels of v CE(t, p), and sum of v."""
        opinion = ops.cast(opinion, "float32") / 255.0
        # Rounding to bytes leaves sums that are not exactly 1.
        opinion = opinion / (ops.sum(opinion, -1, keepdims=True) + 1e-6)
        voice = ops.sum(opinion * ops.convert_to_tensor(self.weights), -1)
        entropy = -ops.sum(opinion * ops.log_softmax(logits), -1)
        return [ops.sum(voice * entropy), ops.sum(voice)]

    @staticmethod
    def _overlaps(truth: Any, logits: Any, weight: Any, classes: int) -> list[Any]:
        """For each class sum p y, sum y and sum p: (classes,) each."""
        counted = ops.cast(weight > 0, "float32")[..., None]
        probability = ops.softmax(logits) * counted
        hot = ops.one_hot(truth, classes, dtype="float32") * counted
        axes = (0, 1, 2)
        return [ops.sum(probability * hot, axes), ops.sum(hot, axes), ops.sum(probability, axes)]


class ConfusionMetric(keras.metrics.Metric):
    """Mean IoU and accuracy of the batches so far, from one confusion matrix that stays on the device.

    `result()` is {"mean_iou": ..., "accuracy": ...}; pixels whose truth is `unlabelled` are not counted.
    """

    def __init__(self, classes: int, unlabelled: int | None) -> None:
        """
        Args:
            classes: number of them; batches are truth (N, H, W), or (N, H, W, 1 + classes) with a teacher's opinion,
                and predictions (N, H, W, classes).
            unlabelled: id of the class that is left out, or None.
        """
        super().__init__(name="confusion")
        self.classes, self.unlabelled = classes, unlabelled
        self.matrix = self.add_variable((classes, classes), initializer="zeros", name="matrix", dtype="float32")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        truth = ops.reshape(class_ids(y_true, y_pred), (-1,))
        found = ops.reshape(ops.cast(ops.argmax(y_pred, -1), "int32"), (-1,))
        # A product of one-hot rows, not bincount, which JAX cannot trace.
        truths, calls = (ops.one_hot(ids, self.classes, dtype="float32") for ids in (truth, found))
        counts = ops.matmul(ops.transpose(truths), calls)
        if self.unlabelled is not None:
            keep = np.ones((self.classes, 1), np.float32)
            keep[self.unlabelled] = 0.0
            counts = counts * keep
        self.matrix.assign(self.matrix + counts)

    def result(self) -> dict[str, Any]:
        hits = ops.diagonal(self.matrix)
        truths = ops.sum(self.matrix, axis=1)
        union = truths + ops.sum(self.matrix, axis=0) - hits
        # As in `metrics`: with what was called a class that is not there, but never the unlabelled one.
        counted = np.array([index != self.unlabelled for index in range(self.classes)], np.float32)
        present = ops.cast(union > 0, "float32") * counted
        mean_iou = ops.sum(present * hits / (union + 1e-9)) / (ops.sum(present) + 1e-9)
        return {"mean_iou": mean_iou, "accuracy": ops.sum(hits) / (ops.sum(truths) + 1e-9)}

    def reset_state(self) -> None:
        self.matrix.assign(ops.zeros((self.classes, self.classes)))
