"""What NVIDIA's driver and TensorRT say of themselves, asked through their C libraries. Knows nothing of sessions."""

from __future__ import annotations

import ctypes
import os


def nvidia_gpus() -> int | None:
    """GPUs the NVIDIA driver shows to this process, or None without a working driver."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_int(0)
        # 100 is "no device": the driver works and hides or has none.
        status = driver.cuInit(0)
        if status == 100:
            return 0
        if status == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
        return None
    return None


def tensorrt_version() -> int:
    """TensorRT's version as its library says it (10.3.0 is 100300), or 0 when there is none."""
    for name in ("libnvinfer.so.11", "libnvinfer.so.10", "nvinfer_11.dll", "nvinfer_10.dll"):
        try:
            return int(ctypes.CDLL(name).getInferLibVersion())
        except (OSError, AttributeError):
            continue
    return 0


def gpu_identity(index: int) -> str:
    """Name, compute capability and the CUDA version of the driver (13000 is 13.0) of a GPU; "" without a driver."""
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
