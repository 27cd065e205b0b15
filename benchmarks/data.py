"""The frames that every contender gets, with exact labels: a dataset's test folder, or rendered scenes.

Reads and renders; knows nothing of contenders. Frames have their own size and are resized to a model's by
`edge_seg.preprocess`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg.errors import DatasetError
from edge_seg.preprocess import stack_frames
from train.classes import CAMVID, ClassList
from train.dataset import find_samples, read_pair

RENDERED_FRAMES = 24
RENDERED_SIZE = (360, 480)
# First seeds of the benchmark's scenes: none that training draws at any `--seed` (`train.stores.SEEDS_APART`). From
# 900,027 on they would be those of `fit --seed 9`, so that scenes beyond the usual number begin elsewhere.
RENDERED_SEED, FURTHER_SEED = 900_000, 850_000


@dataclass(frozen=True, kw_only=True)
class FrameSet:
    """Frames and their labels.

    Attributes:
        name: in words, for headings.
        source: a dataset's folder, or "rendered".
        frames: each (H, W, 3) uint8 BGR, of any size.
        truth: class ids of each frame, (H, W) uint8 of its size; None if unknown.
        digest: first 16 hex digits of the SHA-256 over pixels and labels; equal digests mean equal data.
    """

    name: str
    source: str
    frames: tuple[np.ndarray, ...]
    truth: tuple[np.ndarray, ...] | None
    digest: str

    def inputs(self, size: tuple[int, int]) -> np.ndarray:
        """All frames resized to a model's (height, width): (N, height, width, 3) uint8."""
        return stack_frames(list(self.frames), size)

    def to_dict(self) -> dict[str, Any]:
        """What a result records of its data."""
        return {"name": self.name, "source": self.source, "frames": len(self.frames), "digest": self.digest}


def load_data(root: Path | None, *, limit: int | None = None, classes: ClassList = CAMVID) -> FrameSet:
    """A dataset's test folder, or rendered scenes where `root` is None; at most `limit` frames, evenly spread.

    Scenes are labelled with CamVid's classes; for other classes they have no truth.

    Raises:
        DatasetError: the dataset is not there, or a file of it is damaged.
    """
    if root is not None:
        return dataset_frames(root, limit=limit, classes=classes)
    scenes = rendered_scenes(limit or RENDERED_FRAMES)
    return scenes if classes.is_camvid else replace(scenes, truth=None)


def dataset_frames(root: Path, *, limit: int | None, classes: ClassList) -> FrameSet:
    """The test pairs of a folder in the dataset1 layout."""
    samples = find_samples(root, "test", classes=classes)
    kept = [samples[index] for index in _spread(len(samples), limit)]
    pairs = [read_pair(sample) for sample in kept]
    for sample, (image, mask) in zip(kept, pairs, strict=True):
        if image.shape[:2] != mask.shape:
            raise DatasetError(
                f"{sample.image} is {image.shape[:2]} but its mask is {mask.shape}: they must have one size."
            )
        if mask.max() >= len(classes):
            raise DatasetError(
                f"{sample.mask} holds id {mask.max()}; expected ids 0 to {len(classes) - 1}, those of the Keras run's "
                "classes."
            )
    return _frame_set(f"{root.name}, test folder", str(root), pairs)


def rendered_scenes(count: int) -> FrameSet:
    """`count` different streets, drawn from fixed seeds, with exact labels."""
    from train.scenes import Scene, render

    height, width = RENDERED_SIZE
    pairs = [render(Scene.from_seed(seed), height=height, width=width) for seed in scene_seeds(count)]
    return _frame_set("rendered scenes", "rendered", pairs)


def scene_seeds(count: int) -> list[int]:
    """Of which seeds `count` scenes are."""
    usual = min(count, RENDERED_FRAMES)
    further = range(FURTHER_SEED, FURTHER_SEED + count - usual)
    return [*range(RENDERED_SEED, RENDERED_SEED + usual), *further]


def _frame_set(name: str, source: str, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> FrameSet:
    frames, truth = zip(*pairs, strict=True)
    digest = hashlib.sha256()
    for array in (*frames, *truth):
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return FrameSet(name=name, source=source, frames=frames, truth=truth, digest=digest.hexdigest()[:16])


def _spread(count: int, limit: int | None) -> list[int]:
    """At most `limit` of `count` indices, evenly spread."""
    if limit is None or limit >= count:
        return list(range(count))
    return [index * count // limit for index in range(limit)]
