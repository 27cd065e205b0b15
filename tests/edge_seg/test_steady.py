"""Flicker and smoothing, on class ids whose every change was planted."""

from __future__ import annotations

import time
import tracemalloc

import cv2
import numpy as np
import pytest

from edge_seg.errors import ConfigurationError
from edge_seg.predict import PredictOptions
from edge_seg.steady import Flicker, Smoother

SIZE = (96, 128)


def texture(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W, 3) uint8, blots of a few pixels: something motion can be seen by."""
    noise = np.random.default_rng(seed).normal(size=(*size, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.clip(128 + 45 * soft / soft.std(), 0, 255).astype(np.uint8)


def blocks(size: tuple[int, int] = SIZE) -> np.ndarray:
    """Class ids (H, W) uint8 in blocks of 32 pixels."""
    rows, columns = np.indices(size) // 32
    return ((rows * 5 + columns) % 7).astype(np.uint8)


def test_flicker_is_the_mean_share_of_pixels_that_change() -> None:
    meter = Flicker()
    labels = np.zeros((10, 10), np.uint8)
    meter.add(labels)
    assert meter.share is None
    for changed in (10, 0, 30, 4):
        labels = labels.copy()
        labels.ravel()[:changed] += 1
        meter.add(labels)
    assert meter.share == pytest.approx((0.10 + 0 + 0.30 + 0.04) / 4)


def test_flicker_begins_anew_at_another_size() -> None:
    meter = Flicker()
    for size in ((4, 4), (8, 8)):
        meter.add(np.zeros(size, np.uint8))
        meter.add(np.ones(size, np.uint8))
    assert meter.share == 1.0, "two pairs, each changed throughout; none across the sizes"


def test_flicker_costs_next_to_nothing() -> None:
    meter, frames = Flicker(), [np.full((352, 480), number % 12, np.uint8) for number in range(30)]
    times = []
    for labels in frames:
        started = time.perf_counter()
        meter.add(labels)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.0003, "0.015 ms on a busy machine"


@pytest.mark.parametrize(("hold", "held_until"), [(1, 10), (2, 11), (3, 12), (5, 14)])
def test_a_class_is_held_for_as_long_as_asked_and_not_longer(hold: int, held_until: int) -> None:
    """In a still picture a patch turns from class 1 to 2 at frame 10, for good."""
    smoother, image = Smoother(hold), texture()
    for number in range(20):
        labels = np.full(SIZE, 1, np.uint8)
        if number >= 10:
            labels[30:60, 40:80] = 2
        shown = smoother(labels, image)
        expected = 1 if number < held_until else 2
        assert np.all(shown[30:60, 40:80] == expected), number
        assert np.all(shown[:30] == 1)


@pytest.mark.parametrize("length", [1, 2])
def test_a_blink_is_not_shown_a_second_time_either(length: int) -> None:
    smoother, image = Smoother(3), texture()
    for number in range(40):
        labels = np.full(SIZE, 1, np.uint8)
        if number % 8 >= 8 - length:
            labels[30:60, 40:80] = 2
        assert np.all(smoother(labels, image) == 1), number


def test_what_moves_is_not_held_back() -> None:
    """Picture and true classes move by 3 and 2 pixels a frame: where nothing is wrong, nothing changes."""
    smoother, image, labels = Smoother(5), texture(size=(256, 256)), blocks((256, 256))
    for number in range(20):
        down, right = 2 * number, 3 * number
        part = np.s_[down : down + SIZE[0], right : right + SIZE[1]]
        shown = smoother(labels[part], image[part])
        assert np.mean(shown != labels[part]) < 0.01, number


def test_noise_goes_while_the_picture_moves() -> None:
    random = np.random.default_rng(5)
    smoother, image, labels = Smoother(3), texture(size=(256, 256)), blocks((256, 256))
    raw, steady, wrong = Flicker(), Flicker(), []
    for number in range(30):
        part = np.s_[number : number + SIZE[0], 2 * number : 2 * number + SIZE[1]]
        noisy = np.where(random.random(SIZE) < 0.1, 9, labels[part]).astype(np.uint8)
        shown = smoother(noisy, image[part])
        raw.add(noisy)
        steady.add(shown)
        wrong.append(np.mean(shown != labels[part]))
    assert raw.share is not None
    assert steady.share is not None
    assert np.mean(wrong[5:]) < 0.03, "of 0.1"
    assert steady.share < 0.6 * raw.share


def test_a_cut_begins_anew() -> None:
    smoother = Smoother(200)
    for scene in range(3):
        labels = np.roll(blocks(), 7 * scene, axis=1)
        for _ in range(5):
            assert np.array_equal(smoother(labels, texture(scene)), labels)


def test_what_appears_is_shown_at_once() -> None:
    smoother, image = Smoother(200), texture()
    labels = np.zeros(SIZE, np.uint8)
    for _ in range(5):
        smoother(labels, image)
    image, labels = image.copy(), labels.copy()
    image[30:70, 40:90] = 255 - image[30:70, 40:90] // 4
    labels[30:70, 40:90] = 8
    shown = smoother(labels, image)
    assert np.mean(shown[34:66, 44:86] == 8) > 0.95


def test_another_size_begins_anew() -> None:
    smoother = Smoother(50)
    for size in ((96, 128), (64, 64), (31, 45), (1, 1), (96, 128)):
        labels = blocks(size)
        for _ in range(2):
            assert np.array_equal(smoother(labels, texture(1, size)), labels)


def test_what_is_given_stays_and_what_comes_back_is_the_callers() -> None:
    smoother, images = Smoother(3), [texture(0), texture(1)]
    labels = [blocks(), blocks()[::-1].copy()]
    kept = [array.copy() for array in (*images, *labels)]
    for number in range(6):
        shown = smoother(labels[number % 2], images[number % 2])
        assert not any(np.shares_memory(shown, array) for array in labels)
        before = shown.copy()
        smoother(labels[0], images[0])
        assert np.array_equal(shown, before)
    assert all(np.array_equal(*pair) for pair in zip((*images, *labels), kept, strict=True))


def test_smoothing_costs_little_and_its_memory_stays() -> None:
    smoother, image, labels = Smoother(3), texture(size=(352, 480)), blocks((352, 480))
    times, sizes = [], []
    tracemalloc.start()
    try:
        for _ in range(40):
            started = time.perf_counter()
            smoother(labels, image)
            times.append(time.perf_counter() - started)
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert min(times) < 0.01, "1.5 ms on a busy machine"
    assert sizes[-1] < sizes[4] + 100_000


@pytest.mark.parametrize("hold", [0, -1, 256])
def test_impossible_holds(hold: int) -> None:
    for wrong in (lambda: Smoother(hold), lambda: PredictOptions(hold=hold)):
        with pytest.raises(ConfigurationError, match="from 1, which changes nothing, to 255"):
            wrong()
