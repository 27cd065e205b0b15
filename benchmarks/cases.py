"""The contenders: what is compared, as plain records that are sent to a worker as JSON.

Knows which kinds of contender there are and how they are named. Loads none of them: `runners` does, in the worker's
process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# The contender that every ratio and agreement refers to.
REFERENCE = "Keras predict"
# The one that speeds on a clip refer to.
NAIVE = "naive loop"
# Other runtimes, each a kind of contender.
PEERS = ("onnxruntime", "opencv", "litert", "openvino", "torch")


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """One ONNX file that takes part.

    Attributes:
        path: where it is.
        label: what distinguishes it in a table; its precision if that is enough.
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
        kind: which of the functions in `runners.build` loads it; "naive" only runs clips.
        path: a run's folder (Keras, torch), an ONNX file, or a folder of TensorFlow Lite files.
        device: "cpu", or a device of edge_seg or torch.
        precision: of the weights and, as far as the file says, of the arithmetic.
        size: (height, width) of its input frames.
        compiled: for torch, use `torch.compile`; for cuda-bound, use a CUDA graph and kernels fused when it is opened.
        optional: on a machine that cannot run it, it is skipped and not failed.
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
        """The contender that `to_dict` was made of."""
        return cls(**{**values, "size": tuple(values["size"])})


def keras_contenders(run: Path | str, size: tuple[int, int], digest: str) -> list[Contender]:
    """Keras as the notebook calls it, and at its fastest, as one compiled function."""
    shared: dict[str, Any] = {"path": str(run), "device": "cpu", "precision": "fp32", "size": size, "model": digest}
    return [
        Contender(name=REFERENCE, kind="keras-predict", **shared),
        Contender(name="Keras compiled", kind="keras-compiled", **shared),
    ]


def session_contenders(
    files: Sequence[ModelFile], devices: Iterable[str], size: tuple[int, int], *, optional: bool
) -> list[Contender]:
    """A contender for each device and file, device by device. The CPU is never optional."""
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
    """Other runtimes on a plain export, as a newcomer would run them; `digest` is that of the run's weights."""
    names = {"onnxruntime": "onnxruntime default fp32", "opencv": "OpenCV dnn fp32", "litert": "LiteRT fp32"}
    shared: dict[str, Any] = {"path": str(path), "precision": "fp32", "size": size, "model": digest}
    return [Contender(name=names[kind], kind=kind, device="cpu", optional=True, **shared) for kind in kinds]


def openvino_contenders(files: Sequence[ModelFile], size: tuple[int, int]) -> list[Contender]:
    """OpenVINO without onnxruntime, on the same files as edge_seg."""
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
    """The same network in torch: float32 on the CPU; on a GPU float32, float16 and compiled float16 too."""
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
    """A label for each file: its precision if that is unique, else name and precision, or path and precision."""
    stems = [path.stem for path in paths]
    return [
        precision
        if precisions.count(precision) == 1
        else f"{path.stem if stems.count(path.stem) == 1 else path} {precision}"
        for path, precision in zip(paths, precisions, strict=True)
    ]
