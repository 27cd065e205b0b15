"""An open onnxruntime session: its runs, the first ones too, and what its errors mean. Knows nothing of opening one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from .binding import BoundRuns
from .devices import DeviceReport
from .errors import ConfigurationError, DeviceError, ModelFileError, OutOfMemoryError
from .native import keep_in_children
from .phrases import counted, first_line
from .spec import ModelSpec


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a runtime's exception means that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(
        sign in text
        for sign in (
            "out of memory",
            "failed to allocate memory",
            "bad_alloc",
            "cuda failure 2:",
            "cudaerrormemoryallocation",
            "alloc_failed",  # cuBLAS, cuDNN
            "allocation_failed",
        )
    )


class OrtSession:
    """An onnxruntime session. Threads may share it; a forked child may not use it."""

    def __init__(
        self,
        inner: Any,
        spec: ModelSpec,
        device: DeviceReport,
        name: str,
        *,
        bound: BoundRuns | None,
        whole_batches: bool,
        runs_at_once: int,
    ) -> None:
        self.spec = spec
        self.device = device
        self.whole_batches = whole_batches
        self.runs_at_once = bound.sets if bound is not None else runs_at_once
        self._inner, self._bound = inner, bound
        self._name = name
        self._process = os.getpid()
        # A forked child must not even destroy the session: that would wait for threads it does not have.
        keep_in_children(self)

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Run a batch (N, H, W, 3) uint8 at the model's size: output name -> array, with "labels" (N, H, W) uint8.

        Raises:
            ConfigurationError: another shape or type, or a closed session.
            OutOfMemoryError: the device's memory does not hold this batch.
            DeviceError: the device failed, or the session was made before a fork.
            ModelFileError: the labels are not of the batch's shape.
        """
        inner = self._usable()
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3 or 0 in batch.shape:
            raise ConfigurationError(f"Expected a batch (N, H, W, 3) uint8; got {batch.dtype} {batch.shape}.")
        names = list(self.spec.outputs)
        try:
            arrays = self._arrays(inner, names, np.ascontiguousarray(batch))
        except Exception as error:
            self._raise_run_error(error, batch)
        outputs = dict(zip(names, arrays, strict=True))
        if outputs["labels"].shape != batch.shape[:3]:
            raise ModelFileError(
                f"{self._name}: expected labels of shape {batch.shape[:3]}, it gave {outputs['labels'].shape}."
            )
        return outputs

    def close(self) -> None:
        """Release the memory once current runs have ended. Closing twice is fine."""
        self._inner = self._bound = None

    def _arrays(self, inner: Any, names: list[str], frames: np.ndarray) -> list[np.ndarray]:
        bound = self._bound
        if bound is not None and frames.shape == bound.shape:
            return bound.run(names, frames)
        if bound is None or not bound.captured:
            return list(inner.run(names, {"frames": frames}))
        # A captured graph replays its one shape (of one frame), whatever it is given.
        if frames.shape[1:] != bound.shape[1:]:
            raise ValueError("invalid dimensions for a captured graph")
        parts = [bound.run(names, frames[at : at + 1]) for at in range(len(frames))]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _usable(self) -> Any:
        inner = self._inner
        if inner is None:
            raise ConfigurationError("This session is closed. Open a new one.")
        if os.getpid() != self._process:
            raise DeviceError(
                "This session was made before a fork, and its threads did not come along. Open the model "
                'after the fork, or start processes with multiprocessing.get_context("spawn").'
            )
        return inner

    def _less_memory(self, frames: int) -> str:
        ways = ["a smaller batch"] * (frames > 1) + ["--device cpu"] * (self.device.name not in ("cpu", "openvino"))
        return f"Use {', or '.join(ways)}." if ways else "Use a model of a smaller size."

    def _raise_run_error(self, error: Exception, batch: np.ndarray) -> NoReturn:
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                f"{self.device.name} has no memory for {counted(len(batch), 'frame')} of "
                f"{batch.shape[2]}x{batch.shape[1]}. {self._less_memory(len(batch))}"
            ) from error
        if "invalid dimensions" in str(error).lower():
            raise ConfigurationError(
                f"Expected frames of the model's size {self.spec.input_size}; got {batch.shape[1:3]}."
            ) from error
        raise DeviceError(f"{self.device.name} failed on {self._name}: {first_line(error)}") from error

    def __reduce__(self) -> NoReturn:
        raise ConfigurationError(
            "A session cannot be pickled: it holds native threads and memory. Pass the model's path, open it there."
        )


def warm_up(session: OrtSession, batch_size: int, input_size: tuple[int, int]) -> None:
    """Run twice at the full shape, for the device to tune itself; if memory runs out, raise `OutOfMemoryError` naming a
    batch that fits."""

    def run(frames_at_once: int) -> None:
        frames = np.zeros((frames_at_once, *input_size, 3), np.uint8)
        # GPUs run out of memory in the second run, while the first one's buffers are still there.
        for _ in range(2):
            # As many at once as later: each run has activations of its own.
            _at_once(session.runs_at_once, lambda: session.run(frames))

    size = batch_size
    problem: OutOfMemoryError | None = None
    while size:
        try:
            run(size)
            break
        except OutOfMemoryError as error:
            problem = problem or error
            size //= 2
        except DeviceError:
            # After running out of memory, a smaller size may fail for another reason (cuDNN does); try still smaller.
            if problem is None:
                raise
            size //= 2
    if problem is not None:
        cure = f" A batch of {size} fits: --batch {size}." if size else ""
        raise OutOfMemoryError(f"{problem}{cure}") from problem.__cause__


def _at_once(count: int, call: Callable[[], object]) -> None:
    """Make `count` calls at once, one of them on this thread; when all have ended, raise the first error.

    Plain threads, since an executor takes no more work once the program's main thread has ended.
    """
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    others = [threading.Thread(target=guarded, daemon=True) for _ in range(count - 1)]
    for other in others:
        other.start()
    guarded()
    for other in others:
        other.join()
    if errors:
        try:
            raise errors[0]
        finally:
            errors.clear()  # an error refers to this frame, so the list would keep both alive
