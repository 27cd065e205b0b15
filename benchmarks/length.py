"""What `growth` needs for clips of any length: a clip, looped, and the memory of the process that runs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from .environment import resident_mb

# Memory samples kept of a long run: at least this many, at most twice as many.
KEPT_SAMPLES = 120
SAMPLE_S = 0.25


def loop_clip(clip: Path, minutes: float, target: Path, *, fps: float | None = None) -> None:
    """Write the clip repeated to about so many minutes: packets are copied, nothing is encoded.

    `fps` changes the frame rate; the clip's own must be constant.
    """
    with av.open(str(clip)) as source, av.open(str(target), "w") as out:
        video = source.streams.video[0]
        stream = out.add_stream_from_template(video)
        assert video.time_base is not None
        packets = [packet for packet in source.demux(video) if packet.size]
        # Muxing rescales a packet's times to the new stream's time base, so each round sets all of them again.
        base = video.time_base
        if fps is not None and video.average_rate is not None:
            base *= video.average_rate / Fraction(fps).limit_denominator(1000)
        times = [(packet.pts or 0, packet.dts or 0, packet.duration or 0) for packet in packets]
        step = max(pts + duration for pts, _, duration in times) - min(pts for pts, _, _ in times)
        rounds = max(1, round(minutes * 60 / float(step * base)))
        for number in range(rounds):
            for packet, (pts, dts, duration) in zip(packets, times, strict=True):
                packet.pts, packet.dts, packet.duration = pts + number * step, dts + number * step, duration
                packet.time_base = base
                packet.stream = stream
                out.mux(packet)


class MemoryWatch:
    """Samples this process' resident memory on a thread of its own, within a `with` block."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._began = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            now = resident_mb()
            if now is not None:
                self.samples.append((time.perf_counter() - self._began, now))


def growth_of_memory(samples: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Largest resident memory early (a quarter of the run) and in the last quarter, in MB, and some samples (s, MB).

    The early quarter begins after the first tenth, in which buffers are allocated.
    """
    if len(samples) < 4:
        return {"early_mb": None, "late_mb": None, "samples": [list(sample) for sample in samples]}
    values = [value for _, value in samples]
    first, quarter = len(values) // 10, max(1, len(values) // 4)
    every = max(1, len(samples) // KEPT_SAMPLES)
    return {
        "early_mb": max(values[first : first + quarter]),
        "late_mb": max(values[-quarter:]),
        "samples": [[round(seconds, 2), round(value, 1)] for seconds, value in samples[::every]],
    }
