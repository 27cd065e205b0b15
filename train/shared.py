"""Memory that processes share, for POSIX systems: a file without a name, of which nothing stays however they end.

All of its room is reserved when it is made: in a sparse file, writing where no room is left would kill the process.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any

import numpy as np

from edge_seg.errors import EdgeSegError

# Tried first: Linux keeps the files of this folder in memory, not on a disk.
MEMORY_FOLDER = "/dev/shm"
# Zeros written at once, where the system cannot reserve room itself.
STEP = 2**24


class NoRoomError(EdgeSegError, OSError):
    """No folder has room for the shared memory, or none allows its use."""


class Shared:
    """Bytes, 0 at first, shared with each process that this object is given to at its start.

    Args:
        size: number of bytes.

    Raises:
        NoRoomError: no folder will do; the message says how many bytes are needed and what each folder has.
    """

    def __init__(self, size: int) -> None:
        self._size = max(1, size)
        troubles = []
        for folder in (lambda: MEMORY_FOLDER, tempfile.gettempdir):
            try:
                self._file = _reserved(folder(), self._size)
                self._map = mmap.mmap(self._file.fileno(), self._size)
            except OSError as error:
                troubles.append(_trouble(folder, error))
            else:
                return
        raise NoRoomError(f"no room for {_megabytes(self._size)} of memory to share: {'; '.join(troubles)}")

    def array(self) -> np.ndarray:
        """All the bytes: (size,) uint8."""
        return np.frombuffer(self._map, np.uint8)

    def claim(self, place: int) -> bool:
        """Lock one byte, if no other process has locked it; returns whether it could. Locks end with their process."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            return False
        return True

    def release(self, place: int) -> None:
        """Unlock a byte that was claimed."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)

    def fileno(self) -> int:
        """Descriptor of the file."""
        return self._file.fileno()

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (reduction.DupFd(self._file.fileno()), self._size)


def _opened(descriptor: Any, size: int) -> Shared:
    shared = Shared.__new__(Shared)
    shared._size, shared._file = size, os.fdopen(descriptor.detach(), "r+b", buffering=0)
    shared._map = mmap.mmap(shared._file.fileno(), size)
    return shared


def _reserved(folder: str, size: int) -> Any:
    """A file of zeros whose room is reserved and whose bytes can be locked; raises `OSError` where that fails."""
    file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - lives as long as the memory
    try:
        _take_room(file, size)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        fcntl.lockf(file, fcntl.LOCK_UN, 1)
    except BaseException:
        file.close()
        raise
    return file


def _take_room(file: Any, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # File systems without support.
                raise
        else:
            return
    zeros = memoryview(bytes(min(size, STEP)))
    written = 0
    while written < size:
        written += file.write(zeros[: size - written])


def _trouble(folder: Callable[[], str], error: OSError) -> str:
    """Why a folder cannot be used, in words."""
    said = error.strerror or str(error)
    try:
        return f"{folder()}: {said}, {_megabytes(shutil.disk_usage(folder()).free)} free"
    except OSError:
        return said if error.filename is None else f"{error.filename}: {said}"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
