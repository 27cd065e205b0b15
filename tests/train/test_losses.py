"""Loss and metric against hand-worked numbers, and against unlabelled pixels."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from train.losses import ConfusionMetric, SegmentationLoss, class_weights
from train.metrics import confusion_matrix, scores


def random_batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 4, (2, 8, 8)).astype(np.uint8), rng.normal(size=(2, 8, 8, 4)).astype(np.float32)


def test_plain_cross_entropy_is_the_weighted_mean() -> None:
    truth, logits = random_batch()
    weights = np.array([1.0, 2.0, 0.5, 0.0], np.float32)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    entropy = -np.take_along_axis(log_p, truth[..., None].astype(int), -1)[..., 0]
    expected = (entropy * weights[truth]).sum() / weights[truth].sum()
    assert float(SegmentationLoss(weights)(truth, logits)) == pytest.approx(expected, rel=1e-4)


def test_unlabelled_pixels_do_not_count() -> None:
    truth, logits = random_batch()
    loss = SegmentationLoss(np.array([1, 1, 1, 0], np.float32), jaccard=0.5)
    changed = logits.copy()
    changed[truth == 3] = np.random.default_rng(1).normal(size=(int((truth == 3).sum()), 4))
    assert float(loss(truth, changed)) == pytest.approx(float(loss(truth, logits)), rel=1e-5)


def test_jaccard_term_is_one_minus_mean_iou_for_certain_predictions() -> None:
    truth = np.array([[[0, 0, 1, 1]]], np.uint8)
    found = np.array([[[0, 1, 1, 1]]])
    logits = (np.eye(3, dtype=np.float32)[found] - 0.5) * 60
    weights = np.ones(3, np.float32)
    term = float(SegmentationLoss(weights, jaccard=1.0)(truth, logits)) - float(
        SegmentationLoss(weights)(truth, logits)
    )
    assert term == pytest.approx(1 - (1 / 2 + 2 / 3) / 2, abs=1e-3)


def test_rare_classes_weigh_more_and_the_unlabelled_nothing() -> None:
    weights = class_weights(np.array([0.7, 0.29, 0.01, 0.0]), unlabelled=3, offset=1.1)
    assert weights[0] < weights[1] < weights[2]
    assert weights[3] == 0
    assert weights[2] / weights[0] == pytest.approx(np.log(1.8) / np.log(1.11), rel=1e-5)
    evener = class_weights(np.array([0.7, 0.29, 0.01, 0.0]), unlabelled=3, offset=1.5)
    assert evener[2] / evener[0] == pytest.approx(np.log(2.2) / np.log(1.51), rel=1e-5)


@pytest.mark.parametrize("unlabelled", [None, 3])
def test_metric_agrees_with_the_numpy_scores(unlabelled: int | None) -> None:
    metric = ConfusionMetric(4, unlabelled)
    total = np.zeros((4, 4), np.int64)
    for seed in range(2):
        rng = np.random.default_rng(seed)
        truth, logits = rng.integers(0, 4, (2, 8, 8)).astype(np.uint8), rng.normal(size=(2, 8, 8, 4)).astype(np.float32)
        metric.update_state(truth, logits)
        total += confusion_matrix(truth, logits.argmax(-1).astype(np.uint8), 4)
    expected = scores(total, unlabelled)
    found = {key: float(value) for key, value in metric.result().items()}
    if unlabelled is None:
        assert found["mean_iou"] == pytest.approx(expected.mean_iou_with_unlabelled, rel=1e-4)
    else:
        assert found["mean_iou"] == pytest.approx(expected.mean_iou, rel=1e-4)
        assert found["accuracy"] == pytest.approx(expected.accuracy, rel=1e-4)
    metric.reset_state()
    assert float(keras.ops.sum(metric.matrix)) == 0


@pytest.mark.parametrize("unlabelled", [None, 3])
def test_a_class_that_is_called_where_it_is_not_counts_as_in_the_numpy_scores(unlabelled: int | None) -> None:
    truth = np.zeros((1, 8, 8), np.uint8)
    truth[:, :4] = 1
    called = truth.copy()
    called[0, 0, :2] = (2, 3)  # Nothing is of class 2, and 3 is the unlabelled one.
    metric = ConfusionMetric(5, unlabelled)
    metric.update_state(truth, np.eye(5, dtype=np.float32)[called])
    expected = scores(confusion_matrix(truth, called, 5), unlabelled)
    assert float(metric.result()["mean_iou"]) == pytest.approx(expected.mean_iou, rel=1e-4)


SECOND_BACKEND = """
import os
os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # quick to compile, slow to run
import keras, numpy as np
from train.fcn8 import Fcn8Config, fcn8, logits_model
from train.losses import ConfusionMetric, SegmentationLoss
from train.recipes import RECIPES, make_optimizer
keras.utils.set_random_seed(0)
config = Fcn8Config(classes=4, input_size=(32, 32), block_widths=(4, 4, 4, 4, 4), head_widths=(4, 4))
model = logits_model(fcn8(config, batch_norm_from=1))
model.compile(optimizer=make_optimizer(RECIPES["default"], 10, {"block1_conv1": 0.2}),
              loss=SegmentationLoss(np.array([1, 1, 1, 0], "f"), jaccard=0.5), metrics=[ConfusionMetric(4, 3)])
rng = np.random.default_rng(0)
frames, truth = rng.normal(size=(2, 32, 32, 3)).astype("f"), rng.integers(0, 4, (2, 32, 32)).astype("u1")
losses = [float(model.train_on_batch(frames, truth)[0]) for _ in range(12)]
assert losses[-1] < losses[0] and np.isfinite(losses).all(), losses
print("backend", keras.backend.backend())
"""


@pytest.mark.slow
def test_a_step_runs_on_a_second_backend() -> None:
    pytest.importorskip("jax", reason="needs jax, the second backend")
    done = subprocess.run([sys.executable, "-c", SECOND_BACKEND], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "backend jax" in done.stdout
