"""A benchmark's records: a row for each contender and batch size, one for each on the clip, and the whole result.

Knows what a result holds and how it is stored and read back; draws and measures nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from edge_seg.console import harmless
from edge_seg.errors import ConfigurationError
from train.files import DAMAGE

FORMAT = 1
RESULTS_NAME = "results.json"
# Keys that every reader of a result relies on.
NEEDED = {
    "environment": ("cpu", "cores", "gpus", "os", "python", "packages", "revision"),
    "settings": ("size", "batch_sizes", "repeats", "frames"),
    "data": ("name", "frames", "digest"),
}
# Above this share, the peak was measured too low; two measurements of one limit differ by a hundredth.
OUTRUN = 1.02


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contender at one batch size. Figures are None where `status` is not "ok".

    Attributes:
        name, kind, precision, device, model: the contender's, see `cases.Contender`.
        batch: frames a call.
        status: "ok", "failed", or "skipped" if this machine cannot run it.
        reason: one line, if the status is not "ok".
        detail: what really runs it, if the name does not say.
        arithmetic: what it computes in: "fp32", "bf16", "fp16" or "int8"; "" if unknown.
        ms_median, ms_p95, frames_per_s, spread, repeats_ms, calls: see `measure.Summary`.
        ratio, ratio_low, ratio_high: times faster than Keras predict at this batch size: median, quartiles over rounds;
            fewer than `measure.QUARTILES_FROM` have no quartiles.
        cores: CPU time over wall time while it computed.
        idle_share: CPU time over wall time while it waited for its turn.
        peak_mb: the worker's largest resident memory, in MB.
        mean_iou: 0..1, without the unlabelled class.
        agreement: share of pixels that agree with Keras predict, 0..1.
        gflops: billions of operations a second, at `ms_median`.
        share_of_peak: `gflops` over the machine's peak in the row's arithmetic, 0..1; None without a peak.
        share_of_limit: the roofline's milliseconds (`operations.limit_ms`) over the row's, 0..1.
    """

    name: str
    kind: str
    precision: str
    device: str
    batch: int
    model: str = ""
    status: str = "ok"
    reason: str = ""
    detail: str = ""
    arithmetic: str = ""
    ms_median: float | None = None
    ms_p95: float | None = None
    frames_per_s: float | None = None
    spread: float | None = None
    repeats_ms: tuple[float, ...] = ()
    calls: int = 0
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    cores: float | None = None
    idle_share: float | None = None
    peak_mb: float | None = None
    mean_iou: float | None = None
    agreement: float | None = None
    gflops: float | None = None
    share_of_peak: float | None = None
    share_of_limit: float | None = None


@dataclass(frozen=True, kw_only=True)
class ClipRow:
    """One contender on a clip, from decoding to the encoded overlay. Figures are None where `status` is not "ok".

    Attributes:
        name, precision, device, batch, model, status, reason: as in `Row`.
        frames: frames segmented and encoded.
        frames_per_s: frames over the whole run's time, median over repeats.
        spread: of the repeats, as in `measure.Summary`.
        repeats_fps: frames/s of each repeat.
        stage_ms: stage -> milliseconds a frame, median over repeats; stages overlap, so the sum exceeds a frame's time.
        alone_cpu_ms: stage -> milliseconds of CPU time a frame, each stage run alone; empty for the naive loop.
        allowed_fps: cores over the sum of `alone_cpu_ms`: the frames/s that these cores allow.
        share_of_allowed: frames/s over `allowed_fps`, median over rounds.
        times_naive: frames/s over the naive loop's, median over rounds.
        peak_mb: the worker's peak resident memory after its first clip, in MB.
    """

    name: str
    precision: str
    device: str
    batch: int
    model: str = ""
    status: str = "ok"
    reason: str = ""
    frames: int = 0
    frames_per_s: float | None = None
    spread: float | None = None
    repeats_fps: tuple[float, ...] = ()
    stage_ms: dict[str, float] = field(default_factory=dict)
    alone_cpu_ms: dict[str, float] = field(default_factory=dict)
    allowed_fps: float | None = None
    share_of_allowed: float | None = None
    times_naive: float | None = None
    peak_mb: float | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """A whole benchmark.

    Attributes:
        created: when, ISO 8601, UTC.
        duration_s: how long it took.
        environment: see `environment.environment`.
        settings: batch sizes, repeats, frames a turn, input size.
        data: see `data.FrameSet.to_dict`.
        clip: name, digest, size and frames of the clip, or empty.
        models: file name, label, precision and digest of each model file, the run's folder and digest.
        rows, clip_rows: what was measured.
        notes: what a reader must know to judge the result, noise above all.
        limits: the machine's limits, see `limits.measure_limits`; empty if not measured.
        operations: a model file's digest -> {"gflop": of one frame, "weights": number of weights that multiply}.
        noisy: whether repeats lay too far apart, or something else computed meanwhile; a NOISY note says which.
    """

    created: str
    duration_s: float
    environment: dict[str, Any]
    settings: dict[str, Any]
    data: dict[str, Any]
    clip: dict[str, Any]
    models: list[dict[str, Any]]
    rows: tuple[Row, ...]
    clip_rows: tuple[ClipRow, ...] = ()
    notes: tuple[str, ...] = ()
    limits: dict[str, Any] = field(default_factory=dict)
    operations: dict[str, dict[str, Any]] = field(default_factory=dict)
    noisy: bool = False

    @property
    def everything(self) -> list[Row | ClipRow]:
        """Rows of both kinds."""
        return [*self.rows, *self.clip_rows]

    @property
    def failed(self) -> bool:
        """Whether any contender failed."""
        return any(row.status == "failed" for row in self.everything)

    def to_json(self) -> str:
        """As indented JSON text."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"


def read_result(path: Path) -> Result:
    """Read a results.json, or the one in a benchmark's folder. Raises `ConfigurationError` if it is not one.

    Control characters in its texts become "?": it may come from anyone, and terminals obey them.
    """
    if path.is_dir():
        path /= RESULTS_NAME
    try:
        values = _harmless(json.loads(path.read_text()))
        version = values.pop("format")
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error.strerror}); expected a benchmark's results.json."
        ) from error
    except DAMAGE as error:
        raise ConfigurationError(
            f"{path} is not a benchmark's results.json ({type(error).__name__}: {error})."
        ) from error
    if version != FORMAT:
        raise ConfigurationError(f"{path} has format {version}, this version reads {FORMAT}: measure again.")
    try:
        values["rows"] = tuple(_row(Row, row) for row in values["rows"])
        values["clip_rows"] = tuple(_row(ClipRow, row) for row in values["clip_rows"])
        values["notes"] = tuple(values["notes"])
        result = Result(**values)
        _check(result)
    except DAMAGE as error:
        raise ConfigurationError(f"{path} is not a whole results.json ({error}).") from error
    return result


def _harmless(value: Any) -> Any:
    """A JSON value, each text and name in it as `console.harmless` gives it."""
    if isinstance(value, dict):
        return {harmless(name): _harmless(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_harmless(item) for item in value]
    return harmless(value) if isinstance(value, str) else value


def _check(result: Result) -> None:
    """Raise `KeyError` with the name of a missing key, or another error that `read_result` catches."""
    parts = [(getattr(result, part), names) for part, names in NEEDED.items()]
    for values, names in parts:
        for name in names:
            values[name]
    words = [(f"a model's {name}", model[name]) for model in result.models for name in ("label", "digest")]
    words += [("an instruction set", name) for name in result.environment.get("cpu_features") or ()]
    for what, word in words:
        if not isinstance(word, str):
            raise TypeError(f"{what} is {word!r}")
    for part in (result.clip, result.environment, result.environment["packages"], result.limits, result.operations):
        part.keys()
    for row in result.everything:
        _check_figures(row)
        repeats, median = (
            (row.repeats_ms, row.ms_median) if isinstance(row, Row) else (row.repeats_fps, row.frames_per_s)
        )
        if row.status == "ok" and not (row.frames_per_s and median and repeats and min(repeats) > 0):
            raise KeyError(f"figures of {row.name}")


def _check_figures(row: Row | ClipRow) -> None:
    """Raise `TypeError` if a figure is not a finite number, or a text not a string."""
    for item in fields(row):
        value = getattr(row, item.name)
        # Only these hold several: a list is no name, and no median.
        several = {"tuple[float, ...]": tuple, "dict[str, float]": dict}.get(str(item.type))
        if several is not None and not isinstance(value, several):
            raise TypeError(f"{row.name}: {item.name} is {value!r}")
        values: Iterable[Any] = value.values() if several is dict else value if several is tuple else (value,)
        texts = item.type == "str"
        for one in values:
            figure = type(one) in (int, float) and math.isfinite(one)
            if not (isinstance(one, str) if texts else figure or (one is None and "None" in str(item.type))):
                raise TypeError(f"{row.name}: {item.name} is {one!r}")


def _row(kind: type[Any], values: dict[str, Any]) -> Any:
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
