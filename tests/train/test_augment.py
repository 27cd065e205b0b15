"""Augmentation: image and mask stay together, ids never blend, and a draw depends on its generator alone."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from train.augment import Example, augment, degrade_lens, paste_rare
from train.augmentation import Augmentation
from train.batches import TrainingBatches

CALM = Augmentation(light=0.0, lens=0.0, paste=0.0, night=0.0, repaint=0.0)


def coded_pair(seed: int = 0, size: tuple[int, int] = (90, 120)) -> Example:
    """An image whose blue channel is 20 times the mask's id, in blocks large enough to survive filtering."""
    ids = np.random.default_rng(seed).integers(0, 10, (size[0] // 30, size[1] // 30)).astype(np.uint8)
    mask = np.kron(ids, np.ones((30, 30), np.uint8))
    return Example(np.stack([mask * 20, mask, mask], -1), mask)


@pytest.mark.parametrize("seed", range(8))
def test_image_and_mask_move_together(seed: int) -> None:
    pair = coded_pair(seed)
    image, mask, _ = augment(pair, pair, (64, 64), CALM, np.random.default_rng(seed), rare=(2, 6), fill=11)
    assert image.shape == (64, 64, 3)
    assert mask.shape == (64, 64)
    inside = mask != 11
    agree = np.abs(image[..., 0].astype(int) - mask.astype(int) * 20) <= 10
    assert agree[inside].mean() > 0.85  # the rest are pixels that filtering blends along block edges


@pytest.mark.parametrize("size", [(360, 480), (360, 240), (45, 60)], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_crops_show_things_as_large_as_the_network_sees_them(seed: int, size: tuple[int, int]) -> None:
    pair = coded_pair(seed)
    other_size = Example(*(cv2.resize(array, size[::-1], interpolation=cv2.INTER_NEAREST) for array in pair[:2]))
    masks = [
        augment(given, given, (64, 64), CALM, np.random.default_rng(seed), rare=(), fill=11, view=(90, 120)).mask
        for given in (pair, other_size)
    ]
    assert (masks[0] == masks[1]).mean() > 0.9  # the rest are pixels along block edges


def test_images_of_about_the_networks_size_keep_their_own_pixels() -> None:
    pair = coded_pair(1)
    near, own = (
        augment(pair, pair, (64, 64), Augmentation(), np.random.default_rng(1), rare=(2,), fill=11, view=view)
        for view in ((88, 120), None)
    )
    np.testing.assert_array_equal(near.image, own.image)
    np.testing.assert_array_equal(near.mask, own.mask)


def test_masks_hold_only_ids_that_were_there() -> None:
    for seed in range(20):
        pair = coded_pair(seed)
        _, mask, _ = augment(
            pair, coded_pair(99), (64, 96), Augmentation(), np.random.default_rng(seed), rare=(2, 6, 9), fill=11
        )
        assert set(np.unique(mask)) <= set(range(10)) | {11}


def test_pasting_brings_rare_pixels_and_their_ids() -> None:
    image, mask = np.zeros((30, 30, 3), np.uint8), np.zeros((30, 30), np.uint8)
    other, other_mask = np.full((30, 30, 3), 200, np.uint8), np.zeros((30, 30), np.uint8)
    other_mask[10:20, 12:18] = 9
    pasted, pasted_mask, _ = paste_rare(
        Example(image, mask), Example(other, other_mask), (9,), np.random.default_rng(0)
    )
    assert (pasted_mask == 9).sum() == 60
    assert (pasted[pasted_mask == 9] == 200).all()
    assert (pasted[pasted_mask == 0] == 0).all()
    assert not image.any(), "the pair itself must stay as it was: it is cached"


@pytest.mark.parametrize("width", [1, 2, 5])
def test_an_opinion_sees_a_pasted_pole_however_thin(width: int) -> None:
    image, mask, opinion = (
        np.zeros((60, 80, 3), np.uint8),
        np.zeros((60, 80), np.uint8),
        np.zeros((15, 20, 12), np.uint8),
    )
    opinion[..., 0] = 255
    with_pole, pole_mask, sees_pole = image + 200, mask.copy(), np.roll(opinion, 2, axis=-1)
    pole_mask[10:50, 41 : 41 + width] = 2
    for seed in range(4):
        pasted = paste_rare(
            Example(image, mask, opinion),
            Example(with_pole, pole_mask, sees_pole),
            (2,),
            np.random.default_rng(seed),
        )
        assert pasted.opinion is not None
        cells = (pasted.mask == 2).reshape(15, 4, 20, 4).any(axis=(1, 3))
        assert cells.any()
        np.testing.assert_array_equal(pasted.opinion.argmax(-1) == 2, cells)


def test_a_lens_moves_nothing() -> None:
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (256, 256))
    for image in (ramp, ramp.T):
        image = np.ascontiguousarray(np.dstack([image] * 3))
        for seed in range(60):
            if np.random.default_rng(seed).integers(5) == 3:
                continue  # JPEG moves nothing, but its levels are coarse
            moved = degrade_lens(image, np.random.default_rng(seed)).astype(float) - image
            # At the far end, where a wrong scale shows most; a level is a pixel.
            assert abs(moved[200:240, 200:240].mean()) < 0.2, seed


def test_a_rare_class_is_drawn_among_those_that_the_image_holds() -> None:
    """A list may name twenty rare classes of which an image holds one."""
    mask = np.zeros((360, 480), np.uint8)
    mask[100:104, 30:34] = 9
    example, rare = Example(np.zeros((360, 480, 3), np.uint8), mask), tuple(range(9, 29))
    draws = [np.random.default_rng(seed) for seed in range(60)]
    calm = replace(CALM, rare_focus=1.0, scale=(1.0, 1.0), aspect=1.0, rotate_deg=0.0)
    crops = [augment(example, example, (128, 160), calm, rng, rare=rare, fill=0).mask for rng in draws]
    assert all((crop == 9).any() for crop in crops)
    empty = Example(example.image, np.zeros_like(mask))
    assert all((paste_rare(empty, example, rare, rng).mask == 9).any() for rng in draws)
    assert paste_rare(example, empty, rare, draws[0]) is example
    crops = [augment(empty, empty, (128, 160), calm, rng, rare=rare, fill=0).mask for rng in draws]
    assert not any(crop.any() for crop in crops)


@pytest.mark.parametrize("size", [(64, 96), (63, 95)], ids=str)
def test_a_mirror_image_is_the_image_from_right_to_left(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (*size, 3)).astype(np.uint8)
    example = Example(image, rng.integers(0, 11, size).astype(np.uint8))
    plain = replace(CALM, scale=(1.0, 1.0), aspect=1.0, rotate_deg=0.0, rare_focus=0.0)
    for flip, step in ((1.0, -1), (0.0, 1)):
        drawn = augment(example, example, size, replace(plain, flip=flip), rng, rare=(), fill=11)
        np.testing.assert_array_equal(drawn.mask, example.mask[:, ::step])
        np.testing.assert_array_equal(drawn.image, image[:, ::step])


def test_crops_reach_to_the_edges_of_the_image_and_not_beyond() -> None:
    mask = np.arange(96, dtype=np.uint8) * np.ones((64, 1), np.uint8)
    example = Example(np.zeros((64, 96, 3), np.uint8), mask)
    plain = replace(CALM, scale=(1.0, 1.0), aspect=1.0, rotate_deg=0.0, rare_focus=0.0, flip=0.0)
    crops = [
        augment(example, example, (32, 48), plain, np.random.default_rng(seed), rare=(), fill=255).mask
        for seed in range(60)
    ]
    assert (min(crop.min() for crop in crops), max(crop.max() for crop in crops)) == (0, 95)


def test_batches_depend_on_seed_epoch_and_index_alone() -> None:
    pairs = [coded_pair(seed)[:2] for seed in range(5)]

    def batches(seed: int) -> TrainingBatches:
        return TrainingBatches(
            pairs, size=(64, 64), batch_size=2, seed=seed, augmentation=Augmentation(), rare=(2,), fill=11
        )

    first, again = batches(1).batch(3, 1), batches(1).stream(3)
    next(again)
    for ours, theirs in zip(first, next(again), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(next(again)[0], batches(1).batch(4, 0)[0])  # two batches of 2 from 5 pairs an epoch
    assert not np.array_equal(batches(2).batch(3, 1)[0], first[0])
    frames, masks = first
    assert (frames.dtype, masks.dtype) == (np.float32, np.uint8)
    assert -1.0 <= frames.min() < frames.max() <= 1.0


def test_batches_show_a_large_picture_as_the_network_sees_it() -> None:
    small = coded_pair(3)
    large = tuple(cv2.resize(array, (480, 360), interpolation=cv2.INTER_NEAREST) for array in small[:2])
    crops = [
        TrainingBatches([pair], size=(64, 64), batch_size=1, seed=1, augmentation=CALM, fill=11, view=(90, 120)).batch(
            0, 0
        )[1]
        for pair in (small[:2], large)
    ]
    assert (crops[0] == crops[1]).mean() > 0.9
