"""`python -m benchmarks.worker`: the worker's end of the pipe, one contender in a process of its own.

One line of JSON in, one line of JSON out; in between, it is blocked on the pipe and computes nothing. Knows nothing of
other contenders, repeats or statistics.

    {"op": "load", "contender": {...}, "batch": N, "frames": "frames.npy"}  -> {"ok": true, "detail": "...",
                                                                                         "arithmetic": "fp32"}
    {"op": "time", "calls": N}       -> {"ok": true, "seconds": [...], "cpu_s": ..., "all_cpu_s": ..., "idle_s": ...,
                                         "idle_cpu_s": ...}   wall and CPU time of the calls, and of the wait before
    {"op": "label", "to": "x.npy"}   -> {"ok": true}            labels of all frames, (N, H, W) uint8
    {"op": "open-clip", "contender": {...}, "batch": N}                 -> {"ok": true}
    {"op": "clip", "clip": "in.mp4", "limit": N, "target": "out.mp4"}   -> {"ok": true, "frames": N, "seconds": ...,
                                                                            "all_cpu_s": ...}
    {"op": "stages", "clip": "in.mp4", "limit": N, "target": "out.mp4"} -> {"ok": true, "cpu_ms": {"decode": ..., ...},
                                                                            "all_cpu_s": ...}
    {"op": "length", "clip": "in.mp4", "target": "out.jsonl", "stride": N}  -> as "clip", and memory: early_mb, late_mb
    {"op": "limits", "seconds": S, "side": N, "memory_mb": N}  -> {"ok": true, ...}   see `limits.measure_limits`
    {"op": "operations", "path": "x.onnx", "size": [H, W]}     -> {"ok": true, "layers": [[name, macs, weights], ...]}
    {"op": "gpu-limits"}, {"op": "decode", "clip": "in.mp4"}   -> {"ok": true, ...}   see `cuda_peer`
    {"op": "memory"}                 -> {"ok": true, "peak_mb": ...}
    anything that goes wrong         -> {"ok": false, "error": "one line", "kind": "class of the error"}

The process ends when its input does, so that no worker outlives the process that started it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from .cases import Contender
from .environment import peak_memory_mb

if TYPE_CHECKING:
    from .peers import Predict

# After a call a runtime's threads spin for a moment before they sleep; the answer waits until they do.
SETTLE_S = 0.05


class Server:
    """Answers the requests to one worker."""

    def __init__(self) -> None:
        self._predict: Predict | None = None
        self._clips: Any = None  # a `clips.PipelineRunner`, or a `NaiveLoop`, which can only `run`
        self._frames = np.empty((0, 0, 0, 3), np.uint8)
        self._batch = 1
        self._next = 0
        self._idle_since = (time.perf_counter(), time.process_time())
        self._cpu_told = 0.0

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request; an error becomes an answer too."""
        handlers: dict[str, Callable[..., dict[str, Any]]]
        handlers = {
            "load": self._load,
            "time": self._time,
            "label": self._label,
            "memory": _memory,
            "limits": _limits,
            "operations": _operations,
            "gpu-limits": _gpu_limits,
            "decode": _decode,
            "open-clip": self._open_clip,
            "clip": self._clip,
            "stages": self._stages,
            "length": self._length,
        }
        arguments = {key: value for key, value in request.items() if key != "op"}
        try:
            answer = {"ok": True, **handlers[request["op"]](**arguments)}
        except Exception as error:
            answer = {"ok": False, "error": one_line(error), "kind": type(error).__name__}
        time.sleep(SETTLE_S)
        self._idle_since = (time.perf_counter(), time.process_time())
        return answer

    def _load(self, contender: dict[str, Any], batch: int, frames: str) -> dict[str, Any]:
        from .runners import build

        self._frames, self._batch = np.load(frames), batch
        self._predict, detail, arithmetic = build(Contender.from_dict(contender), batch)
        return {"detail": detail, "arithmetic": arithmetic}

    def _time(self, calls: int) -> dict[str, Any]:
        idle_s = time.perf_counter() - self._idle_since[0]
        idle_cpu_s = time.process_time() - self._idle_since[1]
        cpu_before = time.process_time()
        seconds = []
        for _ in range(calls):
            batch = self._next_batch()
            start = time.perf_counter()
            self._call(batch)
            seconds.append(time.perf_counter() - start)
        cpu_s = time.process_time() - cpu_before
        idle = {"idle_s": idle_s, "idle_cpu_s": idle_cpu_s}
        return {"seconds": seconds, "cpu_s": cpu_s, "all_cpu_s": self._all_cpu_s(), **idle}

    def _label(self, to: str) -> dict[str, Any]:
        count, labels = len(self._frames), []
        for start in range(0, count, self._batch):
            picked = np.arange(start, start + self._batch).clip(max=count - 1)
            labels.append(self._call(self._frames[picked])[: count - start])
        np.save(to, np.concatenate(labels))
        # CPU time is reported from here on, for the turns alone.
        self._cpu_told = time.process_time()
        return {}

    def _open_clip(self, contender: dict[str, Any], batch: int) -> dict[str, Any]:
        from .clips import clip_runner

        self._clips = clip_runner(Contender.from_dict(contender), batch)
        self._cpu_told = time.process_time()
        return {}

    def _clip(self, clip: str, limit: int | None, target: str) -> dict[str, Any]:
        return {**self._opened().run(Path(clip), limit, Path(target)), "all_cpu_s": self._all_cpu_s()}

    def _stages(self, clip: str, limit: int | None, target: str) -> dict[str, Any]:
        return {"cpu_ms": self._opened().alone(Path(clip), limit, Path(target)), "all_cpu_s": self._all_cpu_s()}

    def _length(self, clip: str, target: str, stride: int) -> dict[str, Any]:
        from .length import MemoryWatch, growth_of_memory

        with MemoryWatch() as watch:
            answer = self._opened().run(Path(clip), None, Path(target), kind="jsonl", stride=stride)
        return {**answer, **growth_of_memory(watch.samples)}

    def _opened(self) -> Any:
        if self._clips is None:
            raise RuntimeError("no contender has been opened for clips")
        return self._clips

    def _all_cpu_s(self) -> float:
        """CPU time of this process that was not told yet, waiting and all."""
        before, self._cpu_told = self._cpu_told, time.process_time()
        return self._cpu_told - before

    def _next_batch(self) -> np.ndarray:
        picked = np.arange(self._next, self._next + self._batch) % len(self._frames)
        self._next = (self._next + self._batch) % len(self._frames)
        return self._frames[picked]

    def _call(self, batch: np.ndarray) -> np.ndarray:
        if self._predict is None:
            raise RuntimeError("no contender has been loaded")
        return self._predict(batch)


def _memory() -> dict[str, Any]:
    return {"peak_mb": peak_memory_mb()}


def _limits(**extent: Any) -> dict[str, Any]:
    from .limits import measure_limits

    return measure_limits(**extent)


def _operations(path: str, size: list[int]) -> dict[str, Any]:
    from .operations import count_operations

    height, width = size
    return {"layers": [(layer.name, layer.macs, layer.weights) for layer in count_operations(path, (height, width))]}


def _gpu_limits() -> dict[str, Any]:
    from .cuda_peer import gpu_limits

    return gpu_limits()


def _decode(clip: str) -> dict[str, Any]:
    from .cuda_peer import decode_speed

    return decode_speed(clip)


def one_line(error: BaseException) -> str:
    """An error as one line: the first line of its text, after its class unless it is one of edge_seg's."""
    text = str(error).strip().splitlines()
    named = f"{type(error).__name__}: " if not type(error).__module__.startswith("edge_seg") else ""
    return named + (text[0] if text else "no message")


def main() -> None:
    """Serve standard input until it ends."""
    # Native libraries print to descriptor 1: redirect it to standard error, and send answers through a duplicate.
    answers: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    server = Server()
    for line in sys.stdin:
        answers.write(json.dumps(server.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
