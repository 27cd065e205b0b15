"""The range of each activation over calibration frames, for int8, and the mean of each channel. Memory is bounded
whatever the number of frames.

min-max adds a ReduceMin and a ReduceMax to each tensor, so that a session returns two numbers for each; percentile
and entropy feed onnxruntime's own histogram collector one frame at a time, where its calibrators would keep every
tensor of every frame. Knows neither datasets nor quantizers.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from edge_seg.errors import ConfigurationError, ConversionError

from .draft import Draft, write_draft

METHODS = ("minmax", "percentile", "entropy")
Ranges = dict[str, tuple[float, float]]
Means = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How ranges are found.

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


def find_ranges(
    draft: Draft, tensors: list[str], frames: Iterable[np.ndarray], calibration: Calibration, folder: Path
) -> tuple[Ranges, int]:
    """`observe` for ranges alone."""
    ranges, _, count = observe(draft, tensors, [], frames, calibration, folder)
    return ranges, count


def observe(
    draft: Draft,
    tensors: list[str],
    averaged: list[str],
    frames: Iterable[np.ndarray],
    calibration: Calibration,
    folder: Path,
) -> tuple[Ranges, Means, int]:
    """Run a wrapped float32 draft over frames and note ranges of some tensors and means of others.

    Args:
        draft: with input `frames`.
        tensors: names of float tensors of the graph whose range is wanted.
        averaged: names of float tensors (N, C, H, W) whose channels' means are wanted.
        frames: each (H, W, 3) uint8 BGR at the draft's size; read once, one at a time.
        folder: an existing folder for a temporary model of the draft's size.

    Returns:
        tensor -> (lowest, highest), tensor -> (C,) float64, and the number of frames seen.

    Raises:
        ConversionError: no frames, or an activation that is not finite.
    """
    find = _observe_extremes if calibration.method == "minmax" else _observe_histograms
    ranges, means, count = find(draft, tensors, averaged, frames, calibration, folder)
    if not count:
        raise ConversionError("no calibration frames; int8 needs some to find the activations' ranges.")
    broken = [name for name, pair in ranges.items() if not np.isfinite(pair).all()]
    if broken:
        raise ConversionError(
            f"activations of {', '.join(broken)} are not finite on the calibration frames; train again."
        )
    return ranges, means, count


def _observe_extremes(
    draft: Draft,
    tensors: list[str],
    averaged: list[str],
    frames: Iterable[np.ndarray],
    calibration: Calibration,
    folder: Path,
) -> tuple[Ranges, Means, int]:
    ends = [f"{name}.{end}" for name in tensors for end in ("lowest", "highest")]

    def add_nodes(observed: Draft) -> None:
        nodes = [
            helper.make_node(operator, [name], [f"{name}.{end}"], f"{name}.{end}", keepdims=0)
            for name in tensors
            for operator, end in (("ReduceMin", "lowest"), ("ReduceMax", "highest"))
        ]
        observed.set_nodes([*observed.nodes, *nodes])

    with _session(draft, ends, averaged, folder, add_nodes) as session:
        found = np.array([[np.inf, -np.inf]] * len(tensors))
        sums, count = _Sums(averaged), 0
        for frame in frames:
            both = session.run([*ends, *sums.outputs], {"frames": frame[None]})
            sums.add(both[len(ends) :])
            values = np.array(both[: len(ends)], np.float64).reshape(-1, 2)
            # A value that is not finite must stay visible: fmin and fmax would hide it.
            found = np.stack([np.minimum(found[:, 0], values[:, 0]), np.maximum(found[:, 1], values[:, 1])], axis=1)
            count += 1
    ranges = {name: (float(low), float(high)) for name, (low, high) in zip(tensors, found, strict=True)}
    return ranges, sums.means(), count


def _observe_histograms(
    draft: Draft,
    tensors: list[str],
    averaged: list[str],
    frames: Iterable[np.ndarray],
    calibration: Calibration,
    folder: Path,
) -> tuple[Ranges, Means, int]:
    from onnxruntime.quantization.calibrate import HistogramCollector

    bins = 2048 if calibration.method == "percentile" else 128
    collector = HistogramCollector(
        method=calibration.method,
        symmetric=False,
        num_bins=bins,
        num_quantized_bins=128,
        percentile=calibration.percentile,
        scenario="same",
    )
    sums, count = _Sums(averaged), 0
    quiet = contextlib.redirect_stdout(io.StringIO())
    with _session(draft, tensors, averaged, folder, lambda observed: None) as session, quiet:
        for frame in frames:
            values = session.run([*tensors, *sums.outputs], {"frames": frame[None]})
            sums.add(values[len(tensors) :])
            collector.collect({name: [array] for name, array in zip(tensors, values, strict=False)})
            count += 1
        found = collector.compute_collection_result() if count else {}
    return {name: (float(pair[0]), float(pair[1])) for name, pair in found.items()}, sums.means(), count


class _Sums:
    """Running sums of what the nodes of `_session` give for each of some tensors."""

    def __init__(self, averaged: list[str]) -> None:
        self._averaged, self._totals, self._count = averaged, [np.zeros(0)] * len(averaged), 0
        self.outputs = [f"{name}.mean" for name in averaged]

    def add(self, values: list[np.ndarray]) -> None:
        found = [value.astype(np.float64).reshape(-1) for value in values]
        self._totals = [total + new for total, new in zip(self._totals, found, strict=True)] if self._count else found
        self._count += 1

    def means(self) -> Means:
        return {name: total / self._count for name, total in zip(self._averaged, self._totals, strict=True)}


@contextlib.contextmanager
def _session(
    draft: Draft, outputs: list[str], averaged: list[str], folder: Path, change: Callable[[Draft], None]
) -> Iterator[onnxruntime.InferenceSession]:
    """A CPU session over a fork of `draft` that gives `outputs` and means too; its file is gone when the block ends."""
    observed = draft.fork()
    change(observed)
    pools = [helper.make_node("GlobalAveragePool", [name], [f"{name}.mean"], f"{name}.mean") for name in averaged]
    observed.set_nodes([*observed.nodes, *pools])
    for name in [*outputs, *(pool.output[0] for pool in pools)]:
        observed.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    path = folder / "observed.onnx"
    write_draft(observed, path)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        path.unlink()
        yield session
    finally:
        path.unlink(missing_ok=True)
