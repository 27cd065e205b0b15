"""Golden frames: a few frames and their Keras labels, packed into a model file so that any device can be proved.

Lossless PNG in base64 in JSON, small enough for ONNX metadata. Knows nothing about runtimes or models.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from typing import Any

import numpy as np

from .errors import ConfigurationError, ModelFileError
from .opencv import cv2

GOLDEN_FORMAT = 1
MAX_FRAMES = 64
MAX_PIXELS = 4096 * 4096  # of all frames together: 48 MB of pictures at most
MAX_TEXT = 128 * 2**20


def encode_golden(frames: np.ndarray, labels: np.ndarray) -> str:
    """Pack frames and labels as text for `spec.GOLDEN_KEY`.

    Args:
        frames: (N, H, W, 3) uint8 BGR, at the model's size.
        labels: (N, H, W) uint8 class ids that Keras gave for them.

    Raises:
        ConfigurationError: other shapes or types, or more frames than a file may carry.
    """
    frames, labels = np.asarray(frames), np.asarray(labels)
    fits = frames.ndim == 4 and frames.shape[3] == 3 and frames.shape[:3] == labels.shape and 0 not in frames.shape
    if not fits or frames.dtype != np.uint8 or labels.dtype != np.uint8 or len(frames) > MAX_FRAMES:
        raise ConfigurationError(
            f"Golden frames must be (N, H, W, 3) uint8 with labels (N, H, W) uint8, N from 1 to {MAX_FRAMES}; "
            f"got {frames.dtype} {frames.shape} and {labels.dtype} {labels.shape}."
        )
    check_amount(len(frames), (frames.shape[1], frames.shape[2]))
    record = {
        "format": GOLDEN_FORMAT,
        "size": list(frames.shape[1:3]),
        "frames": [_to_png(frame) for frame in frames],
        "labels": [_to_png(label) for label in labels],
    }
    return json.dumps(record)


def check_amount(count: int, size: tuple[int, int]) -> None:
    """Raise `ConfigurationError` if `decode_golden` would refuse so many frames of (height, width) pixels."""
    height, width = size
    most = min(MAX_FRAMES, MAX_PIXELS // (height * width))
    if count > most:
        raise ConfigurationError(
            f"A model file carries at most {most} golden frames of {height}x{width} pixels; got {count}. Export with "
            + (f"--golden-frames {most}." if most else "--golden none.")
        )


def decode_golden(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Unpack what `encode_golden` packed: (frames (N, H, W, 3) uint8, labels (N, H, W) uint8).

    The text comes from a file that anyone may have written: sizes are checked before anything is decoded.

    Raises:
        ModelFileError: damaged, or not golden frames.
    """
    height, width, frames, labels = _read_record(text)
    if len(frames) != len(labels) or not 1 <= len(frames) <= MAX_FRAMES:
        raise _damaged(f"{len(frames)} frames with {len(labels)} labels, expected 1 to {MAX_FRAMES} of each")
    if len(frames) * height * width > MAX_PIXELS:
        raise _damaged(f"{len(frames)} frames of {width}x{height}, more than {MAX_PIXELS} pixels")
    return (
        np.stack([_from_png(png, (height, width, 3)) for png in frames]),
        np.stack([_from_png(png, (height, width)) for png in labels]),
    )


def _read_record(text: str) -> tuple[int, int, list[Any], list[Any]]:
    if len(text) > MAX_TEXT:
        raise _damaged(f"{len(text)} characters, more than {MAX_TEXT}")
    # A parsed list of lists takes thirty times its text's memory, so text that cannot be a record is not parsed.
    if text.count("[") > 3 or text.count("{") > 1 or text.count(",") > 2 * MAX_FRAMES + 8:
        raise _damaged("it holds more than a record of format, size, frames and labels")
    try:
        record = json.loads(text)
        version, (height, width) = record["format"], record["size"]
        frames, labels = record["frames"], record["labels"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(f"no record of format, size, frames and labels: {type(error).__name__}") from error
    if version != GOLDEN_FORMAT:
        raise _damaged(f"format {version!r}, this edge_seg reads {GOLDEN_FORMAT}")
    if type(height) is not int or type(width) is not int or height < 1 or width < 1:
        raise _damaged(f"size {height!r} x {width!r}")
    if not isinstance(frames, list) or not isinstance(labels, list):
        raise _damaged("frames and labels must be lists")
    return height, width, frames, labels


def _to_png(image: np.ndarray) -> str:
    done, png = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise ConfigurationError(f"A golden frame of shape {image.shape} could not be encoded as PNG.")
    return base64.b64encode(png.tobytes()).decode("ascii")


def _from_png(text: Any, shape: tuple[int, ...]) -> np.ndarray:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise _damaged(f"a picture is not base64: {error}") from error
    # The header is read first: a picture that claims another size is never decoded.
    if len(data) < 33 or data[:8] != b"\x89PNG\r\n\x1a\n" or struct.unpack(">II", data[16:24]) != (shape[1], shape[0]):
        raise _damaged(f"a picture is not a PNG of {shape[1]}x{shape[0]} pixels")
    flags = cv2.IMREAD_GRAYSCALE if len(shape) == 2 else cv2.IMREAD_COLOR
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise _damaged("a picture cannot be decoded") from error
    if image is None or image.shape != shape or image.dtype != np.uint8:
        raise _damaged("a picture cannot be decoded")
    return np.asarray(image)


def _damaged(what: str) -> ModelFileError:
    return ModelFileError(f"The model's golden frames are damaged ({what}). Export the model again, or copy it again.")
