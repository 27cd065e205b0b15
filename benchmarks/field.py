"""The contenders that take part: Keras, each model file on each device present, the peers; and why others do not.

Finds, exports and converts files and names contenders; loads no model and measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import util
from pathlib import Path

from edge_seg.devices import device_problem, machine_devices, parse_device
from edge_seg.errors import ModelFileError
from edge_seg.session import load_runtime

from .cases import (
    Contender,
    ModelFile,
    keras_contenders,
    openvino_contenders,
    plain_contenders,
    session_contenders,
    torch_contenders,
)
from .environment import gpus
from .process import Say
from .rows import Row
from .settings import Settings, check_fp32, float_graph, fp32_file, litert_folder, model_files, refuse_other_classes


@dataclass(frozen=True, kw_only=True)
class Field:
    """The contenders with their model files and size, notes on absent devices, and rows of what could not be made."""

    contenders: tuple[Contender, ...]
    files: tuple[ModelFile, ...]
    size: tuple[int, int]
    notes: tuple[str, ...]
    failed: tuple[Row, ...]


def find_field(settings: Settings, run_digest: str, say: Say) -> Field:
    """Find, export and convert model files, find devices, and name the contenders."""
    failed: list[Row] = []
    paths = _each_once(settings.models)
    files, size = model_files(paths)
    refuse_other_classes(settings.run, paths[0])
    if settings.fp32 is not None:
        check_fp32(settings.fp32)
    if settings.fp32 is not None or all(file.precision != "fp32" for file in files):
        try:
            # `settings.fp32` may be one of the models, too.
            paths = _each_once([fp32_file(settings, run_digest, size, say), *paths])
        except ModelFileError as error:
            unmade = ModelFile(path=Path(), label="fp32", precision="fp32", digest="")
            (missing,) = session_contenders([unmade], ["cpu"], size, optional=False)
            failed = _failed(missing, settings.batch_sizes, str(error))
    files, size = model_files(paths)
    devices, notes = present_devices(settings.devices)
    contenders = keras_contenders(settings.run, size, run_digest)
    contenders += session_contenders(files, devices, size, optional=settings.devices is None)
    peers, failed_peers = peer_contenders(settings, files, size, run_digest, say)
    if any(peer.kind == "litert" for peer in peers) and util.find_spec("ai_edge_litert") is None:
        notes.append("LiteRT is tensorflow.lite here, with TensorFlow in its memory (pip install ai-edge-litert)")
    return Field(
        contenders=(*contenders, *peers),
        files=tuple(files),
        size=size,
        notes=tuple(notes),
        failed=(*failed, *failed_peers),
    )


def _each_once(paths: Sequence[Path]) -> list[Path]:
    """Each file once, even if it is named in several ways."""
    found: dict[Path, Path] = {}
    for path in paths:
        found.setdefault(path.resolve(), path)
    return list(found.values())


def peer_contenders(
    settings: Settings, files: Sequence[ModelFile], size: tuple[int, int], run_digest: str, say: Say
) -> tuple[list[Contender], list[Row]]:
    """The peers asked for, and failed rows for each whose model file could not be made."""

    def graph() -> Path:
        fp32 = next((file for file in files if file.precision == "fp32"), None)
        if fp32 is None:
            raise ModelFileError("there is no fp32 file to cut its float graph out of")
        return float_graph(settings, fp32, say)

    contenders: list[Contender] = []
    failed: list[Row] = []
    for kinds, make in (
        (("onnxruntime", "opencv"), graph),
        (("litert",), lambda: litert_folder(settings, run_digest, size, say)),
    ):
        wanted = plain_contenders([kind for kind in kinds if kind in settings.peers], "", size, run_digest)
        try:
            path = make() if wanted else ""
        except ModelFileError as error:
            failed += [row for peer in wanted for row in _failed(peer, settings.batch_sizes, str(error))]
        else:
            contenders += [replace(peer, path=str(path)) for peer in wanted]
    if "openvino" in settings.peers:
        contenders += openvino_contenders(files, size)
    if "torch" in settings.peers:
        contenders += torch_contenders(settings.run, size, run_digest, cuda=bool(gpus()))
    return contenders, failed


def _failed(contender: Contender, batches: Sequence[int], reason: str) -> list[Row]:
    """A failed row at each batch size, for a contender whose model file could not be made."""
    row = Row(
        name=contender.name,
        kind=contender.kind,
        precision=contender.precision,
        device=contender.device,
        batch=0,
        status="failed",
        reason=reason,
    )
    return [replace(row, batch=batch) for batch in batches]


def present_devices(asked: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Devices that take part, and a line for each that is absent here; those asked for by name all take part."""
    if asked is not None:
        return [str(parse_device(name)) for name in asked], []
    runtime = load_runtime()
    problems = {str(device): device_problem(runtime, device) for device in machine_devices()}
    present = [name for name, problem in problems.items() if not problem]
    return present, [f"not here: {name}: {problem}" for name, problem in problems.items() if problem]
