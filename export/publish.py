"""A run becomes a published model file: load, ask Keras, convert, wrap, lower the precision, write, gate, stamp,
verify, rename.

The order is everything here: nothing has its final name before the gate has passed and the stamped file has been
opened the way users open it. The steps themselves are in the other files.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import keras

from edge_seg.errors import ConfigurationError, ParityError
from edge_seg.golden import MAX_FRAMES, encode_golden
from edge_seg.modelfile import read_model_header
from edge_seg.session import open_session, prove
from edge_seg.spec import GOLDEN_KEY, PRECISIONS, ModelSpec, palette_for
from train.fcn8 import check_input_size
from train.files import replacing
from train.run import Run, load_model, open_run

from .calibrate import Calibration
from .convert import DEFAULT_OPSET, MAX_OPSET, MIN_OPSET, convert
from .draft import Draft, append_metadata, write_draft
from .evidence import (
    Evidence,
    ask_keras,
    calibration_frames,
    dataset_pictures,
    gate_pictures,
    golden_evidence,
    rendered_pictures,
    visible_classes,
)
from .gate import GateResult, run_gate
from .half import to_half
from .quantize import count_operators, quantize
from .stages import Stages
from .wrap import wrap

# Candidates rendered or read for each golden frame that is kept.
CANDIDATES = 3


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to make of a run.

    Attributes:
        out: the model file, `.onnx`.
        precision: "fp32", "fp16" or "int8".
        opset: of the standard operators.
        outputs: ("labels",) or ("labels", "confidence").
        confidence_type: "float16" or "float32".
        input_size: (height, width); the run's own if None.
        dynamic_size: accept other multiples of 32 too.
        data: dataset instead of the one the run recorded.
        gate_on: "auto", "val", "test" or "rendered": what the gate looks at.
        gate_frames: at most so many.
        golden: "rendered", "validation" or "none": frames that travel in the file.
        golden_frames: how many.
        calibration: how int8 finds ranges.
        calibration_data: "train" or "rendered".
        reduce_range: 7-bit weights, for x86 processors older than VNNI.
        license: terms of the weights, in place of what the run says.
        name: short name of the model.
        report: where the report goes; beside the model by default.
    """

    out: Path
    precision: str = "fp32"
    opset: int = DEFAULT_OPSET
    outputs: tuple[str, ...] = ("labels",)
    confidence_type: str = "float16"
    input_size: tuple[int, int] | None = None
    dynamic_size: bool = False
    data: Path | None = None
    gate_on: str = "auto"
    gate_frames: int = 64
    golden: str = "rendered"
    golden_frames: int = 4
    calibration: Calibration = field(default_factory=Calibration)
    calibration_data: str = "train"
    reduce_range: bool = False
    license: str | None = None
    name: str = "fcn8"
    report: Path | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigurationError(f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}.")
        if self.out.suffix != ".onnx":
            raise ConfigurationError(f"--out must name a file ending in .onnx; got {str(self.out)!r}.")
        if self.out.is_dir() or not self.out.absolute().parent.is_dir():
            raise ConfigurationError(f"--out must name a file in a folder that exists; got {str(self.out)!r}.")
        if not MIN_OPSET <= self.opset <= MAX_OPSET:
            raise ConfigurationError(f"opset must lie between {MIN_OPSET} and {MAX_OPSET}; got {self.opset}.")
        if not 1 <= self.golden_frames <= MAX_FRAMES or self.gate_frames < 1:
            raise ConfigurationError(
                f"golden frames must be 1 to {MAX_FRAMES} and gate frames at least 1; "
                f"got {self.golden_frames} and {self.gate_frames}."
            )
        if self.input_size is not None:
            check_input_size(self.input_size)

    @property
    def report_path(self) -> Path:
        return self.report or self.out.with_suffix(".report.json")


def export_run(folder: Path | str, options: ExportOptions, *, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Export a run; returns the report, which is also written beside the model.

    Raises:
        ParityError: the model differs from Keras by more than its bound. The report is kept, an old file is untouched.
        EdgeSegError: anything else that was wrong; nothing is written.
    """
    run = open_run(folder)
    size = options.input_size or run.fcn8.input_size
    if size is None:
        raise ConfigurationError("The run's network takes any size; name the one to export for with --input-size HxW.")
    stages = Stages(say)
    with stages.stage("load"):
        model = load_model(run, input_size=size)
    golden = _golden(run, model, size, options, stages)
    with stages.stage("convert"):
        draft = wrap(
            convert(model, opset=options.opset),
            size=size,
            dynamic_size=options.dynamic_size,
            outputs=options.outputs,
            confidence_type=options.confidence_type,
        )
    evidence, other = _evidence(run, model, size, options, stages)
    del model
    return _publish(run, draft, golden, evidence, other, size, options, stages)


def _golden(
    run: Run, model: keras.Model, size: tuple[int, int], options: ExportOptions, stages: Stages
) -> Evidence | None:
    if options.golden == "none":
        return None
    count = CANDIDATES * options.golden_frames
    with stages.stage("golden frames"):
        if options.golden == "rendered":
            candidates = rendered_pictures(run.classes, size, count, first=50_000)
        else:
            candidates = dataset_pictures(run, size, data=options.data, split="val", count=count)
        golden = golden_evidence(model, candidates, options.golden_frames)
    if max(visible_classes(labels) for labels in golden.labels) < 2:
        stages.say(
            "warning: Keras sees a single class in every golden frame, so they prove little; is the run trained?"
        )
    return golden


def _evidence(
    run: Run, model: keras.Model, size: tuple[int, int], options: ExportOptions, stages: Stages
) -> tuple[Evidence, Evidence | None]:
    with stages.stage("Keras' answers for the gate"):
        pictures = gate_pictures(run, size, data=options.data, split=options.gate_on, count=options.gate_frames)
        evidence = ask_keras(model, pictures)
        if not options.dynamic_size:
            return evidence, None
        larger = (size[0] + 32, size[1] + 64)
        return evidence, ask_keras(load_model(run, input_size=larger), rendered_pictures(run.classes, larger, 2))


def _publish(
    run: Run,
    draft: Draft,
    golden: Evidence | None,
    evidence: Evidence,
    other: Evidence | None,
    size: tuple[int, int],
    options: ExportOptions,
    stages: Stages,
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix=".export-", dir=options.out.absolute().parent) as scratch:
        draft, calibrated = to_precision(draft, run, size, options, stages, Path(scratch))
    draft.check()
    with replacing(options.out.absolute()) as temporary:
        with stages.stage("write"):
            write_draft(draft, temporary)
        with stages.stage("gate"):
            result = run_gate(
                draft,
                temporary,
                evidence,
                precision=options.precision,
                classes=run.classes,
                unlabelled=run.unlabelled,
                trained=is_trained(run),
                other_size=other,
            )
        spec = describe(run, size, options, draft, result, calibrated)
        report = _report(run, options, draft, result, stages, spec)
        failures = list(result.failures)
        if not failures:
            with stages.stage("stamp"):
                stamp(temporary, spec, golden)
            with stages.stage("verify"):
                failures += verify(temporary)
            report["sha256"] = _sha256(temporary)
        report |= {"published": not failures, "failures": failures, "stages": stages.records}
        report["size_bytes"] = os.path.getsize(temporary)
        _write_report(report, options)
        if failures:
            raise ParityError(
                f"{options.out} is not published: {'; '.join(failures)}. Report: {options.report_path}. "
                + (
                    "An old file of that name is untouched."
                    if options.out.exists()
                    else "No file of that name was made."
                )
            )
    return report


def to_precision(
    draft: Draft, run: Run, size: tuple[int, int], options: ExportOptions, stages: Stages, scratch: Path
) -> tuple[Draft, int]:
    """The float32 draft in the precision asked for, and the number of calibration frames it took."""
    if options.precision == "fp16":
        with stages.stage("float16"):
            return to_half(draft), 0
    if options.precision == "int8":
        frames = calibration_frames(
            run, size, data=options.data, source=options.calibration_data, count=options.calibration.frames
        )
        with stages.stage("calibrate and quantize"):
            return quantize(draft, frames, scratch, calibration=options.calibration, reduce_range=options.reduce_range)
    return draft, 0


def is_trained(run: Run) -> bool:
    """Whether the run says that it has finished at least one epoch."""
    return int(run.config.get("training", {}).get("epochs", 0)) > 0


def describe(
    run: Run, size: tuple[int, int], options: ExportOptions, draft: Draft, result: GateResult, calibrated: int
) -> ModelSpec:
    """The spec that travels in the file."""
    training = dict(run.config.get("training", {}))
    data_hash = run.config.get("data", {}).get("hash")
    if data_hash:
        training["data_hash"] = data_hash
    if calibrated:
        training["calibration"] = {
            **asdict(options.calibration),
            "frames": calibrated,
            "data": options.calibration_data,
        }
    return ModelSpec(
        name=options.name,
        classes=run.classes,
        palette=palette_for(run.classes),
        unlabelled=run.unlabelled,
        input_size=size,
        dynamic_size=options.dynamic_size,
        precision=options.precision,
        outputs=options.outputs,
        license=options.license if options.license is not None else run.config.get("license", ""),
        versions=versions() | {"opset": str(draft.opset), "ir": str(draft.model.ir_version)},
        training=training,
        parity=result.to_dict(),
    )


def stamp(path: Path, spec: ModelSpec, golden: Evidence | None) -> None:
    """Put the spec and the golden frames into a written file."""
    entries = spec.to_metadata()
    if golden is not None:
        entries[GOLDEN_KEY] = encode_golden(golden.pictures.frames, golden.labels)
    append_metadata(path, entries)


def verify(path: Path) -> list[str]:
    """Open the stamped file as users do and hold it to its own golden frames; what failed, in words."""
    header = read_model_header(path)
    session = open_session(path, device="cpu")
    try:
        _, problem = prove(session, header)
    finally:
        session.close()
    return [f"on the golden frames, {problem}"] if problem else []


def versions() -> dict[str, str]:
    """The packages that made the file."""
    found = {"python": sys.version.split()[0]}
    for package in ("edge-seg", "keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _report(
    run: Run, options: ExportOptions, draft: Draft, result: GateResult, stages: Stages, spec: ModelSpec
) -> dict[str, Any]:
    return {
        "run": str(run.folder),
        "out": str(options.out),
        "precision": options.precision,
        "opset": draft.opset,
        "ir_version": draft.model.ir_version,
        "trained": is_trained(run),
        "nodes": len(draft.nodes),
        "operators": count_operators(draft),
        "parameters": sum(array.size for array in draft.weights.values() if array.ndim),
        "gate": result.to_dict(),
        "spec": asdict(spec),
    }


def _write_report(report: dict[str, Any], options: ExportOptions) -> None:
    with replacing(options.report_path.absolute()) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
