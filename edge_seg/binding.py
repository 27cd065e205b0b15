"""Runs on an NVIDIA GPU through reused buffers: page-locked on the host, fixed on the device, one set per concurrent
run.

A run copies its batch into a set's host buffer, from there to the device, and the outputs back; while one run copies,
another may compute on its own set. A captured graph replays fixed addresses, so it has one set; onnxruntime ties it to
the thread that captured it, so it also has one thread. Knows nothing about sources or files.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple

import numpy as np

from .nvidia import page_locked

_Args = TypeVarTuple("_Args")
_Returned = TypeVar("_Returned")
# onnxruntime's names of tensor types -> numpy's.
_TYPES = {"tensor(uint8)": np.uint8, "tensor(float16)": np.float16, "tensor(float)": np.float32}


@dataclass(frozen=True, kw_only=True)
class _Set:
    """The buffers of one run: page-locked on the host (None where there is no such memory), and on the device."""

    host: np.ndarray | None
    device: Any
    outputs: dict[str, Any]
    binding: Any


class _Thread:
    """A single thread that runs the calls it is given, in order, and ends with its owner.

    Not an executor: that accepts no work once the main thread has ended, and its shutdown would wait for a hung device.
    """

    def __init__(self) -> None:
        jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._jobs = jobs
        threading.Thread(target=_work, args=(jobs,), name="edge_seg graph", daemon=True).start()
        weakref.finalize(self, jobs.put, None).atexit = False

    def call(self, function: Callable[[*_Args], _Returned], *args: *_Args) -> _Returned:
        """Call the function on the thread; return or raise what it does."""
        done: Future[_Returned] = Future()
        self._jobs.put((done, function, args))
        try:
            return done.result()
        finally:
            # An error's traceback holds this stack frame; through `done` it would keep itself and the session alive.
            del done


def _work(jobs: queue.SimpleQueue[Any]) -> None:
    while (job := jobs.get()) is not None:
        done, function, args = job
        try:
            done.set_result(function(*args))
        except BaseException as error:
            done.set_exception(error)
        # Keep nothing of this job alive while waiting for the next one.
        del job, done, function, args


class BoundRuns:
    """Runs of one session at one batch shape. Threads may share it; each run waits for a free set of buffers.

    Args:
        ort: the onnxruntime module.
        inner: its session, on CUDA or TensorRT.
        index: number of the GPU.
        shape: (N, H, W, 3) of the frames.
        sets: how many runs may be under way at once, each with its own set of buffers.
        captured: whether the session replays a captured graph: one set, one frame, and no other way to run it.
    """

    def __init__(
        self,
        ort: Any,
        inner: Any,
        *,
        index: int,
        shape: tuple[int, int, int, int],
        sets: int,
        captured: bool,
    ) -> None:
        self.shape, self.sets, self.captured = shape, sets, captured
        self._ort, self._inner, self._index = ort, inner, index
        self._thread = _Thread() if captured else None
        self._free: queue.Queue[_Set] = queue.Queue()
        for _ in range(sets):
            self._free.put(self._make_set())

    def run(self, names: list[str], batch: np.ndarray) -> list[np.ndarray]:
        """The named outputs, as new arrays, for a batch of `shape`."""
        if self._thread is not None:
            return self._thread.call(self._run, names, batch)
        return self._run(names, batch)

    def _run(self, names: list[str], batch: np.ndarray) -> list[np.ndarray]:
        buffers = self._free.get()
        try:
            self._upload(buffers, batch)
            self._inner.run_with_iobinding(buffers.binding)
            return [buffers.outputs[name].numpy() for name in names]
        finally:
            self._free.put(buffers)

    def _upload(self, buffers: _Set, batch: np.ndarray) -> None:
        if buffers.host is not None:
            np.copyto(buffers.host, batch)
            batch = buffers.host
        buffers.device.update_inplace(batch)

    def _make_set(self) -> _Set:
        device = self._on_device(self.shape, np.uint8)
        outputs = {item.name: self._on_device(self.shape[:3], _TYPES[item.type]) for item in self._inner.get_outputs()}
        binding = self._inner.io_binding()
        binding.bind_ortvalue_input("frames", device)
        for name, output in outputs.items():
            binding.bind_ortvalue_output(name, output)
        return _Set(host=page_locked(self.shape), device=device, outputs=outputs, binding=binding)

    def _on_device(self, shape: tuple[int, ...], kind: Any) -> Any:
        return self._ort.OrtValue.ortvalue_from_shape_and_type(shape, kind, "cuda", self._index)
