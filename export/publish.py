"""Turns a run into a published model file: load, run Keras, convert, wrap, lower the precision, write, gate, stamp,
verify, rename.

Knows the order alone: no file gets its final name before the gate has passed and the stamped file has been opened the
way users open it. The steps themselves are in the other modules.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras

from edge_seg.devices import parse_device, require_device
from edge_seg.errors import ConfigurationError, ParityError
from edge_seg.files import replacing
from edge_seg.golden import check_amount, encode_golden
from edge_seg.modelfile import read_model_header
from edge_seg.proof import prove
from edge_seg.session import load_runtime, open_session
from edge_seg.spec import GOLDEN_KEY, ModelSpec, palette_for
from train.run import Run, load_model, open_run

from .calibrate import Calibration, observe
from .convert import convert
from .draft import Draft, append_metadata, write_draft
from .evidence import (
    Evidence,
    ask_keras,
    calibration_frames,
    check_pictures,
    gate_split,
    golden_evidence,
    pictures_of,
    rendered_pictures,
    spread_places,
    visible_classes,
)
from .gate import GateResult, judge_device, run_gate
from .half import refuse_overflow, summed_tensors, to_half
from .late import suit_gpu
from .options import ExportOptions
from .quantize import count_operators, quantize
from .record import Stages, is_trained, sha256, training_summary, versions, write_json
from .wrap import wrap

# Candidates rendered or read for each golden frame that is kept.
CANDIDATES = 3
# Golden frames are of other streets than the gate's.
GOLDEN_STREETS = 50_000
# Frames of the gate used to check that float16 can hold the network's sums.
OVERFLOW_FRAMES = 16


def export_run(folder: Path | str, options: ExportOptions, *, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Export a run; returns the report, which is also written beside the model.

    Raises:
        ParityError: the model differs from Keras by more than its bound. The report is kept; an old file is untouched.
        EdgeSegError: any other problem; nothing is written.
    """
    run = open_run(folder)
    size = options.input_size or run.fcn8.input_size
    if size is None:
        raise ConfigurationError("The run's network takes any size; name the one to export for with --input-size HxW.")
    gate_on, gate_note = gate_split(run, data=options.data, asked=options.gate_on)
    job = Job(run=run, size=size, options=options, gate_on=gate_on, gate_note=gate_note, stages=Stages(say))
    check_contract(job)
    check_data(run, options, gate_on)
    if gate_note:
        say(f"note: {gate_note}")
    with job.stages.stage("load"):
        model = load_model(run, input_size=size)
    golden = golden_frames(job, model)
    with job.stages.stage("convert"):
        draft = wrap(
            convert(model, opset=options.opset),
            size=size,
            dynamic_size=options.dynamic_size,
            outputs=options.outputs,
            confidence_type=options.confidence_type,
        )
    evidence, other = gate_evidence(job, model)
    del model
    return publish(job, draft, golden, evidence, other)


def check_contract(job: Job) -> None:
    """Raise `ConfigurationError` for a spec that no reader would accept, before minutes are spent on the export."""
    contract(job).check_types()
    if job.options.golden != "none":
        check_amount(job.options.golden_frames, job.size)


def check_data(run: Run, options: ExportOptions, gate_on: str) -> None:
    """Check the images and devices that were asked for, before minutes are spent on the export.

    Raises what `evidence.check_pictures` raises, and `DeviceError` for a device that is not available.
    """
    for device in options.prove_on:
        require_device(load_runtime(), parse_device(device))
    if options.precision == "int8" and options.calibration_data == "train":
        check_pictures(run, "train", data=options.data, count=options.calibration.frames)
    if gate_on != "rendered":
        check_pictures(run, gate_on, data=options.data, count=options.gate_frames)
    if options.golden == "validation":
        check_pictures(run, "val", data=options.data, count=CANDIDATES * options.golden_frames)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One export in progress: the run, (height, width), options, the gate's split and a remark on it, and the stage
    timer.
    """

    run: Run
    size: tuple[int, int]
    options: ExportOptions
    gate_on: str
    gate_note: str = ""
    stages: Stages


def golden_frames(job: Job, model: keras.Model) -> Evidence | None:
    """The golden frames to store in the file, with Keras' labels; None if not wanted."""
    options = job.options
    if options.golden == "none":
        return None
    count = CANDIDATES * options.golden_frames
    split = "rendered" if options.golden == "rendered" else "val"
    with job.stages.stage("golden frames"):
        candidates = pictures_of(job.run, split, job.size, data=options.data, count=count, first=GOLDEN_STREETS)
        golden = golden_evidence(model, candidates, options.golden_frames)
    if max(visible_classes(labels) for labels in golden.labels) < 2:
        job.stages.say(
            "warning: Keras sees a single class in every golden frame, so they prove little; is the run trained?"
        )
    return golden


def gate_evidence(job: Job, model: keras.Model) -> tuple[Evidence, Evidence | None]:
    """The gate's frames with Keras' labels and logits; for a dynamic model also at a second size."""
    options, size = job.options, job.size
    with job.stages.stage("Keras' answers for the gate"):
        pictures = pictures_of(job.run, job.gate_on, size, data=options.data, count=options.gate_frames)
        evidence = ask_keras(model, pictures)
        if not options.dynamic_size:
            return evidence, None
        larger = (size[0] + 32, size[1] + 64)
        other = rendered_pictures(job.run.classes, larger, 2)
        return evidence, ask_keras(load_model(job.run, input_size=larger), other)


def publish(
    job: Job, draft: Draft, golden: Evidence | None, evidence: Evidence, other: Evidence | None
) -> dict[str, Any]:
    """Lower the precision, write, gate, stamp, verify, rename; returns the report. Raises `ParityError`."""
    options, report = job.options, {}
    try:
        # The report is renamed after the model, so that it never describes a model that is not there.
        with replacing(options.report_path.absolute()) as report_file, replacing(options.out.absolute()) as temporary:
            report = make(job, draft, golden, evidence, other, temporary)
            if report["failures"]:
                raise ParityError(_refusal(options, report["failures"], report["devices"]))
            write_json(report, report_file)
    except ParityError:
        # Only now, when the refused model no longer takes room on the disk.
        with replacing(options.report_path.absolute()) as refusal:
            write_json(report, refusal)
        raise
    return report


def make(
    job: Job, draft: Draft, golden: Evidence | None, evidence: Evidence, other: Evidence | None, path: Path
) -> dict[str, Any]:
    """Write the model to `path`, judge it and, if it passes, seal it; returns the report, failures included."""
    parameters = sum(array.size for array in draft.weights.values() if array.ndim and array.dtype.kind == "f")
    with tempfile.TemporaryDirectory(prefix=f"{path.name}-", dir=path.parent) as scratch:
        draft, calibrated = to_precision(job, draft, evidence, Path(scratch))
    draft.check()
    with job.stages.stage("write"):
        write_draft(draft, path)
    with job.stages.stage("gate"):
        result = run_gate(
            draft,
            path,
            evidence,
            precision=job.options.precision,
            classes=job.run.classes,
            unlabelled=job.run.unlabelled,
            trained=is_trained(job.run),
            other_size=other,
        )
    spec = describe(job, draft, result, calibrated)
    failures = list(result.failures)
    devices: list[dict[str, Any]] = []
    if not failures:
        failures, devices = seal(job, path, spec, golden, evidence)
    return _report(job, draft, result, spec) | {
        "devices": devices,
        "parameters": parameters,
        "published": not failures,
        "failures": failures,
        "size_bytes": os.path.getsize(path),
        "sha256": None if failures else sha256(path),
    }


def to_precision(job: Job, draft: Draft, evidence: Evidence, scratch: Path) -> tuple[Draft, int]:
    """The float32 draft in the precision asked for, and the number of calibration frames used."""
    options = job.options
    if options.precision == "fp16":
        with job.stages.stage("float16"):
            # Evenly spread: they are in order of their names, and so the first are of one drive.
            everything = evidence.pictures.frames
            seen = everything[spread_places(len(everything), OVERFLOW_FRAMES)]
            ranges, _, _ = observe(draft, summed_tensors(draft), seen, Calibration(), scratch)
            refuse_overflow(ranges)
            return suit_gpu(to_half(draft)), 0
    if options.precision == "int8":
        frames = calibration_frames(
            job.run, job.size, data=options.data, source=options.calibration_data, count=options.calibration.frames
        )
        with job.stages.stage("calibrate and quantize"):
            return quantize(draft, frames, scratch, calibration=options.calibration)
    return draft, 0


def seal(
    job: Job, path: Path, spec: ModelSpec, golden: Evidence | None, evidence: Evidence
) -> tuple[list[str], list[dict[str, Any]]]:
    """Stamp a file that passed the gate, and check it as users open it; returns failures and each device's figures."""
    devices = []
    with job.stages.stage("stamp"):
        stamp(path, spec, golden)
    with job.stages.stage("verify"):
        failures = verify(path)
    for name in job.options.prove_on:
        with job.stages.stage(f"gate on {name}"):
            session = open_session(path, device=name)
            try:
                figures, missed = judge_device(session, evidence)
            finally:
                session.close()
        devices.append(figures)
        failures += missed
    return failures, devices


def describe(job: Job, draft: Draft, result: GateResult, calibrated: int) -> ModelSpec:
    """The spec that travels in the file."""
    training = training_summary(job.run)
    if calibrated:
        training["calibration"] = job.options.calibration.to_dict() | {
            "frames": calibrated,
            "data": job.options.calibration_data,
        }
    made_by = versions() | {"opset": str(draft.opset), "ir": str(draft.model.ir_version)}
    return replace(contract(job), versions=made_by, training=training, parity=result.to_dict())


def contract(job: Job) -> ModelSpec:
    """The part of the spec that is known from the start."""
    run, options = job.run, job.options
    return ModelSpec(
        name=options.name,
        classes=run.classes,
        palette=palette_for(run.classes),
        unlabelled=run.unlabelled,
        input_size=job.size,
        dynamic_size=options.dynamic_size,
        precision=options.precision,
        exact_sums=options.precision == "int8",
        outputs=options.outputs,
        license=options.license if options.license is not None else run.config.get("license") or "",
    )


def stamp(path: Path, spec: ModelSpec, golden: Evidence | None) -> None:
    """Put the spec and the golden frames into a written file."""
    entries = spec.to_metadata()
    if golden is not None:
        entries[GOLDEN_KEY] = encode_golden(golden.pictures.frames, golden.labels)
    append_metadata(path, entries)


def verify(path: Path) -> list[str]:
    """Open the stamped file as users do and check it against its golden frames; returns failures in words."""
    header = read_model_header(path)
    session = open_session(path, device="cpu")
    try:
        _, problem = prove(session, header)
    finally:
        session.close()
    return [f"on the golden frames, {problem}"] if problem else []


def _report(job: Job, draft: Draft, result: GateResult, spec: ModelSpec) -> dict[str, Any]:
    return {
        "run": str(job.run.folder),
        "out": str(job.options.out),
        "precision": job.options.precision,
        "opset": draft.opset,
        "ir_version": draft.model.ir_version,
        "trained": is_trained(job.run),
        "nodes": len(draft.nodes),
        "operators": count_operators(draft),
        "gate": result.to_dict(),
        "gate_note": job.gate_note,
        "spec": asdict(spec),
        "stages": job.stages.records,
    }


def _refusal(options: ExportOptions, failures: list[str], devices: list[dict[str, Any]]) -> str:
    old = "An old file of that name is untouched." if options.out.exists() else "No file of that name was made."
    cure = {
        "int8": "Try more --calibration-frames, another --calibration, or --precision fp16",
        "fp16": "Try --precision fp32",
    }.get(options.precision, "Look into the versions in the report, or train again")
    if all(failure.startswith(tuple(f"on {figures['device']}, " for figures in devices)) for failure in failures):
        cure = "Update the device's driver and onnxruntime, or leave it out of --prove-on"
    return f"{options.out} is not published: {'; '.join(failures)}. {cure}. Report: {options.report_path}. {old}"
