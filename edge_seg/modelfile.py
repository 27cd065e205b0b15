"""Inspect a model file before any runtime does: is it whole, of the right kind, safe, and what does its header say?

Single-file ONNX models only: data outside the file is refused, because a name inside a model must not open other files.
The path itself is the caller's: a symbolic or hard link to a model is that model. Only operators and domains of the
models we export are accepted, and sizes are bounded before memory is allocated. Works without the onnx package and
without a session; knows no device.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .demand import MAX_WORK, OPERATORS, Demand, GraphError, demand
from .errors import ConfigurationError, ModelFileError
from .files import name_of
from .onnxwalk import Contents, walk_model
from .protobuf import DamagedError, Reader
from .spec import METADATA_KEY, ModelSpec

MAX_MODEL_BYTES = 2**31 - 1  # protobuf's own limit for one message
_LFS = b"version https://git-lfs"
_PICKLE = "a Python pickle, which edge_seg never opens. Export an ONNX model"
# Files that are passed by mistake: where their first bytes stand, which these are, and what the file is and what to do.
_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftyp", "an MP4 or MOV video: a SOURCE of `edge-seg predict`"),
    (4, b"TFL3", "a TensorFlow Lite file. Export an ONNX model"),
    (4, b"ORTM", "in onnxruntime's own .ort format. Pass the .onnx file"),
    (
        0,
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file (Keras .h5 weights). Export it first: python -m export RUN --out model.onnx",
    ),
    (
        0,
        b"PK\x03\x04",
        "a zip archive (a .keras file?). Unpack it, or export the run: python -m export RUN --out model.onnx",
    ),
    (0, b"\x89PNG", "a PNG picture. Pass the .onnx file with -m, pictures as SOURCE"),
    (0, b"\xff\xd8\xff", "a JPEG picture. Pass the .onnx file with -m, pictures as SOURCE"),
    (0, b"GIF8", "a GIF picture. Pass the .onnx file with -m, pictures as SOURCE"),
    (0, b"%PDF", "a PDF. Pass the .onnx file"),
    (0, b"\x1f\x8b", "a gzip archive. Unpack it first"),
    (0, b"BZh", "a bzip2 archive. Unpack it first"),
    (0, b"\xfd7zXZ", "an xz archive. Unpack it first"),
    (0, b"RIFF", "a RIFF file (AVI or WebP). Pass the .onnx file with -m, videos as SOURCE"),
    *((0, bytes([0x80, version]), _PICKLE) for version in (2, 3, 4, 5)),
    (0, b"<", "a web page or XML (a failed download, or an OpenVINO .xml). Download the .onnx file again"),
    (0, b"{", "JSON. Pass the .onnx file"),
)


Stamp = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ModelHeader:
    """What a model file declares, read without a session.

    Attributes:
        path: the file, or None for a model given as bytes.
        size_bytes: of the whole file.
        contents: its versions, metadata, operators and tensors.
    """

    path: Path | None
    size_bytes: int
    contents: Contents = field(repr=False)
    _data: bytes | None = field(repr=False, compare=False)
    _stamp: Stamp = field(repr=False, compare=False)

    @cached_property
    def sha256(self) -> str:
        """Hash of the whole file, in hex; computed on first access (about 0.5 s for 540 MB)."""
        if self._data is not None:
            return hashlib.sha256(self._data).hexdigest()
        assert self.path is not None
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ModelFileError(f"{self.path} cannot be read any more ({error.strerror}).") from error

    @cached_property
    def spec(self) -> ModelSpec:
        """The model's contract. Raises `ModelFileError` when the file is ONNX but not ours."""
        return ModelSpec.from_metadata(self.contents.metadata, source=self.name)

    def demand(self, batch_size: int, input_size: tuple[int, int]) -> Demand:
        """Memory and arithmetic that a run on a batch of frames of (height, width) pixels needs.

        Raises:
            ModelFileError: shapes that do not fit together, or more arithmetic than any model of ours needs.
        """
        try:
            asked = demand(self.contents.nodes, self.contents.tensors, (batch_size, *input_size, 3))
        except GraphError as error:
            raise ModelFileError(f"{self.name} is refused: {error}. Export it again with python -m export.") from error
        if asked.work > MAX_WORK * batch_size:
            raise ModelFileError(
                f"{self.name} is refused: it asks for {asked.work / batch_size:.1e} multiply-adds a frame, more than "
                f"{MAX_WORK:.1e}. Export it for a smaller size with python -m export --input-size."
            )
        return asked

    def check_unchanged(self) -> None:
        """Raise `ModelFileError` if the file was replaced or changed since: a runtime opens it again, and later."""
        if self.path is None:
            return
        try:
            same = _stamp(self.path.stat()) == self._stamp
        except OSError:
            same = False
        if not same:
            raise ModelFileError(f"{self.path} was replaced or changed while it was being opened. Open it again.")

    @property
    def name(self) -> str:
        """The model's name in messages."""
        return "the model" if self.path is None else str(self.path)


def read_model_header(model: str | os.PathLike[str] | bytes) -> ModelHeader:
    """Check a model file and read its header, without creating a session.

    Args:
        model: path of an ONNX file, or its bytes.

    Raises:
        ModelFileError: missing, empty, truncated, too large, of another kind, with data outside the file, or damaged.
    """
    path = None if isinstance(model, bytes) else Path(model)
    name = "the model" if path is None else str(path)
    with _opened(model, path) as (data, stamp):
        _check_kind(bytes(data[:256]), name, len(data))
        try:
            contents = walk_model(Reader(data), len(data))
        except DamagedError as error:
            raise ModelFileError(
                f"{name} is not a whole ONNX model ({error}); {len(data)} bytes. "
                "It may be truncated or of another kind: copy or export it again."
            ) from error
        _check_contents(contents, name)
        given = model if isinstance(model, bytes) else None
        return ModelHeader(path=path, size_bytes=len(data), contents=contents, _data=given, _stamp=stamp)


@contextlib.contextmanager
def _opened(model: Any, path: Path | None) -> Iterator[tuple[memoryview, Stamp]]:
    """The model's bytes as a view, and the stamp that identifies the file; a file is mapped, not read."""
    if path is None:
        _check_size(len(model), "the model")
        with memoryview(model) as view:
            yield view, ()
        return
    with _open_file(path) as file:
        status = os.fstat(file.fileno())
        _check_size(status.st_size, str(path))
        with _mapped(file, path) as mapped, memoryview(mapped) as view:
            yield view, _stamp(status)


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _open_file(path: Path) -> Any:
    try:
        # A named pipe or a device would block or never end.
        if path.exists() and not path.is_file():
            made = f"; a run becomes one by: python -m export {path} --out model.onnx" if path.is_dir() else "."
            raise ModelFileError(f"{path} is not a file. Pass the path of a .onnx file{made}")
        return path.open("rb")
    except ModelFileError:
        raise  # it is a ValueError, which is caught below
    except FileNotFoundError as error:
        raise ModelFileError(f"No model at {path}. {_no_model_cure(path)}") from error
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _mapped(file: Any, path: Path) -> mmap.mmap:
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        # A mapping takes a file descriptor of its own, some file systems have none, and the file may be empty by now.
        raise ModelFileError(f"{path} cannot be mapped: {getattr(error, 'strerror', None) or error}.") from error


def _no_model_cure(path: Path) -> str:
    from . import BUNDLED_MODELS

    if str(path) in BUNDLED_MODELS:
        return f'The bundled one of this name: edge_seg.bundled_model("{path}")'
    if not path.suffix and path.name == str(path):
        return f"The bundled ones are called {' and '.join(BUNDLED_MODELS)}; any other is the path of a .onnx file."
    return f"Export one: python -m export RUN --out {path.name}"


def _check_size(size: int, name: str) -> None:
    if size == 0:
        raise ModelFileError(f"{name} is empty (0 bytes). Copy or export it again.")
    if size > MAX_MODEL_BYTES:
        raise ModelFileError(f"{name} has {size} bytes; a single-file ONNX model has at most {MAX_MODEL_BYTES}.")


def _check_kind(head: bytes, name: str, size: int) -> None:
    if head.startswith(_LFS):
        raise ModelFileError(f"{name} is a Git LFS pointer of {size} bytes, not the model. Fetch it: git lfs pull")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for place, magic, kind in _KINDS:
        if (text if magic in (b"<", b"{") else head[place:]).startswith(magic):
            raise ModelFileError(f"Expected an ONNX model; {name} is {kind}.")
    if not head.strip(b"\0"):
        raise ModelFileError(f"{name} holds only zeros: an interrupted copy. Copy it again.")


def _check_contents(contents: Contents, name: str) -> None:
    if contents.external:
        raise ModelFileError(
            f"{name} keeps weights outside the file ({contents.external}). edge_seg opens single-file models only, "
            "because such a reference can name any file of the machine. Export it again with python -m export."
        )
    if not contents.opsets or not contents.operators or not contents.ir_version:
        raise ModelFileError(f"{name} is not a whole ONNX model: it has no graph. Copy or export it again.")
    refused = contents.refused
    if not refused and (strange := sorted(contents.operators.keys() - OPERATORS)):
        refused = f"its operator {strange[0][:80]!r} is none that an edge_seg model has"
    if refused and METADATA_KEY in contents.metadata:
        raise ModelFileError(f"{name} is refused: {refused}. Export it again with python -m export.")
    if refused:
        ModelSpec.from_metadata(contents.metadata, source=name)  # raises: it is ONNX, but not ours


def check_model_argument(model: object) -> None:
    """Raise `ConfigurationError` unless `model` is a path or bytes."""
    if isinstance(model, bytes):
        return
    if not isinstance(model, (str, os.PathLike)):
        raise ConfigurationError(f"A model is given as a path or as bytes; got {type(model).__name__}.")
    if not name_of(model, "a model"):
        raise ConfigurationError(
            "A model has no name (a variable that is not set?). Expected the path of a .onnx file."
        )
