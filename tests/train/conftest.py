"""Fixtures of the training tests: small datasets on disk, a run that many begin from, and shorter trainings.

No Keras at the top.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

from edge_seg.files import replacing
from edge_seg.overlay import colorize
from edge_seg.spec import CAMVID_PALETTE_RGB

TINY = [
    "--block-widths",
    "4,4,4,4,4",
    "--head-widths",
    "4,4",
    "--input-size",
    "64x64",
    "--rendered-share",
    "0",
    "--policy",
    "float32",
]
DEFAULT = [*TINY, "--crop-size", "32x32", "--batch-size", "2"]
# Of a test whose subject is neither the steps of a training nor its pictures; one of each kind has its steps traced.
quick = pytest.mark.usefixtures("untraced", "undrawn")
# The same, of a test that begins its own runs and looks at no layer of theirs.
quickest = pytest.mark.usefixtures("untraced", "undrawn", "unnormalised")


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
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are computed operation by operation: to trace one takes as long as eight of them.

    For tests of what surrounds the steps of a short training. Others have theirs traced, as users do.
    """
    monkeypatch.setattr("keras.Model.run_eagerly", property(lambda model: True, lambda model, value: None))


@pytest.fixture
def unnormalised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are made without batch normalisation, whose variables take a third of the time of a step."""
    from train import recipes

    monkeypatch.setitem(recipes.RECIPES, "default", replace(recipes.RECIPES["default"], batch_norm=False))


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Every picture becomes a single pixel."""
    pixel = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes()

    def save(figure: Any, path: Path | str) -> None:
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(pixel)

    patch.setattr("train.pictures._save", save)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are single pixels, for tests that look at none: to draw a run's takes as long as a few steps."""
    draw_nothing(monkeypatch)


def write_dataset(root: Path, count: int, size: tuple[int, int], splits: tuple[str, ...]) -> Path:
    """A dataset in the dataset1 layout; stems are `drive_000` and on."""
    for number, split in enumerate(splits):
        images, masks = root / f"images_prepped_{split}", root / f"annotations_prepped_{split}"
        images.mkdir()
        masks.mkdir()
        for index in range(count):
            write_pair(images, masks, f"drive_{index:03}", 100 * number + index, size)
    return root


@pytest.fixture
def make_dataset(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A factory of datasets in the dataset1 layout: `make_dataset(count=6, size=(48, 64), splits=("train",))` -> root.

    Stems are `drive_000` and on; every call makes a new folder.
    """

    def make(count: int = 6, size: tuple[int, int] = (48, 64), splits: tuple[str, ...] = ("train",)) -> Path:
        return write_dataset(tmp_path_factory.mktemp("dataset"), count, size, splits)

    return make


class Trained(NamedTuple):
    """A dataset, a finished run of three epochs of `DEFAULT` on it, and what that had left after its first epoch.

    Tests share them: what a test changes must be a copy.
    """

    dataset: Path
    run: Path
    begun: Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run to begin from, to go on with or to compare with, in place of a training in each test."""
    from train import callbacks
    from train.__main__ import main

    folder = tmp_path_factory.mktemp("trained")
    (folder / "data").mkdir()
    dataset = write_dataset(folder / "data", 8, (64, 64), ("train", "test"))
    run, begun = folder / "first", folder / "begun"
    report = callbacks.Progress.on_epoch_end

    def look(self: callbacks.Progress, epoch: int, logs: dict | None = None) -> None:
        report(self, epoch, logs)
        if epoch == 0:
            shutil.copytree(run, begun, ignore=shutil.ignore_patterns(".*"))  # without the lock

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.batches.drawing_processes", lambda: 0)
        patch.setattr(callbacks.Progress, "on_epoch_end", look)
        draw_nothing(patch)
        call = ["fit", str(dataset), "--out", str(run), *DEFAULT, "--epochs", "3", "--license", "own data"]
        assert main(call) == 0
    return Trained(dataset, run, begun)
