"""Provenance of a model file: its run's summary, package versions and hash; and the report as JSON.

Knows nothing of graphs or gates.
"""

from __future__ import annotations

import hashlib
import json
import sys
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
