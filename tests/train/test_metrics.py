"""Confusion matrix and scores against hand-worked figures, the notebook's own table and a plain loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_seg.errors import ConfigurationError
from train.metrics import confusion_matrix, scores

# The notebook's printed table: true positives, false positives, false negatives and IoU of its 12 classes.
NOTEBOOK = np.array(
    [
        (7410, 2547, 470278, 0.015),
        (38163, 50217, 624661, 0.054),
        (0, 0, 29010, 0.000),
        (860569, 1843330, 3259, 0.318),
        (0, 3, 151180, 0.000),
        (795, 3056, 248338, 0.003),
        (0, 1, 31571, 0.000),
        (0, 2, 43755, 0.000),
        (371, 3389, 167222, 0.002),
        (0, 0, 23398, 0.000),
        (0, 0, 12667, 0.000),
        (0, 3, 97209, 0.000),
    ]
)


def test_a_hand_worked_example() -> None:
    truth, predicted = np.array([[0, 0, 1], [1, 2, 2]]), np.array([[0, 1, 1], [1, 2, 0]])
    confusion = confusion_matrix(truth, predicted, 3)
    assert confusion.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]
    assert confusion.dtype == np.int64

    found = scores(confusion, unlabelled=2)
    assert (found.tp.tolist(), found.fp.tolist(), found.fn.tolist()) == ([1, 2, 1], [1, 1, 0], [1, 0, 1])
    np.testing.assert_allclose(found.iou_with_unlabelled, [1 / 3, 2 / 3, 1 / 2])
    assert found.mean_iou_with_unlabelled == pytest.approx(1 / 2)
    # The last two pixels have no label: class 0 loses its false positive.
    np.testing.assert_allclose(found.iou, [1 / 2, 2 / 3, np.nan])
    assert found.mean_iou == pytest.approx(7 / 12)
    assert found.accuracy_with_unlabelled == pytest.approx(4 / 6)
    assert found.accuracy == pytest.approx(3 / 4)
    np.testing.assert_allclose(found.class_accuracy, [1 / 2, 1, 1 / 2])
    assert found.mean_class_accuracy == pytest.approx(3 / 4)


def test_the_notebook_table_comes_out_as_the_notebook_printed_it() -> None:
    tp, fp, fn = NOTEBOOK[:, 0], NOTEBOOK[:, 1], NOTEBOOK[:, 2].copy()
    # A matrix with these margins: road takes what every class misses, building and sky the few others.
    confusion = np.diag(tp).astype(np.int64)
    for column in range(12):
        row = {3: None, 1: 0}.get(column, 1)
        if row is not None:
            taken = fp[column] - (fn[3] if column == 1 else 0)
            confusion[row, column] += int(taken)
            fn[row] -= taken
    confusion[3, 1] = int(fn[3])
    fn[3] = 0
    confusion[:, 3] += fn.astype(np.int64)
    found = scores(confusion, unlabelled=11)
    assert found.tp.tolist() == tp.tolist()
    assert found.fp.tolist() == fp.tolist()
    assert found.fn.tolist() == NOTEBOOK[:, 2].tolist()
    np.testing.assert_allclose(found.iou_with_unlabelled, NOTEBOOK[:, 3], atol=5e-4)
    assert f"{found.mean_iou_with_unlabelled:.3f}" == "0.033"


def test_a_labelled_pixel_called_unlabelled_is_a_miss() -> None:
    found = scores(confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2), unlabelled=1)
    assert found.iou[0] == pytest.approx(1 / 2)
    assert found.accuracy == pytest.approx(1 / 2)


def test_a_class_in_neither_has_no_iou_and_takes_no_part() -> None:
    found = scores(confusion_matrix(np.array([0, 0, 2]), np.array([0, 0, 2]), 4), unlabelled=None)
    assert np.isnan(found.iou[[1, 3]]).all()
    assert found.mean_iou == 1.0
    assert found.mean_iou_with_unlabelled == 1.0


def test_a_class_that_is_only_predicted_counts_as_zero_where_its_id_is_in_range() -> None:
    found = scores(confusion_matrix(np.array([0, 0, 2]), np.array([0, 1, 2]), 4), unlabelled=None)
    assert found.iou[1] == 0.0
    assert found.mean_iou == pytest.approx((1 / 2 + 0 + 1) / 3)
    # The notebook looks no further than the largest id of the truth: here class 3 is no part of its mean.
    above = scores(confusion_matrix(np.array([0, 0, 2]), np.array([0, 3, 2]), 4), unlabelled=None)
    assert above.mean_iou_with_unlabelled == pytest.approx((1 / 2 + 1) / 2)
    assert above.mean_iou == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_nothing_labelled_gives_nan_and_none() -> None:
    found = scores(confusion_matrix(np.array([1, 1]), np.array([0, 1]), 2), unlabelled=1)
    assert np.isnan(found.mean_iou)
    assert np.isnan(found.accuracy)
    assert found.to_dict()["mean_iou"] is None
    assert found.to_dict()["accuracy_with_unlabelled"] == 0.5
    assert confusion_matrix(np.empty(0, np.uint8), np.empty(0, np.uint8), 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("truth", "predicted", "words"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), "one shape"),
        (np.array([0, 3]), np.array([0, 1]), "truth has ids 0 to 3"),
        (np.array([0, 1]), np.array([-1, 1]), "prediction has ids -1 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(truth: np.ndarray, predicted: np.ndarray, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        confusion_matrix(truth, predicted, 3)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(2, 12), st.integers(1, 200))
def test_agrees_with_a_plain_loop(data: st.DataObject, classes: int, pixels: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    truth = rng.integers(0, classes, pixels).astype(np.uint8)
    predicted = rng.integers(0, classes, pixels).astype(np.uint8)
    unlabelled = data.draw(st.one_of(st.none(), st.integers(0, classes - 1)))
    confusion = confusion_matrix(truth, predicted, classes)
    assert confusion.sum() == pixels
    found = scores(confusion, unlabelled)
    kept = np.ones(pixels, bool) if unlabelled is None else truth != unlabelled
    for c in range(classes):
        for ious, t, p in ((found.iou_with_unlabelled, truth, predicted), (found.iou, truth[kept], predicted[kept])):
            union = ((t == c) | (p == c)).sum()
            if union == 0 or (ious is found.iou and c == unlabelled):
                assert np.isnan(ious[c])
            else:
                assert ious[c] == pytest.approx(((t == c) & (p == c)).sum() / union)
    if kept.any():
        assert found.accuracy == pytest.approx((truth == predicted)[kept].mean())
