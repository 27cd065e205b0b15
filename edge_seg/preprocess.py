"""Frame -> model input and labels -> frame size: one definition shared by training, export, runtime and benchmarks.

At run time the exported graph scales pixel values; `scale_frames` defines that scaling, for Keras. Knows no models.
"""

from __future__ import annotations

import os

import numpy as np

from .errors import ConfigurationError
from .opencv import cv2

# Of pixels by their centres, as `resize_frame` has it; plain INTER_NEAREST goes by their corners, and shifts labels
# against the frame by up to half a pixel.
NEAREST = cv2.INTER_NEAREST_EXACT


def check_frame(frame: np.ndarray) -> np.ndarray:
    """Return `frame` if it is (H, W, 3) uint8 with at least one pixel; raise `ConfigurationError` otherwise."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        came = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        cure = _frame_cure(frame)
        raise ConfigurationError(
            f"Expected a frame of shape (H, W, 3), uint8, BGR as cv2 reads it; got {came}.{cure and f' {cure}'}"
        )
    if 0 in frame.shape:
        raise ConfigurationError(f"Expected a frame with pixels in it; got shape {frame.shape}.")
    return frame


def _frame_cure(frame: object) -> str:
    """How to turn the given object into a frame, as far as its type and shape tell; else ""."""
    if isinstance(getattr(frame, "image", None), np.ndarray):
        return "Pass its .image."
    if isinstance(frame, str | os.PathLike):
        return "`stream(path)` reads a video, one for each call, and cv2.imread(path) a picture."
    if not isinstance(frame, np.ndarray):
        return "cv2.imread(path) reads a picture as one."
    if frame.ndim == 4 and frame.shape[3] == 3:
        return "`segment_batch(frames)` takes several."
    if frame.ndim == 3 and frame.shape[0] == 3 and frame.shape[2] != 3:
        return "Channels come last: frame.transpose(1, 2, 0)."
    if frame.dtype != np.uint8:
        return "Scale its values to 0..255 and convert them with .astype(np.uint8)."
    if frame.ndim == 3 and frame.shape[2] == 4:
        return "Convert it with cv2.cvtColor(frame, cv2.COLOR_BGRA2BGR)."
    grey = frame.ndim == 2 or frame.shape[2:] == (1,)
    return "Convert grey frames with cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)." if grey else ""


def resize_frame(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretch a frame to `size` = (height, width) with bilinear filtering; (H, W, 3) uint8 in and out."""
    if frame.shape[:2] == tuple(size):
        return frame
    return cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize labels to `size` = (height, width) by nearest neighbour, which never blends ids; (H, W) uint8."""
    if labels.shape[:2] == tuple(size):
        return labels
    return cv2.resize(labels, (size[1], size[0]), interpolation=NEAREST)


def stack_frames(frames: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Frames of any size, each (H, W, 3) uint8 BGR, as one model input (N, height, width, 3) uint8."""
    batch = np.empty((len(frames), *size, 3), np.uint8)
    for place, frame in zip(batch, frames, strict=True):
        # Straight into the batch, without an intermediate image.
        if frame.shape[:2] == tuple(size):
            place[...] = frame
        else:
            cv2.resize(frame, (size[1], size[0]), dst=place, interpolation=cv2.INTER_LINEAR)
    return batch


def scale_frames(frames: np.ndarray) -> np.ndarray:
    """uint8 0..255 -> float32 in [-1, 1]: `x / 127.5 - 1`, as in the original notebook and in the exported graph."""
    return frames.astype(np.float32) / np.float32(127.5) - np.float32(1)
