"""How many threads this process may really use: the smaller of its CPU affinity and its cgroup's CPU quota.

A container limited to two CPUs on a machine of 64 sees 64; 64 threads there are slower than two. Knows nothing of
onnxruntime or OpenCV: whoever starts threads asks here.
"""

from __future__ import annotations

import math
import os
from pathlib import Path


def available_threads(*, root: Path = Path("/")) -> int:
    """Threads worth starting, at least 1: min(affinity, cgroup v1 or v2 quota rounded up)."""
    quota = cgroup_quota(root)
    affinity = affinity_count()
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))


def affinity_count() -> int:
    """CPUs this process is allowed to run on; all of them where the system has no affinity."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """CPUs that the control groups of this process allow, or None without a limit.

    A limit set on any ancestor holds, so the smallest on the way up counts. `root` is where /proc and /sys lie.
    """
    limits = []
    for controllers, path in _memberships(root / "proc/self/cgroup"):
        if controllers == "":
            base, read = root / "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            base, read = _v1_base(root, controllers), _quota_v1
        else:
            continue
        limits += [limit for folder in _upwards(base, path) if (limit := read(folder)) is not None]
    return min(limits, default=None)


def _memberships(file: Path) -> list[tuple[str, str]]:
    """(controllers, path) a hierarchy, as /proc/self/cgroup lists them; empty where there is no such file."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return []
    return [(parts[1], parts[2]) for line in lines if len(parts := line.split(":", 2)) == 3]


def _v1_base(root: Path, controllers: str) -> Path:
    together = root / "sys/fs/cgroup" / controllers
    return together if together.is_dir() else root / "sys/fs/cgroup/cpu"


def _upwards(base: Path, path: str) -> list[Path]:
    """The group's folder and each above it. In a container the path may lie outside the mount: then only the base."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    return [base.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return None if quota <= 0 else quota / period
    except (OSError, ValueError, ZeroDivisionError):
        return None
