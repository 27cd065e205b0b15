"""Why a file could not be opened, in one line, from its first bytes and its boxes. Knows nothing about decoders."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .boxes import INDEXED_KINDS, SEGMENT_KINDS, has_moov
from .errors import MediaError
from .extent import measure
from .files import reason

# How files that only refer to others begin, in lower case: HLS, ffconcat, SDP, DASH, SMIL, SVG, ASX, PLS, addresses.
PLAYLISTS = (
    b"#extm3u",
    b"ffconcat",
    b"v=0",
    b"<?xml",
    b"<mpd",
    b"<smil",
    b"<svg",
    b"<asx",
    b"[reference]",
    b"[playlist]",
    b"http://",
    b"https://",
    b"rtsp://",
    b"file:",
)
# Matroska and FLV.
WITH_HEADER = (b"\x1a\x45\xdf\xa3", b"FLV")
# What libav says of formats that it may not open or does not know, which explains nothing.
UNTELLING = frozenset({"", "invalid argument", "end of file"})
PICTURES = "PNG, JPEG, BMP and WebP"
READABLE = "MP4, MOV, MKV, WebM, AVI, MPEG, TS, FLV, ASF, OGG, GIF, MXF, raw H.264 and H.265"


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Within the block the system's refusal to read, for want of rights or of file descriptors, is a `MediaError`."""
    try:
        yield
    except MediaError:
        raise  # an OSError itself
    except OSError as error:
        raise MediaError(f"{name}: cannot be read ({reason(error)}).") from error


def explain_file(path: Path, detail: str) -> str:
    """One line on what is wrong with `path`; `detail` is what the decoder said, used when nothing better is known."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return f"{path}: no such file."
    except OSError as error:
        return f"{path}: cannot be read ({reason(error)})."
    if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
        return f"{path}: the folder cannot be read (permission denied)."
    if path.is_dir():
        return f"{path}: is a folder where a video was expected."
    if not path.is_file():
        return (
            f"{path}: is a pipe, socket or device where a video file was expected; what a pipe brings is read as `-`: "
            f"edge-seg predict - < {path}"
        )
    try:
        head = _head(path)
    except OSError as error:
        return f"{path}: cannot be read ({reason(error)})."
    if found := _explain_head(path, head):
        return f"{path}: {found}"
    if cut := measure(path).cut:
        return f"{path}: cut short before its first picture: {cut}."
    if head.startswith(WITH_HEADER) and detail == "end of file":
        return f"{path}: holds a header and no pictures; the recording was stopped before its first one."
    said = "" if detail in UNTELLING else f" ({detail})"
    return f"{path}: not a video edge_seg reads{said}. It reads {READABLE}; pictures as {PICTURES}."


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def _explain_head(path: Path, head: bytes) -> str:
    if not head:
        return "the file is empty; the recording was never written."
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the video itself. Fetch it with `git lfs pull`."
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(PLAYLISTS):
        return "is a playlist, which opens other files or addresses; give the video itself."
    if head[4:8] in SEGMENT_KINDS and not has_moov(path):
        return (
            "is a piece of a stream without its beginning. Put the initialization segment before it: "
            "cat init.mp4 segment.m4s > whole.mp4."
        )
    if head[4:8] in INDEXED_KINDS and not has_moov(path):
        return (
            "no moov atom: the recording was cut off before its index was written. "
            "A tool such as untrunc can rebuild it from a whole file of the same camera."
        )
    return ""
