"""`python -m benchmarks widths STUDY`: cost and score of each width in a study of `python -m train study widths`.

The networks' fp32 files take turns on this machine, as in any benchmark; mean IoU is the study's own, over its seeds.
The result helps to choose a width: accuracy against size and against speed, as JSON, a table and one picture.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_seg.console import harmless
from edge_seg.errors import ConfigurationError
from edge_seg.files import replacing
from edge_seg.phrases import counted
from train.arguments import path, positive
from train.classes import CAMVID
from train.files import DAMAGE

from .benchmark import noise_notes
from .cases import session_contenders
from .chart import FAINT, FAMILIES, import_pyplot, logarithmic, saved_figure, style
from .data import load_data
from .environment import environment, processor
from .process import Say
from .report import begun, check_save, save_json
from .rows import Row
from .settings import DEFAULT_CACHE, check_run, exported, model_files
from .suite import Workload, measure_batch
from .table import markdown

DEFAULT_SAVE = Path("docs") / "benchmark" / "widths.json"


def add_widths_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks widths`."""
    add = parser.add_argument
    add("study", type=Path, metavar="STUDY", help="the --out folder of a finished `python -m train study widths`")
    add("--repeats", type=positive, default=5, metavar="N", help="turns of each width (default: %(default)s)")
    add("--frames", type=positive, default=4, metavar="N", help="frames of a turn (default: %(default)s)")
    add("--save", type=path, default=DEFAULT_SAVE, metavar="FILE",
        help="JSON to write, the picture beside it (default: %(default)s)")  # fmt: skip


def run_widths(options: argparse.Namespace, *, say: Say) -> int:
    """Carry out `python -m benchmarks widths`; returns the exit code."""
    check_save(options.save)
    import_pyplot()
    found = measure_widths(options.study, repeats=options.repeats, frames=options.frames, say=say)
    save_json(found, options.save)
    with replacing(options.save.with_suffix(".png")) as temporary:
        draw_widths(found, temporary)
    print(widths_table(found["widths"]))
    for note in found["notes"]:
        print(harmless(note), file=sys.stderr)
    return 0


def measure_widths(folder: Path, *, repeats: int, frames: int, say: Say) -> dict[str, Any]:
    """Scores, sizes and times of a study's widths, as plain JSON types.

    Raises:
        ConfigurationError: the folder has no finished study of widths.
        ModelFileError: a run is missing or damaged, or could not be exported.
    """
    points = read_study(folder)
    from train.run import open_run  # not at the top: it imports Keras, and every other command would wait
    from train.study import run_folder

    runs = {name: run_folder(folder, name, point["seeds"][0]) for name, point in points.items()}
    opened = {name: open_run(run) for name, run in runs.items()}
    shared = _recipe(next(iter(opened.values())).config, folder)
    surroundings = environment()
    rows, others = _measured(runs, repeats=repeats, frames=frames, say=say)
    for name, point in points.items():
        network = opened[name].fcn8
        point |= {"block_widths": list(network.block_widths), "head_widths": list(network.head_widths)}
        point |= {"parameters": network.parameters, "ms_median": rows[name].ms_median}
    return {
        **begun("widths", surroundings),
        **shared,
        "notes": noise_notes(rows.values(), [], [others], surroundings),
        "widths": sorted(points.values(), key=lambda point: point["parameters"]),
    }


def _recipe(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The size and the schedule of a study, from the configuration of one of its runs."""
    try:
        recipe = config["recipe"]
        schedule = {name: recipe[name] for name in ("epochs", "batch_size", "crop_size")}
        height, width = recipe["input_size"]
        return {"size": [height, width], "schedule": schedule}
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{folder}: its runs do not say by which recipe they were fitted ({error})."
        ) from error


def read_study(folder: Path) -> dict[str, dict[str, Any]]:
    """Variant -> its seeds and the mean IoU of each, from FOLDER/widths.json; raises `ConfigurationError`."""
    try:
        records = json.loads((folder / "widths.json").read_text())["runs"]
        points: dict[str, dict[str, Any]] = {}
        for record in records:
            if not isinstance(record["variant"], str) or not 0.0 <= record["mean_iou"] <= 1.0:
                raise ValueError(f"{record['variant']!r} with a mean IoU of {record['mean_iou']!r}")
            point = points.setdefault(record["variant"], {"name": record["variant"], "seeds": [], "mean_iou": []})
            point["seeds"].append(int(record["seed"]))
            point["mean_iou"].append(float(record["mean_iou"]))
    except (OSError, *DAMAGE) as error:
        raise ConfigurationError(
            f"{folder} holds no study of widths ({error}); make one with `python -m train study widths DATASET --out "
            f"{shlex.quote(str(folder))}`."
        ) from error
    if not points:
        raise ConfigurationError(f"{folder}: the study of widths has not finished a training; start it again.")
    return points


def _measured(runs: dict[str, Path], *, repeats: int, frames: int, say: Say) -> tuple[dict[str, Row], float | None]:
    """The row of each network's fp32 file on the CPU, measured in turns, and what other programs did meanwhile."""
    files = {}
    for name, run in runs.items():
        # Only speed matters here: few, rendered frames, so that near-ties of a short training do not fail the gate.
        proof = ("--precision", "fp32", "--gate-on", "rendered", "--gate-frames", "4", "--golden", "rendered")
        files[name] = exported(run, DEFAULT_CACHE, f"{check_run(run)}-fp32.onnx", proof, say)
    known, size = model_files(list(files.values()))
    contenders = session_contenders(known, ("cpu",), size, optional=False)
    with tempfile.TemporaryDirectory(prefix="edge_seg_widths_") as scratch:
        work = Workload(
            contenders=contenders,
            data=load_data(None, limit=frames),
            size=size,
            classes=CAMVID,
            repeats=repeats,
            frames=frames,
            scratch=Path(scratch),
        )
        measured = measure_batch(work, 1, say=say)
    for row in measured.rows:
        if row.ms_median is None:
            raise ConfigurationError(f"{row.name} could not be timed: {row.reason}")
    return dict(zip(runs, measured.rows, strict=True)), measured.others_cores


def widths_table(points: Sequence[dict[str, Any]]) -> str:
    """A Markdown table, the narrowest network first."""
    rows = [("filters of block 1 to 5, head", "parameters", "ms a frame, fp32", "mean IoU", "spread, points")]
    for point in points:
        widths = ",".join(map(str, point["block_widths"])) + " / " + ",".join(map(str, point["head_widths"]))
        scores = point["mean_iou"]
        spread = f"{100 * (max(scores) - min(scores)):.1f}"
        size, ms = f"{point['parameters']:,}", f"{point['ms_median']:.0f}"
        rows.append((widths, size, ms, f"{statistics.fmean(scores):.3f}", spread))
    return markdown(rows)


def draw_widths(found: dict[str, Any], path: Path) -> None:
    """Write the picture as PNG. Raises `MissingDependencyError` without matplotlib."""
    points, machine = found["widths"], found["environment"]
    with saved_figure(path, (9.6, 4.2)) as figure:
        size, speed = figure.subplots(1, 2, sharey=True)
        _draw_curve(size, points, [point["parameters"] / 1e6 for point in points])
        _draw_curve(speed, points, [point["ms_median"] for point in points])
        style(size, "against size", "million parameters (logarithmic); dash: one training", grid="both")
        shape = "x".join(map(str, found["size"]))
        style(speed, "against time", f"ms a frame, fp32, {shape} (logarithmic)", grid="both")
        size.set_ylabel("mean IoU on the held-out images, %")
        epochs = found["schedule"]["epochs"]
        title = f"FCN8 by width, {epochs} epochs each: {processor(machine)}, {counted(machine['cores'], 'core')}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")


def _draw_curve(axes: Any, points: Sequence[dict[str, Any]], places: Sequence[float]) -> None:
    hue = FAMILIES["session"][2]
    means = [100 * statistics.fmean(point["mean_iou"]) for point in points]
    axes.plot(places, means, "-o", color=hue, ms=7, lw=1.6)
    for point, place, mean in zip(points, places, means, strict=True):
        axes.plot(
            [place] * len(point["mean_iou"]), [100 * score for score in point["mean_iou"]], "_", color=FAINT, ms=9
        )
        axes.annotate(point["name"], (place, mean), (8, -12), textcoords="offset points", fontsize=8.2)
    logarithmic(axes, min(places) / 1.4, max(places) * 2.2)
