"""A tiny run to export, with the dataset it records: rendered frames, random weights, made once for all tests."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import cv2
import numpy as np
import pytest

from tests.streets import streets_are_drawn_once  # noqa: F401

SIZE = (64, 96)
WIDTHS = {"block_widths": (8, 8, 16, 16, 16), "head_widths": (32, 32)}


@pytest.fixture(scope="session")
def scenes() -> tuple[np.ndarray, np.ndarray]:
    """(9, 64, 96, 3) frames and (9, 64, 96) labels of three rendered streets."""
    from edge_seg.spec import CAMVID_CLASSES
    from export.evidence import rendered_pictures

    pictures = rendered_pictures(CAMVID_CLASSES, SIZE, 9, first=9_000)
    assert pictures.truth is not None
    return pictures.frames, pictures.truth


@pytest.fixture(scope="session")
def dataset(tmp_path_factory, scenes):
    """The scenes in the dataset1 layout: frames 0 to 4 to train on, the others held out by the run."""
    root = tmp_path_factory.mktemp("dataset")
    folders = [root / "images_prepped_train", root / "annotations_prepped_train"]
    for folder in folders:
        folder.mkdir()
    for index, pair in enumerate(zip(*scenes, strict=True)):
        for folder, picture in zip(folders, pair, strict=True):
            cv2.imwrite(str(folder / f"drive_{index:03d}.png"), picture)
    return root


@pytest.fixture(scope="session")
def model():
    """The tiny network with random weights, float32."""
    import keras

    from train.fcn8 import Fcn8Config, fcn8

    keras.utils.set_random_seed(7)
    return fcn8(Fcn8Config(input_size=SIZE, **WIDTHS))


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory, model, dataset):
    """A run's folder around the tiny network, with its data recorded and one epoch to its name."""
    from train.fcn8 import Fcn8Config
    from train.run import save_run

    stems = [f"drive_{index:03d}" for index in range(9)]
    config = {
        "fcn8": Fcn8Config(input_size=SIZE, **WIDTHS).to_dict(),
        "training": {"recipe": "default", "epochs": 1, "val_mean_iou": 0.05},
        "recipe": {"name": "default", "rendered_share": 0.12},
        "license": "terms of the test",
        "start": None,
        "teacher": {"run": "larger", "hash": "00ff"},
        "data": {"root": str(dataset), "hash": "0123456789abcdef", "train": stems[:5], "val": stems[5:]},
    }
    folder = tmp_path_factory.mktemp("run")
    save_run(folder, config, model)
    return folder


@pytest.fixture(scope="session")
def network(model):
    """The tiny network's draft before it is wrapped; tests work on forks of it."""
    from export.convert import convert

    return convert(model)
