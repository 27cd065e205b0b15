"""Imports Keras' backend without its start-up chatter.

TensorFlow logs about CUDA and CPU features before any log level is read, and would bury our one clear line. Nothing is
lost: if the import fails, what it wrote is shown.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Iterator

from edge_seg.signals import held_back, speaking_through

WAITING = "Stopping as soon as Keras is loaded; once more to stop at once."


def import_keras_quietly() -> None:
    """Import keras with file descriptor 2 redirected; raises what the import raises. Interruptions wait for its end."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "keras" in sys.modules:
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        failed = False
        try:
            with speaking_through(kept), held_back(said=WAITING):
                _import_keras()
        except Exception:
            failed = True
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            if failed:
                said.seek(0)
                os.write(2, said.read())


def _import_keras() -> None:
    with _uncollected():
        import keras

    # Some lines come only when the backend first computes, which several hosts of JAX may do only once they have met.
    if "KERAS_DISTRIBUTION_NUM_PROCESSES" not in os.environ:
        keras.ops.zeros((1,))


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection, which would look through 600,000 new objects again and again: a fifth of the time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        # Old at once: as young ones, they would all be looked through at the next allocations.
        gc.freeze()
        gc.unfreeze()
        gc.enable()
