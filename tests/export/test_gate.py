"""The gate can fail: a planted wrong weight, wrong labels, a mean IoU that moved; and it passes what is right."""

import dataclasses
import json

import numpy as np
import pytest

from edge_seg.fake import FakeSession
from edge_seg.spec import CAMVID_CLASSES, ModelSpec
from export import gate
from export.draft import write_draft
from export.evidence import (
    Pictures,
    ask_keras,
    golden_evidence,
    rendered_pictures,
    share_undecided,
    spread,
    visible_classes,
)
from export.wrap import wrap
from train import scenes
from train.fit import RENDERED_POOL
from train.stores import RenderedStore

SIZE = (64, 96)


@pytest.fixture(scope="module")
def evidence(model, scenes):
    return ask_keras(model, Pictures(source="9 rendered scenes", frames=scenes[0], truth=scenes[1]))


@pytest.fixture
def draft(network):
    return wrap(network.fork(), size=SIZE)


def judge(draft, evidence, folder, **options):
    write_draft(draft, folder / "model.onnx")
    settings = {"precision": "fp32", "classes": CAMVID_CLASSES, "unlabelled": 11, "trained": True} | options
    result = gate.run_gate(draft, folder / "model.onnx", evidence, **settings)
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    return result


def test_a_right_model_passes(draft, evidence, tmp_path):
    result = judge(draft, evidence, tmp_path)
    assert result.failures == ()
    assert result.agreement == 1.0
    assert result.worst_logit_error < 1e-4
    assert result.mean_iou_points == pytest.approx(0.0, abs=1e-3)
    assert (result.frames, result.pixels, result.batch_sizes) == (9, 9 * 64 * 96, (1, 2, 3))
    assert len(result.iou_points) == len(result.iou_with_keras) == 12
    outputs = [output.name for output in draft.graph.output]
    assert outputs == ["labels"]


@pytest.mark.parametrize("name", ["block1_conv1.kernel", "conv6.kernel", "pool3_conv.kernel", "upsample8.kernel"])
def test_a_planted_wrong_weight_fails(draft, evidence, tmp_path, name):
    wrong = draft.weights[name].copy()
    # A single wrong value, large and positive, so that no Relu hides it.
    middle = wrong if wrong.ndim == 2 else wrong[:, :, wrong.shape[2] // 2, wrong.shape[3] // 2]
    middle[np.unravel_index(np.abs(middle).argmax(), middle.shape)] = 50 * np.abs(wrong).max()
    draft.weights[name] = wrong
    result = judge(draft, evidence, tmp_path)
    assert result.agreement < 0.9999
    assert result.worst_logit_error > 1e-2
    assert "pixels agree with Keras; at least 99.99 % must" in result.failures[0]


def test_scores_that_are_no_numbers_fail_whatever_the_labels(draft, evidence, tmp_path):
    unused = next(index for index in range(1, 12) if not (evidence.labels == index).any())
    kernel = draft.weights["upsample8.kernel"].copy()
    kernel[:, unused * draft.block**2 : (unused + 1) * draft.block**2] = np.nan
    draft.weights["upsample8.kernel"] = kernel
    result = judge(draft, evidence, tmp_path)
    assert result.agreement == 1.0
    assert result.failures == ("its scores are not all numbers, or not in Keras' shape",)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["worst_logit_error"] is None


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_confidence_is_held_to_the_scores(network, evidence, tmp_path, dtype):
    draft = wrap(network.fork(), size=SIZE, outputs=("labels", "confidence"), confidence_type=dtype)
    result = judge(draft, evidence, tmp_path)
    assert result.failures == ()
    assert 0 <= result.worst_confidence_error < 1e-3
    spread = next(node for node in draft.graph.node if node.name == "shares.rows")
    # Rows and columns change places.
    spread.attribute[0].ints[:] = [0, 2, 3, 1, 4]
    (failure,) = judge(draft, evidence, tmp_path).failures
    assert "confidence is up to" in failure


def test_a_file_without_a_confidence_has_no_error_of_it(draft, evidence, tmp_path):
    assert judge(draft, evidence, tmp_path).worst_confidence_error is None


@pytest.mark.parametrize("keras_sees_it", [False, True])
def test_a_pixel_of_a_class_that_the_truth_lacks_moves_no_mean_by_points(evidence, keras_sees_it):
    truth = np.zeros_like(evidence.labels)
    truth[:, 32:] = 3
    plain, speck = truth.copy(), truth.copy()
    speck[0, 0, 0] = 5
    pictures = dataclasses.replace(evidence.pictures, truth=truth)
    told = dataclasses.replace(evidence, pictures=pictures, labels=speck if keras_sees_it else plain)
    figures = gate._iou_figures(plain if keras_sees_it else speck, told, CAMVID_CLASSES, 11)
    assert abs(figures["mean_iou_points"]) < 0.01
    assert figures["mean_iou_keras"] > 0.999


def test_nothing_but_unlabelled_truth_has_no_mean(evidence):
    truth = np.full_like(evidence.labels, 11)
    told = dataclasses.replace(evidence, pictures=dataclasses.replace(evidence.pictures, truth=truth))
    assert gate._iou_figures(evidence.labels, told, CAMVID_CLASSES, 11)["mean_iou_points"] is None


def test_channels_in_the_wrong_order_fail(draft, evidence, tmp_path):
    kernel = draft.weights["block1_conv1.kernel"]
    draft.weights["block1_conv1.kernel"] = np.ascontiguousarray(kernel[:, ::-1])
    assert judge(draft, evidence, tmp_path).failures


def test_a_wrong_answer_at_another_size_fails(draft, evidence, tmp_path):
    wrong = dataclasses.replace(evidence, labels=(evidence.labels + 1) % 12)
    result = judge(draft, evidence, tmp_path, other_size=wrong)
    assert result.agreement == 1.0
    assert result.other_size_agreement == 0.0
    assert "at another size" in result.failures[0]


def test_labels_of_another_shape_never_agree(draft, evidence, tmp_path):
    wrong = dataclasses.replace(evidence, labels=evidence.labels[:, :1, :1])
    assert judge(draft, wrong, tmp_path).agreement == 0.0


@pytest.mark.parametrize(
    ("agreement", "points", "judged", "count"),
    [
        (0.99, 0.0, True, 0),
        (0.99, -0.99, True, 0),
        (0.99, -1.01, True, 1),
        (0.99, 1.01, True, 1),
        (0.99, -5.0, False, 0),
        (0.98, -5.0, True, 2),
        (0.99, None, True, 0),
        (0.99, float("nan"), True, 1),
        (float("nan"), 0.0, True, 1),
    ],
)
def test_int8_is_held_to_the_mean_iou_of_a_trained_network(agreement, points, judged, count):
    assert len(gate._failures(agreement, None, 0.985, points, judge_iou=judged)) == count


def rare_class(evidence, draft_labels):
    """Evidence in which Keras saw a class on 1 % of the pixels that the model never gives."""
    unused = next(index for index in range(12) if not (draft_labels == index).any())
    labels, truth = evidence.labels.copy(), draft_labels.copy()
    labels[:, :4, :15] = truth[:, :4, :15] = unused
    pictures = dataclasses.replace(evidence.pictures, truth=truth)
    return unused, dataclasses.replace(evidence, labels=labels, pictures=pictures)


def test_a_class_that_collapses_fails_though_the_share_of_pixels_passes(draft, evidence, tmp_path):
    unused, collapsed = rare_class(evidence, evidence.labels)
    result = judge(draft, collapsed, tmp_path, precision="int8")
    assert result.agreement >= result.bound == 0.985
    name = CAMVID_CLASSES[unused]
    assert f"class {name} keeps an IoU of 0.00 with Keras' labels; it must keep 0.50" in result.failures
    assert f"class {name} loses 100.0 points of IoU; 5.0 are allowed" in result.failures
    assert judge(draft, collapsed, tmp_path, precision="int8", trained=False).failures == ()


def test_a_device_is_held_to_the_same_evidence(evidence):
    """By the fake that ships: a device that computes what Keras did passes, one that loses a class does not."""
    unused, rare = rare_class(evidence, evidence.labels)
    answers = {frame.tobytes(): labels for frame, labels in zip(rare.pictures.frames, rare.labels, strict=True)}
    spec = ModelSpec(input_size=SIZE, precision="int8")

    def right(batch):
        return np.stack([answers[frame.tobytes()] for frame in batch])

    def wrong(batch):
        labels = right(batch)
        return np.where(labels == unused, (unused + 1) % 12, labels).astype(np.uint8)

    figures, failures = gate.judge_device(FakeSession(spec, labels=right, arithmetic="int8", name="cuda:0"), rare)
    assert (figures["device"], figures["agreement"], failures) == ("cuda:0", 1.0, ())
    figures, failures = gate.judge_device(FakeSession(spec, labels=wrong, arithmetic="int8", name="cuda:0"), rare)
    assert figures["agreement"] > figures["bound"]
    assert failures[0].startswith(f"on cuda:0, class {CAMVID_CLASSES[unused]} keeps an IoU of 0.00")


def test_frames_come_in_odd_batches():
    sizes = [len(batch) for batch in gate.odd_batches(np.arange(15))]
    assert sizes == [1, 3, 2, 5, 1, 3]
    assert np.array_equal(np.concatenate(list(gate.odd_batches(np.arange(15)))), np.arange(15))


def test_golden_frames_are_the_most_varied(model, scenes):
    plain = np.full((3, *SIZE, 3), 128, np.uint8)
    candidates = Pictures(source="mixed", frames=np.concatenate([plain, scenes[0]]))
    golden = golden_evidence(model, candidates, 4)
    assert golden.pictures.frames.shape == (4, *SIZE, 3)
    assert not any((frame == 128).all() for frame in golden.pictures.frames)
    np.testing.assert_array_equal(golden.labels, ask_keras(model, golden.pictures).labels)


def test_near_ties_are_counted():
    logits = np.zeros((1, 2, 2, 3), np.float32)
    logits[0, :, 0, 1] = 1.0
    logits[0, 0, 1] = (10.0, 10.0 - 1e-5, 0.0)
    assert share_undecided(logits).tolist() == [0.5]


def test_a_class_is_visible_from_half_a_percent_on():
    labels = np.zeros((20, 20), np.uint8)
    labels[0, 0] = 3
    assert visible_classes(labels) == 1
    labels[0, 1] = 3
    assert visible_classes(labels) == 2


def test_samples_are_spread_evenly():
    assert spread(list(range(10)), 4) == [0, 3, 6, 9]  # type: ignore[arg-type, comparison-overlap]
    assert spread([1, 2], 4) == [1, 2]  # type: ignore[list-item, comparison-overlap]


def test_rendered_truth_is_only_for_camvids_classes():
    pictures = rendered_pictures(("road", "rest"), (32, 64), 1)
    assert pictures.truth is None
    assert pictures.frames.shape == (1, 32, 64, 3)


@pytest.mark.parametrize("first", [0, 50_000], ids=["gate", "golden frames"])
def test_no_street_of_proof_was_trained_on_whatever_the_seed(monkeypatch, first):
    seen = []

    def look(seed, **_):
        seen.append(seed)
        return None

    def draw(scene, *, height, width, **_):
        return np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)

    monkeypatch.setattr(scenes.Scene, "from_seed", look)
    monkeypatch.setattr(scenes, "render", draw)
    rendered_pictures(CAMVID_CLASSES, (32, 32), 3000, first=first)
    proof = set(seen)
    for training_seed in range(100):
        seen.clear()
        pool = RenderedStore(RENDERED_POOL, (32, 32), training_seed)
        for index in range(RENDERED_POOL):
            pool[index]
        assert proof.isdisjoint(seen), training_seed
