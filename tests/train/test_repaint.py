"""Surfaces repainted by the mask: what changes and what stays, how far, and how many of the crops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from train.augment import IDS, Example, augment
from train.augmentation import Augmentation
from train.repaint import REACH, _blur, repaint

SKY, ROAD, CAR, PAVEMENT, UNLABELLED = (IDS[name] for name in ("sky", "road", "car", "pavement", "unlabelled"))
CALM = Augmentation(light=0.0, lens=0.0, paste=0.0, night=0.0, rare_focus=0.0)


def street() -> tuple[np.ndarray, np.ndarray]:
    """Sky over speckled asphalt with a white kerb beside it, a red car, and a part that no class has."""
    image, mask = np.full((96, 128, 3), 130, np.uint8), np.full((96, 128), SKY, np.uint8)
    grain = np.random.default_rng(0).integers(60, 100, (56, 128, 1))
    image[40:], mask[40:] = grain, ROAD
    image[40:, 96:], mask[40:, 96:] = 250, PAVEMENT
    image[45:60, 20:40], mask[45:60, 20:40] = (40, 40, 140), CAR
    image[80:, :20], mask[80:, :20] = (10, 90, 60), UNLABELLED
    return image, mask


def painted(seed: int) -> np.ndarray:
    return repaint(*street(), IDS, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(20))
def test_a_draw_is_repeatable_and_leaves_alone_what_it_was_given(seed: int) -> None:
    image, mask = street()
    found = repaint(image, mask, IDS, np.random.default_rng(seed))
    assert (found.shape, found.dtype) == (image.shape, np.uint8)
    for given, kept in zip((image, mask), street(), strict=True):
        np.testing.assert_array_equal(given, kept)
    np.testing.assert_array_equal(found, painted(seed))


def test_each_class_goes_its_own_way_and_what_has_none_stays() -> None:
    image, _ = street()
    roads, skies = [], []
    for seed in range(80):
        found = painted(seed)
        np.testing.assert_array_equal(found[86:, :14], image[86:, :14])
        roads.append(found[60:, 50:90].mean() / image[60:, 50:90].mean())
        skies.append(found[5:30].mean() / image[5:30].mean())
    assert min(roads) < 0.6
    assert max(roads) > 1.6, "a pale road"
    assert sum(abs(road - 1.0) < 0.01 for road in roads) > 10, "many stay as they were"
    assert abs(np.corrcoef(roads, skies)[0, 1]) < 0.4


def test_roads_stay_greyer_than_cars() -> None:
    def most_tinted(area: tuple[slice, slice]) -> float:
        image, _ = street()
        ratios = [painted(seed)[area].mean((0, 1)) / image[area].mean((0, 1)) for seed in range(80)]
        return float(max(np.log(ratio.max() / ratio.min()) for ratio in ratios))

    assert REACH["road"][1] < most_tinted((slice(60, 96), slice(50, 90))) < 0.3
    assert most_tinted((slice(48, 57), slice(24, 36))) > 0.3


def test_some_roads_are_smooth_and_nothing_of_their_neighbours_is_on_them() -> None:
    image, _ = street()
    inner = (slice(64, 90), slice(50, 92))
    grains = []
    for seed in range(80):
        found = painted(seed)[inner].astype(np.float32)
        grains.append(found.std() / found.mean() / (image[inner].std() / image[inner].mean()))
        # A blur that crossed the white kerb's edge would brighten the last columns.
        assert abs(found[:, -4:].mean() / found[:, :20].mean() - 1.0) < 0.1
    assert min(grains) < 0.4
    assert np.median(grains) > 0.8


@pytest.mark.parametrize("fill", [SKY, ROAD, UNLABELLED])
@pytest.mark.parametrize("shape", [(1, 1), (32, 64)])
def test_any_picture_goes(fill: int, shape: tuple[int, int]) -> None:
    for level in (0, 255):
        image, mask = np.full((*shape, 3), level, np.uint8), np.full(shape, fill, np.uint8)
        assert repaint(image, mask, IDS, np.random.default_rng(1)).shape == (*shape, 3)


def crop(seed: int, example: Example, options: Augmentation) -> np.ndarray:
    found = augment(example, example, (64, 64), options, np.random.default_rng(seed), rare=(), fill=UNLABELLED)
    return found.image.astype(np.int16)


def test_a_share_of_the_crops_is_repainted() -> None:
    example = Example(*street())
    some, none = (Augmentation(**(vars(CALM) | {"repaint": share})) for share in (0.25, 0.0))
    changed = sum(bool(np.abs(crop(seed, example, some) - crop(seed, example, none)).max() > 3) for seed in range(200))
    assert 25 < changed < 75


def test_where_a_mask_says_nothing_the_teacher_tells_the_classes() -> None:
    image, mask = street()
    opinion, nothing = np.eye(12, dtype=np.uint8)[mask] * np.uint8(255), np.full_like(mask, UNLABELLED)
    options = Augmentation(**(vars(CALM) | {"repaint": 1.0}))
    told, untold = (
        np.mean(
            [
                np.abs(crop(seed, Example(image, nothing, given), options) - crop(seed, Example(image, mask), options))
                for seed in range(12)
            ]
        )
        for given in (opinion, None)
    )
    assert told < 2
    assert untold > 8


@pytest.mark.parametrize("sigma", [1.5, 2.0, 5.0, 8.0])
def test_a_wide_blur_at_half_the_size_is_the_blur_itself(sigma: float) -> None:
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.uniform(0, 255, (121, 90, 3)).astype(np.float32), (0, 0), 1.0)
    wanted = cv2.GaussianBlur(image, (0, 0), sigma)
    found = _blur(image, sigma)
    assert found.shape == wanted.shape
    # By a few levels at the most, of an image that loses eight times as much.
    assert np.abs(found - wanted).mean() < 0.12 * np.abs(image - wanted).mean()
