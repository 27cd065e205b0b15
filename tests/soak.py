"""Clips in a loop beside a camera that keeps breaking off, in one process, whose memory, descriptors and threads are
written down: soak.py MODEL CLIP ADDRESS SECONDS FOLDER [leak] -> a line of JSON

`leak` plants 2 MB, a descriptor and a thread a clip, to show that the looking finds them.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

WARM_UP = 0.3  # share of the time after which nothing may grow
GROWTH_MB = 20.0
Sample = tuple[float, int, int]  # resident MB, descriptors, threads


def measure() -> Sample:
    """This process now."""
    resident = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert resident is not None
    return int(resident[1]) / 1024, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def settled(before: Sample, patience_s: float = 30.0) -> Sample:
    """This process with no more descriptors and threads than before; a connection's reader ends with its read."""
    deadline = time.monotonic() + patience_s
    while True:
        now = measure()
        if (now[1] <= before[1] and now[2] <= before[2]) or time.monotonic() > deadline:
            return now
        time.sleep(0.2)


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """How much more there was in the last quarter than in the first one after warming up; medians, since a camera's
    connection comes and goes, and for memory the largest too."""
    rest = samples[int(len(samples) * WARM_UP) :]
    quarter = max(1, len(rest) // 4)
    first, last = rest[:quarter], rest[-quarter:]
    names = ("memory_mb", "descriptors", "threads")
    found = {
        name: statistics.median(sample[place] for sample in last) - statistics.median(sample[place] for sample in first)
        for place, name in enumerate(names)
    }
    found["peak_mb"] = max(sample[0] for sample in rest) - statistics.median(sample[0] for sample in first)
    return {name: round(value, 2) for name, value in found.items()}


def complaints(found: dict[str, float]) -> list[str]:
    """What of a growth is too much."""
    limits = {"memory_mb": GROWTH_MB, "peak_mb": 2 * GROWTH_MB, "descriptors": 2, "threads": 2}
    return [f"{name} grew by {found[name]}" for name, limit in limits.items() if found[name] > limit]


class Nowhere:
    """A sink that counts."""

    def __init__(self) -> None:
        self.frames = 0

    def write(self, frame: Any, labels: np.ndarray, watches: dict[str, Any]) -> None:
        self.frames += 1


def watch_camera(address: str, segmenter: Any) -> tuple[Any, threading.Thread, dict[str, Any]]:
    """A camera through the model until its pipeline is stopped, on a thread of its own."""
    from edge_seg.account import OUTCOMES
    from edge_seg.items import expand_sources
    from edge_seg.pipeline import Pipeline
    from edge_seg.sources import open_item

    told: dict[str, Any] = {}
    source = open_item(expand_sources([address])[0], give_up_s=60.0)
    sink = Nowhere()
    pipeline = Pipeline(source, segmenter, sink)

    def run() -> None:
        with source:
            report = pipeline.run()
        told.update(
            frames=sink.frames,
            dropped=report.frames["dropped"],
            reconnects=source.counts.reconnects,
            error=str(report.error or source.end.reason),
            balanced=report.frames["read"] == sum(report.frames[key] for key in OUTCOMES),
        )

    thread = threading.Thread(target=run)
    thread.start()
    return pipeline, thread, told


def process_clip(clip: Path, folder: Path, segmenter: Any) -> int:
    """One clip to every kind of result, as `predict` does it; returns its frames."""
    from edge_seg.items import expand_sources
    from edge_seg.names import KINDS, plan_outputs
    from edge_seg.predict import PredictOptions, Run
    from edge_seg.progress import Progress
    from edge_seg.records import Records

    items = expand_sources([clip])
    plans = plan_outputs(items, KINDS, folder, folder_asked=True)
    with open(os.devnull, "w") as nowhere:
        run = Run(
            segmenter,
            options=PredictOptions(overwrite=True),
            progress=Progress(nowhere),
            records=Records("soak", lambda *_: {}),
        )
        (report,) = run.process(items, plans)
    assert report.status == "done", report
    # It grows by a line a result, as it should; here the same results are made again and again.
    (folder / ".edge_seg.jsonl").unlink()
    return report.frames["segmented"]


def soak(model: Path, clip: Path, address: str, seconds: float, folder: Path, *, leak: bool) -> dict[str, Any]:
    """Run for so many seconds; what was done, and what it took."""
    from edge_seg import Segmenter

    kept: list[Any] = []
    samples: list[Sample] = []
    clips = frames = 0
    with Segmenter(model, device="cpu") as segmenter:
        # Libraries make pools of threads at the first use and keep them.
        process_clip(clip, folder, segmenter)
        before = measure()
        pipeline, thread, told = watch_camera(address, segmenter)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            frames += process_clip(clip, folder, segmenter)
            clips += 1
            samples.append(measure())
            if leak:
                kept.append((np.ones(2**18), os.open(os.devnull, os.O_RDONLY), threading.Event()))
                threading.Thread(target=kept[-1][2].wait, daemon=True).start()
        pipeline.request_stop()
        thread.join(30)
        after = measure() if leak else settled(before)  # What leaks never settles.
    found = growth(samples)
    return {
        "seconds": seconds,
        "clips": clips,
        "clip_frames": frames,
        "camera": told,
        "growth": found,
        "resident_mb": round(after[0], 1),
        "descriptors": [before[1], after[1]],
        "threads": [before[2], after[2]],
        "complaints": complaints(found),
    }


if __name__ == "__main__":
    given_model, given_clip, given_address, given_seconds, given_folder, *rest = sys.argv[1:]
    print(
        json.dumps(
            soak(
                Path(given_model),
                Path(given_clip),
                given_address,
                float(given_seconds),
                Path(given_folder),
                leak=bool(rest),
            )
        )
    )
