"""`python -m benchmarks readme`: README's figures and the pictures in docs/, made from the committed JSON files.

This command owns README's text between two marks: it is made from docs/benchmark/*.json alone, and a test checks that
they agree. Measures nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edge_seg.errors import ConfigurationError
from edge_seg.files import replacing
from train.files import DAMAGE

from .cases import REFERENCE
from .chart import draw_chart
from .environment import ROOT, processor
from .family import draw_family, family, trained
from .growth import FILE_NAME, read_growth
from .growth_chart import draw_growth, noisy_points
from .measure import NOISE_BOUND
from .rows import OUTRUN, ClipRow, Result, Row, read_result
from .table import NONE, markdown, number, peak_speed, percent, timed_calls
from .widths import draw_widths

BEGIN, END = "<!-- figures: begin (python -m benchmarks readme) -->", "<!-- figures: end -->"
FOLDER = ROOT / "docs" / "benchmark"
README = ROOT / "README.md"
BUNDLED, FAST, FULL, GPU, WIDTHS = "bundled.json", "fast.json", "full.json", "gpu.json", "widths.json"
# README's names of contenders, where the table's own are too short.
NAMES = {
    "Keras predict": "Keras `predict`",
    "Keras compiled": "Keras compiled (`tf.function`)",
    "onnxruntime default fp32": "onnxruntime, default options, fp32",
    "OpenCV dnn fp32": "OpenCV `dnn`, fp32",
    "LiteRT fp32": "TensorFlow Lite (LiteRT), fp32",
}


def add_readme_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks readme`."""
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit code 1 where README differs (default: write it)"
    )


def run_readme(options: argparse.Namespace) -> int:
    """Carry out `python -m benchmarks readme`; returns the exit code."""
    before = README.read_text(encoding="utf-8")
    after = with_figures(before, section(FOLDER))
    draw = pictures(FOLDER)
    if options.check:
        print(
            "README agrees with docs/benchmark." if before == after else "README differs: python -m benchmarks readme"
        )
        return 0 if before == after else 1
    with ExitStack() as stack:
        # All files are made before the first is renamed.
        for path, make in draw.items():
            make(stack.enter_context(replacing(path)))
        stack.enter_context(replacing(README)).write_text(after, encoding="utf-8")
    print("wrote " + ", ".join(str(path.relative_to(ROOT)) for path in (README, *draw)))
    return 0


def with_figures(readme: str, figures: str) -> str:
    """README's text with the figures between its marks; raises `ConfigurationError` without one pair of marks."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise ConfigurationError(f"README.md needs the two lines {BEGIN!r} and {END!r}, once each and in this order.")
    head, tail = readme.split(BEGIN)[0], readme.split(END)[1]
    return f"{head}{BEGIN}\n{figures.strip()}\n{END}{tail}"


def section(folder: Path) -> str:
    """README's figures as Markdown, from the JSON files of a folder."""
    bundled, fast, full = read_result(folder / BUNDLED), _result(folder / FAST), _result(folder / FULL)
    growth = _growth(folder)
    blocks = [
        *_blocks(bundled, "The bundled model"),
        limit_text(bundled),
        "![Throughput, parity, memory and stages of the bundled model](docs/benchmark.png)",
        *_blocks(fast, "The bundled model for speed"),
        *_blocks(full, "The notebook's network at full width"),
    ]
    if (folder / GPU).is_file():
        blocks += gpu_blocks(read_gpu(folder / GPU))
    if growth is not None:
        picture = "![Cost against batch, resolution, threads and clip length](docs/benchmark/growth.png)"
        blocks += [growth_text(growth), picture]
    blocks.append("![Accuracy against speed](docs/benchmark/accuracy_speed.png)")
    return "\n\n".join(block for block in blocks if block)


def pictures(folder: Path) -> dict[Path, Callable[[Path], None]]:
    """The path of each picture, and a function that draws it from the JSON files.

    Raises:
        ConfigurationError: the results cannot be shown in one picture.
    """
    bundled = read_result(folder / BUNDLED)
    others = (("bundled, fast", FAST), ("full width", FULL))
    found = [(name, _result(folder / file)) for name, file in others]
    results = [("bundled", bundled), *((name, result) for name, result in found if result is not None)]
    family(results)
    drawn: dict[Path, Callable[[Path], None]] = {
        folder.parent / "benchmark.png": lambda target: draw_chart(bundled, target),
        folder / "accuracy_speed.png": lambda target: draw_family(results, target),
    }
    growth = _growth(folder)
    if growth is not None:
        drawn[folder / "growth.png"] = lambda target: draw_growth(growth, target)
    if (folder / WIDTHS).is_file():
        widths = json.loads((folder / WIDTHS).read_text())
        drawn[folder / "widths.png"] = lambda target: draw_widths(widths, target)
    return drawn


def _growth(folder: Path) -> dict[str, Any] | None:
    return read_growth(folder / FILE_NAME) if (folder / FILE_NAME).is_file() else None


def _result(path: Path) -> Result | None:
    return read_result(path) if path.is_file() else None


def _blocks(result: Result | None, what: str) -> list[str]:
    return [_heading(result, what), speed_table(result), clip_table(result)] if result else []


def _heading(result: Result, what: str) -> str:
    size = "x".join(map(str, result.settings["size"]))
    machine = _machine(result.environment)
    count = next(iter(result.operations.values()), {"gflop": 0.0, "weights": 0})
    noise = [note.removeprefix("NOISY: ").split(". ")[0] for note in result.notes if note.startswith("NOISY: other")]
    noisy = "; ".join(["; a noisy run" if result.noisy else "", *noise])
    untrained = "" if trained(result) else " Its weights are untrained: its labels measure parity, not accuracy."
    return (
        f"**{what}** at {size}: {count['weights'] / 1e6:.1f} million weights, {count['gflop']:.1f} GFLOP a frame.\n\n"
        f"{machine}; {result.settings['repeats']} interleaved rounds, {timed_calls(result)}; mean IoU and agreement on "
        f"{result.data['frames']} frames of {result.data['name']}; {result.created[:10]}{noisy}.{untrained}"
        f"{_command(result)}"
    )


def _command(result: Result) -> str:
    options = result.settings.get("options")
    return f"\n\n```\npython -m benchmarks {options}\n```" if options else ""


def _machine(environment: dict[str, Any]) -> str:
    return f"{environment['cores']} cores of {processor(environment)}"


def speed_table(result: Result) -> str:
    """A Markdown table with a line for each contender, batch sizes side by side; edge_seg's fastest in bold."""
    batches = result.settings["batch_sizes"]
    cells = {(row.name, row.batch): row for row in result.rows}
    names = list(dict.fromkeys(row.name for row in result.rows))
    speed = [(f"batch {batch}, ms/frame", "x Keras `predict`") for batch in batches]
    # Columns that appear once are for the first batch size.
    others = f", batch {batches[0]}" if len(batches) > 1 else ""
    once = [f"{title}{others}" for title in ("of peak", "memory, MB", "mean IoU", "agreement")]
    head = ["contender", *(title for pair in speed for title in pair), *once]
    best = min(
        (row for row in result.rows if row.kind == "session" and row.status == "ok" and row.batch == batches[0]),
        key=lambda row: row.ms_median or 0.0,
        default=None,
    )
    lines = [head]
    for name in names:
        rows = [cells[name, batch] for batch in batches if (name, batch) in cells]
        bold = best is not None and name == best.name
        limited = not {_arithmetic(row) for row in rows} & _outrun(result)
        lines.append(_row_cells(name, rows, trained(result), bold=bold, limited=limited))
    return markdown(lines)


def _outrun(result: Result) -> set[str]:
    """The arithmetics whose peak a row exceeded: it was measured too low, or while something else computed."""
    return {_arithmetic(row) for row in result.rows if (row.share_of_peak or 0.0) > OUTRUN}


def _arithmetic(row: Row) -> str:
    return row.arithmetic or row.precision


def _row_cells(name: str, rows: Sequence[Row], accuracy: bool, *, bold: bool, limited: bool) -> list[str]:
    first = rows[0]
    shown = NAMES.get(name, name)
    if any(row.status != "ok" for row in rows):
        broken = next(row for row in rows if row.status != "ok")
        width = 2 * len(rows) + 4
        return [shown, f"{broken.status}: {broken.reason.split('. ')[0].rstrip('.')}", *[""] * (width - 1)]
    speeds = [text for row in rows for text in (number(row.ms_median, 1), _ratio(row))]
    iou = percent(first.mean_iou, 2) if accuracy else NONE
    found = [shown, *speeds, percent(first.share_of_peak if limited else None, 0), number(first.peak_mb, 0), iou]
    found.append(percent(first.agreement, 3))
    return _in_bold(found) if bold else found


def _in_bold(cells: Sequence[str]) -> list[str]:
    return [f"**{cell}**" for cell in cells]


def _ratio(row: Row) -> str:
    """How many times faster than Keras, with the quartiles over rounds."""
    if row.ratio is None or row.ratio_low is None or row.ratio_high is None or row.name == REFERENCE:
        return number(row.ratio, 2)
    return f"{row.ratio:.2f} ({row.ratio_low:.2f}–{row.ratio_high:.2f})"


def clip_table(result: Result) -> str:
    """The clip end to end as Markdown: frames/s, times the naive loop, share of what is possible; "" without a clip."""
    ours = [row for row in result.clip_rows if row.status == "ok" and row.allowed_fps]
    naive = [row for row in result.clip_rows if row.status == "ok" and not row.allowed_fps]
    if not ours:
        return ""
    clip = f"{result.clip['name']} ({result.clip['width']}x{result.clip['height']})"
    head = [f"{clip}, from decoding to encoded H.264 overlay", "frames/s", "x naive loop", "of possible", "memory, MB"]
    best = max(ours, key=lambda row: row.frames_per_s or 0.0)
    return markdown([head, *(_clip_cells(row, bold=row is best) for row in (*naive, *ours))])


def _clip_cells(row: ClipRow, *, bold: bool) -> list[str]:
    name = row.name if row.allowed_fps else "naive loop: cv2 reads, Keras predicts, cv2 blends and writes"
    times, share = number(row.times_naive or 1.0, 1), percent(row.share_of_allowed, 0)
    cells = [name, number(row.frames_per_s, 1), times, share, number(row.peak_mb, 0)]
    return _in_bold(cells) if bold else cells


def limit_text(result: Result) -> str:
    """The machine's limits in words, and how near to them the fastest row comes."""
    peaks = result.limits.get("peaks", {})
    if not peaks:
        return ""
    outrun = _outrun(result)
    words = [_peak_words(name, peak, outrun=name in outrun) for name, peak in peaks.items()]
    memory = result.limits["bandwidth"]
    rows = [row for row in result.rows if row.kind == "session" and row.status == "ok" and row.share_of_limit]
    best = min(rows, key=lambda row: row.ms_median or 0.0, default=None)
    told = best is not None and _arithmetic(best) not in outrun
    near = f" {best.name} reaches {percent(best.share_of_limit, 0)} of the roofline limit." if best and told else ""
    return f"The limit, measured in the same run: {', '.join(words)}; memory {memory['best_gb_s']:.1f} GB/s.{near}"


def _peak_words(name: str, peak: dict[str, Any], *, outrun: bool) -> str:
    if not peak["gflops"]:
        return f"{name}: no such units here"
    remark = ", exceeded by a row above: no share is given" if outrun else ""
    return f"{name} {peak_speed(name, peak)} ({peak['library']}{remark})"


def read_gpu(path: Path) -> dict[str, Any]:
    """Read a file of `benchmarks gpu`. Raises `ConfigurationError` if it is not one."""
    try:
        found = json.loads(path.read_text())
        gpu_blocks(found)
    except (OSError, *DAMAGE) as error:
        raise ConfigurationError(f"{path} is not a whole file of `benchmarks gpu` ({error!r}).") from error
    return dict(found)


def gpu_blocks(found: dict[str, Any]) -> list[str]:
    """Blocks on a `benchmarks gpu`: a heading, frames/s with the share of the GPU's peak by batch size and the least
    agreement of all of them, notes."""
    count, limits = found["operations"], found["limits"]
    network = f" ({count['weights'] / 1e6:.1f} M weights, {count['gflop']:.1f} GFLOP a frame)" if count else ""
    gpu = limits.get("gpu") or ", ".join(found["environment"]["gpus"]) or "GPU"
    peaks = {name: peak["gflops"] / 1000 for name, peak in limits.get("peaks", {}).items()}
    shares = (
        f", and the share of the {peaks['fp16']:,.0f} TFLOP/s (fp16) or {peaks['fp32']:,.0f} (fp32) that a matrix "
        "product of torch reached there"
        if {"fp16", "fp32"} <= peaks.keys()
        else ""
    )
    heading = (
        f"**On a GPU**: FCN8{network} at {'x'.join(map(str, found['size']))} on one {gpu}, {found['repeats']} "
        f"interleaved rounds, {found['created'][:10]}; frames/s from frames to labels in the host's memory, copies "
        f"included{shares}."
    )
    rows = {(row["name"], row["batch"]): row for row in found["rows"]}
    batches = sorted({batch for _, batch in rows})
    lines = [["contender", *(f"batch {batch}" for batch in batches), "agreement"]]
    for name in dict.fromkeys(name for name, _ in rows):
        cells = [_gpu_cell(rows.get((name, batch))) for batch in batches]
        told = (row["agreement"] for (other, _), row in rows.items() if other == name and row["agreement"] is not None)
        line = [name, *cells, percent(min(told, default=None), 3)]
        lines.append(_in_bold(line) if name == "edge_seg cuda fp16" else line)
    said = any(note.startswith("NOISY") for note in found["notes"])
    notes = [*found["notes"], *([] if said else _restless(found["rows"]))]
    return [heading, markdown(lines), " ".join(f"{note.rstrip('.')}." for note in notes)]


def _restless(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence on the rows whose repeats lie far apart, if any."""
    wide = [row for row in rows if (row.get("spread") or 0.0) > NOISE_BOUND]
    named = ", ".join(f"{row['name']} at batch {row['batch']} ({percent(row['spread'], 0)})" for row in wide)
    return [f"Repeats spread by more than {percent(NOISE_BOUND, 0)}: {named}"] if wide else []


def _gpu_cell(row: dict[str, Any] | None) -> str:
    if row is None or row["status"] != "ok":
        return NONE if row is None else "no memory left" if "memory" in row["reason"] else row["status"]
    share = f" ({percent(row['share_of_peak'], 0)})" if row["share_of_peak"] else ""
    return f"{row['frames_per_s']:,.0f}{share}"


def growth_text(growth: dict[str, Any]) -> str:
    """The growth file in words: its axes, memory against the length of a clip, and noisy points."""
    lengths = [point for point in growth["axes"].get("length", ()) if point["status"] == "ok"]
    words = []
    network = [axis for axis in growth["axes"] if axis != "length"]
    if network and "parameters" in growth:
        words.append(f"Cost against {', '.join(network)}: a network of {growth['parameters'] / 1e6:.1f} M weights.")
    if lengths:
        each = ", ".join(
            f"{point['value']:g} min ({point['frames']:,} frames{_at(point)}) {point['peak_mb']:,.0f} MB"
            for point in lengths
        )
        strides = sorted({point["stride"] for point in lengths})
        words.append(
            f"Memory against the length of a clip, one frame in {' or '.join(map(str, strides))} segmented and the "
            f"others decoded only, at the most: {each} (bundled clip, looped, and int8 model, `--save jsonl`)."
        )
    points = [point for axis in growth["axes"].values() for point in axis]
    if noisy := noisy_points(points, growth["environment"]["cores"]):
        words.append(f"{len(noisy)} of {len(points)} points were noisy: hollow in the picture.")
    command = f"python -m benchmarks growth {growth.get('options', '')}".rstrip()
    return f"**Growth** (`{command}`), on {_machine(growth['environment'])}. " + " ".join(words)


def _at(point: dict[str, Any]) -> str:
    """The frames/s of a looped clip in words, if changed: an hour is often measured at a lower rate."""
    return f" at {point['fps']:g}/s" if point.get("fps") else ""
