"""Writes a benchmark's files, each atomically: a folder with results.json, chart.png and report.html, or the one JSON
file that `--save` names. Checks that they can be written before anything is measured.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_seg.errors import ConfigurationError
from edge_seg.files import replacing

from .chart import draw_chart
from .page import render_page
from .rows import RESULTS_NAME, Result

# Of the JSON files that `--save` names.
FORMAT = 1
CHART_NAME = "chart.png"
PAGE_NAME = "report.html"


def new_folder(out: Path) -> Path:
    """Make a folder named by the time; earlier ones are never overwritten."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for number in range(1000):
        folder = out / (stamp if number == 0 else f"{stamp}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigurationError(
                f"{folder} cannot be made ({error.strerror}); choose another folder with --out."
            ) from error
        return folder
    raise ConfigurationError(
        f"{out} already holds a thousand results of this second; choose another folder with --out."
    )


def check_out(out: Path, option: str = "--out") -> None:
    """Raise `ConfigurationError` if no folder can be made in `out`, for use before measuring."""
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigurationError(
            f"{out} cannot be made: {there} is no folder to write to; choose another with {option}."
        )


def check_save(path: Path) -> None:
    """Raise `ConfigurationError` if the JSON file that `--save` names cannot be written or has its picture's name."""
    if path.is_dir() or path.suffix.lower() == ".png":
        what = "is a folder" if path.is_dir() else "is what the picture is called"
        raise ConfigurationError(f"{path} {what}; name a JSON file with --save.")
    check_out(path.parent, "--save")


def begun(kind: str, environment: dict[str, Any]) -> dict[str, Any]:
    """How the JSON file of a command begins: its format and kind, and when and where it was measured."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {"format": FORMAT, "kind": kind, "created": created, "environment": environment}


def save_json(found: dict[str, Any], path: Path) -> None:
    """Write plain JSON types to a file, making its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def write_report(result: Result, folder: Path) -> tuple[Path, Path, Path]:
    """Write all three files, the JSON first, so that no figures are lost if the chart cannot be drawn."""
    json_path, chart_path, page_path = folder / RESULTS_NAME, folder / CHART_NAME, folder / PAGE_NAME
    with replacing(json_path) as temporary:
        temporary.write_text(result.to_json(), encoding="utf-8")
    with replacing(chart_path) as temporary:
        draw_chart(result, temporary)
    with replacing(page_path) as temporary:
        temporary.write_text(render_page(result, chart_path.read_bytes()), encoding="utf-8")
    return json_path, chart_path, page_path
