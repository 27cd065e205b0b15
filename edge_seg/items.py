"""What a SOURCE argument is: a video, a picture, a folder, a quoted glob, a camera index, an address, or `-`.

Turns arguments into items, one a result, each with a unique stem. Opens no source.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from .errors import ConfigurationError
from .files import name_of
from .media import STANDARD_INPUT
from .phrases import counted
from .record_lines import results_in
from .redact import redact, remember_secrets

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "tcp", "udp")
PIPE = "-"
# `insv` and `lrv` are MP4s of action cameras, `dav` is that of Dahua's recorders.
_VIDEO_KINDS = (
    "mp4 mov m4v mkv webm avi divx mpg mpeg vob ts mts m2ts m2t flv wmv asf ogv gif mxf 3gp 3g2 insv lrv dav nut "
    "h264 264 h265 265 hevc"
)
VIDEO_SUFFIXES = frozenset(f".{kind}" for kind in _VIDEO_KINDS.split())
# For the line on what a folder leaves out: how many kinds it names, and two kinds that are not suffixes.
MOST_KINDS = 6
FOLDER, RESULT = "folder", "earlier result"
Say = Callable[[str], None]
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})


@dataclass(frozen=True, kw_only=True)
class Item:
    """One source with a result of its own.

    Attributes:
        kind: "video", "image", "stream", "camera" or "pipe".
        location: a path, an address with its credentials, a camera's index as text, or "-".
        stem: the stem of its results' names, different for each item of a run.
        track: which video track of a file or a stream, from 1.
        problem: why there is nothing to open, such as a folder without videos; empty if there is.
        other_stems: the stems its results would have beside other items than those of this run, the shortest first.
    """

    kind: str
    location: str = field(repr=False)
    stem: str
    track: int = 1
    problem: str = ""
    other_stems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The printable name, without credentials."""
        if self.kind == "pipe":
            return STANDARD_INPUT
        return f"camera {self.location}" if self.kind == "camera" else redact(self.location)

    @property
    def live(self) -> bool:
        """Whether it may have no end of its own."""
        return self.kind in ("stream", "camera")

    @property
    def on_disk(self) -> bool:
        """Whether it is a file, which can be read twice."""
        return self.kind in ("video", "image")


def expand_sources(
    arguments: Sequence[str | os.PathLike[str] | int], *, track: int = 1, say: Say = lambda text: None
) -> list[Item]:
    """All items the arguments name, in order; files named twice count once, and equal stems are made different.

    A file that does not exist is an item too: opening it raises the error, and the others are still processed. `track`
    is the video track to read, from 1; stems for a later track say so. Folders and patterns give the files that are
    named like a video or a picture and are not results of ours; `say` is called with a line about the rest.

    Raises:
        ConfigurationError: no source, a folder or pattern with none, an unsupported address, or a track below 1.
    """
    if type(track) is not int or track < 1:
        raise ConfigurationError(f"A video track is a whole number from 1; got {track!r}.")
    items = [item for argument in arguments for item in _expand(argument, say)]
    problems = [item.problem for item in items if item.problem]
    if problems and len(problems) == len(items):
        # With nothing else to do, the call itself is wrong; else the other sources are processed.
        raise ConfigurationError(" ".join(problems))
    if not items:
        raise ConfigurationError("No source given. Expected a video, picture, folder, glob, camera index or address.")
    unique = {_identity(item): item for item in reversed(items)}
    named = _distinct_stems([unique.pop(key) for item in items if (key := _identity(item)) in unique])
    return [_on_track(item, track) for item in named]


def _expand(argument: str | os.PathLike[str] | int, say: Say) -> Iterator[Item]:
    text = str(argument) if isinstance(argument, int) else name_of(argument, "a source")
    if isinstance(argument, int) and not text.isdecimal():
        raise ConfigurationError(f"A camera's index is 0 or more; got {text}.")
    if not text:
        raise ConfigurationError(
            "A source has no name (a variable that is not set?). Expected a video, picture, folder, glob, camera index "
            "or address."
        )
    if text == PIPE:
        yield Item(kind="pipe", location=text, stem="stdin")
        return
    scheme, separator, _ = text.partition("://")
    # os.path, since Path.exists raises for a name that is too long.
    there = os.path.exists(text)
    if separator and not there:
        yield _stream(scheme, text)
    elif text.isdecimal() and not there:
        yield Item(kind="camera", location=text, stem=f"camera{text}")
    elif os.path.isdir(text):
        yield from _folder(Path(text), say)
    elif glob.has_magic(text) and not there:
        closed = [_file(Path(folder)) for folder in sorted(_closed(text))]
        found = sorted(map(Path, glob.glob(text, recursive=True)))
        if found or not closed:
            yield from _many(found, text, "a pattern", say)
        yield from closed
    else:
        yield _file(Path(text))


def _stream(scheme: str, address: str) -> Item:
    if scheme.lower() not in SCHEMES:
        raise ConfigurationError(
            f"Addresses may begin with {', '.join(f'{known}://' for known in SCHEMES)}; got {scheme}://"
        )
    # libav knows schemes only in lower case.
    address = f"{scheme.lower()}{address[len(scheme) :]}"
    with contextlib.suppress(ValueError):
        remember_secrets(address)
    # Parsed without its secrets, so that neither the results' names nor an error hold them.
    name = redact(address)
    try:
        parts = urlsplit(name)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"{name} is not an address ({error}). Expected {scheme}://HOST[:PORT]/PATH.") from None
    if urlsplit(address).hostname != host:
        raise ConfigurationError(f"{name}: write / ? # of a user name or password as %2F, %3F, %23.")
    if scheme.lower() in ("tcp", "udp"):
        # To wait for a stream at a port of this machine, no host is needed.
        if not port:
            raise ConfigurationError(f"{name} names no port. Expected {scheme}://[HOST]:PORT.")
        host = "_".join(part for part in (host, str(port)) if part)
    elif not host or port == 0:
        raise ConfigurationError(f"{name} names no host. Expected {scheme}://HOST[:PORT]/PATH.")
    last = Path(parts.path).stem
    if scheme.lower() in ("rtmp", "rtmps"):
        last = f"{parts.path.strip('/').partition('/')[0]}_{hashlib.sha256(address.encode()).hexdigest()[:8]}"
    stem = "_".join(part for part in (host, last) if part)
    return Item(kind="stream", location=address, stem=_plain(stem))


def _folder(folder: Path, say: Say) -> list[Item]:
    try:
        return _many(sorted(folder.iterdir()), str(folder), "a folder", say)
    except PermissionError:
        # An item, like a missing file: opening it raises the error, and the others are still processed.
        return [_file(folder)]


def _closed(pattern: str) -> set[str]:
    """The folders in which the pattern looks and that may not be listed; `glob` passes over them in silence."""
    closed = set()
    while glob.has_magic(pattern):
        pattern = os.path.dirname(pattern)
        for folder in glob.glob(pattern, recursive=True) if glob.has_magic(pattern) else [pattern or os.curdir]:
            try:
                with os.scandir(folder):
                    pass
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                if error.errno != errno.ELOOP:  # a link to itself is no folder
                    closed.add(folder)
    return closed


def _many(paths: Iterable[Path], text: str, what: str, say: Say) -> list[Item]:
    """Items of the files named like a video or a picture; `say` tells of the rest, hidden files aside."""
    items: list[Item] = []
    left: Counter[str] = Counter()
    results: dict[Path, frozenset[str]] = {}
    for path in paths:
        if path.name.startswith("."):
            continue
        known = path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES
        if path.parent not in results:
            results[path.parent] = results_in(path.parent)
        if path.name in results[path.parent] or (known and path.stem.endswith(".partial")):
            left[RESULT] += 1
        elif os.path.isdir(path):
            left[FOLDER] += 1
        elif known and (os.path.isfile(path) or not os.path.exists(path)):
            # A broken link, or a file that may not be looked at, is an item too: opening it raises the error.
            items.append(_file(path))
        else:
            left[path.suffix.lower() or "without a suffix"] += 1
    if not items:
        problem = f"{text}: {what} with no video and no picture in it{_told(left)}."
        return [Item(kind="video", location=text, stem=Path(text).name or "source", problem=problem)]
    if left:
        say(f"{text}: {counted(len(items), 'source')}{_told(left)}")
    return items


def _told(left: Counter[str]) -> str:
    """What was left out, as the end of a sentence."""
    if not left:
        return ""
    named = left.most_common(MOST_KINDS)
    kinds = [counted(count, kind) if kind in (FOLDER, RESULT) else f"{count} {kind}" for kind, count in named]
    others = left.total() - sum(count for _, count in named)
    return f"; left out: {', '.join([*kinds, f'{others} more'] if others else kinds)}"


def _file(path: Path) -> Item:
    kind = "image" if path.suffix.lower() in IMAGE_SUFFIXES else "video"
    return Item(kind=kind, location=str(path), stem=path.stem or path.name)


def _identity(item: Item) -> str:
    return os.path.realpath(item.location) if item.on_disk else item.location


def _on_track(item: Item, track: int) -> Item:
    if track == 1 or item.kind not in ("video", "stream", "pipe"):
        return item
    others = tuple(f"{stem}_track{track}" for stem in item.other_stems)
    return replace(item, stem=f"{item.stem}_track{track}", track=track, other_stems=others)


def _plain(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text)


def _distinct_stems(items: list[Item]) -> list[Item]:
    """Give items that share a stem longer ones: with the suffix, with the folder, at last with a hash of the location.

    The order of the items does not matter. `other_stems` are what `--resume` looks for as well, since another run may
    have had other items.
    """
    choices = [_stems(item) for item in items]
    chosen = [stems[0] for stems in choices]
    for step in (1, 2, 3):
        # Case folded: "A.mp4" and "a.mp4" are one name on many disks.
        seen = Counter(stem.casefold() for stem in chosen)
        chosen = [
            stems[step] if seen[stem.casefold()] > 1 else stem for stems, stem in zip(choices, chosen, strict=True)
        ]
    return [
        replace(item, stem=stem, other_stems=tuple(dict.fromkeys(other for other in stems if other != stem)))
        for item, stems, stem in zip(items, choices, chosen, strict=True)
    ]


def _stems(item: Item) -> tuple[str, str, str, str]:
    """The stems an item may get: its own, with the suffix, with the folder, with a hash of the location."""
    with_suffix = with_folder = item.stem
    if item.on_disk:
        with_suffix = f"{item.stem}_{Path(item.location).suffix.lstrip('.')}"
        with_folder = _plain(f"{Path(os.path.abspath(item.location)).parent.name}_{with_suffix}")
    digest = hashlib.sha256(os.fsencode(_identity(item))).hexdigest()
    return item.stem, with_suffix, with_folder, f"{with_folder}_{digest[:8]}"
