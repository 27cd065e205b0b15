"""Which packages are installed, in which versions. Imports none of them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable

BUILDS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-training",
    "onnxruntime-rocm",
    "onnxruntime-migraphx",
    "onnxruntime-qnn",
    "onnxruntime-vitisai",
    "ort-nightly",
    "ort-nightly-gpu",
)


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Package -> version of each of these that is installed, in their order."""
    from importlib import metadata

    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def installed_builds() -> dict[str, str]:
    """Installed builds of onnxruntime -> version; if there are several, they overwrite each other's files.

    Read from the names of .dist-info folders: `importlib.metadata` takes longer to load than onnxruntime.
    """
    builds = {name.replace("-", "_"): name for name in BUILDS}
    found: dict[str, str] = {}
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for entry in os.listdir(folder or "."):
                name, _, version = entry.removesuffix(".dist-info").rpartition("-")
                if entry.endswith(".dist-info") and name in builds:
                    found.setdefault(builds[name], version)
    return {name: found[name] for name in BUILDS if name in found}
