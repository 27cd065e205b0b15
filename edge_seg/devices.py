"""Devices by name: what each needs, whether it is available here, and which arithmetic it computes in.

`cpu`, `openvino`, `cuda[:N]`, `tensorrt[:N]`, `auto`. Every function that talks to onnxruntime is given the module, so
that a fake can stand in for it. Knows nothing about models beyond their precision.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from typing import Any

from .errors import ConfigurationError, DeviceError
from .nvidia import forked_after_cuda, nvidia_gpus, tensorrt_version
from .phrases import first_line

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"
OPENVINO_PROVIDER = "OpenVINOExecutionProvider"
REINSTALL_GPU = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"


@dataclass(frozen=True, kw_only=True)
class DeviceName:
    """A requested device: its kind and, for cuda and tensorrt only, the number of the GPU."""

    kind: str
    index: int = 0

    def __str__(self) -> str:
        return f"{self.kind}:{self.index}" if self.kind in ("cuda", "tensorrt") else self.kind


@dataclass(frozen=True, kw_only=True)
class DeviceReport:
    """The device a session really got.

    Attributes:
        requested: the device as the caller named it.
        name: "cpu", "openvino", "cuda:0", "tensorrt:0".
        providers: as the session itself lists them, in order.
        arithmetic: "fp32", "bf16", "fp16" or "int8", which sets the bound of agreement with Keras.
        reason: why this device was chosen, in words.
        threads: CPU threads the session may use.
    """

    requested: str
    name: str
    providers: tuple[str, ...]
    arithmetic: str
    reason: str
    threads: int


def parse_device(text: str) -> DeviceName:
    """Read "cpu", "cuda:1" and the like; raise `ConfigurationError` naming the choices otherwise."""
    match = re.fullmatch(r"(auto|cpu|openvino|cuda|tensorrt)(?::(\d{1,3}))?", text if isinstance(text, str) else "")
    if match is None or (match[2] is not None and match[1] not in ("cuda", "tensorrt")):
        raise ConfigurationError(f"device must be auto, cpu, openvino, cuda[:N] or tensorrt[:N]; got {text!r}.")
    return DeviceName(kind=match[1], index=int(match[2] or 0))


def machine_devices() -> list[DeviceName]:
    """Every device that could be requested by name here, each GPU by its number, whether or not it is available."""
    gpus = range(max(1, nvidia_gpus() or 0))
    nvidia = [DeviceName(kind=kind, index=index) for kind in ("cuda", "tensorrt") for index in gpus]
    return [DeviceName(kind="cpu"), DeviceName(kind="openvino"), *nvidia]


def require_device(ort: Any, device: DeviceName) -> None:
    """Check that a device is available, as far as that can be told without a model.

    Raises:
        DeviceError: it is not available; the message names what is missing and the command that fixes it.
    """
    problem = device_problem(ort, device)
    if problem:
        raise DeviceError(f"device {device} cannot be had: {problem}")


def device_problem(ort: Any, device: DeviceName) -> str:
    """Why a device is not available and how to fix that, or "" if nothing seems to be wrong."""
    if device.kind == "openvino":
        return _openvino_problem(ort)
    if device.kind in ("cuda", "tensorrt"):
        return _nvidia_problem(ort, device)
    return ""


def precision_problem(device: DeviceName, precision: str) -> str:
    """Why an available device cannot run our files of this precision and how to fix that, or ""."""
    if device.kind == "tensorrt" and precision == "int8":
        return (
            "TensorRT takes int8 around zero alone, and an int8 file of ours has bytes from zero on for activations. "
            "Export --precision fp16, or use --device cuda."
        )
    return ""


def _nvidia_problem(ort: Any, device: DeviceName) -> str:
    provider = CUDA_PROVIDER if device.kind == "cuda" else TENSORRT_PROVIDER
    if provider not in ort.get_available_providers():
        return f"this onnxruntime {ort.__version__} was built without {provider}. Mend it: {REINSTALL_GPU}"
    count = nvidia_gpus()
    if count is None and forked_after_cuda():
        return (
            "CUDA was initialised before this process was forked off, and does not work in it. Start processes with "
            'multiprocessing.get_context("spawn")'
        )
    if count is None:
        return (
            "no NVIDIA driver answers (libcuda.so.1). Install the driver; in a container start it with "
            "`docker run --gpus all`. Look with: nvidia-smi"
        )
    if device.index >= count:
        return (
            f"the driver shows {count} GPU(s), so {device.kind}:{device.index} does not exist. Look with: nvidia-smi -L"
        )
    if device.kind == "tensorrt" and not tensorrt_version():
        return (
            "TensorRT's libraries (libnvinfer, libnvonnxparser) are not found in the version that this onnxruntime "
            f"{ort.__version__} loads. Install TensorRT and put its folder on LD_LIBRARY_PATH, or use --device cuda"
        )
    return ""


def _openvino_problem(ort: Any) -> str:
    if not hasattr(ort, "register_execution_provider_library") or not hasattr(
        ort.SessionOptions, "add_provider_for_devices"
    ):
        return (
            f"onnxruntime {ort.__version__} is too old for plugins. "
            "Mend it: pip install -U onnxruntime onnxruntime-ep-openvino"
        )
    if importlib.util.find_spec("onnxruntime_ep_openvino") is None:
        return "the plugin is not installed. Mend it: pip install onnxruntime-ep-openvino"
    try:
        register_openvino(ort)
    except Exception as error:
        return f"the plugin does not load ({first_line(error)}). Mend it: pip install -U onnxruntime-ep-openvino"
    if not openvino_devices(ort):
        vendor = next((item.device.vendor for item in ort.get_ep_devices()), "unknown")
        return (
            f"its plugin offers no device for this processor (vendor {vendor}; the plugin serves Intel's alone). "
            "Use --device cpu, or a machine with an Intel processor"
        )
    return ""


def register_openvino(ort: Any) -> None:
    """Register the OpenVINO plugin with onnxruntime; harmless when called twice."""
    import onnxruntime_ep_openvino

    try:
        ort.register_execution_provider_library(OPENVINO_PROVIDER, onnxruntime_ep_openvino.get_library_path())
    except Exception as error:
        if "already registered" not in str(error).lower():
            raise


def openvino_devices(ort: Any) -> list[Any]:
    """The plugin's CPU devices; the name `openvino` does not cover its GPU and NPU."""
    cpu = ort.OrtHardwareDeviceType.CPU
    return [item for item in ort.get_ep_devices() if item.ep_name == OPENVINO_PROVIDER and item.device.type == cpu]


def openvino_has_bf16(ep_device: Any) -> bool:
    """Whether this processor multiplies in bf16, as the plugin says; True if it says nothing."""
    return "BF16" in ep_device.ep_metadata.get("OPTIMIZATION_CAPABILITIES", "BF16").split()


def arithmetic_of(kind: str, precision: str, *, bf16: bool = False) -> str:
    """The arithmetic whose bound of agreement applies when a device runs a file of `precision`.

    openvino multiplies floats in bf16 where the processor can. For fp32 files TensorRT uses TF32, which has fp16's
    mantissa, so fp16's bound applies; on CUDA, TF32 is switched off except for fp16 files.
    """
    if precision == "int8":
        return "int8"
    if kind == "openvino":
        return "bf16" if bf16 else precision
    if kind == "tensorrt":
        return "fp16"
    return precision
