"""The default precision of a training: bfloat16 if the hardware multiplies in it, else float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

from edge_seg.processor import CPUINFO, cpu_features

# NVIDIA's first generation with bfloat16 in its tensor cores (Ampere).
BFLOAT16_CAPABILITY = (8, 0)


@contextmanager
def policy_kept() -> Iterator[None]:
    """Restore Keras' dtype policy after the block, whatever was set inside it."""
    before = keras.mixed_precision.dtype_policy()
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(before)


def auto_policy(cpuinfo: Path = CPUINFO) -> str:
    """`mixed_bfloat16` where the GPUs that the backend sees, or else this CPU, compute bfloat16; else `float32`."""
    gpus = gpu_capabilities()
    if gpus:
        return "mixed_bfloat16" if min(gpus) >= BFLOAT16_CAPABILITY else "float32"
    return "mixed_bfloat16" if {"avx512_bf16", "amx_bf16"} & set(cpu_features(cpuinfo)) else "float32"


def gpu_capabilities() -> list[tuple[int, int]]:
    """Compute capability of each NVIDIA GPU that Keras' backend will train on; (0, 0) where it is unknown."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        return [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
    if backend == "jax":
        import jax

        versions = [
            getattr(device, "compute_capability", "0.0") for device in jax.devices() if device.platform == "gpu"
        ]
        return [_pair(str(version)) for version in versions]
    if backend == "torch":
        import torch

        return [torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())]
    return []


def _pair(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)
