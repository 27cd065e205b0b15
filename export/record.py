"""What an export records: its run's summary, package versions, the file's hash, time and memory of each stage.

Knows nothing of graphs or gates.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_seg.spec import finite
from edge_seg.versions import installed

if TYPE_CHECKING:
    from train.run import Run

# What a file may depend on besides the project's own code.
PACKAGES = ("edge-seg", "keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy")


def is_trained(run: Run) -> bool:
    """Whether the run records at least one finished epoch."""
    return int(run.config.get("training", {}).get("epochs", 0)) > 0


def training_summary(run: Run) -> dict[str, Any]:
    """What the file records of its training: the run's summary, its start, its teacher, what was averaged in, the hash
    of its data and the share of rendered scenes.
    """
    training = dict(run.config.get("training", {}))
    training |= {key: run.config[key] for key in ("start", "teacher", "averaged") if run.config.get(key)}
    if data_hash := run.config.get("data", {}).get("hash"):
        training["data_hash"] = data_hash
    recipe = run.config.get("recipe")
    if isinstance(recipe, dict) and recipe.get("rendered_share"):
        training["rendered_share"] = recipe["rendered_share"]
    # A validation in which nothing is labelled has no accuracy.
    return finite(training)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that made the file."""
    return {"python": sys.version.split()[0], **installed(PACKAGES)}


def write_json(report: dict[str, Any], path: Path) -> None:
    """Write a report. Raises `OSError` with `path` as its file name."""
    try:
        path.write_text(json.dumps(report, indent=2) + "\n")
    except OSError as error:
        error.filename = str(path)  # A write's error names no file, and would be reported as the model's.
        raise


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
