"""Batches drawn by several processes at once, for a GPU that is quicker than the threads of one: Python locks them out.

Each process is begun anew (never forked: TensorFlow and JAX have threads), imports neither of them, and draws one batch
after another as it is asked to. What images have been read, frames and a teacher's opinions lie once in memory that all
share, rendered scenes too, each street drawn by whoever needs it first; a batch comes back so, too, still as uint8.
The memory is a file without a name, so that nothing stays behind however a process ends. Which process draws a batch
says nothing of what it holds (`train.batches`). Knows no networks.
"""

from __future__ import annotations

import atexit
import math
import multiprocessing
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from multiprocessing import resource_tracker
from queue import SimpleQueue
from threading import Lock
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from edge_seg.errors import EdgeSegError
from edge_seg.preprocess import scale_frames

from . import batches as drawn_here
from .augment import Pair
from .batches import MOMENTS_PER_STREET, RenderedStore, TrainingBatches

# Where a shared array begins: on a whole line of the processor's cache.
ALIGNMENT = 64
# Between two looks at whether another process has drawn a street, which takes it seconds.
LOOK_S = 0.01
# What a process whose pipe is closed may take to be gone.
ENDING_S = 5
NOT_DRAWN, BEING_DRAWN, DRAWN = range(3)
# The training's own process hears these and says what is to be done.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class DrawingError(EdgeSegError, RuntimeError):
    """A process that draws batches ended, or met something that could not be told."""


class Drawers:
    """Processes that draw the batches of a `TrainingBatches`; a context manager that ends them.

    Args:
        batches: what they draw from.
        count: how many.
    """

    def __init__(self, batches: TrainingBatches, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._store = batches.rendered if isinstance(batches.rendered, RenderedStore) else None
        self._scenes = SharedScenes(self._store, context) if self._store is not None else None
        plan = copy(batches)
        if self._scenes is not None:
            plan.rendered = ()
        packed = Packed(plan, context)
        self._workers: list[_Worker] = []
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._lock = Lock()
        try:
            with _beginning():
                for _ in range(count):
                    self._workers.append(_Worker(context, batches, packed, self._scenes, count))
            # After the first process was begun, so that it comes before multiprocessing's own wait for them.
            atexit.register(self.stop)
        except BaseException:
            self.stop()
            raise
        for worker in self._workers:
            self._idle.put(worker)

    def __enter__(self) -> Drawers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for worker in self._workers:
            worker.connection.close()

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """As `TrainingBatches.batch`, by whichever process is free. To be called by at most `count` threads at once.

        Raises:
            DrawingError: the process has ended.
            Exception: whatever the process met.
        """
        worker = self._idle.get()
        try:
            worker.connection.send((epoch, index))
            answer = worker.connection.recv()
        except (EOFError, OSError):
            with self._lock:
                worker.process.join(ENDING_S)
            raise DrawingError(_last_words(worker.process.exitcode)) from None
        else:
            if isinstance(answer, Exception):
                raise answer
            return worker.place.batch(answer)
        finally:
            self._idle.put(worker)

    def stop(self) -> None:
        """End the processes, whatever they are at; twice is no error."""
        atexit.unregister(self.stop)
        with self._lock:
            for worker in self._workers:
                worker.process.kill()
            for worker in self._workers:
                worker.process.join()
            if self._store is not None and self._scenes is not None:
                self._scenes.give(self._store)
                self._store = None


class _Worker:
    """One process, this side's end of its pipe, and the memory that its batches come in."""

    def __init__(
        self, context: Any, batches: TrainingBatches, packed: Packed, scenes: SharedScenes | None, count: int
    ) -> None:
        self.place = Place(batches, context)
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_draw, args=(theirs, packed, scenes, self.place, count), name="batches", daemon=True
        )
        self.process.start()
        theirs.close()  # The process alone has it now: its end is the pipe's.


def _draw(connection: Any, packed: Packed, scenes: SharedScenes | None, place: Place, count: int) -> None:
    """What a process does: answer each (epoch, index) until nobody asks any more."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    cv2.setNumThreads(1)
    drawn_here.CACHE_BYTES //= count
    batches = packed.opened()
    if scenes is not None:
        batches.rendered = scenes
    try:
        while True:
            connection.send(_answer(batches, place, *connection.recv()))
    except (EOFError, OSError):  # The training has ended.
        return


def _answer(batches: TrainingBatches, place: Place, epoch: int, index: int) -> int | Exception:
    """How many images of this batch now lie in `place`; or why there are none."""
    try:
        return place.put(*batches.unscaled(epoch, index))
    except Exception as error:
        if not isinstance(error, EdgeSegError):
            error.add_note(f"in a process that draws batches:\n{traceback.format_exc()}")
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return DrawingError(f"{type(error).__name__}: {error}")
        return error


class Place:
    """Memory for one batch, shared by the process that draws it and the one that trains on it."""

    def __init__(self, batches: TrainingBatches, context: Any) -> None:
        self._shapes = (batches.batch_size, *batches.size, 3), (batches.batch_size, *batches.target_shape)
        self._memory = context.RawArray("B", sum(map(math.prod, self._shapes)))

    def put(self, frames: np.ndarray, targets: np.ndarray) -> int:
        """Lay down a batch as it was drawn; returns how many images it has."""
        for array, given in zip(self._arrays(), (frames, targets), strict=True):
            np.copyto(array[: len(given)], given, casting="no")
        return len(frames)

    def batch(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """A batch of so many images as `TrainingBatches.batch` gives it, in memory of its own."""
        frames, targets = self._arrays()
        return scale_frames(frames[:count]), targets[:count].copy()

    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        memory, first = np.frombuffer(self._memory, np.uint8), math.prod(self._shapes[0])
        return memory[:first].reshape(self._shapes[0]), memory[first:].reshape(self._shapes[1])


class Packed:
    """An object, sent once however many processes open it: the arrays in it lie in memory that they share."""

    def __init__(self, content: Any, context: Any) -> None:
        found: list[pickle.PickleBuffer] = []
        self._pickled = pickle.dumps(content, protocol=5, buffer_callback=found.append)
        arrays = [buffer.raw() for buffer in found]
        self._spans: list[tuple[int, int]] = []
        end = 0
        for array in arrays:
            first = -(-end // ALIGNMENT) * ALIGNMENT
            end = first + array.nbytes
            self._spans.append((first, end))
        self._memory = context.RawArray("B", max(1, end))
        memory = np.frombuffer(self._memory, np.uint8)
        for array, (first, end) in zip(arrays, self._spans, strict=True):
            memory[first:end] = array

    def opened(self) -> Any:
        """The object; its arrays are views of the shared memory, not to be written to."""
        memory = np.frombuffer(self._memory, np.uint8)
        return pickle.loads(self._pickled, buffers=[memory[first:end] for first, end in self._spans])


class SharedScenes(Sequence[Pair]):
    """A `RenderedStore` that several processes fill together: who needs a street first draws it, for all.

    Args:
        store: what is to be drawn; what it has drawn already is taken over.
    """

    def __init__(self, store: RenderedStore, context: Any) -> None:
        self._plan = RenderedStore(len(store), store.size, store.seed)
        self._lock = context.Lock()
        self._states = context.RawArray("B", store.streets)
        self._shape = (store.streets, MOMENTS_PER_STREET, *store.size, 4)
        self._memory = context.RawArray("B", math.prod(self._shape))
        for street, pairs in store.drawn.items():
            self._keep(street, pairs)

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: Any) -> Any:
        street, moment = divmod(index, MOMENTS_PER_STREET)
        while (state := self._claimed(street)) != DRAWN:
            if state == BEING_DRAWN:
                time.sleep(LOOK_S)
                continue
            try:
                self._keep(street, self._plan.draw(street))
            except BaseException:
                self._states[street] = NOT_DRAWN
                raise
        return self._pair(street, moment)

    def give(self, store: RenderedStore) -> None:
        """Leave what has been drawn to the store that this was made of. For when no process draws any more."""
        for street, state in enumerate(self._states):
            if state == DRAWN and street not in store.drawn:
                pairs = [self._pair(street, moment) for moment in range(MOMENTS_PER_STREET)]
                store.drawn[street] = [(image.copy(), mask.copy()) for image, mask in pairs]

    def _claimed(self, street: int) -> int:
        """A street's state; one that nobody has drawn or draws is the caller's to draw."""
        with self._lock:
            state = int(self._states[street])
            if state == NOT_DRAWN:
                self._states[street] = BEING_DRAWN
            return state

    def _keep(self, street: int, pairs: Sequence[Pair]) -> None:
        for moment, (image, mask) in enumerate(pairs):
            for place, array in zip(self._pair(street, moment), (image, mask), strict=True):
                np.copyto(place, array, casting="no")
        with self._lock:  # Also tells other processors that the pixels come before the word.
            self._states[street] = DRAWN

    def _pair(self, street: int, moment: int) -> Pair:
        pixels = np.frombuffer(self._memory, np.uint8).reshape(self._shape[0], self._shape[1], -1)[street, moment]
        height, width = self._plan.size
        image, mask = pixels[: 3 * height * width], pixels[3 * height * width :]
        return image.reshape(height, width, 3), mask.reshape(height, width)


@contextmanager
def _beginning() -> Iterator[None]:
    """For processes to be begun inside: they do not run the main script again, and signals wait.

    The script may load TensorFlow, and a signal would end a process that has not learnt yet to ignore it.
    """
    resource_tracker.ensure_running()  # Else this one, on its way, would let the signals through.
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    held = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        sys.modules["__main__"] = main


def _last_words(code: int | None) -> str:
    """Of a process that is gone: what it ended by, and what may help."""
    if code is not None and code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    else:
        how = f"ended with exit code {code}"
    return (
        f"A process that draws batches {how}; expected it to last as long as the training. Where memory is short, "
        "fewer --workers take less, and --workers 0 draws by threads; --resume goes on from the last checkpoint."
    )
