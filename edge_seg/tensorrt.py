"""TensorRT's engine cache: where it is, and for what an engine in it is valid.

onnxruntime's own cache may return another model's engine, so the folder's name is a hash of everything that an engine
depends on, and the folder is private to the user. Knows nothing of sessions. Not yet tried on a GPU.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from .devices import TENSORRT_PROVIDER
from .errors import DeviceError
from .modelfile import ModelHeader
from .nvidia import gpu_identity, nvidia_gpus, tensorrt_version


def provider_options(
    ort: Any, header: ModelHeader, batch_size: int, input_size: tuple[int, int], index: int
) -> dict[str, str]:
    """Options of the TensorRT provider, with a cache folder for this case only. Creates the folder."""
    folder = str(private_folder(cache_folder(ort, header, batch_size, input_size, index)))
    shape = f"frames:{batch_size}x{input_size[0]}x{input_size[1]}x3"
    return {
        "device_id": str(index),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
        "trt_fp16_enable": "1" if header.spec.precision == "fp16" else "0",
        "trt_profile_min_shapes": shape,
        "trt_profile_opt_shapes": shape,
        "trt_profile_max_shapes": shape,
    }


def has_cached_engine(ort: Any, header: ModelHeader, batch_size: int, input_size: tuple[int, int]) -> bool:
    """Whether an engine for exactly this case is in the cache already; building one takes minutes."""
    if TENSORRT_PROVIDER not in ort.get_available_providers() or not nvidia_gpus():
        return False
    try:
        folder = cache_folder(ort, header, batch_size, input_size, 0)
    except DeviceError:
        return False
    return folder.is_dir() and any(folder.glob("*.engine"))


def cache_folder(ort: Any, header: ModelHeader, batch_size: int, input_size: tuple[int, int], index: int) -> Path:
    """The folder for this model on this GPU; another model, library version, GPU or shape has another folder.

    Raises:
        DeviceError: this user has no home folder.
    """
    key = {
        "model": header.sha256,
        "onnxruntime": ort.__version__,
        "tensorrt": tensorrt_version(),
        "gpu": gpu_identity(index),
        "shape": [batch_size, *input_size],
        "precision": header.spec.precision,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise DeviceError("TensorRT's cache has no place: this user has no home folder. Set XDG_CACHE_HOME.") from error
    return base / "edge_seg" / "tensorrt" / digest


def private_folder(folder: Path) -> Path:
    """Create the folder, accessible to this user only; an engine is code that the GPU runs. Returns it.

    Others may read its parent, but not write there: they could put another folder in its place.

    Raises:
        DeviceError: a folder cannot be made, or belongs to another user, or is open to others.
    """
    _own_folder(folder.parent, closed_to=0o022)
    return _own_folder(folder, closed_to=0o077)


def _own_folder(folder: Path, *, closed_to: int) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise DeviceError(
            f"TensorRT's cache {folder} cannot be made ({error.strerror}). Set XDG_CACHE_HOME."
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise DeviceError(f"TensorRT's cache {folder} is a link or a file. Remove it.")
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        raise DeviceError(
            f"TensorRT's cache {folder} belongs to user {status.st_uid}, who could put any engine there. Remove it, or "
            "set XDG_CACHE_HOME to a folder of your own."
        )
    if os.name == "posix" and status.st_mode & closed_to:
        raise DeviceError(f"TensorRT's cache {folder} is open to others. Remove it, or: chmod 700 {folder}")
    return folder
