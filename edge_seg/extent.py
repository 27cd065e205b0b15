"""The length in bytes a media file declares against its real one, to tell if it was cut. Knows nothing about codecs.

Decoders take the last byte for the end. MP4 boxes, RIFF chunks, Matroska's segment, FLV tags and the fixed-size packets
of transport streams say where the end should be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .boxes import Box, boxes_between, looks_like_mp4, top_level_boxes

# Formats whose files declare no length: the decoder's duration for them was only measured on what is there.
WITHOUT_LENGTH = frozenset({"mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v", "mjpeg", "mpjpeg", "obu"})
_SEGMENT_ID = b"\x18\x53\x80\x67"


@dataclass(frozen=True, kw_only=True)
class Extent:
    """What a file's structure says about its length.

    Attributes:
        cut: where the file breaks off, in words; empty if nothing seems to be missing.
        behind: what follows the recording's end and is not read, or only in part, in words; empty if nothing does.
        indexed: whether one index at its head or end covers the whole file. In a fragmented MP4 without one, counts and
            durations are only those of what is there.
    """

    cut: str = ""
    behind: str = ""
    indexed: bool = True


def measure(path: Path) -> Extent:
    """The extent of a file; an empty one for formats not known here. Raises `OSError` if it cannot be read,
    `MediaError` if it has too many boxes."""
    with path.open("rb") as file:
        head = file.read(400)
        length = file.seek(0, 2)
        if looks_like_mp4(head):
            return _mp4(path, length)
        for matches, look in _KINDS:
            if matches(head):
                return Extent(cut=look(file, length))
    return Extent()


def _mp4(path: Path, length: int) -> Extent:
    last, fragmented, indexed, second = None, False, False, 0
    for box in top_level_boxes(path):
        if box.kind == b"ftyp" and last is not None:
            second = second or box.start
        last = box
        if box.kind == b"moov":
            fragmented |= any(inner.kind == b"mvex" for inner in boxes_between(path, box.start + 8, box.end))
        indexed |= box.kind == b"mfra"
    # Of several recordings libav reads only the first; if fragmented, also later fragments with times it has not had.
    share = "may lack frames" if fragmented else "is not read"
    behind = f"another recording begins at byte {second} and {share}: split the file there" if second else ""
    return Extent(cut=_cut_box(last, length) if last else "", behind=behind, indexed=indexed or not fragmented)


def _cut_box(last: Box, length: int) -> str:
    if not last.whole:
        return f"the file ends {last.end - length} bytes before its {last.kind.decode('latin-1')} box does"
    if 0 < length - last.end < 8:
        return "the file ends in the header of a box"
    return "the file ends before the pictures of its last fragment" if last.kind == b"moof" else ""


def _riff(file: BinaryIO, length: int) -> str:
    start = 0
    while start + 12 <= length:
        file.seek(start)
        head = file.read(8)
        size = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or not size:
            return ""
        start += 8 + size + size % 2
        # A last byte of padding is often left out.
        if start - size % 2 > length:
            return f"the file ends {start - length} bytes before its RIFF chunk does"
    return ""


def _matroska(file: BinaryIO, length: int) -> str:
    file.seek(4)
    header = _variable_number(file)
    file.seek(file.tell() + (header or 0))
    if header is None or file.read(4) != _SEGMENT_ID:
        return ""
    size = _variable_number(file)
    missing = file.tell() + size - length if size is not None else 0
    return f"the file ends {missing} bytes before its segment does" if missing > 0 else ""


def _variable_number(file: BinaryIO) -> int | None:
    """Read an EBML number of one to eight bytes; None for "unknown", which live recordings write."""
    first = int.from_bytes(file.read(1), "big")
    if not first:
        return None
    width = 9 - first.bit_length()
    bits = 7 * width
    value = int.from_bytes(bytes([first]) + file.read(width - 1), "big") & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 else value


def _flv(file: BinaryIO, length: int) -> str:
    # Each tag is followed by its size, so the last one can be found from the end.
    file.seek(max(0, length - 4))
    size = int.from_bytes(file.read(4), "big")
    file.seek(max(0, length - 4 - size))
    tag = file.read(4)
    whole = 11 < size < length and tag[0] in (8, 9, 18) and int.from_bytes(tag[1:], "big") == size - 11
    return "" if whole else "the file ends inside a tag"


def _packets(size: int) -> Callable[[BinaryIO, int], str]:
    def look(file: BinaryIO, length: int) -> str:
        return f"the file ends inside a packet, {size - length % size} bytes early" if length % size else ""

    return look


_KINDS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], str]], ...] = (
    (lambda head: head[:4] == b"RIFF", _riff),
    (lambda head: head[:4] == b"\x1a\x45\xdf\xa3", _matroska),
    (lambda head: head[:3] == b"FLV", _flv),
    (lambda head: head[:1] == b"G" and head[188:189] == b"G", _packets(188)),
    (lambda head: head[4:5] == b"G" and head[196:197] == b"G", _packets(192)),
)
