"""What the answers of a worker about one clip become: the row of the measurement from end to end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pipeline import measure_clip
from benchmarks.settings import Settings

from .conftest import fake_contender


class GrowingWorker:
    """Every clip and every look at the stages takes 100 MB more than all before."""

    def __init__(self) -> None:
        self._peaks: Iterator[float] = iter(range(300, 9999, 100))
        self.asked: list[str] = []

    def ask(self, what: str, **request: Any) -> dict[str, Any]:
        self.asked.append(what)
        if what == "open-clip":
            return {}
        peak = next(self._peaks)
        if what == "stages":
            return {"cpu_ms": {"decode": 10.0, "inference": 40.0}}
        return {"frames": request["limit"], "seconds": 2.0, "stage_ms": {"inference": 50.0}, "peak_mb": peak}


def test_memory_is_that_of_the_first_clip_alone(tmp_path: Path) -> None:
    worker = GrowingWorker()
    settings = Settings(run=tmp_path, models=(), clip=tmp_path / "c.mp4", clip_frames=80, clip_repeats=3)
    (row,) = measure_clip(
        settings,
        [fake_contender("tiny")],
        tmp_path,
        say=lambda text: None,
        start=lambda name: nullcontext(worker),  # type: ignore[arg-type, return-value]
    )
    assert worker.asked == ["open-clip", *["clip", "stages"] * 3]
    assert row.peak_mb == 300, "not what running stages alone, or repeating the clip, took besides"
    assert (row.frames, row.frames_per_s) == (80, pytest.approx(40.0))
    assert row.alone_cpu_ms == {"decode": 10.0, "inference": 40.0}
