"""The frames: rendered ones are always the same, a dataset's are its test folder's."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.data import load_data, scene_seeds
from benchmarks.settings import run_classes
from edge_seg.errors import DatasetError
from train.classes import CAMVID, ClassList
from train.stores import SEEDS_APART


def test_a_dataset_gives_its_test_folder(dataset):
    data = load_data(dataset)
    assert len(data.frames) == len(data.truth) == 5
    assert data.inputs((64, 96)).shape == (5, 64, 96, 3)
    np.testing.assert_array_equal(data.truth[3], cv2.imread(str(dataset / "annotations_prepped_test/3.png"), -1))


def test_a_limit_spreads_over_the_whole(dataset):
    everything, some = load_data(dataset), load_data(dataset, limit=2)
    np.testing.assert_array_equal(some.frames[1], everything.frames[2])
    assert some.digest != everything.digest


def test_the_digest_follows_a_single_pixel(dataset):
    before = load_data(dataset).digest
    assert load_data(dataset).digest == before
    mask = cv2.imread(str(dataset / "annotations_prepped_test/4.png"), -1)
    mask[0, 0] = (mask[0, 0] + 1) % 12
    cv2.imwrite(str(dataset / "annotations_prepped_test/4.png"), mask)
    assert load_data(dataset).digest != before


def test_a_mask_of_another_size_is_named(dataset):
    cv2.imwrite(str(dataset / "annotations_prepped_test/2.png"), np.zeros((8, 8), np.uint8))
    with pytest.raises(DatasetError, match=r"2\.png.*one size"):
        load_data(dataset)


def test_rendered_scenes_are_always_the_same_and_labelled():
    first, second = load_data(None, limit=2), load_data(None, limit=2)
    assert first.digest == second.digest
    assert (first.frames[0] != first.frames[1]).any()
    for labels in first.truth:
        assert labels.max() < 12
        assert len(np.unique(labels)) > 3


def test_no_scene_is_one_that_a_network_may_have_been_trained_on():
    seeds = scene_seeds(2000)
    assert len(set(seeds)) == 2000
    # Each seed of a training has its streets from a multiple of `SEEDS_APART` on: 40 of them, and here 1000.
    assert min(seed % SEEDS_APART for seed in seeds) >= 1000
    assert seeds[:24] == list(range(900_000, 900_024)), "committed results are of these"


def test_scenes_have_no_truth_for_other_classes(dataset: Path) -> None:
    own = ClassList(names=("road", "void"), unlabelled=1, ignored=255)
    assert load_data(None, limit=1, classes=own).truth is None
    assert load_data(None, limit=1).truth is not None
    for path in (dataset / "annotations_prepped_test").iterdir():
        mask = np.full(cv2.imread(str(path), -1).shape[:2], 255, np.uint8)
        mask[:10] = 0
        cv2.imwrite(str(path), mask)
    truth = load_data(dataset, classes=own).truth
    assert truth is not None
    assert np.unique(truth[0]).tolist() == [0, 1]


def test_a_runs_classes_are_read_without_keras(tmp_path: Path) -> None:
    config = {"classes": ["a", "b", "void"], "unlabelled": 2, "ignored": 255}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert run_classes(tmp_path) == ClassList(names=("a", "b", "void"), unlabelled=2, ignored=255)
    assert run_classes(tmp_path / "none") == CAMVID


def test_ids_that_the_runs_classes_do_not_have_are_refused(dataset: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds id \d+; expected ids 0 to 1"):
        load_data(dataset, classes=ClassList(names=("a", "b"), unlabelled=None))
