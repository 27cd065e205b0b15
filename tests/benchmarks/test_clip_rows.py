"""What the answers of a worker about one clip become: the row of the measurement from end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import runners
from benchmarks.clips import NaiveLoop
from benchmarks.pipeline import describe_clip, measure_clip
from benchmarks.rows import ClipRow
from benchmarks.settings import Settings
from tests.edge_seg.clips import make_clip

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
            return {"cpu_ms": {"decode": 10.0, "inference": 40.0}, "all_cpu_s": 1.0}
        stage_ms = {"inference": 50.0}
        return {"frames": request["limit"], "seconds": 2.0, "stage_ms": stage_ms, "peak_mb": peak, "all_cpu_s": 2.0}


def measure(worker: GrowingWorker, folder: Path) -> tuple[list[ClipRow], float | None]:
    return measure_clip(
        Settings(run=folder, models=(), clip=folder / "c.mp4", clip_frames=80, clip_repeats=3),
        [fake_contender("tiny")],
        folder,
        say=lambda text: None,
        start=lambda name: nullcontext(worker),  # type: ignore[arg-type, return-value]
    )


def test_memory_is_that_of_the_first_clip_alone(tmp_path: Path) -> None:
    worker = GrowingWorker()
    (row,), _ = measure(worker, tmp_path)
    assert worker.asked == ["open-clip", *["clip", "stages"] * 3]
    assert row.peak_mb == 300, "not what running stages alone, or repeating the clip, took besides"
    assert (row.frames, row.frames_per_s) == (80, pytest.approx(40.0))
    assert row.alone_cpu_ms == {"decode": 10.0, "inference": 40.0}


def test_other_programs_beside_the_clip_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker tells of 9 s of CPU time; the machine spent 10 s at first and 9 s then."""
    clock = iter((0.0, 10.0, 10.0, 20.0))
    monkeypatch.setattr("benchmarks.environment.time.perf_counter", lambda: next(clock))
    machine = iter((100.0, 110.0, 200.0, 209.0))
    monkeypatch.setattr("benchmarks.environment.busy_core_s", lambda: next(machine))
    monkeypatch.setattr("benchmarks.environment.time.process_time", lambda: 5.0)
    _, others = measure(GrowingWorker(), tmp_path)
    assert others == pytest.approx(0.1)
    _, others = measure(GrowingWorker(), tmp_path)
    assert others == 0.0


def test_frames_are_counted_where_a_clip_does_not_say_how_many_it_has(tmp_path: Path) -> None:
    """As 0 they would make clips cut at different lengths alike, and `compare` take them for one another."""
    clip = make_clip(tmp_path / "clip.mkv", count=9)
    assert [describe_clip(clip, limit)["frames"] for limit in (None, 4, 50)] == [9, 4, 9]


def test_the_naive_loop_has_a_colour_for_each_class_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of CamVid's twelve alone, a thirteenth class found none, and the loop failed."""

    class Network:
        def predict(self, frames: np.ndarray, verbose: int) -> np.ndarray:
            return np.broadcast_to(np.arange(15) == 14, (*frames.shape[:3], 15))

    names = [f"class {index}" for index in range(15)]
    (tmp_path / "config.json").write_text(json.dumps({"classes": names, "unlabelled": None}))
    monkeypatch.setattr(runners, "keras_model", lambda contender: Network())
    loop = NaiveLoop(replace(fake_contender("tiny"), path=str(tmp_path)))
    answer = loop.run(make_clip(tmp_path / "clip.mp4", count=3), None, tmp_path / "overlay.mp4")
    assert answer["frames"] == 3
