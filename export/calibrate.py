"""The range of each activation over calibration frames, for int8. Memory is bounded whatever the number of frames.

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
    """Run a wrapped float32 draft over frames and note each tensor's range.

    Args:
        draft: with input `frames`.
        tensors: names of float tensors of the graph.
        frames: each (H, W, 3) uint8 BGR at the draft's size; read once, one at a time.
        folder: an existing folder for a temporary model of the draft's size.

    Returns:
        tensor -> (lowest, highest), and the number of frames seen.

    Raises:
        ConversionError: no frames, or an activation that is not finite.
    """
    observe = _observe_extremes if calibration.method == "minmax" else _observe_histograms
    ranges, count = observe(draft, tensors, frames, calibration, folder)
    if not count:
        raise ConversionError("no calibration frames; int8 needs some to find the activations' ranges.")
    broken = [name for name, pair in ranges.items() if not np.isfinite(pair).all()]
    if broken:
        raise ConversionError(
            f"activations of {', '.join(broken)} are not finite on the calibration frames; train again."
        )
    return ranges, count


def _observe_extremes(
    draft: Draft, tensors: list[str], frames: Iterable[np.ndarray], calibration: Calibration, folder: Path
) -> tuple[Ranges, int]:
    ends = [f"{name}.{end}" for name in tensors for end in ("lowest", "highest")]

    def add_nodes(observed: Draft) -> None:
        nodes = [
            helper.make_node(operator, [name], [f"{name}.{end}"], f"{name}.{end}", keepdims=0)
            for name in tensors
            for operator, end in (("ReduceMin", "lowest"), ("ReduceMax", "highest"))
        ]
        observed.set_nodes([*observed.nodes, *nodes])

    with _session(draft, ends, folder, add_nodes) as session:
        found = np.array([[np.inf, -np.inf]] * len(tensors))
        count = 0
        for frame in frames:
            values = np.array(session.run(ends, {"frames": frame[None]}), np.float64).reshape(-1, 2)
            # A value that is not finite must stay visible: fmin and fmax would hide it.
            found = np.stack([np.minimum(found[:, 0], values[:, 0]), np.maximum(found[:, 1], values[:, 1])], axis=1)
            count += 1
    return {name: (float(low), float(high)) for name, (low, high) in zip(tensors, found, strict=True)}, count


def _observe_histograms(
    draft: Draft, tensors: list[str], frames: Iterable[np.ndarray], calibration: Calibration, folder: Path
) -> tuple[Ranges, int]:
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
    count = 0
    with _session(draft, tensors, folder, lambda observed: None) as session, contextlib.redirect_stdout(io.StringIO()):
        for frame in frames:
            values = session.run(tensors, {"frames": frame[None]})
            collector.collect({name: [array] for name, array in zip(tensors, values, strict=True)})
            count += 1
        found = collector.compute_collection_result() if count else {}
    return {name: (float(pair[0]), float(pair[1])) for name, pair in found.items()}, count


@contextlib.contextmanager
def _session(
    draft: Draft, outputs: list[str], folder: Path, change: Callable[[Draft], None]
) -> Iterator[onnxruntime.InferenceSession]:
    """A CPU session over a fork of `draft` that gives `outputs` too; its file is gone when the block ends."""
    observed = draft.fork()
    change(observed)
    for name in outputs:
        observed.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    path = folder / "observed.onnx"
    write_draft(observed, path)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        path.unlink()
        yield session
    finally:
        path.unlink(missing_ok=True)
