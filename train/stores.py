"""Where batches come from: labelled images and frames without masks, read on access, and rendered scenes.

Knows nothing of batches, augmentation or networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import lru_cache
from typing import Any

import numpy as np

from edge_seg.errors import DatasetError

from .augment import Pair
from .dataset import Sample, read_pair

# Size of a store's cache: 2000 images of 360x480 with their masks, or 160 of 1080x1920.
CACHE_BYTES = 1_400_000_000
MOMENTS_PER_STREET = 4
# Distance between the first street numbers of two consecutive seeds.
SEEDS_APART = 100_003


class PairStore(Sequence[Pair]):
    """Images and masks by index, read on first access and kept while there is room for them.

    A pair is ((H, W, 3) uint8 BGR, (H, W) uint8).

    Args:
        samples: where they lie.
        frames: images without masks, of one size, which come last.
        unlabelled: the one id that the frames' masks hold; needed with frames.
    """

    def __init__(
        self, samples: Sequence[Sample], frames: Sequence[np.ndarray] = (), unlabelled: int | None = None
    ) -> None:
        self.samples = list(samples)
        self._frames = frames
        self._mask = np.full(frames[0].shape[:2], unlabelled, np.uint8) if len(frames) else None
        self._cache: dict[int, Pair] = {}
        self._room = CACHE_BYTES

    def __len__(self) -> int:
        return len(self.samples) + len(self._frames)

    def __getitem__(self, index: Any) -> Any:
        if index >= len(self.samples):
            return self._frames[index - len(self.samples)], self._mask
        if index in self._cache:
            return self._cache[index]
        sample = self.samples[index]
        pair = read_pair(sample)
        if pair[0].shape[:2] != pair[1].shape:
            raise DatasetError(f"{sample.image} is {pair[0].shape[:2]} but its mask {sample.mask} is {pair[1].shape}.")
        size = sum(array.nbytes for array in pair)
        if size <= self._room:
            self._cache[index] = pair
            self._room -= size
        return pair

    def shared_by(self, count: int) -> PairStore:
        """The store for each of `count` processes: what is read already travels as memory that they share, and each has
        an equal part of the whole room for what it reads itself."""
        shared = copy(self)
        shared._room = CACHE_BYTES // count
        return shared


class RenderedStore(Sequence[Pair]):
    """Procedural scenes with exact labels, by index; drawn on first access, then kept.

    Each street is drawn at several moments of its drive, since making the street is most of a first frame's cost.
    """

    def __init__(self, count: int, size: tuple[int, int], seed: int) -> None:
        self._length, self.size, self.seed = count, size, seed
        self.drawn: dict[int, list[Pair]] = {}  # by street

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        street, moment = divmod(index, MOMENTS_PER_STREET)
        if street not in self.drawn:
            self.drawn[street] = self.draw(street)
        return self.drawn[street][moment]

    @property
    def streets(self) -> int:
        """Number of streets that the scenes show."""
        return -(-self._length // MOMENTS_PER_STREET)

    def draw(self, street: int) -> list[Pair]:
        """Draw a street at each of its moments; takes seconds."""
        from .scenes import Scene, render

        scene = Scene.from_seed(self.seed * SEEDS_APART + street)
        times = ((street * 7.31 + moment * 4.7) % 60.0 for moment in range(MOMENTS_PER_STREET))
        return [render(scene, time_s=time_s, height=self.size[0], width=self.size[1]) for time_s in times]


@lru_cache(maxsize=1)
def rendered_scenes(count: int, size: tuple[int, int], seed: int) -> RenderedStore:
    """The store of these scenes; the last one is cached, since a study trains many networks on the same scenes."""
    return RenderedStore(count, size, seed)


def class_shares(pairs: Sequence[Pair], classes: int, unlabelled: int | None) -> np.ndarray:
    """Share of each class among the labelled pixels: (classes,) float64, 0 for the unlabelled class."""
    counts = np.zeros(classes)
    for _, mask in pairs:
        counts += np.bincount(mask.ravel(), minlength=classes)[:classes]
    if unlabelled is not None:
        counts[unlabelled] = 0
    return counts / max(1.0, counts.sum())
