"""A session without onnxruntime: for tests, and to try a pipeline on a machine without a model or a runtime.

Its labels are a simple function of the pixels, and it can be told to fail as devices do. Knows nothing about devices.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from .devices import DeviceReport
from .errors import ConfigurationError, DeviceError, OutOfMemoryError
from .spec import ModelSpec


def brightness_labels(batch: np.ndarray, classes: int) -> np.ndarray:
    """(N, H, W, 3) uint8 -> (N, H, W) uint8: the blue channel cut into `classes` equal steps."""
    return (batch[..., 0].astype(np.uint16) * classes // 256).astype(np.uint8)


class FakeSession:
    """Stands in for a real session.

    Args:
        spec: the model's spec it claims to have.
        labels: batch (N, H, W, 3) uint8 -> labels (N, H, W) uint8; `brightness_labels` by default.
        memory_frames: a larger batch raises `OutOfMemoryError`, as a small GPU does; may be changed later.
        missing_library: every run raises a `DeviceError` naming it.
        arithmetic: the arithmetic that its device report claims.
        name: the device's name in the report.
        runs_at_once: how many runs at once it claims to gain from.
        whole_batches: whether it wants short batches to be padded.
    """

    def __init__(
        self,
        spec: ModelSpec | None = None,
        *,
        labels: Callable[[np.ndarray], np.ndarray] | None = None,
        memory_frames: int | None = None,
        missing_library: str = "",
        arithmetic: str = "fp32",
        name: str = "fake",
        runs_at_once: int = 1,
        whole_batches: bool = True,
    ) -> None:
        self.spec = spec or ModelSpec(input_size=(32, 32))
        self.device = DeviceReport(
            requested=name, name=name, providers=("Fake",), arithmetic=arithmetic, reason="asked for", threads=1
        )
        self.runs_at_once, self.whole_batches = runs_at_once, whole_batches
        self.batch_sizes: list[int] = []
        self.closed = False
        self._labels = labels or (lambda batch: brightness_labels(batch, len(self.spec.classes)))
        self.memory_frames = memory_frames
        self._missing_library = missing_library
        self._lock = threading.Lock()

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs by name for a batch (N, H, W, 3) uint8; raises the failure it was told to."""
        if self.closed:
            raise ConfigurationError("This session is closed. Open a new one.")
        if self._missing_library:
            raise DeviceError(f"device {self.device.name} cannot be had: {self._missing_library} is missing.")
        if self.memory_frames is not None and len(batch) > self.memory_frames:
            raise OutOfMemoryError(f"{self.device.name} has no memory for a batch of {len(batch)}; try a smaller one.")
        with self._lock:
            self.batch_sizes.append(len(batch))
        outputs = {"labels": self._labels(batch)}
        if "confidence" in self.spec.outputs:
            outputs["confidence"] = np.full(batch.shape[:3], 0.5, np.float16)
        return outputs

    def close(self) -> None:
        """Close the session; harmless when called twice."""
        self.closed = True
