"""Labelers turn frames into class ids for evaluation: a Keras network (over flips and scales if asked) or an ONNX file.

Each gives labels at its own input size; resizing them to a frame's size is left to the caller. Keras is imported only
when a run is opened. Knows nothing of truth or scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from edge_seg.batches import filled_up
from edge_seg.errors import ConfigurationError
from edge_seg.preprocess import resize_frame, scale_frames, stack_frames

STRIDE = 32


class Labeler(Protocol):
    """Frames in, class ids out.

    Attributes:
        size: (height, width) of the labels.
        variants: names of the ways each frame is labelled, "plain" first.
    """

    size: tuple[int, int]
    variants: tuple[str, ...]

    def label(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Label (H, W, 3) uint8 BGR frames of any size: for each variant, (N, height, width) uint8."""


class KerasLabeler:
    """A Keras FCN8, run plainly and, where asked, averaged over mirrored and rescaled inputs."""

    def __init__(
        self,
        model: Any,
        size: tuple[int, int],
        *,
        batch: int = 8,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
    ) -> None:
        """
        Args:
            model: from scaled frames to class probabilities; accepts `size` and every multiple of it in `scales`.
            size: (height, width) of the labels.
            batch: frames a call; a short last batch is filled up, so that nothing is compiled again.
            flip: average each input with its mirror image.
            scales: average over inputs of these multiples of `size`, rounded to multiples of 32.
        """
        self.size = size
        self._model, self._batch, self._flip = model, batch, flip
        self._sizes = tuple(_scaled(size, scale) for scale in scales)
        augmented = flip or self._sizes != (size,)
        self.variants: tuple[str, ...] = ("plain", "augmented") if augmented else ("plain",)

    def label(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `Labeler.label`."""
        return [found.argmax(axis=-1).astype(np.uint8) for found in self.probabilities(frames)]

    def probabilities(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The probabilities that `label` decides by: for each variant, (N, height, width, classes) float32."""
        plain = self._probabilities(frames, self.size, mirrored=False)
        found = [plain]
        if len(self.variants) > 1:
            total = np.zeros_like(plain)
            for size in self._sizes:
                for mirrored in (False, True) if self._flip else (False,):
                    known = size == self.size and not mirrored
                    total += plain if known else self._resized(self._probabilities(frames, size, mirrored=mirrored))
            found.append(total / (len(self._sizes) * (2 if self._flip else 1)))
        return found

    def _probabilities(self, frames: Sequence[np.ndarray], size: tuple[int, int], *, mirrored: bool) -> np.ndarray:
        """(N, height, width, C) float32 at `size`."""
        inputs = filled_up(stack_frames(list(frames), size), self._batch)
        if mirrored:
            inputs = inputs[:, :, ::-1]
        found = np.asarray(self._model.predict_on_batch(scale_frames(inputs)))[: len(frames)]
        return found[:, :, ::-1] if mirrored else found

    def _resized(self, probabilities: np.ndarray) -> np.ndarray:
        if probabilities.shape[1:3] == self.size:
            return probabilities
        width_height = self.size[::-1]
        return np.stack([resize_channels(item, width_height) for item in probabilities])


class OnnxLabeler:
    """An exported model file, run as users run it."""

    variants: tuple[str, ...] = ("plain",)

    def __init__(self, segmenter: Any, size: tuple[int, int]) -> None:
        self.size, self._segmenter = size, segmenter

    def label(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `Labeler.label`. Given frames of the model's size, the runtime gives back labels of that size."""
        resized = [resize_frame(frame, self.size) for frame in frames]
        return [np.stack([result.labels for result in self._segmenter.segment_batch(resized)])]


def open_keras(
    run: Any, *, input_size: tuple[int, int] | None, batch: int, flip: bool, scales: Sequence[float]
) -> KerasLabeler:
    """The labeler of a finished run, at its own input size by default.

    Raises:
        ModelFileError: weights missing or damaged.
        ConfigurationError: a size that FCN8 cannot have, or none where the run fixes none.
    """
    from .fcn8 import check_input_size
    from .run import load_model

    size = input_size or run.fcn8.input_size
    if size is None:
        raise ConfigurationError(f"{run.folder} fixes no input size; give one with --input-size, like 224x224.")
    check_input_size(size)
    if all(_scaled(size, scale) == size for scale in scales):
        model = load_model(run, input_size=size)
    else:
        # One network without a fixed size serves all scales.
        free = {**run.config, "fcn8": {**run.config["fcn8"], "input_size": None}}
        model = load_model(replace(run, config=free))
    return KerasLabeler(model, size, batch=batch, flip=flip, scales=scales)


def open_onnx(path: Path, *, input_size: tuple[int, int] | None, batch: int) -> tuple[OnnxLabeler, Any]:
    """The labeler of an exported model on the CPU provider, and the model's spec.

    Raises:
        ModelFileError: not a model file of this project.
        ConfigurationError: another input size than the file's, which is fixed.
    """
    from edge_seg import Segmenter
    from edge_seg.modelfile import read_model_header

    spec = read_model_header(path).spec
    if input_size and input_size != spec.input_size and not spec.dynamic_size:
        height, width = spec.input_size
        raise ConfigurationError(
            f"{path} takes frames of {height}x{width} alone; evaluate it without --input-size, or export it with "
            "--dynamic-size."
        )
    segmenter = Segmenter(path, device="cpu", batch_size=batch, input_size=input_size)
    return OnnxLabeler(segmenter, segmenter.input_size), segmenter.spec


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    height, width = (max(STRIDE, round(side * scale / STRIDE) * STRIDE) for side in size)
    return (height, width) if scale != 1 else size


def resize_channels(
    probabilities: np.ndarray, width_height: tuple[int, int], interpolation: int = cv2.INTER_LINEAR
) -> np.ndarray:
    """Resize one channel at a time, bilinear by default: cv2 resizes no more than four channels at once."""
    channels = [
        cv2.resize(np.ascontiguousarray(channel), width_height, interpolation=interpolation)
        for channel in np.moveaxis(probabilities, -1, 0)
    ]
    return np.stack(channels, axis=-1)
