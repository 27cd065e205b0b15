"""The file of records beside results, one line per result. Knows nothing of what a line says but the result's name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .files import sync_folder

RECORDS_NAME = ".edge_seg.jsonl"


def results_in(folder: Path) -> frozenset[str]:
    """Names of all results ever finished in a folder."""
    return frozenset(read_lines(folder / RECORDS_NAME))


def read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """Result name -> its newest line; incomplete lines, which a kill or a full disk leaves, are skipped."""
    found: dict[str, dict[str, Any]] = {}
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return found
    for row in text.splitlines():
        try:
            line = json.loads(row)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("result"), str):
            found[line["result"]] = line
    return found


def append_line(path: Path, line: str) -> None:
    """Append a line, which is on disk when this returns; lines of several processes do not mix."""
    new = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
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
