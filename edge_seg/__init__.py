"""edge_seg: road-scene segmentation of video from one self-describing ONNX file.

    with edge_seg.Segmenter(edge_seg.bundled_model()) as segmenter:
        for result in segmenter.stream("dashcam.mp4"):
            print(result.time_s, result.class_share()["road"])

Importing this package loads nothing heavy: numpy, OpenCV, PyAV and onnxruntime are imported when a name that needs them
is first used. Knows nothing about training or export.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import (
    ConfigurationError,
    ConversionError,
    DatasetError,
    DeviceError,
    EdgeSegError,
    MediaError,
    MissingDependencyError,
    ModelFileError,
    OutOfMemoryError,
    ParityError,
    RefusedError,
)

if TYPE_CHECKING:
    from .account import StreamReport
    from .devices import DeviceReport
    from .segmentation import Segmentation
    from .segmenter import Segmenter
    from .session import Session
    from .spec import ModelSpec
    from .stream import ResultStream

__version__ = "0.1.0"

__all__ = [
    "ConfigurationError",
    "ConversionError",
    "DatasetError",
    "DeviceError",
    "DeviceReport",
    "EdgeSegError",
    "MediaError",
    "MissingDependencyError",
    "ModelFileError",
    "ModelSpec",
    "OutOfMemoryError",
    "ParityError",
    "RefusedError",
    "ResultStream",
    "Segmentation",
    "Segmenter",
    "Session",
    "StreamReport",
    "__version__",
    "bundled_clip",
    "bundled_model",
]

# Read by onnxruntime when it is loaded. Without it, onnxruntime writes an id of this machine into the home folder and
# reports usage to its maker; a user who wants that sets `ORT_DISABLE_TELEMETRY=0`.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

BUNDLED_MODELS = {"best": "fcn8_camvid_int8.onnx", "fast": "fcn8_camvid_fast_int8.onnx"}
_LAZY = {
    "DeviceReport": "devices",
    "ModelSpec": "spec",
    "ResultStream": "stream",
    "Segmentation": "segmentation",
    "Segmenter": "segmenter",
    "Session": "session",
    "StreamReport": "account",
}
_ASSETS = Path(__file__).parent / "assets"


if not TYPE_CHECKING:  # A type checker would then accept any name as ours.

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def bundled_model(name: str = "best") -> Path:
    """Path of a model that ships with the package, for non-commercial use only (see its licence file).

    Args:
        name: "best", the more accurate one, or "fast".

    Raises:
        ConfigurationError: no such name.
        ModelFileError: this copy of the package has no model, or lies in an archive.
    """
    if name not in BUNDLED_MODELS:
        raise ConfigurationError(f"The bundled models are {' and '.join(BUNDLED_MODELS)}, got {name!r}.")
    path = _ASSETS / BUNDLED_MODELS[name]
    if not path.is_file():
        raise ModelFileError(
            f"No file {path}: this copy of edge_seg has no bundled model, or lies in an archive. Name one: -m MODEL"
        )
    return path


def bundled_clip() -> Path:
    """Path of the rendered street clip that ships with the package.

    Raises:
        MediaError: this copy of the package has no clip, or lies in an archive.
    """
    path = _ASSETS / "street.mp4"
    if not path.is_file():
        raise MediaError(
            f"No file {path}: this copy of edge_seg has no bundled clip, or lies in an archive. Name a video as SOURCE"
        )
    return path
