"""The contenders: what is measured against what, as plain records that travel to a worker as JSON.

Knows which files and devices there are to choose from, and how a contender is named. Loads none of them: that is
`runners`' work, in the worker's process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Every ratio and agreement is against this one.
REFERENCE = "Keras predict"
# What each of `PEERS` is told from the others by in `kind`; the rest are Keras and edge_seg's own sessions.
KINDS = (
    "keras-predict",
    "keras-compiled",
    "naive",
    "session",
    "onnxruntime",
    "opencv",
    "litert",
    "openvino",
    "torch",
    "cuda-bound",
)
PEERS = ("onnxruntime", "opencv", "litert", "openvino", "torch")


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """One ONNX file that takes part.

    Attributes:
        path: where it is.
        label: what tells it from the others in a table, its precision when that suffices.
        precision: "fp32", "fp16" or "int8".
        digest: first 16 hex digits of its SHA-256.
    """

    path: Path
    label: str
    precision: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One row's contender: from uint8 BGR frames (N, H, W, 3) at the model's size to uint8 labels (N, H, W).

    Attributes:
        name: as the tables show it; unique.
        kind: one of `KINDS`, which decides what `runners` builds.
        path: a run's folder (Keras, torch), an ONNX file, or a folder of TensorFlow Lite files.
        device: "cpu", or a device of edge_seg or torch.
        precision: of the weights and, as far as the file says, of the arithmetic.
        size: (height, width) of the frames it gets.
        compiled: torch: whether `torch.compile` is used; cuda-bound: a CUDA graph and kernels fused as it is opened.
        optional: whether a machine that cannot run it skips it, instead of failing.
        model: digest of the ONNX file or of the run's weights.
        threads: CPU threads, or None for what affinity and quota allow.
    """

    name: str
    kind: str
    path: str
    device: str
    precision: str
    size: tuple[int, int]
    compiled: bool = False
    optional: bool = False
    model: str = ""
    threads: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Contender:
        """Back from `to_dict`."""
        return cls(**{**values, "size": tuple(values["size"])})


def keras_contenders(run: Path | str, size: tuple[int, int], digest: str) -> list[Contender]:
    """Keras as the notebook calls it, and Keras at its best: one compiled function."""
    shared = {"path": str(run), "device": "cpu", "precision": "fp32", "size": size, "model": digest}
    return [
        Contender(name=REFERENCE, kind="keras-predict", **shared),  # type: ignore[arg-type]
        Contender(name="Keras compiled", kind="keras-compiled", **shared),  # type: ignore[arg-type]
    ]


def session_contenders(
    files: Sequence[ModelFile], devices: Iterable[str], size: tuple[int, int], *, optional: bool
) -> list[Contender]:
    """Each file on each device, device by device. The CPU is never optional."""
    return [
        Contender(
            name=f"edge_seg {device} {file.label}",
            kind="session",
            path=str(file.path),
            device=device,
            precision=file.precision,
            size=size,
            optional=optional and device != "cpu",
            model=file.digest,
        )
        for device in devices
        for file in files
    ]


def plain_contenders(kinds: Iterable[str], path: Path | str, size: tuple[int, int], digest: str) -> list[Contender]:
    """Runtimes that a newcomer hands his own export to; `digest` is of the weights it came from."""
    names = {"onnxruntime": "onnxruntime default fp32", "opencv": "OpenCV dnn fp32", "litert": "LiteRT fp32"}
    shared = {"path": str(path), "device": "cpu", "precision": "fp32", "size": size, "optional": True, "model": digest}
    return [Contender(name=names[kind], kind=kind, **shared) for kind in kinds]  # type: ignore[arg-type]


def openvino_contenders(files: Sequence[ModelFile], size: tuple[int, int]) -> list[Contender]:
    """OpenVINO without onnxruntime, on the files that edge_seg runs too."""
    return [
        Contender(
            name=f"OpenVINO native {file.label}",
            kind="openvino",
            path=str(file.path),
            device="cpu",
            precision=file.precision,
            size=size,
            optional=True,
            model=file.digest,
        )
        for file in files
    ]


def torch_contenders(run: Path | str, size: tuple[int, int], digest: str, *, cuda: bool) -> list[Contender]:
    """The same network in torch: float32 on the CPU, and on a GPU float32 and float16, this also compiled."""
    plans = [("cpu", "fp32", False)]
    if cuda:
        plans += [("cuda", "fp32", False), ("cuda", "fp16", False), ("cuda", "fp16", True)]
    return [
        Contender(
            name=f"torch {device} {precision}" + (" compiled" if compiled else ""),
            kind="torch",
            path=str(run),
            device=device,
            precision=precision,
            size=size,
            compiled=compiled,
            optional=True,
            model=digest,
        )
        for device, precision, compiled in plans
    ]


def distinct_labels(paths: Sequence[Path], precisions: Sequence[str]) -> list[str]:
    """A file's precision where only one file has it, else its name too; its path where another has that as well."""
    stems = [path.stem for path in paths]
    return [
        precision
        if precisions.count(precision) == 1
        else f"{path.stem if stems.count(path.stem) == 1 else path} {precision}"
        for path, precision in zip(paths, precisions, strict=True)
    ]
