"""Pairs -> batches for Keras: rendered scenes mixed in, augmentation, scaling. Knows nothing of files or models.

Each batch depends only on (seed, epoch, index): threads, processes, a restart or --resume change nothing.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_seg.errors import ConfigurationError
from edge_seg.preprocess import resize_frame, resize_labels, scale_frames
from edge_seg.threads import available_threads

from .augment import IDS, Example, Pair, augment
from .augmentation import Augmentation

if TYPE_CHECKING:
    from .drawing import Drawers

# In one process; more would only wait for Python's global lock.
MOST_THREADS = 8
MOST_PROCESSES = 32
# With at most this many cores threads draw fast enough, without the cost of starting processes.
FEW_CORES = 4
# Three batches a worker are drawn ahead of their use, or fewer where that many would take more than this.
AHEAD_BYTES = 2_000_000_000


def drawing_threads() -> int:
    """Default number of threads that draw batches: one a core, from 2 to `MOST_THREADS`."""
    return min(MOST_THREADS, max(2, available_threads()))


def drawing_processes() -> int:
    """Default number of processes that draw batches: one a core, less one for the training; 0 with few cores."""
    cores = 1 if _no_processes() else available_threads()
    return min(MOST_PROCESSES, cores - 1) if cores > FEW_CORES else 0


def check_processes(count: int) -> None:
    """Raise `ConfigurationError` if this many processes cannot draw batches here."""
    if count > MOST_PROCESSES:
        raise ConfigurationError(f"{count} processes that draw batches (--workers): expected at most {MOST_PROCESSES}.")
    if count and (reason := _no_processes()):
        raise ConfigurationError(f"{reason} no processes that draw batches; --workers 0 draws by threads.")


def _no_processes() -> str:
    """Why processes cannot be started here, as the start of a sentence; "" where they can."""
    if not hasattr(signal, "pthread_sigmask"):
        return "Windows knows no signals that wait: it begins"
    if multiprocessing.current_process().daemon:
        return "A daemonic process of multiprocessing begins"
    return ""


class TrainingBatches:
    """Augmented batches: (N, H, W, 3) float32 in [-1, 1] and (N, H, W) uint8 class ids.

    With a teacher's opinions the second array is (N, H, W, 1 + classes) uint8: the ids, then the teacher's
    probabilities times 255, or the one-hot truth for a rendered scene, which the teacher has not seen.

    Not a `keras.utils.PyDataset`: that one advances its epoch while batches of the previous epoch are still being
    drawn, so a batch's content would depend on the timing of threads.

    Args:
        pairs: real images and masks.
        rendered: scenes mixed in; each image is drawn from them with probability `rendered_share`.
        size: (height, width) of a crop.
        view: (height, width) to which whole images are resized for the network; crops are cut at that scale. None keeps
            the images' own scale.
        augmentation: None resizes the whole image instead, as the notebook does.
        rare, fill, ids: see `augment`.
        opinions: a teacher's opinion of each of `pairs` (`Example.opinion`); empty without a teacher.
        parts: every batch can be cut into this many equal parts; surplus images of an epoch's last batch are left out.
        processes: how many draw a stream's batches; 0 for threads of this process, None for a default by cores.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        size: tuple[int, int],
        batch_size: int,
        seed: int,
        augmentation: Augmentation | None = None,
        rendered: Sequence[Pair] = (),
        rendered_share: float = 0.0,
        rare: tuple[int, ...] = (),
        fill: int | None = 0,
        ids: Mapping[str, int] = IDS,
        opinions: Sequence[np.ndarray] = (),
        parts: int = 1,
        view: tuple[int, int] | None = None,
        processes: int | None = None,
    ) -> None:
        self.pairs, self.rendered, self.rendered_share = pairs, rendered, rendered_share if len(rendered) else 0.0
        self.size, self.batch_size, self.seed, self.parts = size, min(batch_size, len(pairs)), seed, parts
        self.augmentation, self.rare, self.fill, self.opinions = augmentation, rare, fill, opinions
        self.view, self.processes, self.ids = view, processes, dict(ids)
        self._failure: Exception | None = None
        self._drawers: list[Drawers] = []

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of one image's entry in the second array."""
        return (*self.size, 1 + self.opinions[0].shape[-1]) if len(self.opinions) else self.size

    def __len__(self) -> int:
        """Batches in an epoch. With augmentation an incomplete last batch is dropped, of other images in each epoch."""
        whole, rest = divmod(len(self.pairs), self.batch_size)
        return whole + (1 if rest >= self.parts and self.augmentation is None else 0)

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `index` of an epoch, counted from 0."""
        frames, targets = self.unscaled(epoch, index)
        return scale_frames(frames), targets

    def unscaled(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The same batch with unscaled frames: uint8 BGR."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.pairs))
        chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
        chosen = chosen[: len(chosen) // self.parts * self.parts]
        rng = np.random.default_rng((self.seed, epoch, index))
        drawn = [self._draw(int(position), rng) for position in chosen]
        return np.stack([image for image, _ in drawn]), np.stack([target for _, target in drawn])

    def stream(self, first_epoch: int = 0) -> Generator[tuple[np.ndarray, np.ndarray]]:
        """Yield batches in order from an epoch on, without end, drawn ahead of their use.

        Raises:
            ConfigurationError: processes were asked for and cannot be started. If they are only the default, threads
                draw instead.
        """
        drawers = self._begun()
        if drawers is None:
            yield from self._in_order(self.batch, first_epoch, drawing_threads())
            return
        from .drawing import DrawingError

        with drawers:
            self._drawers.append(drawers)
            try:
                yield from self._in_order(drawers.batch, first_epoch, drawers.count, drawers.stop)
            except DrawingError:
                if drawers in self._drawers:
                    raise
                self._failure = None  # The training is over; a thread of TensorFlow was still reading ahead.
            finally:
                if drawers in self._drawers:
                    self._drawers.remove(drawers)

    def _begun(self) -> Drawers | None:
        """Start the processes that draw, as many as asked for or the default by cores; None where threads draw."""
        asked = self.processes
        count = drawing_processes() if asked is None else asked
        if not count:
            return None
        from .drawing import Drawers, NoProcessesError

        try:
            if asked is not None:
                check_processes(asked)
            return Drawers(self, count)
        except NoProcessesError as error:
            if asked is None:
                print(f"warning: {error} Batches are drawn by threads.", file=sys.stderr)
                return None
            self._failure = ConfigurationError(f"{error} Fewer --workers take less, and --workers 0 draws by threads.")
            raise self._failure from error
        except Exception as error:
            self._failure = error
            raise

    def ahead(self, workers: int) -> int:
        """How many batches a stream with this many threads or processes draws ahead of their use."""
        size = self.batch_size * (12 * math.prod(self.size) + math.prod(self.target_shape))
        return max(workers + 2, min(3 * workers, AHEAD_BYTES // size))

    def _in_order(
        self,
        draw: Callable[[int, int], tuple[np.ndarray, np.ndarray]],
        first_epoch: int,
        workers: int,
        stop: Callable[[], None] = lambda: None,
    ) -> Generator[tuple[np.ndarray, np.ndarray]]:
        """Yield what `draw` returns for each batch, run in `workers` threads; `stop` ends what they wait for."""
        places = ((epoch, index) for epoch in itertools.count(first_epoch) for index in range(len(self)))
        pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
        try:
            waiting = deque(pool.submit(draw, *next(places)) for _ in range(self.ahead(workers)))
            while True:
                try:
                    ready = waiting.popleft().result()
                except Exception as error:
                    self._failure = error
                    raise
                waiting.append(pool.submit(draw, *next(places)))
                yield ready
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            pool.shutdown()

    @contextmanager
    def failures_raised(self) -> Iterator[None]:
        """Raise the original error of a batch that could not be drawn; TensorFlow turns it into a page of text.

        After the block no process draws any more, even if the stream is still referenced.
        """
        try:
            yield
        except Exception:
            if self._failure is not None:
                raise self._failure from None
            raise
        finally:
            while self._drawers:
                self._drawers.pop().stop()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_drawers": [], "_failure": None}

    def _draw(self, position: int, rng: np.random.Generator) -> Pair:
        rendered = rng.random() < self.rendered_share
        if rendered:
            example = Example(*self.rendered[int(rng.integers(len(self.rendered)))])
        else:
            example = self._example(position)
        if self.augmentation is None:
            return resize_frame(example.image, self.size), resize_labels(example.mask, self.size)
        other = self._example(int(rng.integers(len(self.pairs))))
        image, mask, opinion = augment(
            example, other, self.size, self.augmentation, rng,
            rare=self.rare, fill=self.fill, view=self.view, ids=self.ids,
        )  # fmt: skip
        if not len(self.opinions):
            return image, mask
        if opinion is None:
            opinion = np.eye(self.target_shape[-1] - 1, dtype=np.uint8)[mask] * np.uint8(255)
        return image, np.concatenate([mask[..., None], opinion], axis=-1)

    def _example(self, position: int) -> Example:
        return Example(*self.pairs[position], self.opinions[position] if len(self.opinions) else None)


class ResizedBatches:
    """Whole images at the network's size, in order, for validation; types as in `TrainingBatches`."""

    def __init__(self, pairs: Sequence[Pair], *, size: tuple[int, int], batch_size: int) -> None:
        self.pairs, self.size, self.batch_size = pairs, size, batch_size

    def __len__(self) -> int:
        return -(-len(self.pairs) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(self.pairs), self.batch_size):
            pairs = [self.pairs[index] for index in range(start, min(len(self.pairs), start + self.batch_size))]
            frames = np.stack([resize_frame(image, self.size) for image, _ in pairs])
            yield scale_frames(frames), np.stack([resize_labels(mask, self.size) for _, mask in pairs])
