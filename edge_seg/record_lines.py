"""The file of records beside results, one line per result. Knows nothing of what a line says but the result's name."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from .files import WARY, sync_folder

RECORDS_NAME = ".edge_seg.jsonl"
APPEND = os.O_RDWR | os.O_APPEND


def results_in(folder: Path) -> frozenset[str]:
    """Names of all results ever finished in a folder."""
    return frozenset(read_lines(folder / RECORDS_NAME))


def read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """Result name -> its newest line; incomplete lines, which a kill or a full disk leaves, are skipped."""
    found: dict[str, dict[str, Any]] = {}
    try:
        with os.fdopen(_opened(path, os.O_RDONLY), encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return found
    for row in text.splitlines():
        try:
            line = json.loads(row)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and isinstance(line.get("result"), str):
            found[line["result"]] = line
    return found


def check_lines(path: Path) -> None:
    """Raise `OSError` if lines cannot be appended to an existing file of records."""
    if os.path.lexists(path):
        os.close(_opened(path, APPEND))


def append_line(path: Path, line: str) -> None:
    """Append a line, which is on disk when this returns; lines of several processes do not mix."""
    new = False
    try:
        handle = _opened(path, APPEND)
    except FileNotFoundError:
        # Only now: Linux lets nobody "create" another user's file in a sticky folder (/tmp), though it may be written.
        handle, new = _opened(path, APPEND | os.O_CREAT), True
    try:
        size = os.fstat(handle).st_size
        broken = size > 0 and os.pread(handle, 1, size - 1) != b"\n" if hasattr(os, "pread") else False
        data = b"\n" * broken + f"{line}\n".encode()
        while data:
            data = data[os.write(handle, data) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    if new:
        sync_folder(path.parent)


def _opened(path: Path, flags: int) -> int:
    """Open a file of records, which anyone may have put into a shared folder: a pipe would hang, and through a link
    lines would be appended to some other file."""
    try:
        handle = os.open(path, flags | WARY, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, "a link, which is not followed", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a file", str(path))
    return handle
