"""The processor's name, and which of the instructions it has that speed up networks. Knows no runtime."""

from __future__ import annotations

import platform
from pathlib import Path

# Instructions that make int8 and bf16 fast, by their names in /proc/cpuinfo: x86 first, then Arm.
FEATURES = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "bf16",
)
CPUINFO = Path("/proc/cpuinfo")


def cpu_name() -> str:
    """The processor's name as its maker gives it, or else the machine type."""
    return _field("model name", CPUINFO) or platform.processor() or platform.machine() or "unknown"


def cpu_features(cpuinfo: Path = CPUINFO) -> tuple[str, ...]:
    """The instructions in `FEATURES` that this CPU has; empty where the system does not say."""
    flags = (_field("flags", cpuinfo) or _field("Features", cpuinfo)).split()
    return tuple(name for name in FEATURES if name in flags)


def _field(name: str, cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == name), "")
