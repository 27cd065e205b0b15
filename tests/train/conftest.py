"""Fixtures of the training tests: a small dataset on disk. No Keras here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_seg.overlay import colorize
from edge_seg.spec import CAMVID_PALETTE_RGB


def write_pair(images: Path, masks: Path, stem: str, seed: int, size: tuple[int, int]) -> None:
    """An image whose colours show its classes through noise, and its mask; both PNG."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 12, (size[0] // 8, size[1] // 8), np.uint8)
    ids = cv2.resize(blocks, size[::-1], interpolation=cv2.INTER_NEAREST)
    frame = colorize(ids, CAMVID_PALETTE_RGB) // 2 + rng.integers(0, 60, (*size, 3), np.uint8)
    cv2.imwrite(str(images / f"{stem}.png"), frame)
    cv2.imwrite(str(masks / f"{stem}.png"), ids)


@pytest.fixture(autouse=True, scope="session")
def plain_graphs() -> None:
    """TensorFlow's graphs run as they were traced: to improve one takes longer than a training of a few steps."""
    tensorflow = pytest.importorskip("tensorflow")
    tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(autouse=True)
def threads_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are drawn in this process, whatever the cores: others would not know what a test has changed."""
    monkeypatch.setattr("train.batches.drawing_processes", lambda: 0)


@pytest.fixture
def make_dataset(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A factory of datasets in the dataset1 layout: `make_dataset(count=6, size=(48, 64), splits=("train",))` -> root.

    Stems are `drive_000` and on; every call makes a new folder.
    """

    def make(count: int = 6, size: tuple[int, int] = (48, 64), splits: tuple[str, ...] = ("train",)) -> Path:
        root = tmp_path_factory.mktemp("dataset")
        for number, split in enumerate(splits):
            images, masks = root / f"images_prepped_{split}", root / f"annotations_prepped_{split}"
            images.mkdir()
            masks.mkdir()
            for index in range(count):
                write_pair(images, masks, f"drive_{index:03}", 100 * number + index, size)
        return root

    return make
