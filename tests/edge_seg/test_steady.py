"""Flicker and smoothing, on class ids whose every change was planted."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edge_seg.steady import Flicker

SIZE = (96, 128)


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
