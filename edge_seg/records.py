"""What was finished and from what: a line a result in .edge_seg.jsonl beside it, so that `--resume` may rely on a file.

A line is on disk before the result has its name. Knows nothing of how results are made: what counts of a source, a
model and the options is handed to it.
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

from .files import reason
from .items import Item
from .names import Plan
from .record_lines import RECORDS_NAME, append_line, read_lines

OptionsOf = Callable[[Item, str], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is known of a result that is there.

    Attributes:
        known: a line says what it was made from.
        owner: the other source that it was made from; empty if it is this one's.
        doubt: why it may not be relied on; empty when it may.
        remark: what was wrong with its source when it was made; empty if nothing was.
    """

    known: bool
    owner: str = ""
    doubt: str = ""
    remark: str = ""


@dataclass(kw_only=True)
class Entry:
    """One source's lines, written as its results take their names. `remark`: what was wrong with the source."""

    origins: dict[str, dict[str, Any]]
    remark: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def seal(self, made: Path, final: Path) -> None:
        """Write the line of a result that is about to take its name. Raises `OSError`."""
        line = {"result": final.name, **content_of(made), **self.origins[str(final)], "remark": self.remark}
        with self._lock:
            append_line(final.parent / RECORDS_NAME, json.dumps(line))


class Records:
    """Lines of results made by one model with one set of options.

    Args:
        model: identity of the model, such as its SHA-256.
        options_of: (item, kind) -> the options that change that result, as plain JSON values.
    """

    def __init__(self, model: str, options_of: OptionsOf) -> None:
        self._model, self._options_of = model, options_of
        # Folder -> what its file of records looked like when it was read, and its lines.
        self._read: dict[Path, tuple[tuple[int, int] | None, dict[str, dict[str, Any]]]] = {}

    def begin(self, item: Item, plan: Plan) -> Entry:
        """The lines to write for a source that is read from now on."""
        return Entry(origins={str(path): self._origin(item, kind) for kind, path in plan.items()})

    def find(self, item: Item, kind: str, path: Path) -> Finding:
        """Compare a result that is there with its line, and its line with what would be made now."""
        line = self._lines(path.parent).get(path.name)
        if line is None:
            return Finding(known=False)
        now = json.loads(json.dumps(self._origin(item, kind)))
        if owner := _other_owner(line.get("source"), now["source"]):
            return Finding(known=True, owner=owner)
        doubt = _difference(line, now) or _change(line, path)
        return Finding(known=True, doubt=doubt, remark=str(line.get("remark", "")))

    def made_from(self, item: Item, path: Path) -> bool:
        """Whether a line says that the result of this name was made from this very source."""
        line = self._lines(path.parent).get(path.name)
        return line is not None and item.on_disk and _is_same(line.get("source"), _source_of(item))

    def _origin(self, item: Item, kind: str) -> dict[str, Any]:
        return {"source": _source_of(item), "model": self._model, "options": dict(self._options_of(item, kind))}

    def _lines(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Read again where another run has written since."""
        try:
            status = os.stat(folder / RECORDS_NAME)
            looks = (status.st_size, status.st_mtime_ns)
        except OSError:
            looks = None
        if folder not in self._read or self._read[folder][0] != looks:
            self._read[folder] = looks, read_lines(folder / RECORDS_NAME)
        return self._read[folder][1]


def content_of(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file, or of a folder's files and their names."""
    if not path.is_dir():
        with path.open("rb") as file:
            return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    parts = [(child.name, content_of(child)) for child in sorted(path.iterdir())]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return {"bytes": sum(content["bytes"] for _, content in parts), "sha256": digest}


def _change(line: Mapping[str, Any], path: Path) -> str:
    """In words, how a result is not what its line says; empty if it is."""
    try:
        now = content_of(path)
    except OSError as error:
        return f"it cannot be read ({reason(error)})"
    if now == {key: line.get(key) for key in ("bytes", "sha256")}:
        return ""
    return f"it is not as it was written ({line.get('bytes')} bytes then, {now['bytes']} now)"


def _source_of(item: Item) -> dict[str, Any]:
    """A file by where it lies, its size and the time of its last change; a live source by its name."""
    if not item.on_disk:
        return {"name": item.name}
    path = os.path.realpath(item.location)
    try:
        status = os.stat(path)
    except OSError:
        return {"path": path, "bytes": None, "modified_ns": None}
    return {"path": path, "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _is_same(then: Any, now: Mapping[str, Any]) -> bool:
    """Whether two descriptions are of one source; a file that is no longer where it was may have been moved."""
    if then == now:
        return True
    if not isinstance(then, dict) or {**then, "path": now.get("path")} != now:
        return False
    return not os.path.exists(str(then.get("path", "")))


def _other_owner(then: Any, now: Mapping[str, Any]) -> str:
    """Name the source that a result was made from, if it is another than the one described; else "".

    Cameras number their files alike: a result of one must not give way to that of another.
    """
    if _is_same(then, now) or not isinstance(then, dict):
        return ""
    if "name" in now:
        return "" if then.get("name") == now["name"] else str(then.get("name") or then.get("path", "another source"))
    return "" if then.get("path") == now["path"] else str(then.get("path") or then.get("name", "another source"))


def _difference(line: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words, the first thing in which a line is not what would be made now."""
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
