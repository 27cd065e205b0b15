"""`python -m benchmarks gpu`: measures a CUDA machine in one run, into one JSON file.

It measures frames/s of edge_seg on CUDA, of its float16 file with everything bound (with and without a CUDA graph), and
of the same network in torch (channels-last, plain and compiled), at several batch sizes, interleaved, with parity; the
matrix peak that torch reaches there, each contender's share of it, and decoding by the GPU against the processor.
Without a GPU it says so in one line and exits with 2.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge_seg import bundled_clip
from edge_seg.devices import device_problem, parse_device
from edge_seg.errors import ConfigurationError, ModelFileError
from edge_seg.session import load_runtime
from train.arguments import path, positive, size

from .benchmark import noise_notes
from .cases import REFERENCE, Contender, ModelFile, keras_contenders, session_contenders, torch_contenders
from .data import load_data
from .environment import environment
from .process import CANNOT_BE_HAD, Say, Start, Worker, WorkerError
from .report import begun, check_save, save_json
from .roofline import ask_operations, summed
from .rows import Row
from .settings import (
    BUNDLED_RUN,
    DEFAULT_CACHE,
    DEFAULT_OUT,
    check_run,
    exported,
    model_files,
    refuse_other_classes,
    run_classes,
)
from .suite import Workload, labels_of, measure_batch
from .table import NONE, align, number, peak_speed, percent

BATCHES = (1, 8, 32, 64)
HEAD = ("contender", "batch", "ms/frame", "frames/s", "x torch fp16", "GOP/s", "of peak", "agreement")
# The row that all others are compared with.
YARDSTICK = "torch cuda fp16"


@dataclass(frozen=True, kw_only=True)
class GpuSettings:
    """One measurement on a GPU: of `run` at `input_size` (its own if None), and how much is measured.

    `models` are the run's ONNX files, exported if none are given. `notes` are lines that the result keeps.
    """

    run: Path = BUNDLED_RUN
    models: tuple[Path, ...] = ()
    input_size: tuple[int, int] | None = None
    batches: tuple[int, ...] = BATCHES
    repeats: int = 5
    frames: int = 128
    notes: tuple[str, ...] = ()


def add_gpu_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks gpu`."""
    add = parser.add_argument
    add(
        "--run",
        type=Path,
        default=BUNDLED_RUN,
        metavar="RUN",
        help="folder of the Keras run (default: the bundled one)",
    )
    add("--input-size", type=size, metavar="HxW", help="height and width (default: the run's)")
    add(
        "--model",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        dest="models",
        help="the run's ONNX file, repeatable: for a machine without TensorFlow (default: exported in each precision)",
    )
    add(
        "--batch-sizes",
        type=positive,
        nargs="+",
        default=BATCHES,
        metavar="N",
        help=f"frames a call (default: {' '.join(map(str, BATCHES))})",
    )
    add("--note", action="append", default=[], metavar="TEXT", help="a line that the result keeps (default: none)")
    add(
        "--save",
        type=path,
        default=DEFAULT_OUT / "gpu.json",
        metavar="FILE",
        help="JSON to write (default: %(default)s)",
    )
    add("--json", action="store_true", help="print the JSON instead of a table (default: a table)")


def run_gpu(options: argparse.Namespace) -> int:
    """Carry out `python -m benchmarks gpu`; returns the exit code."""
    check_save(options.save)
    settings = GpuSettings(
        run=options.run,
        models=tuple(options.models),
        input_size=options.input_size,
        batches=tuple(options.batch_sizes),
        notes=tuple(options.note),
    )
    found = measure_gpu(settings, say=lambda text: print(text, file=sys.stderr, flush=True))
    save_json(found, options.save)
    print(json.dumps(found, indent=1) if options.json else render_gpu(found))
    print(f"wrote {options.save}", file=sys.stderr)
    return 1 if any(row["status"] == "failed" for row in found["rows"]) else 0


def check_gpu() -> None:
    """Raise `ConfigurationError`, in one line with the cure, if edge_seg cannot use CUDA."""
    problem = device_problem(load_runtime(), parse_device("cuda"))
    if problem:
        raise ConfigurationError(f"This benchmark needs an NVIDIA GPU, and edge_seg has no CUDA here: {problem}")


def measure_gpu(settings: GpuSettings, *, say: Say, start: Start = Worker) -> dict[str, Any]:
    """Measure everything; returns plain JSON types.

    Raises:
        ConfigurationError: there is no CUDA device.
        ModelFileError: the run cannot be used or exported.
    """
    check_gpu()
    digest = check_run(settings.run)
    files, shape, missing = gpu_files(settings, digest, say)
    with start("limits") as worker:
        limits = worker.try_to("gpu-limits")
        decoder = worker.try_to("decode", clip=str(bundled_clip()))
    counts, _ = ask_operations(files[:1], shape, start=start)
    count = next(iter(summed(counts).values()), None)
    with tempfile.TemporaryDirectory(prefix="edge_seg_gpu_") as scratch:
        classes = run_classes(settings.run)
        work = Workload(
            contenders=gpu_contenders(settings, files, shape, digest),
            data=load_data(None, classes=classes),
            size=shape,
            classes=classes,
            repeats=settings.repeats,
            frames=settings.frames,
            scratch=Path(scratch),
        )
        work, reference = with_reference(work, settings, files, digest, say=say, start=start)
        measured = [measure_batch(work, batch, say=say, start=start) for batch in settings.batches]
    surroundings = environment()
    rows = [row for part in measured for row in part.rows]
    return {
        **begun("gpu", surroundings),
        "size": list(shape),
        "repeats": settings.repeats,
        "notes": [*settings.notes, *noise_notes(rows, [], [part.others_cores for part in measured], surroundings)],
        "operations": count,
        "limits": limits,
        "decoder": decoder,
        "missing": missing,
        "reference": reference,
        "rows": gpu_rows(rows, count["gflop"] if count else None, limits),
    }


def gpu_files(settings: GpuSettings, digest: str, say: Say) -> tuple[list[ModelFile], tuple[int, int], list[str]]:
    """The run's files in each precision at the size asked for, exported once into the cache; (height, width); and why
    files are missing: a network whose float16 differs too much has no fp16 file, but all else can be measured.

    int8 is included because it is what ships, and what device `auto` gets.
    """
    if settings.models:
        files, size = model_files(settings.models)
        refuse_other_classes(settings.run, settings.models[0])
        if settings.input_size not in (None, size):
            raise ConfigurationError(
                f"--input-size {'x'.join(map(str, settings.input_size or ()))}: the files given take "
                f"{'x'.join(map(str, size))}. Leave it out, or export files of that size."
            )
        return files, size, []
    shape = () if settings.input_size is None else ("--input-size", "x".join(map(str, settings.input_size)))
    named = shape[1] if shape else "own"
    shared = ("--gate-on", "rendered", "--gate-frames", "8", *shape)
    paths, missing = [], []
    for name, more in (("fp32", ()), ("fp16", ()), ("int8", ("--calibration-data", "rendered"))):
        try:
            options = ("--precision", name, *more, *shared)
            paths.append(exported(settings.run, DEFAULT_CACHE, f"{digest}-{named}-{name}-gpu.onnx", options, say))
        except ModelFileError as error:
            if name == "fp32":
                raise
            missing.append(str(error))
    return *model_files(paths), missing


def gpu_contenders(
    settings: GpuSettings, files: Sequence[ModelFile], shape: tuple[int, int], digest: str
) -> list[Contender]:
    """The contenders on the GPU: edge_seg's sessions, the float16 file with everything bound, and torch."""
    ours = session_contenders(files, ["cuda"], shape, optional=False)
    bound = [
        replace(one, name=f"bound {one.name.removeprefix('edge_seg ')}{ending}", kind="cuda-bound", compiled=graph)
        for one in ours
        if one.precision == "fp16"
        for graph, ending in ((False, ""), (True, ", graph, fused"))
    ]
    others = [one for one in torch_contenders(settings.run, shape, digest, cuda=True) if one.device != "cpu"]
    return [*ours, *bound, *others]


def with_reference(
    work: Workload,
    settings: GpuSettings,
    files: Sequence[ModelFile],
    digest: str,
    *,
    say: Say,
    start: Start = Worker,
) -> tuple[Workload, str]:
    """The work with reference labels, and their contender's name: Keras, or without TensorFlow the fp32 file on the
    processor, which export proved to agree with Keras. It is not timed, since only the GPU is measured here.
    """
    keras = [one for one in keras_contenders(settings.run, work.size, digest) if one.name == REFERENCE]
    own = session_contenders([file for file in files if file.precision == "fp32"], ["cpu"], work.size, optional=False)
    problem: WorkerError | None = None
    for contender in [*keras, *own]:
        try:
            return replace(work, reference=labels_of(contender, work, 1, say=say, start=start)), contender.name
        except WorkerError as error:
            if error.kind not in (*CANNOT_BE_HAD, "ModuleNotFoundError"):
                raise
            problem = problem or error
    raise ConfigurationError(f"There is nothing to compare labels with: {problem}. Give the run's fp32 file: --model")


def gpu_rows(rows: Sequence[Row], gflop: float | None, limits: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows as plain JSON types, with operations a second, share of the GPU's peak, and speed over torch float16's."""
    yardsticks = {row.batch: row.frames_per_s or 0.0 for row in rows if row.name == YARDSTICK and row.status == "ok"}
    found = []
    for row in rows:
        speed = share = times = None
        if row.status == "ok" and row.frames_per_s:
            speed = gflop * row.frames_per_s if gflop else None
            yardstick = yardsticks.get(row.batch)
            times = row.frames_per_s / yardstick if yardstick else None
            peak = limits.get("peaks", {}).get(row.precision, {}).get("gflops")
            share = speed / peak if speed and peak and row.device != "cpu" else None
        found.append({**asdict(row), "gflops": speed, "share_of_peak": share, "times_torch_fp16": times})
    return found


def render_gpu(found: dict[str, Any]) -> str:
    """The results as text for a terminal."""
    limits, decoder = found["limits"], found["decoder"]
    peaks = ", ".join(f"{name} {peak_speed(name, peak)}" for name, peak in limits.get("peaks", {}).items())
    gpu = limits.get("gpu") or ", ".join(found["environment"]["gpus"]) or "GPU"
    head = f"{gpu}; {peaks or limits.get('problem', '')}"
    decoded = "decoder: " + decoder.get("problem", "")
    if "cpu_fps" in decoder:
        by_gpu = f"{decoder['cuda_fps']:,.0f} frames/s" if decoder["cuda_fps"] else decoder["reason"]
        decoded = f"decoder: processor {decoder['cpu_fps']:,.0f} frames/s, GPU {by_gpu}"
    table = align([HEAD, *(_cells(row) for row in found["rows"])])
    problems = [f"  {row['status']}: {row['name']}: {row['reason']}" for row in found["rows"] if row["status"] != "ok"]
    return "\n".join([head, decoded, "", table, *problems, *(f"  missing: {reason}" for reason in found["missing"])])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if row["status"] != "ok":
        return (row["name"], str(row["batch"]), row["status"], *[NONE] * (len(HEAD) - 3))
    return (
        row["name"],
        str(row["batch"]),
        number(row["ms_median"], 1),
        number(row["frames_per_s"], 1),
        number(row["times_torch_fp16"], 2),
        number(row["gflops"], 0),
        percent(row["share_of_peak"], 0),
        percent(row["agreement"], 3),
    )
