"""Pictures as a source: files in order, one frame each, their size checked from the header before they are decoded.

Orientation: pixels are used as stored and EXIF rotation is ignored, as in training, since labels come back at the
stored size. Knows nothing of videos.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from .errors import MediaError
from .media import MAX_PIXELS, Frame, Source, SourceEnd, SourceInfo
from .opencv import cv2

_JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a PNG, JPEG, BMP or WebP picture: (H, W, 3) uint8 BGR, pixels as stored.

    Raises:
        MediaError: no such file, not one of these formats, damaged, or more than `max_pixels` by its own header.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()}).") from error
    size = header_size(data)
    if size is None:
        raise MediaError(f"{path}: not a picture edge_seg reads. It reads PNG, JPEG, BMP and WebP.")
    height, width = size
    if height * width > max_pixels:
        raise MediaError(f"{path}: {width}x{height} exceeds the limit of {max_pixels} pixels; scale it down first.")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise MediaError(f"{path}: the picture is damaged or cut short.")
    return image


def header_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) as the file's header claims, or None if it is no PNG, JPEG, BMP or WebP."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    if data.startswith(b"BM") and len(data) >= 26:
        return abs(int.from_bytes(data[22:26], "little", signed=True)), int.from_bytes(data[18:22], "little")
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp_size(data)
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(data):
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker in _JPEG_SIZE_MARKERS:
            return int.from_bytes(data[place + 5 : place + 7], "big"), int.from_bytes(
                data[place + 7 : place + 9], "big"
            )
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            place += 1 if marker == 0xFF else 2
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little")
    if kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    if kind == b"VP8 " and len(data) >= 30:
        return int.from_bytes(data[28:30], "little") & 0x3FFF, int.from_bytes(data[26:28], "little") & 0x3FFF
    return None


class ImageFiles(Source):
    """Pictures as frames, each of its own size; time counts seconds, one a picture.

    Args:
        paths: files, in order.
        on_error: called with (path, error) for a picture that cannot be read, which is then counted as failed and left
            out; without it the error is raised.
    """

    def __init__(self, paths: Sequence[Path], *, on_error: Callable[[Path, MediaError], None] | None = None) -> None:
        super().__init__()
        self._paths = tuple(paths)
        self._on_error = on_error
        self._stopped = False
        name = str(self._paths[0]) if len(self._paths) == 1 else f"{len(self._paths)} pictures"
        self.info = SourceInfo(name=name, kind="images", frame_count=len(self._paths))

    def __iter__(self) -> Iterator[Frame]:
        second = self.info.time_base.denominator
        for index, path in enumerate(self._paths):
            if self._stopped:
                return
            self.counts.read += 1
            try:
                image = read_image(path)
            except MediaError as error:
                self.counts.failed += 1
                if self._on_error is None:
                    raise
                self._on_error(path, error)
                continue
            self.end.at_s = float(index + 1)
            time_base = self.info.time_base
            yield Frame(
                image=image, index=index, pts=index * second, time_base=time_base, duration=second, name=str(path)
            )
        self.end = SourceEnd(at_s=self.end.at_s, expected_s=float(len(self._paths)), early=False)

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        self._paths = ()
