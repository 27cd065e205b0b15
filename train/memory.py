"""Memory during training: freed memory stays with the process, and running out of it is reported in one line.

Each step frees and allocates the same few hundred megabytes of activations. By default the C library maps each large
block anew and the system clears every page of it: a step of the bundled network took 5.0 s, and 4.2 s without that, on
two Zen 3 cores.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from edge_seg.errors import EdgeSegError, OutOfMemoryError

# glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TRIM_BYTES = 2**31 - 1  # the largest int; free memory beyond it is still returned
PAD_BYTES = 2**28


def keep_freed_memory() -> bool:
    """Ask the C library to serve large blocks from its heap and keep them; returns whether it could.

    Only glibc has the call. The user's own settings (`MALLOC_...`, `GLIBC_TUNABLES`) are left alone.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, Windows
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, TRIM_BYTES), (M_TOP_PAD, PAD_BYTES))
    return all(mallopt(name, value) == 1 for name, value in settings)


@contextmanager
def out_of_memory_told() -> Iterator[None]:
    """Turn any framework's error about a full device memory into an `OutOfMemoryError` that names the cure."""
    try:
        yield
    except EdgeSegError:
        raise
    except Exception as error:
        if not _is_full(error):
            raise
        words = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise OutOfMemoryError(
            f"Out of memory: {words[:200].rstrip('.')}. Train with a smaller --batch-size, --crop-size or narrower "
            "widths and another --out; or, where other programs filled the device, end them and go on with --resume."
        ) from error


def _is_full(error: Exception) -> bool:
    # TensorFlow's ResourceExhaustedError, torch's OutOfMemoryError, and JAX's one error for everything.
    named = type(error).__name__ in ("ResourceExhaustedError", "OutOfMemoryError")
    return isinstance(error, MemoryError) or named or "RESOURCE_EXHAUSTED" in str(error)
