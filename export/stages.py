"""How long each stage of an export took, and the process' peak memory by then. Knows nothing of models."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stages:
    """Times stages and reports each as it ends; `records` goes into the report.

    CPU seconds, over all threads, show a stage's cost even if other work shares the machine.
    """

    say: Callable[[str], None]
    records: list[dict[str, float | str]] = field(default_factory=list)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block; a block that fails is not recorded."""
        began, cpu_began = time.perf_counter(), time.process_time()
        yield
        seconds, cpu_seconds, peak = time.perf_counter() - began, time.process_time() - cpu_began, peak_bytes()
        self.records.append(
            {
                "stage": name,
                "seconds": round(seconds, 3),
                "cpu_seconds": round(cpu_seconds, 3),
                "peak_gb": round(peak / 1e9, 3),
            }
        )
        self.say(f"{name:<28} {seconds:6.1f} s   peak {peak / 1e9:.2f} GB")


def peak_bytes() -> int:
    """Peak resident memory of this process so far, in bytes; 0 if unknown."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
