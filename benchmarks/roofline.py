"""How near each row comes to the machine's limits: asks a worker for limits and operations, and divides.

Knows rows and a worker's answers; measures and counts nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .cases import ModelFile
from .operations import WEIGHT_BYTES, Layer, gflop, limit_ms
from .process import Say, Start, Worker, WorkerError
from .rows import Row

Counts = dict[str, list[Layer]]


def ask_limits(extent: Mapping[str, Any], *, say: Say, start: Start = Worker) -> dict[str, Any]:
    """This machine's peaks and bandwidth, measured in a worker of their own, or {"problem": one line}."""
    say("measuring what this machine can do at the most")
    with start("limits") as worker:
        return worker.try_to("limits", **extent)


def best_limits(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The better of two measurements of each peak and of bandwidth: what was reached once can be reached."""
    if "problem" in first or "problem" in second:
        return second if "problem" in first else first
    peaks = {
        name: max(peak, second["peaks"][name], key=lambda one: one["gflops"] or 0.0)
        for name, peak in first["peaks"].items()
    }
    memory = max(first["bandwidth"], second["bandwidth"], key=lambda one: one["best_gb_s"])
    return {**first, "peaks": peaks, "bandwidth": memory}


def ask_operations(files: Sequence[ModelFile], size: tuple[int, int], *, start: Start = Worker) -> tuple[Counts, str]:
    """Digest -> layers of each file, and why a file has none ("" if all have)."""
    found: Counts = {}
    problem = ""
    with start("operations") as worker:
        for file in files:
            try:
                layers = worker.ask("operations", path=str(file.path.resolve()), size=list(size))["layers"]
                found[file.digest] = [Layer(*layer) for layer in layers]
            except WorkerError as error:
                problem = f"operations of {file.path.name} were not counted: {error}"
    return found, problem


def summed(counts: Counts) -> dict[str, dict[str, Any]]:
    """The sums that a result keeps of the counts."""
    return {
        digest: {"gflop": gflop(layers), "weights": sum(layer.weights for layer in layers)}
        for digest, layers in counts.items()
    }


def against_limits(row: Row, counts: Counts, limits: Mapping[str, Any]) -> Row:
    """A row with its operations a second and its shares of the peak and of the roofline, if they are known."""
    # Keras and torch run the same network as the files, and the count is the same in every precision.
    layers = counts.get(row.model) or next(iter(counts.values()), None)
    if row.status != "ok" or layers is None or row.ms_median is None:
        return row
    speed = gflop(layers) * 1000.0 / row.ms_median
    arithmetic = row.arithmetic or row.precision
    peak = limits.get("peaks", {}).get(arithmetic, {}).get("gflops")
    if peak is None or (row.device != "cpu" and not row.device.startswith("openvino")):
        return replace(row, gflops=speed)
    least = limit_ms(
        layers,
        batch=row.batch,
        gflops=peak,
        bandwidth_gb_s=limits["bandwidth"]["best_gb_s"],
        weight_bytes=WEIGHT_BYTES[arithmetic],
    )
    return replace(row, gflops=speed, share_of_peak=speed / peak, share_of_limit=least / row.ms_median)
