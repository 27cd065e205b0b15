"""What a result depends on besides settings and data: processor, cores, memory, system, versions, revision, load.

Reads what the system reports; changes nothing. What cannot be read is None, never guessed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from edge_seg.processor import cpu_features, cpu_name
from edge_seg.threads import available_threads, cgroup_quota
from edge_seg.versions import installed

PACKAGES = (
    "ai-edge-litert",
    "av",
    "edge-seg",
    "jax",
    "keras",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-ep-openvino",
    "opencv-python",
    "opencv-python-headless",
    "openvino",
    "tensorflow",
    "tf2onnx",
    "torch",
)
ROOT = Path(__file__).resolve().parent.parent
# Starts a module of the project in a process of its own, with `child_environment`: in the caller's folder, so that
# relative paths stay valid, but (-P) without importing modules from there.
PYTHON = (sys.executable, "-P", "-m")
# Instruction sets and their usual names, of each line the first present. Processors of one name can differ in them.
_SAID = (
    (("avx512f", "AVX-512"), ("avx2", "AVX2")),
    (("avx512_vnni", "VNNI"), ("avx_vnni", "VNNI"), ("i8mm", "i8mm"), ("asimddp", "dot products")),
    (("avx512_bf16", "bf16"), ("bf16", "bf16")),
    (("amx_int8", "AMX"), ("amx_bf16", "AMX")),
)


def child_environment() -> dict[str, str]:
    """This process' environment variables, changed so that the project's modules are found first."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}


def environment() -> dict[str, Any]:
    """The whole environment as plain JSON types."""
    return {
        "cpu": cpu_name(),
        "cpu_features": list(cpu_features()),
        "cores": available_threads(),
        "cores_of_machine": os.cpu_count(),
        "cpu_quota": cgroup_quota(),
        "memory_mb": memory_mb(),
        "gpus": gpus(),
        "os": platform.platform(),
        "python": sys.version.split()[0],
        "packages": package_versions(),
        "revision": revision(),
        "load_at_start": load(),
    }


def processor(environment: Mapping[str, Any]) -> str:
    """An environment's processor with its fast instruction sets: "AMD EPYC (AVX-512, VNNI, bf16)"."""
    features = environment.get("cpu_features") or ()
    said = [next((word for name, word in line if name in features), "") for line in _SAID]
    words = ", ".join(filter(None, said))
    return f"{environment['cpu']} ({words})" if words else str(environment["cpu"])


def memory_mb() -> int | None:
    """The machine's memory in MB."""
    found = _megabytes("/proc/meminfo", "MemTotal")
    return None if found is None else int(found)


def last_cache_mb(root: Path = Path("/sys/devices/system/cpu")) -> float:
    """MB of the last level of cache, over all the machine's cores; 0 if unknown."""
    found: dict[int, dict[str, float]] = {}
    for index in root.glob("cpu[0-9]*/cache/index[0-9]*"):
        level, size = _read(str(index / "level")).strip(), _read(str(index / "size")).strip()
        if level.isdigit() and re.fullmatch(r"\d+K", size):
            # Cores that share a cache all list it, with the same list of cores.
            found.setdefault(int(level), {})[_read(str(index / "shared_cpu_list")).strip()] = int(size[:-1]) / 1024
    return sum(found[max(found)].values()) if found else 0.0


def peak_memory_mb() -> float | None:
    """This process' peak resident memory so far, in MB.

    Read from VmHWM, since `getrusage` inherits the value of the parent process.
    """
    return _megabytes("/proc/self/status", "VmHWM")


def resident_mb() -> float | None:
    """This process' resident memory now, in MB."""
    return _megabytes("/proc/self/status", "VmRSS")


def _megabytes(path: str, name: str) -> float | None:
    """A line's kilobytes in one of the kernel's files, in MB."""
    found = re.search(rf"^{name}:\s*(\d+) kB", _read(path), re.MULTILINE)
    return int(found.group(1)) / 1024 if found else None


@cache
def gpus() -> list[str]:
    """Name and driver of each NVIDIA GPU; empty without one."""
    return _lines("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")


def package_versions() -> dict[str, str]:
    """Package -> version of each of `PACKAGES` that is installed."""
    return installed(PACKAGES)


def revision() -> str | None:
    """The clone's git revision, with `+changes` where tracked files differ from it; None outside a clone."""
    found = _lines("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    if not found:
        return None
    changed = _lines("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return found[0] + ("+changes" if changed else "")


def load() -> float | None:
    """Average number of processes that needed a core over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def busy_core_s() -> float | None:
    """Seconds of CPU time the whole machine has spent since it started, or None if unknown.

    Only told where this process may use every core: in a container, the machine's other work does not matter.
    """
    words = _read("/proc/stat").partition("\n")[0].split()
    if len(words) < 9 or available_threads() != os.cpu_count():
        return None
    user, nice, system, _, _, irq, softirq, steal = (int(word) for word in words[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def others_cores(work: Callable[[], object], workers_cpu_s: Callable[[], float]) -> float | None:
    """Do the work; returns the cores that were busy meanwhile with what is neither our own nor a worker's, if known.

    `workers_cpu_s` is asked when the work is done: the CPU seconds that our workers spent on it.
    """
    before, began, own = busy_core_s(), time.perf_counter(), time.process_time()
    work()
    after, wall_s = busy_core_s(), time.perf_counter() - began
    if before is None or after is None:
        return None
    return max(0.0, (after - before - (time.process_time() - own) - workers_cpu_s()) / wall_s)


def file_hash(path: Path | str) -> str:
    """SHA-256 of a file, first 16 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _lines(*command: str) -> list[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.strip().splitlines()
