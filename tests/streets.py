"""Rendered streets, drawn once in a process: benchmarks and exports ask for the same ones again and again, and drawing
them takes longer than all else that their tests do."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from train.scenes import Scene, render


@lru_cache(maxsize=128)
def _drawn(scene: Scene, time_s: float, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return render(scene, time_s=time_s, height=height, width=width)


def drawn(scene: Scene, *, time_s: float = 0.0, height: int = 360, width: int = 480) -> tuple[np.ndarray, np.ndarray]:
    """What `render` gives, which is the same bytes each time."""
    frame, labels = _drawn(scene, time_s, height, width)
    return frame.copy(), labels.copy()


@pytest.fixture(autouse=True)
def streets_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a conftest to import."""
    monkeypatch.setattr("train.scenes.render", drawn)
