"""The guarded import of cv2: if it fails (without libGL, for one), the error says how to fix it; and its want of memory
as Python's own error. Knows nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .errors import MissingDependencyError, raise_if_interrupted

__all__ = ["cv2", "python_memory_error"]


def explain_import_error(error: ImportError) -> MissingDependencyError:
    """Turn an ImportError of cv2 into a one-line error that says how to fix it."""
    if isinstance(error, ModuleNotFoundError) and error.name == "cv2":
        return MissingDependencyError("OpenCV is not installed. Install it: pip install opencv-python-headless")
    return MissingDependencyError(
        f"OpenCV cannot be loaded ({error}). On a machine without a screen use the build that needs no libGL: "
        "pip uninstall -y opencv-python && pip install --force-reinstall opencv-python-headless"
    )


try:
    import cv2
except ImportError as import_error:
    raise_if_interrupted(import_error)
    raise explain_import_error(import_error) from import_error


@contextlib.contextmanager
def python_memory_error() -> Iterator[None]:
    """Within the block OpenCV's error where memory runs out is a `MemoryError`, as numpy's is."""
    try:
        yield
    except cv2.error as error:
        if error.code != cv2.Error.StsNoMem:
            raise
        raise MemoryError("OpenCV could get no more memory.") from error
