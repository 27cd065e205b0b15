"""Segmenter: frames of any size in, typed segmentations out. Knows nothing of video files or of onnxruntime.

    with Segmenter("model.onnx") as segmenter:
        result = segmenter.segment(frame)

Frames are brought to the model's size and labels back to the frame's; a short batch is filled up so that a provider
keeps the shape it tuned itself to.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from .devices import DeviceReport, parse_device
from .errors import ConfigurationError, DeviceError, MediaError, ModelFileError, OutOfMemoryError, warn_caller
from .files import Seal, name_of, replacing
from .leaving import native_code
from .opencv import cv2
from .overlay import Palette, colorize, overlay
from .preprocess import check_frame, resize_labels, stack_frames
from .session import MAX_BATCH, Session, model_size, open_session
from .spec import ModelSpec, plain_palette

if TYPE_CHECKING:
    from .media import Source
    from .stream import Capture, ResultStream


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation:
    """One frame's result.

    Attributes:
        labels: (H, W) uint8 class ids, at the frame's own size.
        frame: (H, W, 3) uint8 BGR, the very array that was given.
        spec: the model's contract: class names and colours.
        index: position of the frame in its source, from 0.
        time_s: the source's timestamp in seconds, or None when it has none; of several files, each one's own.
        name: the file or the address (without its password) that the frame came from; "" where nobody said.
        speed_ms: stage -> milliseconds a frame: "preprocess", "inference", "postprocess".
        confidence: (H, W) float32 0..1 at the frame's size, or None when the model gives none.
    """

    labels: NDArray[np.uint8]
    frame: NDArray[np.uint8] = field(repr=False)
    spec: ModelSpec = field(repr=False)
    index: int = 0
    time_s: float | None = None
    speed_ms: dict[str, float] = field(default_factory=dict)
    confidence: NDArray[np.float32] | None = field(default=None, repr=False)
    name: str = ""

    def class_share(self) -> dict[str, float]:
        """Class name -> share of the frame's pixels, 0..1, in the order of the ids."""
        if self.labels.size < 2**24:
            # Twenty times as fast as bincount; it counts in float32, which is exact up to 2**24.
            with native_code():
                counts = cv2.calcHist([self.labels], [0], None, [256], [0, 256]).ravel()
        else:
            counts = np.bincount(self.labels.ravel(), minlength=256)
        return {name: int(count) / self.labels.size for name, count in zip(self.spec.classes, counts, strict=False)}

    def plot(self, alpha: float = 0.5, *, palette: Iterable[Iterable[int]] | None = None) -> NDArray[np.uint8]:
        """The classes' colours laid over the frame: (H, W, 3) uint8 BGR, a new array. `alpha` 0 is the frame alone.

        Args:
            palette: another (R, G, B) of 0..255 for each class than the model's.

        Raises:
            ConfigurationError: `alpha` beyond 0..1, or a palette that is none for these classes.
        """
        with native_code():
            return overlay(self.frame, self.labels, self._palette(palette), alpha)

    def mask(self, *, palette: Iterable[Iterable[int]] | None = None) -> NDArray[np.uint8]:
        """The classes' colours alone: (H, W, 3) uint8 BGR; `palette` as in `plot`."""
        with native_code():
            return colorize(self.labels, self._palette(palette))

    def _palette(self, given: Iterable[Iterable[int]] | None) -> Palette:
        if given is None:
            return self.spec.palette
        return replace(self.spec, palette=plain_palette(given)).palette

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the class ids as a PNG of the frame's size, whole or not at all; returns the path.

        Raises:
            ConfigurationError: no path, or a name that does not end in .png, the one format here that keeps ids as they
                are.
            MediaError: the file cannot be written.
        """
        target = Path(name_of(path, "a picture"))
        if target.suffix.lower() != ".png":
            raise ConfigurationError(f"Class ids are saved as PNG, which keeps them exactly; got {target.name!r}.")
        with native_code():
            data = cv2.imencode(".png", self.labels)[1].tobytes()
        return write_atomically(target, data)


def write_atomically(target: Path, data: bytes, *, seal: Seal | None = None) -> Path:
    """Write a file whole or not at all, see `files.replacing`; raises `MediaError`, leaving nothing half-written."""
    try:
        with replacing(target, seal=seal) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise MediaError(f"{target} cannot be written ({error.strerror or error}).") from error
    return target


class Segmenter:
    """Segments frames with one model on one device. A context manager; threads may share it.

    The program's end waits for a daemon thread that is in a call of this or of a result; one that is in OpenCV's own
    by then makes Python up to 3.13 abort, so let threads come to their end where you can. A forked worker opens a
    Segmenter of its own.

    Args:
        model: path of an ONNX file exported by this project, its bytes, or an open session: whatever has what
            `edge_seg.Session` names (`edge_seg.fake` has one), for networks that other programs run.
        device: "auto", "cpu", "openvino", "cuda[:N]" or "tensorrt[:N]"; a named one is that one or a `DeviceError`.
        batch_size: frames a run; halved, with a `RuntimeWarning`, if the device's memory stops holding them.
        threads: CPU threads; by default what affinity and the container's quota allow. An open session has its own.
        input_size: (height, width) frames are brought to, for models exported with a dynamic size.
        overlapped: whoever calls keeps `runs_at_once` batches under way, each from a thread of its own, as `predict`
            does with files. More frames a second on the CPU, but each takes longer.

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
        if type(batch_size) is not int or not 1 <= batch_size <= MAX_BATCH:
            raise ConfigurationError(f"batch_size must be a whole number from 1 to {MAX_BATCH}; got {batch_size!r}.")
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

    @property
    def runs_at_once(self) -> int:
        """How many batches the device gains by being given at once, each from a thread of its own."""
        return getattr(self._session, "runs_at_once", 1)

    def segment(self, frame: np.ndarray, *, index: int = 0, time_s: float | None = None) -> Segmentation:
        """Segment one frame (H, W, 3) uint8 BGR of any size; `index` and `time_s` are handed on to the result.

        Raises:
            ConfigurationError: no such frame, or the Segmenter is closed.
            DeviceError: the device fails, does not hold one frame (`OutOfMemoryError`), or was opened before a fork.
        """
        return self._segment([frame], [index], [time_s], [""])[0]

    def segment_batch(self, frames: Sequence[np.ndarray] | np.ndarray) -> list[Segmentation]:
        """Segment frames, each (H, W, 3) uint8 BGR, of any and of different sizes; as many results, in order.

        Raises:
            ConfigurationError, DeviceError: as `segment`; no list of frames.
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
        # What the memory stops holding makes `batch_size` smaller on the way.
        while len(results) < len(given):
            part = given[len(results) : len(results) + self.batch_size]
            places = list(range(len(results), len(results) + len(part)))
            results += self._segment(part, places, [None] * len(part), [""] * len(part))
        return results

    def stream(self, source: str | os.PathLike[str] | int | Source | Capture | Iterable[Any]) -> ResultStream:
        """Segment a source lazily: a path, an address, a camera's index, "-" for standard input, or any iterable.

        Memory is that of one batch, whatever the length. A file that breaks off before its declared end, or loses
        frames, gives what it has, then a `RuntimeWarning` that says so; the iterator's `report` accounts for every
        frame. A `cv2.VideoCapture` gives its frames, which have no times then. An iterable gives (H, W, 3) uint8
        arrays, or objects with `.image`, `.index`, `.time_s` and `.name` as `edge_seg.sources` gives them. A camera may
        refill one array: for batches of more than one each is copied as it comes; of a single frame a result holds the
        array itself, and `plot` shows what is in it by then.

        Raises:
            ConfigurationError: none of these. While the results are taken: an item that is no frame, or a source that
                names nothing.
            MediaError: while they are taken: a source that cannot be opened or read.
            DeviceError: while they are taken: the device fails, or does not hold one frame (`OutOfMemoryError`).
        """
        from .stream import ResultStream

        self._open()
        return ResultStream(self._segment, self.batch_size, source)

    def predict_labels(self, batch: np.ndarray) -> np.ndarray:
        """Class ids of frames already at the model's size: (N, H, W, 3) uint8 -> (N, H, W) uint8, any N."""
        return self.predict(batch)["labels"]

    def predict(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Every output of the model for (N, H, W, 3) uint8 at the model's size; run in batches of `batch_size`."""
        session = self._open()
        height, width = self.input_size
        array = isinstance(batch, np.ndarray) and batch.dtype == np.uint8 and batch.ndim == 4
        if not array or batch.shape[1:] != (height, width, 3) or not len(batch):
            came = f"{batch.dtype} {batch.shape}" if isinstance(batch, np.ndarray) else type(batch).__name__
            raise ConfigurationError(f"Expected a batch of shape (N, {height}, {width}, 3), uint8; got {came}.")
        with native_code():
            return self._run(session, batch)

    def close(self) -> None:
        """Give the model's memory back. Closing twice is fine."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _segment(self, frames: list[Any], indices: list[Any], times: list[Any], names: list[str]) -> list[Segmentation]:
        with native_code():
            return self._segment_now(self._open(), frames, indices, times, names)

    def _segment_now(
        self, session: Session, frames: list[Any], indices: list[Any], times: list[Any], names: list[str]
    ) -> list[Segmentation]:
        for frame in frames:
            check_frame(frame)
        started = time.perf_counter()
        batch = stack_frames(frames, self.input_size, pad_to=self.batch_size if _wants_whole(session) else None)
        prepared = time.perf_counter()
        outputs = self._run(session, batch)
        inferred = time.perf_counter()
        labels = [
            resize_labels(array, frame.shape[:2]) for array, frame in zip(outputs["labels"], frames, strict=False)
        ]
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
                labels=labels[position],
                frame=frame,
                spec=self.spec,
                index=indices[position],
                time_s=times[position],
                speed_ms=dict(speed_ms),
                confidence=confidences[position],
                name=names[position],
            )
            for position, frame in enumerate(frames)
        ]

    def _run(self, session: Session, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Run a batch of any length; once the device's memory no longer holds `batch_size`, in half as many, said."""
        while True:
            size = self.batch_size
            try:
                return _in_parts(session, batch, size)
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
    """An open session of the caller's own has what ours have."""
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
    return cast(Session, session)


def _demand_device(session: Session, asked: str) -> None:
    """A device that is named is a promise of an open session too."""
    if str(parse_device(asked)) not in ("auto", session.device.name):
        raise DeviceError(
            f"device {asked} was asked for, and the session that was given is on {session.device.name}. "
            "Leave device out, or pass the model's path."
        )


def _in_parts(session: Session, batch: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """The outputs of a batch, run `size` frames at a time, the last part filled up for a session that wants it."""
    parts = []
    for first in range(0, len(batch), size):
        part = batch[first : first + size]
        given = _filled(part, size) if _wants_whole(session) else part
        outputs = session.run(given)
        _check_outputs(outputs, given.shape)
        parts.append({name: array[: len(part)] for name, array in outputs.items()})
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _check_outputs(outputs: Any, given: tuple[int, ...]) -> None:
    """Labels of another size would be stretched over the frame, and be wrong without a word."""
    labels = outputs.get("labels") if isinstance(outputs, dict) else None
    if not isinstance(labels, np.ndarray) or labels.dtype != np.uint8 or labels.shape != given[:3]:
        came = f"{labels.dtype} {labels.shape}" if isinstance(labels, np.ndarray) else type(outputs).__name__
        raise ModelFileError(f'Expected a session\'s "labels" as uint8 of shape {given[:3]}; got {came}.')


def _wants_whole(session: Session) -> bool:
    return getattr(session, "whole_batches", True)


def _filled(batch: np.ndarray, size: int) -> np.ndarray:
    """Repeat the last frame up to `size` frames."""
    if len(batch) >= size:
        return batch
    return np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])


def _confidence(outputs: dict[str, np.ndarray], position: int, frame: np.ndarray) -> np.ndarray | None:
    """One frame's confidence at the frame's size, float32; bilinear, for unlike ids a probability may be blended."""
    if "confidence" not in outputs:
        return None
    array = outputs["confidence"][position].astype(np.float32)
    height, width = frame.shape[:2]
    return np.asarray(cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR))
