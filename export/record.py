"""Where a file comes from: what its run says of itself, the packages that made it, its hash; and the report as JSON.

Knows neither graphs nor gates.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.run import Run

# What a file may depend on besides the project's own code.
PACKAGES = ("edge-seg", "keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy")


def is_trained(run: Run) -> bool:
    """Whether the run says that it has finished at least one epoch."""
    return int(run.config.get("training", {}).get("epochs", 0)) > 0


def training_summary(run: Run) -> dict[str, Any]:
    """What the file says of where its weights come from: the run's own summary, what it began as or learnt from, its
    data and its rendered scenes.
    """
    training = dict(run.config.get("training", {}))
    training |= {key: run.config[key] for key in ("start", "teacher", "averaged") if run.config.get(key)}
    if data_hash := run.config.get("data", {}).get("hash"):
        training["data_hash"] = data_hash
    recipe = run.config.get("recipe")
    if isinstance(recipe, dict) and recipe.get("rendered_share"):
        training["rendered_share"] = recipe["rendered_share"]
    return training


def versions() -> dict[str, str]:
    """The packages that made the file."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_json(report: dict[str, Any], path: Path) -> None:
    """Write a report. Raises `OSError` with `path` as its file name."""
    try:
        path.write_text(json.dumps(report, indent=2) + "\n")
    except OSError as error:
        error.filename = str(path)  # Writing names no file, and the model is being made beside this one.
        raise


def sha256(path: Path) -> str:
    """Hash of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
