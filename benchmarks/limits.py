"""The machine's limits: peak operations a second in fp32, bf16 and int8, and memory bandwidth.

Knows a few libraries that multiply fast; nothing of networks. Each figure is the best of several calls, since a peak is
what was reached once, and names the library that reached it, or the reason why there is none. Meant to run in a process
of its own (`worker`'s "limits").
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from edge_seg.opencv import cv2
from edge_seg.phrases import first_line
from edge_seg.threads import available_threads

from . import environment, probes
from .probes import Probe

SIDE = 2048
# Size of each of three arrays: several times the last-level caches, but never much of the machine's memory.
MEMORY_MB, CACHES, MEMORY_SHARE = 192, 4, 1 / 16
PROBES: dict[str, tuple[Callable[[int], Probe], ...]] = {
    "fp32": (
        probes.numpy_product,
        probes.ort_product,
        probes.ort_convolution,
        probes.openvino_convolution,
        probes.torch_product,
    ),
    "bf16": (probes.openvino_bf16, probes.torch_bf16),
    "int8": (probes.ort_integer_product, probes.ort_quantized, probes.openvino_quantized),
}


def measure_limits(*, seconds: float = 1.0, side: int = SIDE, memory_mb: int | None = None) -> dict[str, Any]:
    """Peaks and bandwidth as plain JSON types.

    Args:
        seconds: how long each library is tried.
        side: rows of the square matrices.
        memory_mb: size of each array in memory; `array_mb` if None.

    Returns:
        {"peaks": {arithmetic: {"gflops", "library", "what", "tried": [...], "reason"}}, "bandwidth": {...}}; without
        such units or a library, `gflops` is None and `reason` a line.
    """
    peaks = {name: measure_peak(makers, seconds, side) for name, makers in PROBES.items()}
    return {
        "threads": available_threads(),
        "peaks": peaks,
        "bandwidth": measure_bandwidth(seconds, memory_mb or array_mb()),
    }


def array_mb() -> int:
    """MB of each array for measuring bandwidth, so large that no cache holds much of it."""
    wanted = max(MEMORY_MB, math.ceil(CACHES * environment.last_cache_mb()))
    most = int((environment.memory_mb() or 0) * MEMORY_SHARE)
    return max(MEMORY_MB, min(wanted, most))


def measure_peak(makers: Sequence[Callable[[int], Probe]], seconds: float, side: int) -> dict[str, Any]:
    """One arithmetic's peak over all libraries that work; keeps the figure, or the reason for none, of each."""
    tried: list[dict[str, Any]] = []
    for make in makers:
        try:
            library, what, operations, call = make(side)
            tried.append({"library": library, "what": what, "gflops": 1e-9 * operations / best_s(call, seconds)})
        except Exception as error:
            name = make.__name__.replace("_", " ")
            tried.append({"library": name, "what": "", "gflops": None, "reason": first_line(error)})
    done = [one for one in tried if one["gflops"] is not None]
    if not done:
        reason = "; ".join(f"{one['library']}: {one['reason']}" for one in tried)
        return {"gflops": None, "library": "", "what": "", "reason": reason, "tried": tried}
    best = max(done, key=lambda one: one["gflops"])
    return {**best, "reason": "", "tried": tried}


def best_s(call: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest of at least three calls, repeated for at least `seconds`, after one warm-up call."""
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def measure_bandwidth(seconds: float, memory_mb: int) -> dict[str, Any]:
    """GB/s over all threads of a read, a copy and a triad (a = b + s * c), counting bytes read and written."""
    threads = available_threads()
    count = memory_mb * 2**20 // 4 // threads
    parts = [tuple(np.full((count // 1024, 1024), value, np.float32) for value in (1, 2, 3)) for _ in range(threads)]
    size = 1e-9 * sum(part[0].nbytes for part in parts)
    ways: dict[str, tuple[int, Callable[[Any], object]]] = {
        "read": (1, lambda part: cv2.norm(part[0], cv2.NORM_INF)),
        "copy": (2, lambda part: np.copyto(part[0], part[1])),
        "triad": (3, lambda part: cv2.scaleAdd(part[2], 0.5, part[1], part[0])),
    }
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the pool already runs one call on each thread
    try:
        with ThreadPoolExecutor(threads) as pool:
            found = {
                f"{name}_gb_s": times * size / best_s(lambda work=work: list(pool.map(work, parts)), seconds)  # type: ignore[misc]
                for name, (times, work) in ways.items()
            }
    finally:
        cv2.setNumThreads(before)
    best = max(found.values())
    return {**found, "best_gb_s": best, "array_mb": memory_mb}
