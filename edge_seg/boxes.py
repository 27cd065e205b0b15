"""The boxes an MP4 is made of: enough to see what it holds and where it was cut. Knows nothing about codecs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .errors import MediaError

# A day in fragments of a quarter of a second has 0.7 million; more can only be meant to keep a reader busy.
MOST_BOXES = 1_000_000
MOST_OF_A_KIND = 1000
INDEXED_KINDS = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"})
SEGMENT_KINDS = frozenset({b"styp", b"sidx", b"moof", b"prft", b"emsg"})
FIRST_KINDS = INDEXED_KINDS | SEGMENT_KINDS | {b"pdin", b"pnot", b"uuid"}


class Box(NamedTuple):
    """One box: its four-letter kind, where it begins and ends, and whether the file reaches that far."""

    kind: bytes
    start: int
    end: int
    whole: bool


def looks_like_mp4(head: bytes) -> bool:
    """Whether a file that begins with `head` is made of boxes."""
    return head[4:8] in FIRST_KINDS


def top_level_boxes(path: Path, *, most: int = MOST_BOXES) -> Iterator[Box]:
    """The top-level boxes of a file, in order, up to the first invalid one. Raises `MediaError` after `most`."""
    return boxes_between(path, 0, path.stat().st_size, most=most)


def boxes_between(path: Path, start: int, length: int, *, most: int = MOST_BOXES) -> Iterator[Box]:
    """The boxes from offset `start` up to offset `length`: those of a file, or those inside another box.

    Raises:
        MediaError: there are more than `most`.
    """
    count = 0
    with path.open("rb") as file:
        while start + 8 <= length:
            count += 1
            if count > most:
                raise MediaError(f"{path}: is made of more than {most:,} parts, which no recording is; it is not read.")
            file.seek(start)
            header = file.read(16)
            size = int.from_bytes(header[:4], "big")
            if size == 1:
                size = int.from_bytes(header[8:16], "big")
            elif size == 0:
                size = length - start
            if size < 8:
                return
            yield Box(header[4:8], start, start + size, start + size <= length)
            start += size


def has_moov(path: Path) -> bool:
    """Whether an MP4 holds its complete index (the moov box)."""
    return any(box.kind == b"moov" and box.whole for box in top_level_boxes(path))


def refers_elsewhere(path: Path) -> bool:
    """Whether a track's data reference names another file, as QuickTime's reference movies do."""
    found: Iterable[Box] = top_level_boxes(path)
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        inside = [box for box in found if box.kind == kind and box.whole]
        if len(inside) > MOST_OF_A_KIND:
            raise MediaError(
                f"{path}: has {len(inside):,} {kind.decode()} boxes, which no recording has; it is not read."
            )
        # A dref box begins with a version, flags and the number of its references.
        skip = 16 if kind == b"dref" else 8
        found = chain.from_iterable(boxes_between(path, box.start + skip, box.end) for box in inside)
    with path.open("rb") as file:
        return any(_is_elsewhere(file, box) for box in found)


def _is_elsewhere(file: BinaryIO, box: Box) -> bool:
    file.seek(box.start + 8)
    flags = int.from_bytes(file.read(4), "big")
    # The lowest bit means "this very file"; some writers forget to set it, but then name no other file.
    return not flags & 1 and any(file.read(min(4096, max(0, box.end - box.start - 12))))
