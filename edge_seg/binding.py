"""Runs on an NVIDIA GPU through buffers that stay: page-locked on the host, fixed on the device, a set for each run at
once.

A run copies its batch into a set's host buffer, from there to the device, and the labels back; while one run copies,
another may compute on its own set. A captured graph replays addresses, so it has one set. Follows the documentation
and has been tried against a fake only. Knows no pictures and no files.
"""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import Any

import numpy as np

from .devices import CUDA_PROVIDER

# onnxruntime's names of tensor types -> numpy's.
_TYPES = {"tensor(uint8)": np.uint8, "tensor(float16)": np.float16, "tensor(float)": np.float32}


@dataclass(frozen=True, kw_only=True)
class _Set:
    """The buffers of one run: page-locked on the host (None where there is no such memory), and on the device."""

    host: Any
    device: Any
    outputs: dict[str, Any]
    binding: Any


class BoundRuns:
    """Runs of one session at one shape. Threads share it; each run waits for a free set of buffers.

    Args:
        ort: the onnxruntime module.
        inner: its session, on CUDA or TensorRT.
        index: number of the GPU.
        shape: (N, H, W, 3) of the frames.
        sets: runs at once.
        captured: the session replays a captured graph: one set, one frame, and no other way to run it.
    """

    def __init__(
        self,
        ort: Any,
        inner: Any,
        *,
        index: int,
        shape: tuple[int, int, int, int],
        sets: int,
        captured: bool = False,
    ) -> None:
        self.shape, self.sets, self.captured = shape, sets, captured
        self._ort, self._inner, self._index = ort, inner, index
        self._free: queue.Queue[_Set] = queue.Queue()
        pinned = pinned_memory(ort, index)
        for _ in range(sets):
            self._free.put(self._make_set(pinned))

    def run(self, names: list[str], batch: np.ndarray) -> list[np.ndarray]:
        """The named outputs for a batch of the one shape; new arrays."""
        buffers = self._free.get()
        try:
            self._upload(buffers, batch)
            self._inner.run_with_iobinding(buffers.binding)
            return [buffers.outputs[name].numpy() for name in names]
        finally:
            self._free.put(buffers)

    def _upload(self, buffers: _Set, batch: np.ndarray) -> None:
        if buffers.host is None:
            buffers.device.update_inplace(batch)
            return
        buffers.host.update_inplace(batch)
        self._ort.copy_tensors([buffers.host], [buffers.device])

    def _make_set(self, pinned: Any) -> _Set:
        device = self._on_device(self.shape, np.uint8)
        outputs = {item.name: self._on_device(self.shape[:3], _TYPES[item.type]) for item in self._inner.get_outputs()}
        binding = self._inner.io_binding()
        binding.bind_ortvalue_input("frames", device)
        for name, output in outputs.items():
            binding.bind_ortvalue_output(name, output)
        return _Set(host=self._host_buffer(pinned, device), device=device, outputs=outputs, binding=binding)

    def _host_buffer(self, pinned: Any, device: Any) -> Any:
        """Page-locked memory from which a copy to the device has been seen to work, or None: slower, and as right."""
        if pinned is None:
            return None
        try:
            host = self._ort.OrtValue.ortvalue_from_shape_and_type(self.shape, np.uint8, memory_info=pinned)
            host.update_inplace(np.zeros(self.shape, np.uint8))
            self._ort.copy_tensors([host], [device])
        except Exception:  # whatever a build without such copies raises
            return None
        return host

    def _on_device(self, shape: tuple[int, ...], kind: Any) -> Any:
        return self._ort.OrtValue.ortvalue_from_shape_and_type(shape, kind, "cuda", self._index)


def pinned_memory(ort: Any, index: int) -> Any:
    """What onnxruntime calls the GPU's page-locked host memory, or None where it offers none."""
    kinds = getattr(ort, "OrtDeviceMemoryType", None)
    found = [item for item in ort.get_ep_devices() if item.ep_name == CUDA_PROVIDER]
    if kinds is None or index >= len(found):
        return None
    try:
        return found[index].memory_info(kinds.HOST_ACCESSIBLE)
    except Exception:  # whatever an older build raises
        return None
