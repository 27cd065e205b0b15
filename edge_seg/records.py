"""Records of finished results: a line for each in .edge_seg.jsonl beside it says what it was made from, for `--resume`.

A line is on disk before the result gets its final name. Knows nothing of how results are made: the identity of the
model and the options that matter are handed to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import MediaError
from .files import reason
from .items import Item
from .names import Plan
from .record_lines import RECORDS_NAME, append_line, check_lines, read_lines

OptionsOf = Callable[[Item, str], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is known about an existing result.

    Attributes:
        known: a line says what it was made from.
        owner: the other source that it was made from; empty if it is this one's.
        doubt: why it may not be relied on; empty if it may.
        remark: what was wrong with its source when it was made; empty if nothing.
    """

    known: bool
    owner: str = ""
    doubt: str = ""
    remark: str = ""


@dataclass(kw_only=True)
class Entry:
    """One source's lines, each written as a result takes its final name. `remark`: what was wrong with the source."""

    origins: dict[str, dict[str, Any]]
    remark: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def seal(self, made: Path, final: Path) -> None:
        """Write the line of a result that is about to take its final name. Raises `OSError`."""
        line = {"result": final.name, **content_of(made), **self.origins[str(final)], "remark": self.remark}
        with self._lock:
            append_line(final.parent / RECORDS_NAME, json.dumps(line))


class Records:
    """Records of results made by one model with one set of options.

    Args:
        model: identity of the model, such as its SHA-256.
        options_of: (item, kind) -> the options that affect that result, as plain JSON values.
    """

    def __init__(self, model: str, options_of: OptionsOf) -> None:
        self._model, self._options_of = model, options_of
        # Folder -> size and modification time of its records file when it was read, and its lines.
        self._read: dict[Path, tuple[tuple[int, int] | None, dict[str, dict[str, Any]]]] = {}

    def begin(self, item: Item, plan: Plan) -> Entry:
        """The lines to write for a source, which is identified as it is now, before it is read.

        Raises:
            MediaError: they could not be written; its results, once made, would not get their names.
        """
        for path in plan.values():
            file = path.with_name(RECORDS_NAME)
            try:
                check_lines(file)
            except OSError as error:
                raise MediaError(
                    f"{file}, which records what results are made from, cannot be written ({reason(error)}). "
                    "Choose another OUT, or make it a file that you may write to."
                ) from error
        return Entry(origins={str(path): self._origin(item, kind) for kind, path in plan.items()})

    def find(self, item: Item, kind: str, path: Path) -> Finding:
        """Compare an existing result with its line, and the line with what a run would make now."""
        line = self._lines(path.parent).get(path.name)
        if line is None:
            return Finding(known=False)
        if owner := self.other_owner(item, path):
            return Finding(known=True, owner=owner)
        now = json.loads(json.dumps(self._origin(item, kind)))
        doubt = _difference(line, now) or _change(line, path)
        return Finding(known=True, doubt=doubt, remark=str(line.get("remark", "")))

    def is_of(self, item: Item, path: Path) -> bool:
        """Whether the result at `path` was made from this source, which may have changed since."""
        line = self._lines(path.parent).get(path.name)
        return line is not None and item.on_disk and not self.other_owner(item, path)

    def other_owner(self, item: Item, path: Path) -> str:
        """The name of the other source that the result at `path` was made from; "" if none is known of.

        Cameras number their files alike, and the result of one must not be replaced by that of another.
        """
        line = self._lines(path.parent).get(path.name)
        then, now = (line or {}).get("source"), _source_of(item)
        if not isinstance(then, dict) or _is_same(then, now):
            return ""
        key = "path" if item.on_disk else "name"
        return "" if then.get(key) == now[key] else str(then.get("path") or then.get("name", "another source"))

    def _origin(self, item: Item, kind: str) -> dict[str, Any]:
        return {"source": _source_of(item), "model": self._model, "options": dict(self._options_of(item, kind))}

    def _lines(self, folder: Path) -> dict[str, dict[str, Any]]:
        """The folder's lines, read again if another run has written since."""
        try:
            status = os.stat(folder / RECORDS_NAME)
            looks = (status.st_size, status.st_mtime_ns)
        except OSError:
            looks = None
        if folder not in self._read or self._read[folder][0] != looks:
            self._read[folder] = looks, read_lines(folder / RECORDS_NAME)
        return self._read[folder][1]


def content_of(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file, or of a folder's files with their names."""
    if not path.is_dir():
        with path.open("rb") as file:
            return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    parts = [(child.name, content_of(child)) for child in sorted(path.iterdir())]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return {"bytes": sum(content["bytes"] for _, content in parts), "sha256": digest}


def _change(line: Mapping[str, Any], path: Path) -> str:
    """How a result differs from what its line says, in words; empty if it does not."""
    try:
        now = content_of(path)
    except OSError as error:
        return f"it cannot be read ({reason(error)})"
    if now == {key: line.get(key) for key in ("bytes", "sha256")}:
        return ""
    return f"it is not as it was written ({line.get('bytes')} bytes then, {now['bytes']} now)"


def _source_of(item: Item) -> dict[str, Any]:
    """Identity of a source: for a file its path, size and modification time, for others the name."""
    if not item.on_disk:
        return {"name": item.name}
    path = os.path.realpath(item.location)
    try:
        status = os.stat(path)
    except OSError:
        return {"path": path, "bytes": None, "modified_ns": None}
    return {"path": path, "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _is_same(then: Any, now: Mapping[str, Any]) -> bool:
    """Whether two identities are of one source; a file that is no longer at its old path may have been moved."""
    if then == now:
        return True
    if not isinstance(then, dict) or {**then, "path": now.get("path")} != now:
        return False
    return not os.path.exists(str(then.get("path", "")))


def _difference(line: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first thing in which a line differs from what a run would make now, in words; empty if nothing does."""
    if not _is_same(line.get("source"), now["source"]):
        return "its source has changed since"
    if line.get("model") != now["model"]:
        return "it was made by another model"
    then = line.get("options")
    if then == now["options"]:
        return ""
    then = then if isinstance(then, dict) else {}
    names = sorted(key for key in {*then, *now["options"]} if then.get(key) != now["options"].get(key))
    changes = (f"{name} was {then.get(name)}, is {now['options'].get(name)} now" for name in names)
    return f"it was made with other options ({', '.join(changes)})"
