"""Samples -> batches for Keras: reading, rendered scenes mixed in, augmentation, scaling. Knows no model.

Every batch is a function of (seed, epoch, index) alone, so that threads, a restart or --resume change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from edge_seg.errors import DatasetError
from edge_seg.preprocess import resize_frame, resize_labels, scale_frames

from .augment import Augmentation, Pair, augment
from .dataset import Sample, read_image, read_mask

# Masks are bytes: this many images of 360x480 take 0.7 MB each in memory, so datasets up to here are read once.
CACHED_SAMPLES = 2000


class PairStore(Sequence[Pair]):
    """Images and masks by index, read once and kept where the dataset is small. Holds nothing until asked.

    A pair is ((H, W, 3) uint8 BGR, (H, W) uint8).
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = list(samples)
        self._cache: dict[int, Pair] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        if index in self._cache:
            return self._cache[index]
        sample = self.samples[index]
        pair = read_image(sample.image), read_mask(sample.mask)
        if pair[0].shape[:2] != pair[1].shape:
            raise DatasetError(f"{sample.image} is {pair[0].shape[:2]} but its mask {sample.mask} is {pair[1].shape}.")
        if len(self) <= CACHED_SAMPLES:
            self._cache[index] = pair
        return pair


class RenderedStore(Sequence[Pair]):
    """Procedural scenes with exact labels, by index; drawn when first asked for, then kept."""

    def __init__(self, count: int, size: tuple[int, int], seed: int) -> None:
        self.count, self.size, self.seed = count, size, seed
        self._cache: dict[int, Pair] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        if index not in self._cache:
            from .scenes import Scene, render

            # A moment along each scene's road, not its start, so that draws differ in what is near.
            scene = Scene.from_seed(self.seed * 100_003 + index)
            self._cache[index] = render(scene, time_s=(index * 7.31) % 60.0, height=self.size[0], width=self.size[1])
        return self._cache[index]


class TrainingBatches(keras.utils.PyDataset):
    """Augmented batches: (N, H, W, 3) float32 in [-1, 1] and (N, H, W) uint8 class ids.

    Args:
        pairs: real images and masks.
        rendered: scenes mixed in; each epoch draws `rendered_share` of its images from them.
        size: (height, width) of a crop.
        augmentation: None resizes the whole image instead, as the notebook does.
        epoch: where the count starts, so that a resumed run draws what the whole run would have drawn.
    """

    def __init__(
        self, pairs: Sequence[Pair], *, size: tuple[int, int], batch_size: int, seed: int,
        augmentation: Augmentation | None = None, rendered: Sequence[Pair] = (), rendered_share: float = 0.0,
        rare: tuple[int, ...] = (), fill: int = 0, epoch: int = 0, workers: int = 2,
    ) -> None:
        super().__init__(workers=workers, max_queue_size=8)
        self.pairs, self.rendered, self.rendered_share = pairs, rendered, rendered_share if len(rendered) else 0.0
        self.size, self.batch_size, self.seed, self.epoch = size, min(batch_size, len(pairs)), seed, epoch
        self.augmentation, self.rare, self.fill = augmentation, rare, fill
        self._order_of: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    @property
    def num_batches(self) -> int:
        # Augmented epochs drop the odd last batch; its images come first in some other epoch's order.
        whole, rest = divmod(len(self.pairs), self.batch_size)
        return whole + (1 if rest and self.augmentation is None else 0)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        order = self._order(self.epoch)
        chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
        rng = np.random.default_rng((self.seed, self.epoch, index))
        pairs = [self._draw(int(position), rng) for position in chosen]
        return scale_frames(np.stack([image for image, _ in pairs])), np.stack([mask for _, mask in pairs])

    def on_epoch_end(self) -> None:
        self.epoch += 1

    def _order(self, epoch: int) -> np.ndarray:
        if self._order_of[0] != epoch:
            self._order_of = epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self.pairs))
        return self._order_of[1]

    def _draw(self, position: int, rng: np.random.Generator) -> Pair:
        rendered = rng.random() < self.rendered_share
        pair = self.rendered[int(rng.integers(len(self.rendered)))] if rendered else self.pairs[position]
        if self.augmentation is None:
            return resize_frame(pair[0], self.size), resize_labels(pair[1], self.size)
        other = self.pairs[int(rng.integers(len(self.pairs)))]
        return augment(pair, other, self.size, self.augmentation, rng, rare=self.rare, fill=self.fill)


class ResizedBatches(keras.utils.PyDataset):
    """Whole images at the network's size, in order, for validation: the same types as `TrainingBatches`."""

    def __init__(self, pairs: Sequence[Pair], *, size: tuple[int, int], batch_size: int) -> None:
        super().__init__(workers=1)
        self.pairs, self.size, self.batch_size = pairs, size, batch_size

    @property
    def num_batches(self) -> int:
        return -(-len(self.pairs) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        stop = min(len(self.pairs), (index + 1) * self.batch_size)
        pairs = [self.pairs[position] for position in range(index * self.batch_size, stop)]
        frames = np.stack([resize_frame(image, self.size) for image, _ in pairs])
        return scale_frames(frames), np.stack([resize_labels(mask, self.size) for _, mask in pairs])


def class_shares(pairs: Sequence[Pair], classes: int, unlabelled: int | None) -> np.ndarray:
    """Share of each class among the labelled pixels: (classes,) float64, 0 for the unlabelled class."""
    counts = np.zeros(classes)
    for _, mask in pairs:
        counts += np.bincount(mask.ravel(), minlength=classes)[:classes]
    if unlabelled is not None:
        counts[unlabelled] = 0
    return counts / max(1.0, counts.sum())
