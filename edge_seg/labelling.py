"""Frames in, frames with labels out, batch by batch and in order. Knows nothing about queues, sources or sinks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from .errors import ConfigurationError
from .media import Frame
from .preprocess import stack_frames
from .spec import ModelSpec
from .steady import Flicker
from .timings import Stopwatch

# Frames that may wait for a batch to fill when only some of them are segmented.
LONGEST_WINDOW = 24
Labelled = tuple[Frame, np.ndarray, bool]
T = TypeVar("T")


class Predictor(Protocol):
    """The part of a Segmenter the pipeline needs."""

    spec: ModelSpec

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the frames it takes."""
        ...

    @property
    def runs_at_once(self) -> int:
        """How many calls of `predict_labels` at once, each on its own thread, its device gains from."""
        ...

    def predict_labels(self, batch: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 -> (N, H, W) uint8."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Inferred:
    """The result of a window's chosen frames: the batch, its labels, and the seconds that each took."""

    batch: np.ndarray
    labels: np.ndarray
    resize_s: float
    inference_s: float


# Frames in order, the positions of those to segment, and the future of their labels; None if there are none.
_Window = tuple[list[Frame], list[int], "Future[_Inferred] | None"]


def _is_due(under_way: deque[_Window], at_once: int) -> bool:
    """Whether the first window should be waited for and passed on before another is begun."""
    runs = sum(inferred is not None for _, _, inferred in under_way)
    return under_way[0][2] is None or runs >= at_once or len(under_way) > LONGEST_WINDOW


@dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    """What to segment.

    Attributes:
        batch_size: frames a run of the model.
        stride: every Nth frame is segmented, and its labels are shown on those between.
        limit: stop after this many frames; None for all.
        drop_corrupt: leave out frames the decoder found damaged.
    """

    batch_size: int = 1
    stride: int = 1
    limit: int | None = None
    drop_corrupt: bool = False

    @property
    def longest_window(self) -> int:
        """The most frames that wait together for their batch to fill."""
        return self.batch_size if self.stride == 1 else max(self.batch_size, LONGEST_WINDOW)

    def __post_init__(self) -> None:
        for name in ("batch_size", "stride"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be 1 or more; got {getattr(self, name)}.")
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError(f"limit must be 1 or more; got {self.limit}.")


class Crew:
    """Runs at most `size` calls at once, each on its own thread; with `size` 1, on the caller's thread.

    A context manager: on exit, calls that have not begun are cancelled and the others have ended.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="edge_seg-infer") if size > 1 else None

    def start(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Start a call; the returned future holds its result or its error."""
        if self._pool is not None:
            return self._pool.submit(work, *args)
        done: Future[T] = Future()
        try:
            done.set_result(work(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


class Labeller:
    """Runs frames through a predictor, with as many batches at once as its device gains from.

    Args:
        predictor: called from this thread or, if its device gains from several runs at once, from other threads.
        options: batch and stride.
        watches: record the "resize", "inference" and "smooth" times.
        postprocess: see `Pipeline`.
    """

    def __init__(
        self,
        predictor: Predictor,
        options: PipelineOptions,
        watches: dict[str, Stopwatch],
        postprocess: Callable[[np.ndarray, np.ndarray], np.ndarray] | None,
    ) -> None:
        self._predictor, self._options, self.watches, self._postprocess = predictor, options, watches, postprocess
        self.raw_flicker, self.flicker = Flicker(), Flicker()
        self._last = np.zeros(predictor.input_size, np.uint8)

    def label(self, frames: Iterable[Frame], *, live: bool) -> Generator[Labelled]:
        """(frame, labels, whether the labels are its own) of each frame, in order.

        Args:
            frames: the frames of one source.
            live: whether low delay matters more than throughput: each frame goes at once, by itself.
        """
        options, predictor = self._options, self._predictor
        window: list[Frame] = []
        chosen: list[int] = []
        under_way: deque[_Window] = deque()
        with Crew(1 if live else predictor.runs_at_once) as crew:
            for count, frame in enumerate(frames):
                if count % options.stride == 0:
                    chosen.append(len(window))
                window.append(frame)
                full = len(chosen) >= options.batch_size or len(window) >= options.longest_window
                if full or not chosen or live:
                    under_way.append(self._begin(crew, window, chosen))
                    window, chosen = [], []
                while under_way and _is_due(under_way, crew.size):
                    yield from self._settled(under_way.popleft())
            under_way.append(self._begin(crew, window, chosen))
            while under_way:
                yield from self._settled(under_way.popleft())

    def _settled(self, under_way: _Window) -> Generator[Labelled]:
        window, chosen, inferred = under_way
        labels = iter(self._settle(inferred.result()) if inferred is not None else [])
        for place, frame in enumerate(window):
            if place in chosen:
                self._last = next(labels)
            yield frame, self._last, place in chosen

    def _begin(self, crew: Crew, window: list[Frame], chosen: list[int]) -> _Window:
        """Begin to segment the chosen frames of a window."""
        images = [window[place].image for place in chosen]
        return window, chosen, crew.start(self._predict, images) if images else None

    def _predict(self, images: list[np.ndarray]) -> _Inferred:
        started = time.perf_counter()
        batch = stack_frames(images, self._predictor.input_size)
        resized = time.perf_counter()
        labels = self._predictor.predict_labels(batch)
        ended = time.perf_counter()
        return _Inferred(batch=batch, labels=labels, resize_s=resized - started, inference_s=ended - resized)

    def _settle(self, inferred: _Inferred) -> list[np.ndarray]:
        """The labels to show for each frame of a batch; to be called in the order of the frames, from one thread."""
        count = len(inferred.labels)
        self.watches["resize"].add(inferred.resize_s, frames=count)
        self.watches["inference"].add(inferred.inference_s, frames=count)
        return [self._shown(*pair) for pair in zip(inferred.labels, inferred.batch, strict=True)]

    def _shown(self, labels: np.ndarray, image: np.ndarray) -> np.ndarray:
        """The labels to show for a frame; `labels` are the model's."""
        self.raw_flicker.add(labels)
        if self._postprocess is not None:
            started = time.perf_counter()
            labels = self._postprocess(labels, image)
            self.watches["smooth"].add(time.perf_counter() - started)
        self.flicker.add(labels)
        return labels
