"""Batches drawn by several processes, for a GPU that outpaces one process's threads, which Python's lock holds up.

Each process is spawned (never forked: TensorFlow and JAX have threads), imports neither of them, and draws one batch
after another on request. Images already read, frames and a teacher's opinions lie once in memory that all processes
share (`train.shared`). Rendered scenes do too, each street drawn by the first process that needs it, and so do finished
batches, still as uint8. If one process dies, all end, and the training with them. A batch's content does not depend on
which process draws it (`train.batches`). Knows nothing of networks.
"""

from __future__ import annotations

import atexit
import math
import multiprocessing
import os
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

from edge_seg.errors import ConfigurationError, EdgeSegError
from edge_seg.preprocess import scale_frames
from edge_seg.signals import NUMBERS

from .augment import Pair
from .batches import TrainingBatches
from .shared import Shared
from .stores import MOMENTS_PER_STREET, PairStore, RenderedStore

# Bytes; shared arrays begin on a line of the processor's cache.
ALIGNMENT = 64
# Between two checks whether another process is still drawing a street, which takes seconds.
LOOK_S = 0.01
# How long a process may take to end once its pipe is closed.
ENDING_S = 5


class DrawingError(EdgeSegError, RuntimeError):
    """A process that draws batches ended, or raised an error that could not be pickled."""


class NoProcessesError(ConfigurationError):
    """Processes that draw batches cannot be started here: the system lacks the memory for them, or refuses them."""


class Drawers:
    """Processes that draw the batches of a `TrainingBatches`; a context manager that ends them.

    Args:
        batches: what they draw from.
        count: how many.

    Raises:
        NoProcessesError: there is no room for the memory they share, or a process cannot be started.
    """

    def __init__(self, batches: TrainingBatches, count: int) -> None:
        self._store = batches.rendered if isinstance(batches.rendered, RenderedStore) else None
        self._scenes: SharedScenes | None = None
        self._workers: list[_Worker] = []
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._lock = Lock()
        self.count, self._failure = count, ""
        try:
            self._begin(batches, count)
        except OSError as error:
            self.stop()
            raise NoProcessesError(f"The processes that draw batches cannot be begun: {error}.") from error
        except BaseException:
            self.stop()
            raise
        for worker in self._workers:
            self._idle.put(worker)

    def _begin(self, batches: TrainingBatches, count: int) -> None:
        plan = copy(batches)
        if self._store is not None:
            self._scenes = SharedScenes(self._store)
            plan.rendered = ()
        if isinstance(plan.pairs, PairStore):
            plan.pairs = plan.pairs.shared_by(count)
        packed = Packed(plan)
        places = [Place(batches) for _ in range(count)]  # All shared memory is reserved before a process starts.
        context = multiprocessing.get_context("spawn")
        with _beginning():
            for place in places:
                self._workers.append(_Worker(context, packed, self._scenes, place))
        # Registered after a process was started, so that it runs before multiprocessing's own handler waits for them.
        atexit.register(self.stop)

    def __enter__(self) -> Drawers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for worker in self._workers:
            worker.connection.close()

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """As `TrainingBatches.batch`, drawn by any free process. To be called by at most `count` threads at once.

        Raises:
            DrawingError: a process has ended, this or another; then all have.
            Exception: whatever the process raised.
        """
        worker = self._idle.get()
        try:
            worker.connection.send((epoch, index))
            answer = worker.connection.recv()
        except (EOFError, OSError):
            raise DrawingError(self._end_of(worker)) from None
        else:
            if isinstance(answer, Exception):
                raise answer
            return worker.place.batch(answer)
        finally:
            self._idle.put(worker)

    def _end_of(self, worker: _Worker) -> str:
        """The message about the first process that ended; kills all others, which ends the waits for them."""
        with self._lock:
            if not self._failure:
                worker.process.join(ENDING_S)
                self._failure = _last_words(worker.process.exitcode)
                for other in self._workers:
                    other.process.kill()
            return self._failure

    def stop(self) -> None:
        """Kill the processes, whatever they are doing; calling it twice is no error."""
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
    """One process, our end of its pipe, and the memory that its batches arrive in."""

    def __init__(self, context: Any, packed: Packed, scenes: SharedScenes | None, place: Place) -> None:
        self.place = place
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_draw, args=(theirs, packed, scenes, place), name="batches", daemon=True)
        self.process.start()
        theirs.close()  # Only the process has it now, so the pipe closes when the process ends.


def _draw(connection: Any, packed: Packed, scenes: SharedScenes | None, place: Place) -> None:
    """The main function of a process: answer each (epoch, index) until the pipe closes."""
    # The training's own process handles these signals and decides what happens.
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NUMBERS)
    cv2.setNumThreads(1)
    batches = packed.opened()
    if scenes is not None:
        batches.rendered = scenes
    try:
        while True:
            connection.send(_answer(batches, place, *connection.recv()))
    except (EOFError, OSError):  # The training has ended.
        return


def _answer(batches: TrainingBatches, place: Place, epoch: int, index: int) -> int | Exception:
    """Draw a batch into `place`; returns how many images it has, or the error that prevented it."""
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

    def __init__(self, batches: TrainingBatches) -> None:
        self._shapes = (batches.batch_size, *batches.size, 3), (batches.batch_size, *batches.target_shape)
        self._memory = Shared(sum(map(math.prod, self._shapes)))

    def put(self, frames: np.ndarray, targets: np.ndarray) -> int:
        """Store a batch as it was drawn; returns how many images it has.

        Raises:
            ConfigurationError: an array is not uint8.
        """
        for array, given in zip(self._arrays(), (frames, targets), strict=True):
            if given.dtype != np.uint8:
                raise ConfigurationError(
                    f"Images, masks and opinions: expected uint8 where processes draw batches, got {given.dtype}; "
                    "processes=0 draws by threads."
                )
            np.copyto(array[: len(given)], given, casting="no")
        return len(frames)

    def batch(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """A batch of `count` images as `TrainingBatches.batch` returns it, copied out of the shared memory."""
        frames, targets = self._arrays()
        return scale_frames(frames[:count]), targets[:count].copy()

    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        memory, first = self._memory.array(), math.prod(self._shapes[0])
        return memory[:first].reshape(self._shapes[0]), memory[first:].reshape(self._shapes[1])


class Packed:
    """An object whose arrays lie in memory shared by all processes that open it, and so are stored only once."""

    def __init__(self, content: Any) -> None:
        found: list[pickle.PickleBuffer] = []
        self._pickled = pickle.dumps(content, protocol=5, buffer_callback=found.append)
        arrays = [buffer.raw() for buffer in found]
        self._spans: list[tuple[int, int]] = []
        end = 0
        for array in arrays:
            first = -(-end // ALIGNMENT) * ALIGNMENT
            end = first + array.nbytes
            self._spans.append((first, end))
        self._memory = Shared(end)
        memory = self._memory.array()
        for array, (first, end) in zip(arrays, self._spans, strict=True):
            memory[first:end] = array

    def opened(self) -> Any:
        """The object; its arrays are views of the shared memory, not to be written to."""
        memory = self._memory.array()
        return pickle.loads(self._pickled, buffers=[memory[first:end] for first, end in self._spans])


class SharedScenes(Sequence[Pair]):
    """A `RenderedStore` that several processes fill together: the first to need a street draws it for all.

    Args:
        store: what is to be drawn; streets that it has drawn already are copied.
    """

    def __init__(self, store: RenderedStore) -> None:
        self._plan = RenderedStore(len(store), store.size, store.seed)
        self._training = os.getpid()
        self._ready: set[int] = set()  # Streets that are known to be drawn.
        self._shape = (store.streets, MOMENTS_PER_STREET, *store.size, 4)
        # First a byte for each street, 1 where it is drawn, then the pixels.
        self._first = -(-store.streets // ALIGNMENT) * ALIGNMENT
        self._memory = Shared(self._first + math.prod(self._shape))
        for street, pairs in store.drawn.items():
            self._keep(street, pairs)

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: Any) -> Any:
        street, moment = divmod(index, MOMENTS_PER_STREET)
        if street not in self._ready:
            self._have_drawn(street)
        return self._pair(street, moment)

    def give(self, store: RenderedStore) -> None:
        """Copy what has been drawn into the store that this was made from. Call when no process draws any more."""
        for street in np.flatnonzero(self._memory.array()[: self._plan.streets]).tolist():
            if street not in store.drawn:
                pairs = [self._pair(street, moment) for moment in range(MOMENTS_PER_STREET)]
                store.drawn[street] = [(image.copy(), mask.copy()) for image, mask in pairs]

    def _have_drawn(self, street: int) -> None:
        """Draw a street, or wait for the process that does; if that one dies, the next draws it.

        Raises:
            EOFError: the training has ended, so the street is no longer needed.
        """
        # A claim follows the last holder's release, which also orders memory: the pixels are visible before the byte.
        while not self._memory.claim(street):
            if self._training not in (os.getpid(), os.getppid()):
                raise EOFError("the training has ended")
            time.sleep(LOOK_S)
        try:
            if not self._memory.array()[street]:
                self._keep(street, self._plan.draw(street))
        finally:
            self._memory.release(street)
        self._ready.add(street)

    def _keep(self, street: int, pairs: Sequence[Pair]) -> None:
        for moment, (image, mask) in enumerate(pairs):
            for place, array in zip(self._pair(street, moment), (image, mask), strict=True):
                np.copyto(place, array, casting="no")
        self._memory.array()[street] = 1

    def _pair(self, street: int, moment: int) -> Pair:
        pixels = self._memory.array()[self._first :].reshape(*self._shape[:2], -1)[street, moment]
        height, width = self._plan.size
        image, mask = pixels[: 3 * height * width], pixels[3 * height * width :]
        return image.reshape(height, width, 3), mask.reshape(height, width)


@contextmanager
def _beginning() -> Iterator[None]:
    """Context to start processes in: they do not run the main script again, and signals sent to them wait.

    The script may load TensorFlow, and a signal would end a process that does not ignore it yet. Signals are blocked in
    this thread only, whose mask the processes inherit: other threads of this process still receive them.
    """
    resource_tracker.ensure_running()  # Otherwise it would start inside the block, and unblock signals as it does.
    # pthread_sigmask runs the handlers of pending signals, which may raise: the old mask is read before it is changed.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    main = sys.modules["__main__"]
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
        sys.modules["__main__"] = ModuleType("__main__")
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _last_words(code: int | None) -> str:
    """The message about a process that ended: how, and what may help."""
    if code is not None and code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    else:
        how = f"ended with exit code {code}"
    return (
        f"A process that draws batches {how}; expected it to last as long as the training. Where memory is short, "
        "fewer --workers take less, and --workers 0 draws by threads."
    )
