"""Pictures as a source: files in order, one frame each, their size checked from the header before they are decoded.

Orientation: pixels are used as stored and EXIF rotation is ignored, as in training, since labels come back at the
stored size. Knows nothing about videos.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from .diagnose import reading
from .errors import MediaError
from .image_files import ImageFault, check_complete, read_header
from .media import MAX_PIXELS, Frame, Source, SourceEnd, SourceInfo
from .opencv import cv2, python_memory_error

READABLE = ("PNG", "JPEG", "BMP", "WebP")


def read_image(path: str | Path) -> np.ndarray:
    """Read a PNG, JPEG, BMP or WebP picture: (H, W, 3) uint8 BGR, pixels as stored.

    Raises:
        MediaError: no such file, not one of these formats, damaged, cut short, or with more pixels in its header than
            `media.MAX_PIXELS` or than memory holds.
    """
    try:
        return _decoded(path, _read(Path(path)))
    except MemoryError as error:
        raise MediaError(f"{path}: no memory is left to decode it. Free some, or scale the picture down.") from error


def _decoded(path: str | Path, data: bytes) -> np.ndarray:
    try:
        header = read_header(data)
        if header.kind not in READABLE:
            raise ImageFault(f"a {header.kind}; edge_seg reads {', '.join(READABLE)}. Save it as PNG")
        if header.width * header.height > MAX_PIXELS:
            raise ImageFault(
                f"{header.width}x{header.height} exceeds the limit of {MAX_PIXELS} pixels; scale it down first"
            )
        # Decoders fill in what a cut-off file lacks.
        check_complete(data, header)
    except ImageFault as fault:
        raise MediaError(f"{path}: {fault}.") from fault
    try:
        with python_memory_error():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise MediaError(f"{path}: the picture cannot be decoded ({str(error).splitlines()[0][:200]}).") from error
    if image is None:
        raise MediaError(f"{path}: the picture is damaged. Copy it again.")
    return image


def _read(path: Path) -> bytes:
    """A picture's bytes; raises if it is not a file, or has more bytes than `MAX_PIXELS` pixels can need."""
    with reading(str(path)):
        if path.exists() and not path.is_file():
            raise MediaError(f"{path}: is not a file.")
        # Eight bytes a pixel is the most an honest file needs (16-bit RGBA, not compressed).
        if (size := path.stat().st_size) > MAX_PIXELS * 8 + (1 << 20):
            raise MediaError(f"{path}: {size >> 20} MB is more than any picture of {MAX_PIXELS} pixels needs.")
        return path.read_bytes()


class ImageFiles(Source):
    """Pictures as frames, each of its own size; each lasts one second.

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

    def _frames(self) -> Iterator[Frame]:
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
