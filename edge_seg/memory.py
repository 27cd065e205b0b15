"""How much memory this process may still take: the least that the machine, its cgroups and its own limits leave.

A container limited to 1 GB on a machine of 64 GB sees 64, and is killed at 1. Knows nothing of models.
"""

from __future__ import annotations

from pathlib import Path

from .threads import cgroup_folders


def available_memory(*, root: Path = Path("/")) -> int | None:
    """Bytes that can still be allocated, or None where unknown (outside Linux). `root` is where /proc and /sys lie."""
    found = [_machine(root), _address_space(root), *_control_groups(root)]
    return min((max(0, value) for value in found if value is not None), default=None)


def amount(size: float) -> str:
    """A size in bytes for messages: "740 MB", "1.3 GB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _machine(root: Path) -> int | None:
    return _kilobytes(root / "proc/meminfo", "MemAvailable:")


def _address_space(root: Path) -> int | None:
    """What `ulimit -v` leaves."""
    try:
        import resource
    except ImportError:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    taken = _kilobytes(root / "proc/self/status", "VmSize:")
    return None if limit == resource.RLIM_INFINITY or taken is None else limit - taken


def _control_groups(root: Path) -> list[int]:
    found = []
    for folder, version in cgroup_folders(root, "memory"):
        names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        try:
            limit, taken = ((folder / name).read_text().strip() for name in names)
            # Cached file pages count as taken, but the kernel frees them when memory is needed.
            given_back = _kilobytes(folder / "memory.stat", "inactive_file", unit=1) or 0
            if limit != "max":
                found.append(int(limit) - int(taken) + given_back)
        except (OSError, ValueError):
            continue
    return found


def _kilobytes(file: Path, name: str, *, unit: int = 1024) -> int | None:
    """The number after `name` in one of the kernel's tables, in bytes."""
    try:
        for line in file.read_text().splitlines():
            if line.split()[:1] == [name]:
                return int(line.split()[1]) * unit
    except (OSError, ValueError, IndexError):
        pass
    return None
