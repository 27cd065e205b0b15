"""Segmenter: frames of any size in, a `Segmentation` for each out. Knows nothing of video files or of onnxruntime.

    with Segmenter("model.onnx") as segmenter:
        result = segmenter.segment(frame)

Frames are resized to the model's size and labels back to the frame's; a short batch is filled up, so that a provider
keeps the shape it tuned itself to.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, NoReturn, cast

import numpy as np

from .batches import run_in_parts
from .devices import DeviceReport, parse_device
from .errors import ConfigurationError, DeviceError, OutOfMemoryError, warn_caller
from .media import Source
from .native import native_code
from .opencv import cv2, python_memory_error
from .preprocess import check_frame, resize_labels, stack_frames
from .segmentation import Segmentation
from .session import Session, check_batch_size, model_size, open_session
from .spec import ModelSpec
from .stream import Capture, Given, ResultStream


class Segmenter:
    """Segments frames with one model on one device. A context manager; threads may share it.

    At exit, the program waits for daemon threads that are inside a method of a Segmenter or of a result. One that is
    inside OpenCV itself by then makes Python up to 3.13 abort, so let threads finish where you can. A forked worker
    must open a Segmenter of its own.

    Args:
        model: path of an ONNX file exported by this project, its bytes, or an open session: any object with the members
            of `edge_seg.Session` (`edge_seg.fake` has one), for networks that other programs run. The Segmenter closes
            it too.
        device: "auto", "cpu", "openvino", "cuda[:N]" or "tensorrt[:N]"; a named one, or a `DeviceError`.
        batch_size: frames per run; halved, with a `RuntimeWarning`, if the device's memory no longer holds them.
        threads: CPU threads that run the model; by default what affinity and the container's quota allow. An open
            session has its own, and so have OpenCV (`cv2.setNumThreads`) and the decoder.
        input_size: (height, width) that frames are resized to, for models exported with a dynamic size; by default the
            model's own.
        overlapped: the caller keeps `runs_at_once` batches under way, each from a thread of its own, as `predict` does
            with files. More frames a second on the CPU, but each takes longer.

    Attributes:
        spec: the model's contract: classes, colours, terms of use.
        device: where it runs, and why there.
        batch_size: frames per run; less than was asked for once the device's memory did not hold them.
        input_size: (height, width) in pixels that frames are resized to.

    Raises:
        ModelFileError, DeviceError, ConfigurationError, MissingDependencyError: see `session.open_session`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes | Session,
        *,
        device: str = "auto",
        batch_size: int = 1,
        threads: int | None = None,
        input_size: tuple[int, int] | None = None,
        overlapped: bool = False,
    ) -> None:
        self._session: Session | None = None
        check_batch_size(batch_size)
        if isinstance(model, (str, bytes, os.PathLike)):
            with native_code():
                session = open_session(
                    model,
                    device=device,
                    batch_size=batch_size,
                    threads=threads,
                    input_size=input_size,
                    overlapped=overlapped,
                )
        else:
            session = _checked(model)
            _demand_device(session, device)
        self.batch_size = batch_size
        self.spec: ModelSpec = session.spec
        self.device: DeviceReport = session.device
        self.input_size = model_size(session.spec, input_size)
        self._session = session
        self._session_is_callers = session is model
        # Such a session may refill one array, which is copied before the next run begins.
        in_turn = self._session_is_callers and self.runs_at_once == 1
        self._turn: contextlib.AbstractContextManager[Any] = threading.RLock() if in_turn else contextlib.nullcontext()

    @property
    def runs_at_once(self) -> int:
        """How many batches to run at once, each from a thread of its own, to use the device fully."""
        return getattr(self._session, "runs_at_once", 1)

    def segment(self, frame: np.ndarray, *, index: int = 0, time_s: float | None = None) -> Segmentation:
        """Segment one frame (H, W, 3) uint8 BGR of any size; `index` and `time_s` are copied to the result.

        Raises:
            ConfigurationError: not such a frame, or the Segmenter is closed.
            DeviceError: the device fails, does not hold one frame (`OutOfMemoryError`), or was opened before a fork.
            ModelFileError: the model's outputs do not fit the frame.
        """
        return self._segment([Given(frame, index, time_s, "")])[0]

    def segment_batch(self, frames: Sequence[np.ndarray] | np.ndarray) -> list[Segmentation]:
        """Segment frames, each (H, W, 3) uint8 BGR of a size of its own: one result for each, in order.

        Raises:
            ConfigurationError, DeviceError, ModelFileError: as for `segment`; the first also if `frames` is not a list
                of frames.
        """
        self._open()
        if not isinstance(frames, (Sequence, np.ndarray)):
            raise ConfigurationError(
                f"Expected a list of frames; got {type(frames).__name__}. `stream(source)` takes any iterable."
            )
        if isinstance(frames, np.ndarray) and frames.ndim == 3:
            raise ConfigurationError("Expected a list of frames, got a single frame; `segment(frame)` takes one.")
        given = list(frames)
        results: list[Segmentation] = []
        # `batch_size` may shrink on the way, if the device runs out of memory.
        while len(results) < len(given):
            part = given[len(results) : len(results) + self.batch_size]
            results += self._segment([Given(frame, place, None, "") for place, frame in enumerate(part, len(results))])
        return results

    def stream(self, source: str | os.PathLike[str] | int | Source | Capture | Iterable[Any]) -> ResultStream:
        """Segment a source lazily: a path, an address, a camera's index, "-" for standard input, or any iterable.

        Memory is that of one batch, however long the source. A file that breaks off before its declared end, or loses
        frames, gives what it has, then a `RuntimeWarning` that says so; the iterator's `report` accounts for every
        frame. Frames of a `cv2.VideoCapture` have no times. An iterable gives (H, W, 3) uint8 arrays, or objects with
        `.image`, `.index`, `.time_s` and `.name`, as `edge_seg.sources` does. If it refills one array, as cameras may,
        results stay valid at batch sizes above one, where frames are copied; at batch size one a result holds the array
        itself, and `plot` shows its current content.

        Raises:
            ConfigurationError: none of these, or the Segmenter is closed. While iterating: an item that is not a frame,
                or a source that names nothing.
            MediaError: while iterating: a source that cannot be opened or read.
            MissingDependencyError: while iterating: a video or an address, and PyAV does not load.
            DeviceError, ModelFileError: while iterating: as for `segment`.
        """
        self._open()
        return ResultStream(self._segment, self.batch_size, source)

    def predict_labels(self, batch: np.ndarray) -> np.ndarray:
        """Labels of frames already at the model's size: (N, H, W, 3) uint8 BGR -> (N, H, W) uint8, any N from 1.

        Raises:
            ConfigurationError, DeviceError, ModelFileError: as for `segment`.
        """
        return self.predict(batch)["labels"]

    def predict(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Every output of the model for (N, H, W, 3) uint8 BGR at the model's size, in runs of `batch_size`: "labels"
        (N, H, W) uint8 and, if the model has it, "confidence" (N, H, W) of floats 0..1.

        Raises:
            ConfigurationError, DeviceError, ModelFileError: as for `segment`.
        """
        session = self._open()
        height, width = self.input_size
        array = isinstance(batch, np.ndarray) and batch.dtype == np.uint8 and batch.ndim == 4
        if not array or batch.shape[1:] != (height, width, 3) or not len(batch):
            came = f"{batch.dtype} {batch.shape}" if isinstance(batch, np.ndarray) else type(batch).__name__
            raise ConfigurationError(f"Expected a batch of shape (N, {height}, {width}, 3), uint8; got {came}.")
        with native_code():
            return self._run(session, batch)

    def close(self) -> None:
        """Release the model's memory; a session that was given is closed. Closing twice is fine."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _segment(self, given: list[Given]) -> list[Segmentation]:
        with native_code(), python_memory_error():
            return self._segment_now(self._open(), given)

    def _segment_now(self, session: Session, given: list[Given]) -> list[Segmentation]:
        frames = [check_frame(item.image) for item in given]
        started = time.perf_counter()
        batch = stack_frames(frames, self.input_size)
        prepared = time.perf_counter()
        outputs = self._run(session, batch)
        inferred = time.perf_counter()
        labels = [resize_labels(array, frame.shape[:2]) for array, frame in zip(outputs["labels"], frames, strict=True)]
        confidences = [_confidence(outputs, position, frame) for position, frame in enumerate(frames)]
        ended = time.perf_counter()
        share = 1000.0 / len(frames)
        speed_ms = {
            "preprocess": (prepared - started) * share,
            "inference": (inferred - prepared) * share,
            "postprocess": (ended - inferred) * share,
        }
        return [
            Segmentation(
                labels=own,
                frame=item.image,
                spec=self.spec,
                index=item.index,
                time_s=item.time_s,
                speed_ms=dict(speed_ms),
                confidence=confidence,
                name=item.name,
            )
            for item, own, confidence in zip(given, labels, confidences, strict=True)
        ]

    def _run(self, session: Session, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Run a batch of any length; if the device's memory no longer holds `batch_size`, halve that and warn."""
        while True:
            size = self.batch_size
            try:
                whole = getattr(session, "whole_batches", True)
                with self._turn:
                    return run_in_parts(session.run, batch, size, whole=whole, copied=self._session_is_callers)
            except OutOfMemoryError as error:
                if size == 1:
                    raise
                self.batch_size = min(self.batch_size, size // 2)
                warn_caller(f"{str(error).partition('.')[0]}; going on with {self.batch_size} at a time")

    def _open(self) -> Session:
        if self._session is None:
            raise ConfigurationError("This Segmenter is closed. Make a new one, or use it inside its `with` block.")
        return self._session

    def __enter__(self) -> Segmenter:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise ConfigurationError(
            "A Segmenter cannot be pickled: it holds native threads and memory. Pass the model's path, open it there."
        )

    def __repr__(self) -> str:
        state = "closed" if self._session is None else f"on {self.device.name}"
        return f"Segmenter({self.spec.name!r}, {self.spec.precision}, {state}, batch_size={self.batch_size})"


def _checked(session: Any) -> Session:
    """Return the caller's own session if it has the members of `Session`, and a spec of sound values; raise
    `ConfigurationError` otherwise."""
    wanted = {"spec": ModelSpec, "device": DeviceReport}
    missing = [name for name, kind in wanted.items() if not isinstance(getattr(session, name, None), kind)]
    missing += [name for name in ("run", "close") if not callable(getattr(session, name, None))]
    if len(missing) == 4:
        raise ConfigurationError(f"A model is a path, bytes or a session; got {type(session).__name__}.")
    if missing:
        raise ConfigurationError(
            f"{type(session).__name__} is no session: expected a ModelSpec as `spec`, a DeviceReport as `device`, and "
            f"methods `run` and `close`; it has no such {', '.join(missing)}."
        )
    session.spec.check_types()
    return cast(Session, session)


def _demand_device(session: Session, asked: str) -> None:
    """Raise `DeviceError` if a device was named and the open session is on another."""
    if str(parse_device(asked)) not in ("auto", session.device.name):
        raise DeviceError(
            f"device {asked} was asked for, and the session that was given is on {session.device.name}. "
            "Leave device out, or pass the model's path."
        )


def _confidence(outputs: dict[str, np.ndarray], position: int, frame: np.ndarray) -> np.ndarray | None:
    """One frame's confidence at the frame's size, float32; bilinear, since probabilities may be blended, unlike ids."""
    if "confidence" not in outputs:
        return None
    array = outputs["confidence"][position].astype(np.float32)
    height, width = frame.shape[:2]
    return np.asarray(cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR))
