"""The settings of a benchmark, and the files that it needs: run, model files, their exports and conversions.

Checks that files fit together, and makes those that are missing. Measures nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from edge_seg import bundled_clip, bundled_model
from edge_seg.errors import ConfigurationError, ModelFileError
from edge_seg.modelfile import read_model_header
from edge_seg.spec import ModelSpec
from export.record import PACKAGES
from train.classes import CAMVID, ClassList
from train.files import CONFIG_NAME, WEIGHTS_NAME

from .cases import PEERS, ModelFile, distinct_labels
from .environment import PYTHON, ROOT, child_environment, file_hash, package_versions
from .litertfile import file_of
from .process import Say

BUNDLED_RUN = ROOT / "edge_seg" / "assets" / "keras"
DEFAULT_OUT = Path("out/benchmarks")
DEFAULT_CACHE = DEFAULT_OUT / "cache"
# What `--quick` sets.
QUICK: dict[str, Any] = {"batch_sizes": (1,), "repeats": 3, "frames": 4, "data_limit": 6, "clip_frames": 24,
                         "clip_repeats": 1, "limits": {"seconds": 0.1, "side": 512, "memory_mb": 64}}  # fmt: skip
# What a network is built by from a run; and what else has a part in an exported file.
_NETWORK = ("train/fcn8.py", "train/run.py")
_EXPORTED_BY = (
    "export/*.py",
    *_NETWORK,
    "train/scenes/**/*.py",
    *(f"edge_seg/{name}.py" for name in ("golden", "preprocess", "spec")),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one benchmark.

    Attributes:
        run: folder of the Keras run that is the reference.
        models: ONNX files that take part.
        fp32: the run's own fp32 ONNX file; exported into `out`/cache if None.
        data: dataset folder, or None for rendered scenes.
        clip: video for the end-to-end measurement, or None to leave it out.
        batch_sizes: frames a call.
        repeats: turns of each contender at each batch size.
        frames: frames of one turn.
        data_limit: most frames of the data, or None for all.
        clip_frames: most frames of the clip, or None for all.
        clip_repeats: turns of each contender on the clip.
        peers: other runtimes that take part, from `cases.PEERS`; one that is not installed gives skipped rows.
        devices: edge_seg's devices that take part, or None for each that is present.
        notes: lines that the result keeps.
        limits: arguments of `limits.measure_limits`: duration and sizes.
        out: folder in which each benchmark gets a folder of its own.
    """

    run: Path
    models: tuple[Path, ...]
    fp32: Path | None = None
    data: Path | None = None
    clip: Path | None = None
    batch_sizes: tuple[int, ...] = (1, 4, 8)
    repeats: int = 7
    frames: int = 24
    data_limit: int | None = None
    clip_frames: int | None = None
    clip_repeats: int = 3
    peers: tuple[str, ...] = PEERS
    devices: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    limits: dict[str, float] = field(default_factory=lambda: {"seconds": 1.0})
    out: Path = DEFAULT_OUT

    @property
    def extent(self) -> str:
        """The options of `python -m benchmarks run` that say what is measured, and how much of it.

        They are those that differ from the defaults, and always its three numbers; `--note` is no part of them.
        """
        quick = (self.clip_repeats, self.limits) == (QUICK["clip_repeats"], QUICK["limits"])
        models = () if self.models == (bundled_model(),) else self.models
        given: list[tuple[str, object]] = [
            ("run", None if self.run == BUNDLED_RUN else named(self.run)),
            *(("model", named(model)) for model in models),
            ("fp32", named(self.fp32) if self.fp32 else None),
            ("clip", named(self.clip) if self.clip and self.clip != bundled_clip() else None),
            ("no-clip", None if self.clip else ""),
            ("peers", None if set(self.peers) == set(PEERS) else ",".join(self.peers) or "none"),
            ("devices", ",".join(self.devices) if self.devices is not None else None),
            ("quick", "" if quick else None),
            ("batch-sizes", ",".join(map(str, self.batch_sizes))),
            ("repeats", self.repeats),
            ("frames", self.frames),
            ("data", named(self.data) if self.data else None),
            ("data-limit", self.data_limit),
            ("clip-frames", self.clip_frames if self.clip else None),
        ]
        return " ".join(
            f"--{name} {shlex.quote(str(value))}" if value else f"--{name}"
            for name, value in given
            if value is not None
        )

    @property
    def cache(self) -> Path:
        """Folder in which exported and converted files are kept for later benchmarks."""
        return self.out / "cache"


def named(path: Path) -> str:
    """A path relative to the clone, or only the name of a file elsewhere, so that no private path is published."""
    whole = path.resolve()
    return str(whole.relative_to(ROOT)) if whole.is_relative_to(ROOT) else path.name


def default_data() -> Path | None:
    """dataset1 in the folder that EDGE_SEG_DATA names, or None if that is unset."""
    root = os.environ.get("EDGE_SEG_DATA")
    return Path(root) / "dataset1" if root else None


def check_run(folder: Path) -> str:
    """Digest of a run's configuration and weights; raises `ModelFileError` if it is damaged or has not finished."""
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise ModelFileError(
                f"{folder} is not a finished run: it has no {name}. Make one with `python -m train fit DATASET "
                "--out RUN`, and name it with --run."
            )
    read_config(folder)
    return file_hash(folder / CONFIG_NAME)[:8] + file_hash(folder / WEIGHTS_NAME)[:8]


def read_config(folder: Path) -> dict[str, Any]:
    """A run's config.json, without importing Keras. Raises `ModelFileError` if it is no record of a run's classes."""
    path = folder / CONFIG_NAME
    try:
        config = json.loads(path.read_text())
        if not all(isinstance(name, str) for name in config.get("classes", ())):
            raise TypeError("class names must be texts")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path}: damaged ({str(error)[:200]}). Copy the run again.") from error
    return dict(config)


def run_classes(folder: Path) -> ClassList:
    """A run's classes from its config.json, without importing Keras; CamVid's if that file is damaged."""
    try:
        config = read_config(folder)
    except ModelFileError:
        return CAMVID
    return ClassList(
        names=tuple(config.get("classes", CAMVID.names)),
        unlabelled=config.get("unlabelled", CAMVID.unlabelled),
        ignored=config.get("ignored"),
    )


def refuse_other_classes(run: Path, model: Path) -> None:
    """Raise `ConfigurationError` if a model file has other classes than the Keras run it is compared with."""
    ours, theirs = run_classes(run).names, read_model_header(model).spec.classes
    if ours != theirs:
        raise ConfigurationError(
            f"{model} is of the classes {', '.join(theirs)}, the Keras run {run} of {', '.join(ours)}. Give the run "
            "that the file was exported from: --run RUN."
        )


def model_files(paths: Sequence[Path]) -> tuple[list[ModelFile], tuple[int, int]]:
    """Read each file's header; returns the files and the (height, width) that they share.

    Raises:
        ModelFileError: a file is not an edge_seg model.
        ConfigurationError: the files have different sizes or classes and cannot be compared.
    """
    headers = [read_model_header(path) for path in paths]
    specs = [header.spec for header in headers]
    labels = distinct_labels(paths, [spec.precision for spec in specs])
    for path, spec in zip(paths, specs, strict=True):
        if (spec.input_size, spec.classes) != (specs[0].input_size, specs[0].classes):
            raise ConfigurationError(
                f"{path} takes {_shape(spec)}, {paths[0]} takes {_shape(specs[0])}. Benchmark them one at a time."
            )
    files = [
        ModelFile(path=path, label=label, precision=spec.precision, digest=header.sha256[:16])
        for path, label, spec, header in zip(paths, labels, specs, headers, strict=True)
    ]
    return files, specs[0].input_size


def _shape(spec: ModelSpec) -> str:
    return f"{'x'.join(map(str, spec.input_size))} frames of {len(spec.classes)} classes"


def check_fp32(file: Path) -> None:
    """Raise `ConfigurationError` unless a model file is fp32."""
    found = read_model_header(file).spec.precision
    if found != "fp32":
        raise ConfigurationError(f"--fp32 {file}: expected an fp32 file, got one of {found}.")


def fp32_file(settings: Settings, digest: str, size: tuple[int, int], say: Say) -> Path:
    """The run's fp32 ONNX file at a (height, width): the one given, or an export, kept from before or new.

    Raises:
        ModelFileError: the export failed; the message is its last line.
    """
    if settings.fp32 is not None:
        return settings.fp32
    shape = "x".join(map(str, size))
    options = ("--precision", "fp32", "--input-size", shape, "--gate-frames", "16")
    return exported(settings.run, settings.cache, f"{digest}-{shape}-fp32.onnx", options, say)


def exported(run: Path, cached: Path, name: str, options: Sequence[str], say: Say) -> Path:
    """The run's file as `python -m export` writes it; raises `ModelFileError`.

    Kept in the folder `cached` until the export's code or its packages change.
    """
    target = cached / f"{export_digest()}-{name}"
    return made(target, ("export", str(run.resolve()), "--out", str(target.resolve()), *options), say)


@cache
def export_digest() -> str:
    """Eight hex digits of what an exported file depends on besides its run: our code, and the packages it calls.

    Our code includes the network, the rendered scenes (for calibration and golden frames) and the model's contract.
    """
    return _digest_of([path for pattern in _EXPORTED_BY for path in sorted(ROOT.glob(pattern))], PACKAGES)


def _digest_of(sources: Sequence[Path], packages: Sequence[str]) -> str:
    found = hashlib.sha256()
    for path in sources:
        found.update(path.read_bytes())
    for package in packages:
        found.update(f"{package} {package_versions().get(package)}".encode())
    return found.hexdigest()[:8]


def float_graph(settings: Settings, fp32: ModelFile, say: Say) -> Path:
    """The plain float graph of the run's fp32 file, for runtimes that want one; raises `ModelFileError`."""
    made_by = _digest_of([ROOT / "benchmarks" / "floatgraph.py"], ["onnx"])
    target = settings.cache / f"{made_by}-{fp32.digest}-float.onnx"
    return made(target, ("benchmarks.floatgraph", str(fp32.path.resolve()), str(target.resolve())), say)


def litert_folder(settings: Settings, digest: str, size: tuple[int, int], say: Say) -> Path:
    """A folder with the run as TensorFlow Lite files, one for each batch size; raises `ModelFileError`."""
    shape = "x".join(map(str, size))
    sources = [ROOT / "benchmarks" / "litertfile.py", *(ROOT / name for name in _NETWORK)]
    made_by = _digest_of(sources, ["tensorflow", "keras"])
    folder = settings.cache / f"{made_by}-{digest}-{shape}-litert"
    missing = [batch for batch in settings.batch_sizes if not file_of(folder, batch).is_file()]
    if missing:
        batches = ",".join(map(str, missing))
        call = ("benchmarks.litertfile", str(settings.run.resolve()), shape, batches, str(folder.resolve()))
        made(file_of(folder, missing[-1]), call, say)
    return folder


def made(target: Path, call: Sequence[str], say: Say) -> Path:
    """The file `target`, made by `python -m` with `call` unless it already exists.

    Raises:
        ModelFileError: the command failed; the message has its last line.
    """
    if target.is_file():
        return target
    say(f"{call[0]}: making {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    # In a process of its own, since TensorFlow and whole models need gigabytes and this process has to stay small.
    done = subprocess.run((*PYTHON, *call), env=child_environment(), capture_output=True, text=True)
    if done.returncode or not target.is_file():
        last = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise ModelFileError(
            f"`python -m {call[0]}` of {target.name} failed: {last[-1].strip().removeprefix('error: ')}"
        )
    return target
