"""A file or folder that is whole or absent under its name, whatever dies when: written beside it, synced, renamed, and
the rename synced too. Knows nothing of what is in it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import itertools
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import ConfigurationError, EdgeSegError, MediaError

fcntl: Any = None
with contextlib.suppress(ImportError):
    import fcntl

# Called with (what was made, the name it is about to take), when all of it is on disk.
Seal = Callable[[Path, Path], None]

# What a killed process leaves under a hidden name is taken away by a later one; a day's leeway is not needed, but a
# process in another container, whose number means nothing here, may still be writing.
STALE_S = 600.0
LOCK_ATTEMPTS = 10
# With which no other file would fare better.
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_TEMPORARY = re.compile(r"[.]partial-(\d+)-\d+-")
_LOCK = ".partial-lock-"
_numbers = itertools.count()


def name_of(given: str | os.PathLike[str], what: str) -> str:
    """The text of a path that was given.

    Args:
        given: the path.
        what: what it names, for the error.

    Raises:
        ConfigurationError: it is no path, or no file can have that name.
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
    """A result that no other run writes meanwhile: by a lock on a hidden file beside it, which goes with the claim.

    Not on the file that is written: on disks of a Windows server (SMB) a lock keeps its own process from writing by
    another handle. Where files cannot be locked, as on Windows, nothing is kept from anybody.

    Args:
        path: what is to be written, in a folder that is there.

    Raises:
        BlockingIOError: another run has claimed it.
        OSError: the folder takes no file.
    """

    def __init__(self, path: Path) -> None:
        name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
        self._beside = path.with_name(f"{_LOCK}{name}")
        self._handle: int | None = None
        if fcntl is None:
            return
        # Whoever had it may have let go, and taken the file away, while we waited for it to open.
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
        """Let others have it. Twice is fine."""
        handle, self._handle = self._handle, None
        if handle is not None:
            try:
                # In a sticky folder (/tmp) another user's lock cannot be removed; letting go of it is enough.
                with contextlib.suppress(OSError):
                    self._beside.unlink(missing_ok=True)
            finally:
                os.close(handle)


def _opened(lock: Path) -> int:
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError as error:
        try:
            return os.open(lock, os.O_RDONLY)  # Another user's, which can be locked all the same.
        except FileNotFoundError:
            raise PermissionError(error.errno, error.strerror, str(lock.parent)) from error


def _locked(handle: int, lock: Path) -> bool:
    """Whether an open lock is ours now; raises `BlockingIOError` while it is another's."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return True  # Some disks know no locks.
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
        keep: the name under which the file that is replaced stays; it is lost by default.

    Raises:
        OSError: it cannot be written, with `path` as its file name; the file that had the name still has it.
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
    """Write a file whole or not at all, see `replacing`; raises `MediaError`, leaving nothing half-written."""
    try:
        with replacing(target, seal=seal) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise MediaError(f"{target} cannot be written ({reason(error)}).") from error
    return target


def temporary_path(path: Path) -> Path:
    """A hidden name beside `path` that no other thread or process has; what dead ones left there goes."""
    _sweep_once(path.parent.absolute())
    # Keras and matplotlib pick their format by suffix, so the temporary name keeps all of them; of a name as long as
    # names may be, it keeps the end.
    return path.with_name(f".partial-{os.getpid()}-{next(_numbers)}-{path.name[-50:]}")


def publish(made: Path, final: Path, *, seal: Seal | None = None, keep: Path | None = None) -> None:
    """Sync a finished file or folder, give it its final name, and sync that too.

    A folder cannot take the place of another one in one step: the old one steps aside first, whole.
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


def reason(error: BaseException) -> str:
    """Why a file could not be read or written, in a user's words."""
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC:
        return "the disk is full"
    if number in (errno.EFBIG, errno.EDQUOT):
        return "the limit on the size of files is reached"
    return str(getattr(error, "strerror", None) or error).lower()


def sync(path: Path) -> None:
    """Have a file, or every file of a folder, on disk."""
    if path.is_dir():
        for child in path.iterdir():
            sync(child)
        sync_folder(path)
        return
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk, where the system has a way to say so."""
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # A folder one may write to and not read.
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # Network file systems that cannot.
            raise
    finally:
        os.close(handle)


def sweep(folder: Path) -> list[str]:
    """Take away what processes that are no more left under temporary names; returns those names."""
    gone = []
    for entry in _entries(folder):
        if entry.name.startswith(_LOCK) and _swept(Path(entry.path)):
            gone.append(entry.name)
        found = _TEMPORARY.match(entry.name)
        if found is None or _alive(int(found[1])):
            continue
        with contextlib.suppress(OSError):
            if time.time() - entry.stat().st_mtime < STALE_S:
                continue
            shutil.rmtree(entry.path) if entry.is_dir() else os.unlink(entry.path)
            gone.append(entry.name)
    return gone


def _swept(lock: Path) -> bool:
    """Take away a lock that nobody holds; whether it was."""
    if fcntl is None:
        return False
    with contextlib.suppress(OSError):
        handle = os.open(lock, os.O_RDONLY)
        try:
            if _locked(handle, lock):
                lock.unlink()
                return True
        finally:
            os.close(handle)
    return False


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
    """Whether a process of this number runs here; also where that cannot be asked without harm."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # Another user's; no number of a process at all.
        pass
    return True
