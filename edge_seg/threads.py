"""How many threads this process may really use: the smaller of its CPU affinity and its cgroup's CPU quota.

A container limited to two CPUs on a machine of 64 sees 64; 64 threads there are slower than two. Also undoes real-time
scheduling that a library sets for threads. Knows nothing of onnxruntime or OpenCV: code that starts threads asks here.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

# What helps where the system starts no thread: each has a stack, so memory may be what is short.
MORE_THREADS = (
    "Raise the limit on them (a container's pids limit, systemd's TasksMax, ulimit -u) or on memory (ulimit -v)."
)


def available_threads(*, root: Path = Path("/")) -> int:
    """Threads worth starting, at least 1: min(affinity, cgroup v1 or v2 quota rounded up)."""
    quota = cgroup_quota(root)
    affinity = affinity_count()
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))


@contextlib.contextmanager
def usual_scheduling() -> Iterator[None]:
    """At the end of the block give threads their old scheduling policy, and new threads the usual one.

    SVT-AV1, run by root, makes its threads and the one that opens it real-time threads (SCHED_FIFO, priority 99), which
    starves everything else on the machine.
    """
    before = _scheduling()
    try:
        yield
    finally:
        usual = os.SCHED_OTHER if hasattr(os, "SCHED_OTHER") else 0
        for thread, policy in _scheduling().items():
            if policy != before.get(thread, usual):
                with contextlib.suppress(OSError):
                    os.sched_setscheduler(thread, before.get(thread, usual), os.sched_param(0))


def _scheduling() -> dict[int, int]:
    """Thread id -> scheduling policy, for each thread of this process; empty where the system does not say."""
    found: dict[int, int] = {}
    with contextlib.suppress(OSError, AttributeError):
        for name in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):
                found[int(name)] = os.sched_getscheduler(int(name))
    return found


def affinity_count() -> int:
    """CPUs this process is allowed to run on; all of them where the system has no affinity."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """CPUs that the cgroups of this process allow, or None without a limit.

    A limit on any ancestor holds, so the smallest on the way up counts. `root` is where /proc and /sys lie.
    """
    limits = [
        _quota_v2(folder) if version == 2 else _quota_v1(folder) for folder, version in cgroup_folders(root, "cpu")
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def cgroup_folders(root: Path, controller: str) -> list[tuple[Path, int]]:
    """(folder, cgroup version) of every cgroup of this process, and its ancestors, that may limit `controller`."""
    folders = []
    for controllers, path in _memberships(root / "proc/self/cgroup"):
        if controllers == "":
            base, version = root / "sys/fs/cgroup", 2
        elif controller in controllers.split(","):
            base, version = _v1_base(root, controllers, controller), 1
        else:
            continue
        folders += [(folder, version) for folder in _upwards(base, path)]
    return folders


def _memberships(file: Path) -> list[tuple[str, str]]:
    """(controllers, path) per hierarchy, as /proc/self/cgroup lists them; empty where there is no such file."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return []
    return [(parts[1], parts[2]) for line in lines if len(parts := line.split(":", 2)) == 3]


def _v1_base(root: Path, controllers: str, controller: str) -> Path:
    together = root / "sys/fs/cgroup" / controllers
    return together if together.is_dir() else root / "sys/fs/cgroup" / controller


def _upwards(base: Path, path: str) -> list[Path]:
    """The cgroup's folder and each above it, up to `base`; in a container only `base` may be there."""
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
