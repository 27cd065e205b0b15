"""Mean IoU and agreement on labels whose scores can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.accuracy import agreement, measure_accuracy
from edge_seg.errors import ConfigurationError

TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, 2]], np.uint8)


def test_mean_iou_leaves_the_unlabelled_class_out():
    labels = np.array([[[0, 0, 1, 0], [0, 0, 1, 1]]], np.uint8)
    # Class 0: 4 right, 1 too many; class 1: 2 right, 1 missed. The pixel of class 2 counts for nobody.
    found = measure_accuracy(labels, [TRUTH], classes=3, unlabelled=2, reference=labels)
    assert found.mean_iou == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert found.agreement == 1.0


def test_a_stray_pixel_of_a_class_that_no_frame_shows_costs_a_pixel_and_no_class():
    truth = np.array([[0] * 50 + [1] * 50], np.uint8)
    labels = truth[None].copy()
    labels[0, 0, 0] = 2
    found = measure_accuracy(labels, [truth], classes=4, unlabelled=3)
    assert found.mean_iou == pytest.approx((49 / 50 + 1) / 2)


def test_labels_are_brought_to_the_truths_own_size_by_nearest_neighbour():
    labels = np.array([[[0, 1], [0, 1]]], np.uint8)
    large = np.repeat(np.repeat(labels[0], 3, axis=0), 5, axis=1)
    assert measure_accuracy(labels, [large], classes=3, unlabelled=2).mean_iou == 1.0


def test_without_a_reference_there_is_no_agreement():
    assert measure_accuracy(TRUTH[None], [TRUTH], classes=3, unlabelled=2).agreement is None


def test_agreement_counts_pixels():
    other = TRUTH[None].copy()
    other[0, 0, 0] = 2
    assert agreement(other, TRUTH[None]) == pytest.approx(7 / 8)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigurationError, match="1 frames of labels for 2"):
        measure_accuracy(TRUTH[None], [TRUTH, TRUTH], classes=3, unlabelled=2)
    with pytest.raises(ConfigurationError, match="cannot be compared"):
        agreement(TRUTH[None], TRUTH[None, :1])
    with pytest.raises(ConfigurationError, match="ids"):
        measure_accuracy(TRUTH[None] + 9, [TRUTH], classes=3, unlabelled=2)


def test_without_a_truth_there_is_agreement_alone() -> None:
    labels = TRUTH[None]
    found = measure_accuracy(labels, None, classes=3, unlabelled=2, reference=labels)
    assert (found.mean_iou, found.agreement) == (None, 1.0)
