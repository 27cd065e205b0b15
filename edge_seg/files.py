"""Files and folders that are whole or absent under their names, even after a crash: written beside, synced, renamed,
and the rename synced too. Knows nothing about their contents.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from .errors import ConfigurationError, EdgeSegError, MediaError

fcntl: Any = None
with contextlib.suppress(ImportError):
    import fcntl

# Called with (the finished file or folder, its final name) once it is on disk, before it is renamed.
Seal = Callable[[Path, Path], None]

# Hidden files that a killed process left are deleted by a later one once they are this old, and no sooner: a process in
# another container, whose id means nothing here, may still be writing them. Once they are as old as the second, they
# are deleted even if a process has that id: in a container the first one always does.
STALE_S = 600.0
LONG_STALE_S = 86_400.0
LOCK_ATTEMPTS = 10
# Errors that other files on the disk would meet too.
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# The end of a sentence on a result whose file is not where it was written.
GONE = "which is not there any more: it was removed, or its disk unmounted."
_TEMPORARY = re.compile(r"[.]partial-(\d+)-[0-9a-f]+-")
_LOCK = ".partial-lock-"
# In a folder that others may write to: a link is not followed, and a pipe that nobody writes to does not block.
WARY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def is_gone(path: Path) -> bool:
    """Whether what is being written to `path` is not there any more; a disk that does not answer is no sign of that."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def name_of(given: str | os.PathLike[str], what: str) -> str:
    """A given path as text.

    Args:
        given: the path.
        what: what it names, for the error.

    Raises:
        ConfigurationError: it is not a path, or no file can have that name.
    """
    text = os.fspath(given) if isinstance(given, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise ConfigurationError(f"The path of {what} is a str or a pathlib.Path; got {type(given).__name__}.")
    try:
        zero = b"\0" in os.fsencode(text)
    except UnicodeEncodeError:
        raise ConfigurationError(f"No file can have the name {text!r}: this system lacks a letter of it.") from None
    if zero:
        raise ConfigurationError(f"No file can have the name {text!r}: it holds a zero byte.")
    return text


class Claim:
    """Keeps other runs from writing a result, by a lock on a hidden file beside it that is deleted on release.

    The result itself is not locked: on disks of a Windows server (SMB) a lock keeps even its own process from writing
    through another handle. Where files cannot be locked, as on Windows, nothing is protected.

    Args:
        path: the result to be written, in an existing folder.

    Raises:
        BlockingIOError: another run has claimed it.
        OSError: no file can be created in the folder.
    """

    def __init__(self, path: Path) -> None:
        name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
        self._beside = path.with_name(f"{_LOCK}{name}")
        self._handle: int | None = None
        if fcntl is None:
            return
        # Its holder may have released the lock, deleting the file, after we opened it: then try again.
        for _ in range(LOCK_ATTEMPTS):
            handle = _opened(self._beside)
            try:
                ours = _locked(handle, self._beside)
            except BlockingIOError:
                os.close(handle)
                raise BlockingIOError(errno.EWOULDBLOCK, "another run is writing it", str(path)) from None
            if ours:
                self._handle = handle
                return
            os.close(handle)
        raise BlockingIOError(errno.EWOULDBLOCK, "other runs keep claiming it", str(path))

    def release(self) -> None:
        """Let other runs claim the result; harmless when called twice."""
        handle, self._handle = self._handle, None
        if handle is not None:
            try:
                # In a sticky folder (/tmp) another user's lock file cannot be deleted; closing it is enough.
                with contextlib.suppress(OSError):
                    self._beside.unlink(missing_ok=True)
            finally:
                os.close(handle)


def _opened(lock: Path) -> int:
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT | WARY, 0o666)
    except PermissionError as error:
        try:
            return os.open(lock, os.O_RDONLY | WARY)  # Another user's file, which can be locked all the same.
        except FileNotFoundError:
            raise PermissionError(error.errno, error.strerror, str(lock.parent)) from error


def _locked(handle: int, lock: Path) -> bool:
    """Lock an open lock file; False if `lock` is now another. Raises `BlockingIOError` if another run holds it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return True  # Some file systems have no locks.
    try:
        return os.path.samestat(os.fstat(handle), os.stat(lock))
    except FileNotFoundError:
        return False


@contextmanager
def replacing(path: Path, *, seal: Seal | None = None, keep: Path | None = None) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name, synced to disk, only if the block succeeds.

    Args:
        path: the final name.
        seal: called just before the rename; its error stops it.
        keep: the name under which to keep the file that is replaced; by default it is lost.

    Raises:
        OSError: it cannot be written; the error's file name is `path`, and what had that name is unchanged.
    """
    temporary = temporary_path(path)
    try:
        yield temporary
        publish(temporary, path, seal=seal, keep=keep)
    except OSError as error:
        if isinstance(error, EdgeSegError) or error.filename not in (None, str(temporary), temporary):
            raise
        raise OSError(error.errno, reason(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(target: Path, data: bytes, *, seal: Seal | None = None) -> Path:
    """Write a file whole or not at all (see `replacing`); raises `MediaError` if it cannot be written."""
    try:
        with replacing(target, seal=seal) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise MediaError(f"{target} cannot be written ({other_file(error, target)}{reason(error)}).") from error
    return target


def temporary_path(path: Path) -> Path:
    """A hidden name beside `path` that no other thread or process has; deletes what dead processes left there."""
    _sweep_once(path.parent.absolute())
    # Keras and matplotlib pick their format by suffix, so the temporary name ends like the final one; only its end is
    # kept, since the final name may already be as long as names may be.
    # A random part, since processes in different containers have the same id.
    return path.with_name(f".partial-{os.getpid()}-{secrets.token_hex(8)}-{path.name[-50:]}")


def create_anew(path: Path) -> BinaryIO:
    """A new file, unbuffered, in place of what had that name: of a link the link is replaced, not what it points at.

    Raises:
        OSError: it cannot be created.
    """
    path.unlink(missing_ok=True)
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb", buffering=0)


def publish(made: Path, final: Path, *, seal: Seal | None = None, keep: Path | None = None) -> None:
    """Sync a finished file or folder, give it its final name, and sync that too.

    A folder cannot replace another one in one step: the old one is first moved aside as a whole.
    """
    sync(made)
    if seal is not None:
        seal(made, final)
    aside = keep or (temporary_path(final) if made.is_dir() and final.is_dir() else None)
    if aside is not None:
        try:
            os.replace(final, aside)
        except FileNotFoundError:
            aside = None
    try:
        os.replace(made, final)
    except OSError:
        if aside is not None:
            os.replace(aside, final)
        raise
    sync_folder(final.parent)
    if aside is not None and aside != keep:
        shutil.rmtree(aside, ignore_errors=True)


def other_file(error: Any, *known: Path) -> str:
    """The file that an `OSError`, or one of FFmpeg's, is about, to go before its reason; "" for one of the known."""
    name = "" if error.filename is None else str(error.filename)
    return f"{name}: " if name and name not in map(str, known) else ""


def reason(error: BaseException) -> str:
    """Why a file could not be read or written, in a user's words."""
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC:
        return "the disk is full"
    if number in (errno.EFBIG, errno.EDQUOT):
        return "the limit on the size of files is reached"
    return str(getattr(error, "strerror", None) or error).lower()


def sync(path: Path) -> None:
    """Sync a file, or a folder and everything in it, to disk."""
    if path.is_dir():
        for child in path.iterdir():
            sync(child)
        sync_folder(path)
        return
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk, where the system has a way to do so."""
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # A folder that may be written to but not read.
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # Network file systems that cannot sync.
            raise
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Delete what dead processes left under temporary names."""
    for entry in _entries(folder):
        with contextlib.suppress(OSError):
            if entry.name.startswith(_LOCK):
                _sweep_lock(Path(entry.path))
            elif found := _TEMPORARY.match(entry.name):
                age_s = time.time() - entry.stat(follow_symlinks=False).st_mtime
                if age_s >= (LONG_STALE_S if _alive(int(found[1])) else STALE_S):
                    shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)


def _sweep_lock(lock: Path) -> None:
    """Delete a lock file that nobody holds."""
    if fcntl is None:
        return
    handle = os.open(lock, os.O_RDONLY | WARY)
    try:
        if _locked(handle, lock):
            lock.unlink()
    finally:
        os.close(handle)


@functools.lru_cache(maxsize=64)
def _sweep_once(folder: Path) -> None:
    sweep(folder)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _alive(process: int) -> bool:
    """Whether a process with this id runs here; True where asking would end it, as on Windows."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # Another user's process; not a possible process id.
        pass
    return True
