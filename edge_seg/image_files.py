"""What a picture file declares before it is decoded, and whether it is complete: PNG, JPEG, BMP, TIFF and WebP.

A few kilobytes can declare a picture of gigabytes, and some decoders fill in what a cut-off file lacks, so both are
checked here, in the file's own bytes. A JPEG's pixels are not decoded: damage that leaves every marker in place goes
unseen. Knows nothing about datasets or masks.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
LFS_POINTER = b"version https://git-lfs"
PNG_COLORS = {0: ("grey", 1), 2: ("RGB", 3), 3: ("palette", 1), 4: ("grey+alpha", 2), 6: ("RGBA", 4)}
# First column, first row, column step and row step of Adam7's seven passes (PNG specification, section 8.2).
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
ANIMATION = "an animation, of which the first picture alone would be read; make it a video, or save the picture meant"
TIFF_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
TIFF_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I"}
PIECE = 1 << 16  # bytes of compressed pixels that are unpacked at a time


class ImageFault(ValueError):
    """What is wrong with an image file, in one line that does not name the file."""


@dataclass(frozen=True)
class ImageHeader:
    """What a file's header declares.

    Attributes:
        kind: "PNG", "JPEG", "BMP", "TIFF" or "WebP".
        width, height: pixels as stored.
        color: "grey", "grey+alpha", "palette", "RGB", "RGBA" or "CMYK".
        bits: bits a channel.
        orientation: EXIF orientation, 1 (upright) to 8.
    """

    kind: str
    width: int
    height: int
    color: str
    bits: int
    orientation: int = 1


def read_header(data: bytes) -> ImageHeader:
    """Read what a file declares. Raises `ImageFault` if it is none of these formats, is an animation (PNG and WebP), or
    its header is invalid."""
    if not data:
        raise ImageFault("empty file (0 bytes)")
    if data.startswith(LFS_POINTER):
        raise ImageFault("a Git LFS pointer, not the image itself; fetch it with `git lfs pull`")
    try:
        header = _reader(data)(data)
    except (struct.error, IndexError, KeyError) as error:
        raise ImageFault("truncated or damaged: its header cannot be read") from error
    if header.width < 1 or header.height < 1:
        raise ImageFault(f"damaged: its header declares {header.width}x{header.height} pixels")
    return header


def check_complete(data: bytes, header: ImageHeader) -> None:
    """Raise `ImageFault` if a part of the file is missing or, where the format has checksums, damaged."""
    try:
        _CHECKS[header.kind](data)
    except (struct.error, IndexError, KeyError) as error:
        raise ImageFault("truncated or damaged") from error


def _reader(data: bytes) -> Callable[[bytes], ImageHeader]:
    if data.startswith(PNG_SIGNATURE):
        return _png_header
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_header
    if data.startswith(b"BM"):
        return _bmp_header
    if data.startswith((b"II*\0", b"MM\0*")):
        return _tiff_header
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp_header
    if data.startswith((b"II+\0", b"MM\0+")):
        raise ImageFault("a BigTIFF; save it as PNG")
    raise ImageFault(f"not a PNG, JPEG, BMP, TIFF or WebP file: it begins with {data[:8]!r}")


def _png_header(data: bytes) -> ImageHeader:
    width, height, bits, color = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR" or color not in PNG_COLORS:
        raise ImageFault("damaged: its PNG header makes no sense")
    orientation = 1
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        if kind == b"eXIf":
            orientation = _orientation(body)
        elif kind == b"acTL" and int.from_bytes(body[:4], "big") > 1:
            raise ImageFault(ANIMATION)
        position += 12 + length
    return ImageHeader("PNG", width, height, PNG_COLORS[color][0], bits, orientation)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(PNG_SIGNATURE)
    while True:
        length = int.from_bytes(data[position : position + 4], "big")
        kind, end = data[position + 4 : position + 8], position + 12 + length
        if position + 12 > len(data) or end > len(data):
            raise ImageFault(f"truncated: the file ends at byte {len(data)}, before its PNG end marker")
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ImageFault(f"damaged: the PNG checksum at byte {end - 4} is wrong")
        yield kind, data[position + 8 : end - 4]
        if kind == b"IEND":
            return
        position = end


def _check_png(data: bytes) -> None:
    width, height, bits, color, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    pixels = b"".join(body for kind, body in _png_chunks(data) if kind == b"IDAT")
    bits_a_pixel = bits * PNG_COLORS[color][1]
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    expected = 0
    for column, row, column_step, row_step in passes:
        columns, rows = -(-(width - column) // column_step), -(-(height - row) // row_step)
        if columns > 0 and rows > 0:
            expected += rows * (1 + (columns * bits_a_pixel + 7) // 8)
    found = _inflated_bytes(pixels, expected)
    if found < expected:
        raise ImageFault(f"truncated: {found} of {expected} bytes of pixels are there")


def _inflated_bytes(data: bytes, enough: int) -> int:
    """Count the bytes that `data` inflates to, up to about `enough`, a megabyte at a time."""
    inflater = zlib.decompressobj()
    count = 0
    try:
        # In slices, since what an inflater leaves of its input is copied each time.
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            while count < enough and not inflater.eof and (made := inflater.decompress(piece, 1 << 20)):
                count += len(made)
                piece = inflater.unconsumed_tail
            if count >= enough or inflater.eof:
                break
    except zlib.error as error:
        raise ImageFault("damaged: its compressed pixels cannot be unpacked") from error
    return count


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, body) of each segment, the end marker included; pixels are skipped."""
    # Within pixels, FF00 stands for a byte FF and FFD0..FFD7 are restart points; any other FFxx ends them.
    after_pixels = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
    truncated = ImageFault(f"truncated: the file ends at byte {len(data)}, before its JPEG end marker")
    position = 2
    while position < len(data):
        if data[position] != 0xFF:
            raise ImageFault(f"damaged: byte {position} should begin a JPEG marker")
        while data[position : position + 1] == b"\xff":
            position += 1
        marker = data[position] if position < len(data) else None
        position += 1
        if marker is None:
            break
        if marker == 0xD9:
            yield marker, b""
            return
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2 or position + length > len(data):
            raise truncated
        yield marker, data[position + 2 : position + length]
        position += length
        if marker == 0xDA:
            following = after_pixels.search(data, position)
            if following is None:
                raise truncated
            position = following.start()
    raise truncated


def _jpeg_header(data: bytes) -> ImageHeader:
    orientation = 1
    for marker, body in _jpeg_segments(data):
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = _orientation(body[6:])
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, channels = struct.unpack_from(">BHHB", body)
            return ImageHeader("JPEG", width, height, {1: "grey", 3: "RGB", 4: "CMYK"}[channels], bits, orientation)
    raise ImageFault("damaged: a JPEG without a frame header")


def _check_jpeg(data: bytes) -> None:
    for _ in _jpeg_segments(data):
        pass


def _bmp_fields(data: bytes) -> tuple[int, int, int, int, int, int]:
    """Offset of the pixels, width, height, bits a pixel, compression, bytes of pixels declared."""
    offset, header_bytes = struct.unpack_from("<II", data, 10)
    if header_bytes < 40:
        raise ImageFault("an OS/2 BMP; save it as PNG")
    width, height, _, bits, compression, declared = struct.unpack_from("<iiHHII", data, 18)
    return offset, width, abs(height), bits, compression, declared


def _bmp_header(data: bytes) -> ImageHeader:
    _, width, height, bits, _, _ = _bmp_fields(data)
    color = {24: "RGB", 16: "RGB", 32: "RGBA"}.get(bits, "palette")
    if color == "palette" and bits == 8 and _is_grey_ramp(data):
        color = "grey"
    return ImageHeader("BMP", width, height, color, min(bits, 8), 1)


def _is_grey_ramp(data: bytes) -> bool:
    """Whether an 8-bit BMP's palette maps each index to that level of grey."""
    table = 14 + struct.unpack_from("<I", data, 14)[0]
    used = struct.unpack_from("<I", data, 46)[0] or 256
    return all(data[table + 4 * index : table + 4 * index + 3] == bytes([index] * 3) for index in range(min(used, 256)))


def _check_bmp(data: bytes) -> None:
    offset, width, height, bits, compression, declared = _bmp_fields(data)
    # Run-length coded pixels (1 and 2) declare their bytes; plain rows are padded to 4 bytes.
    needed = offset + (declared if compression in (1, 2) else height * ((width * bits + 31) // 32 * 4))
    if len(data) < needed:
        raise ImageFault(f"truncated: {len(data)} of {needed} bytes are there")


def _tiff_tags(data: bytes, *, whole: bool = True) -> dict[int, Iterator[int]]:
    """The whole-number tags of a TIFF's first directory; with `whole`, everything it points at must be there.

    Their values are read only as they are asked for: tags may all point at the same bytes, so that a small file would
    have more of them than memory holds.
    """
    order = "<" if data.startswith(b"II") else ">"
    (position,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, position)
    # The offset of the next directory, 4 bytes, follows the last entry.
    needed = position + 2 + 12 * count + 4
    tags = {}
    for index in range(count):
        entry = position + 2 + 12 * index
        tag, kind, number = struct.unpack_from(f"{order}HHI", data, entry)
        size = TIFF_TYPE_BYTES.get(kind, 0) * number
        start = entry + 8 if size <= 4 else struct.unpack_from(f"{order}I", data, entry + 8)[0]
        needed = max(needed, start + size)
        if kind in TIFF_WHOLE_NUMBERS and start + size <= len(data):
            tags[tag] = _whole_numbers(order + TIFF_WHOLE_NUMBERS[kind], memoryview(data)[start : start + size])
    if whole and needed > len(data):
        raise ImageFault(f"truncated: the file ends at byte {len(data)}, before its TIFF tables")
    return tags


def _whole_numbers(form: str, data: memoryview) -> Iterator[int]:
    for (number,) in struct.iter_unpack(form, data):
        yield number


def _first(tags: dict[int, Iterator[int]], tag: int, default: int) -> int:
    return next(tags.get(tag, iter(())), default)


def _tiff_header(data: bytes) -> ImageHeader:
    tags = _tiff_tags(data)
    channels, photometric = _first(tags, 277, 1), _first(tags, 262, 1)
    color = {1: "grey", 2: "grey+alpha", 3: "RGB", 4: "CMYK" if photometric == 5 else "RGBA"}.get(channels, "RGB")
    width, height = _first(tags, 256, 0), _first(tags, 257, 0)
    bits, orientation = _first(tags, 258, 1), _first(tags, 274, 1)
    return ImageHeader("TIFF", width, height, "palette" if photometric == 3 else color, bits, orientation)


def _check_tiff(data: bytes) -> None:
    tags = _tiff_tags(data)
    strips = (
        zip(tags.get(starts, ()), tags.get(lengths, ()), strict=False) for starts, lengths in ((273, 279), (324, 325))
    )
    needed = max((start + length for pairs in strips for start, length in pairs), default=0)
    if not needed:
        raise ImageFault("damaged: a TIFF without pixels")
    if len(data) < needed:
        raise ImageFault(f"truncated: {len(data)} of {needed} bytes are there")


def _webp_header(data: bytes) -> ImageHeader:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        if data[20] & 2:
            raise ImageFault(ANIMATION)
    elif kind == b"VP8L" and data[20:21] == b"\x2f":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise ImageFault("damaged: its WebP header makes no sense")
    if len(data) < 30 and kind != b"VP8L":
        raise ImageFault("truncated or damaged: its header cannot be read")
    return ImageHeader("WebP", width, height, "RGB", 8, _webp_orientation(data))


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, body) of each chunk, up to the end that the file declares."""
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    position = 12
    while position + 8 <= end:
        size = struct.unpack_from("<I", data, position + 4)[0]
        if position + 8 + size > min(end, len(data)):
            raise ImageFault(f"truncated: the file ends at byte {len(data)}, inside a WebP chunk")
        yield data[position : position + 4], data[position + 8 : position + 8 + size]
        position += 8 + size + size % 2


def _check_webp(data: bytes) -> None:
    if not any(name in (b"VP8 ", b"VP8L", b"ANMF") for name, _ in _webp_chunks(data)):
        raise ImageFault("damaged: a WebP without pixels")


def _webp_orientation(data: bytes) -> int:
    try:
        exif = next((body for name, body in _webp_chunks(data) if name == b"EXIF"), b"")
    except (struct.error, ImageFault):
        return 1
    return _orientation(exif.removeprefix(b"Exif\0\0"))


def _orientation(exif: bytes) -> int:
    """EXIF orientation 1..8 from a TIFF block; 1 if it is missing or invalid."""
    try:
        value = _first(_tiff_tags(exif, whole=False), 274, 1)
    except struct.error:
        return 1
    return value if 1 <= value <= 8 else 1


_CHECKS = {"PNG": _check_png, "JPEG": _check_jpeg, "BMP": _check_bmp, "TIFF": _check_tiff, "WebP": _check_webp}
