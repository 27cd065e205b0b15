"""Activation ranges and channel means over calibration frames, for int8. Memory does not grow with the frames.

minmax adds a ReduceMin and a ReduceMax to each tensor, so that a session returns two numbers for it. percentile and
entropy feed onnxruntime's histogram collector one frame at a time; its own calibrators would keep every tensor of
every frame. Knows nothing of datasets or quantizers.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from edge_seg.errors import ConfigurationError, ConversionError

from .cpu import watched
from .draft import Draft

METHODS = ("minmax", "percentile", "entropy")
# Initial bins of a histogram, and how many times as many there may be once later frames have larger values.
BINS = {"percentile": 2048, "entropy": 128}
MOST_GROWTH = 16
Ranges = dict[str, tuple[float, float]]
Means = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How activation ranges are found.

    Attributes:
        method: "minmax", "percentile" or "entropy".
        frames: how many calibration frames.
        percentile: share of values kept inside the range, in percent (method "percentile").
    """

    method: str = "minmax"
    frames: int = 64
    percentile: float = 99.99

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigurationError(f"calibration must be one of {', '.join(METHODS)}; got {self.method!r}.")
        if self.frames < 1 or not 50 < self.percentile <= 100:
            raise ConfigurationError(
                f"calibration needs at least 1 frame and a percentile above 50, up to 100; "
                f"got {self.frames} and {self.percentile}."
            )
        if self.method != "percentile" and self.percentile != Calibration.percentile:
            raise ConfigurationError(
                f"a percentile is for calibration by percentile; got {self.method}. Add --calibration percentile."
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; the percentile only where the method uses it."""
        return {key: value for key, value in asdict(self).items() if key != "percentile" or self.method == key}


def observe(
    draft: Draft,
    tensors: list[str],
    frames: Iterable[np.ndarray],
    calibration: Calibration,
    folder: Path,
    *,
    averaged: Sequence[str] = (),
) -> tuple[Ranges, Means, int]:
    """Run a wrapped float32 draft over frames and record the ranges of some tensors and the means of others.

    Args:
        draft: with input `frames`.
        tensors: names of the float tensors whose range is wanted.
        frames: each (H, W, 3) uint8 BGR at the draft's size; read once, one at a time.
        calibration: how ranges are found.
        folder: an existing folder for a temporary model of the draft's size.
        averaged: names of the float tensors (N, C, H, W) whose channel means are wanted.

    Returns:
        tensor -> (lowest, highest), tensor -> (C,) float64, and the number of frames seen.

    Raises:
        ConversionError: no frames, or an activation that is not finite.
    """
    minmax = calibration.method == "minmax"
    extent: _Extremes | _Histograms = _Extremes(tensors) if minmax else _Histograms(tensors, calibration)
    means, count = _Averages(averaged), 0
    outputs = [*extent.outputs, *means.outputs]
    with watched(draft, outputs, folder, nodes=[*extent.nodes, *means.nodes]) as session:
        for frame in frames:
            values = session.run(outputs, {"frames": frame[None]})
            extent.add(values[: len(extent.outputs)])
            means.add(values[len(extent.outputs) :])
            count += 1
    if not count:
        raise ConversionError("no calibration frames; int8 needs some to find the activations' ranges.")
    return extent.ranges(), means.means(), count


class _Extremes:
    """The smallest and largest value of each tensor, computed in the graph: `nodes` produce `outputs`."""

    def __init__(self, tensors: list[str]) -> None:
        self._tensors, self._found = tensors, np.array([[np.inf, -np.inf]] * len(tensors))
        self.nodes = [
            helper.make_node(operator, [name], [f"{name}.{end}"], f"{name}.{end}", keepdims=0)
            for name in tensors
            for operator, end in (("ReduceMin", "lowest"), ("ReduceMax", "highest"))
        ]
        self.outputs = [node.output[0] for node in self.nodes]

    def add(self, values: list[np.ndarray]) -> None:
        pairs = np.array(values, np.float64).reshape(-1, 2)
        for name, pair in zip(self._tensors, pairs, strict=True):
            _refuse_infinite(name, pair)
        low, high = self._found.T
        self._found = np.stack([np.minimum(low, pairs[:, 0]), np.maximum(high, pairs[:, 1])], axis=1)

    def ranges(self) -> Ranges:
        return {name: (float(low), float(high)) for name, (low, high) in zip(self._tensors, self._found, strict=True)}


class _Histograms:
    """A histogram of each tensor, kept by onnxruntime's collector."""

    def __init__(self, tensors: list[str], calibration: Calibration) -> None:
        from onnxruntime.quantization.calibrate import HistogramCollector

        self.outputs = tensors
        self.nodes: list[NodeProto] = []
        self._bins = BINS[calibration.method]
        self._collector = HistogramCollector(
            method=calibration.method,
            symmetric=False,
            num_bins=self._bins,
            num_quantized_bins=128,
            percentile=calibration.percentile,
            scenario="same",
        )

    def add(self, values: list[np.ndarray]) -> None:
        for name, array in zip(self.outputs, values, strict=True):
            _refuse_infinite(name, array)
            self._make_room(name, float(np.abs(array).max()))
        with contextlib.redirect_stdout(io.StringIO()):
            self._collector.collect({name: [array] for name, array in zip(self.outputs, values, strict=True)})

    def _make_room(self, name: str, largest: float) -> None:
        """Merge the bins of a histogram that the value `largest` would make too long.

        The first frame sets the bin width; after a dark one there could be millions of bins, and entropy would search
        them for hours.
        """
        counts, edges, low, high, threshold = self._collector.histogram_dict.get(name, ((), None, 0, 0, 0))
        needed = len(counts) * largest / float(threshold) if threshold else 0.0
        if needed <= MOST_GROWTH * self._bins:
            return
        merged, half = int(needed // self._bins), len(counts) // 2
        starts = np.arange(0, half, min(merged, half))
        # Each half is merged from the middle outwards, so that zero stays a bin edge.
        left, right = (np.add.reduceat(part, starts) for part in (counts[:half][::-1], counts[half:]))
        threshold = threshold.dtype.type(len(right) * merged * (float(threshold) / half))
        counts = np.concatenate([left[::-1], right])
        edges = np.linspace(-threshold, threshold, len(counts) + 1).astype(edges.dtype)
        self._collector.histogram_dict[name] = (counts, edges, low, high, threshold)

    def ranges(self) -> Ranges:
        with contextlib.redirect_stdout(io.StringIO()):
            found = self._collector.compute_collection_result()
        return {name: (float(pair[0]), float(pair[1])) for name, pair in found.items()}


class _Averages:
    """The mean of each channel of each tensor; the graph averages within a frame."""

    def __init__(self, averaged: Sequence[str]) -> None:
        self._averaged, self._totals, self._count = averaged, [np.zeros(0)] * len(averaged), 0
        self.nodes = [
            helper.make_node("GlobalAveragePool", [name], [f"{name}.mean"], f"{name}.mean") for name in averaged
        ]
        self.outputs = [node.output[0] for node in self.nodes]

    def add(self, values: list[np.ndarray]) -> None:
        found = [value.astype(np.float64).reshape(-1) for value in values]
        self._totals = [total + new for total, new in zip(self._totals, found, strict=True)] if self._count else found
        self._count += 1

    def means(self) -> Means:
        return {name: total / self._count for name, total in zip(self._averaged, self._totals, strict=True)}


def _refuse_infinite(name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ConversionError(f"activations of {name} are not finite on a frame it was run over; train again.")
