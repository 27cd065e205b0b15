"""Facts about NVIDIA's driver and TensorRT, asked through their C libraries, and page-locked memory. Knows nothing of
sessions.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import math
import mmap
import os
import re
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# cudaHostRegisterPortable: memory counts as page-locked for every CUDA context of the process.
_PORTABLE = 1
# Libraries that onnxruntime's provider is linked against: the engine and the ONNX parser, each with its major version.
_TENSORRT = re.compile(rb"libnvinfer\.so\.\d+|libnvonnxparser\.so\.\d+|nvinfer_\d+\.dll|nvonnxparser_\d+\.dll")
# The process that initialised CUDA. Its forked children cannot use CUDA, and the driver does not say why.
_initialised_in: int | None = None


def forked_after_cuda() -> bool:
    """Whether this module initialised CUDA before this process was forked off; if so, CUDA does not work here."""
    return _initialised_in not in (None, os.getpid())


def nvidia_gpus() -> int | None:
    """Number of GPUs the NVIDIA driver shows to this process, or None without a working driver."""
    global _initialised_in
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_int(0)
        # 100 is "no device": the driver works, but has no GPU or hides them.
        status = driver.cuInit(0)
        if status == 100:
            return 0
        if status == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            _initialised_in = os.getpid()
            return count.value
        return None
    return None


@functools.cache
def tensorrt_version() -> int:
    """Version of the TensorRT that the installed onnxruntime loads (10.3.0 is 100300), or 0 without its libraries.

    Also loads these libraries: onnxruntime would not find those in NVIDIA's wheel (`tensorrt_libs`) by itself.
    """
    folder = _package_folder("onnxruntime")
    providers = [] if folder is None else sorted((folder / "capi").glob("*onnxruntime_providers_tensorrt*"))
    wanted = {name.decode() for path in providers for name in _TENSORRT.findall(path.read_bytes())}
    # Sorted, so that nvinfer is loaded before nvonnxparser, which needs it.
    found = {name: _load(name) for name in sorted(wanted)}
    engine = next((library for name, library in found.items() if "nvinfer" in name), None)
    return int(engine.getInferLibVersion()) if engine is not None and None not in found.values() else 0


def _load(name: str) -> ctypes.CDLL | None:
    wheel = _package_folder("tensorrt_libs")
    for place in (name, *([] if wheel is None else [str(wheel / name)])):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(place, ctypes.RTLD_GLOBAL)
    return None


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def page_locked(shape: tuple[int, ...]) -> np.ndarray | None:
    """A uint8 array in page-locked memory, which a GPU can copy without the CPU; None if it cannot be locked.

    Forked children do not get these pages: after a copy-on-write the GPU would read other pages than the parent writes.
    """
    import numpy as np  # here, so that `--help` does not load it

    size = math.prod(shape)
    pages = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_DONTFORK"):
        pages.madvise(mmap.MADV_DONTFORK)
    array = np.frombuffer(pages, np.uint8, size)
    address = ctypes.c_void_p(array.ctypes.data)
    for name in ("libcudart.so.13", "libcudart.so.12", "cudart64_13.dll", "cudart64_12.dll"):
        try:
            runtime = ctypes.CDLL(name)
        except OSError:
            continue
        if runtime.cudaHostRegister(address, ctypes.c_size_t(size), ctypes.c_uint(_PORTABLE)) == 0:
            # Unlock when the array is freed: after every view of it, and before its pages.
            weakref.finalize(array, runtime.cudaHostUnregister, address).atexit = False
            return array.reshape(shape)
        runtime.cudaGetLastError()  # clears the error, which the next caller would get otherwise
    return None


def gpu_identity(index: int) -> str:
    """Name and compute capability of a GPU, and the driver's CUDA version (13000 is 13.0); "" without a driver."""
    if not nvidia_gpus():
        return ""
    driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    name = ctypes.create_string_buffer(128)
    handle, major, minor, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuDeviceGet(ctypes.byref(handle), index) != 0:
        return ""
    driver.cuDeviceGetName(name, 128, handle)
    driver.cuDeviceGetAttribute(ctypes.byref(major), 75, handle)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, handle)
    driver.cuDriverGetVersion(ctypes.byref(version))
    return f"{name.value.decode(errors='replace')} {major.value}.{minor.value} driver {version.value}"
