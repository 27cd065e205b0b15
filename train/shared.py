"""Memory that processes share, for POSIX systems: a file without a name, of which nothing stays however they end.

All of its room is taken when it is made: a file with holes would kill whoever fills one that there is no room for.
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

# Where memory lies first: Linux keeps no file of this folder on a disk.
MEMORY_FOLDER = "/dev/shm"
# Zeros written at once, where a system reserves no room by itself.
STEP = 2**24


class NoRoomError(EdgeSegError, OSError):
    """No folder has the room for memory that is to be shared, or none lets it be used."""


class Shared:
    """Bytes that are 0 at first, the same for each process that this is given to as it is begun.

    Args:
        size: how many.

    Raises:
        NoRoomError: says how many, and what each folder has.
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
        """All of them: (size,) uint8."""
        return np.frombuffer(self._map, np.uint8)

    def claim(self, place: int) -> bool:
        """Take what a byte stands for, if no other process has it. Whatever a process has is free when it ends."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            return False
        return True

    def release(self, place: int) -> None:
        """Let go of what was claimed."""
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
    """A file of zeros that has its room, and whose bytes can be claimed."""
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
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # What file systems say that know no such thing.
                raise
        else:
            return
    zeros = memoryview(bytes(min(size, STEP)))
    written = 0
    while written < size:
        written += file.write(zeros[: size - written])


def _trouble(folder: Callable[[], str], error: OSError) -> str:
    """In words, why a folder will not do."""
    said = error.strerror or str(error)
    try:
        return f"{folder()}: {said}, {_megabytes(shutil.disk_usage(folder()).free)} free"
    except OSError:
        return said if error.filename is None else f"{error.filename}: {said}"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
