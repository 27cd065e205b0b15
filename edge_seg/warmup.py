"""First runs of a session, to let the device tune itself and see whether its memory holds the batch. Opens nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from .errors import DeviceError, OutOfMemoryError
from .ort_session import OrtSession


def warm_up(session: OrtSession, batch_size: int, input_size: tuple[int, int], *, runs: int) -> None:
    """Run `runs` times at the full shape; if memory runs out, raise `OutOfMemoryError` naming a batch that fits."""

    def run(frames_at_once: int) -> None:
        frames = np.zeros((frames_at_once, *input_size, 3), np.uint8)
        for _ in range(runs):
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
