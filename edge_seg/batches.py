"""Runs a batch of any length through a session in parts of a given size. Knows nothing about devices or sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import ModelFileError


def run_in_parts(
    run: Callable[[np.ndarray], dict[str, np.ndarray]],
    batch: np.ndarray,
    size: int,
    *,
    whole: bool = True,
    copied: bool = False,
) -> dict[str, np.ndarray]:
    """The outputs by name for a batch (N, H, W, 3) uint8, `size` frames a run; `whole` pads the last run to `size`.

    `copied`: `run` may write its outputs into the same arrays each time, so they are copied.

    Raises:
        ModelFileError: `run` does not return uint8 labels of its frames' size, or a confidence of another.
    """
    parts = []
    for first in range(0, len(batch), size):
        part = batch[first : first + size]
        given = filled_up(part, size) if whole else part
        outputs = run(given)
        _check_outputs(outputs, given.shape)
        own = {name: array[: len(part)] for name, array in outputs.items()}
        parts.append({name: np.array(array) for name, array in own.items()} if copied else own)
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def filled_up(batch: np.ndarray, size: int) -> np.ndarray:
    """The batch, its last frame repeated up to `size`, so that it keeps the shape a provider is tuned to."""
    missing = size - len(batch)
    return batch if missing <= 0 else np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])


def _check_outputs(outputs: Any, given: tuple[int, ...]) -> None:
    """Raise unless the outputs fit the frames: those of another size would be stretched, and silently be wrong."""
    labels = outputs.get("labels") if isinstance(outputs, dict) else None
    if not isinstance(labels, np.ndarray) or labels.dtype != np.uint8 or labels.shape != given[:3]:
        came = f"{labels.dtype} {labels.shape}" if isinstance(labels, np.ndarray) else type(outputs).__name__
        raise ModelFileError(f'Expected a session\'s "labels" as uint8 of shape {given[:3]}; got {came}.')
    confidence = outputs.get("confidence", labels)
    if not isinstance(confidence, np.ndarray) or confidence.shape != given[:3]:
        came = str(getattr(confidence, "shape", type(confidence).__name__))
        raise ModelFileError(f'Expected a session\'s "confidence" as an array of shape {given[:3]}; got {came}.')
