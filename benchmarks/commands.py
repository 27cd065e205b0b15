"""The command line of `python -m benchmarks`: its commands, and the options of `run` and `compare`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from edge_seg import bundled_clip, bundled_model
from edge_seg.arguments import Parser, positive
from edge_seg.console import harmless, put
from edge_seg.progress import columns_of
from train.arguments import path

from .arguments import device_list, peer_list, whole_numbers
from .benchmark import run_benchmark
from .cases import PEERS
from .chart import import_pyplot
from .compare import compare, render_comparison
from .figures import add_readme_arguments, run_readme
from .gpu import add_gpu_arguments, run_gpu
from .growth import add_growth_arguments, run_growth
from .report import check_out, new_folder, write_report
from .rows import read_result
from .settings import BUNDLED_RUN, DEFAULT_OUT, QUICK, Settings, default_data
from .smoothing import add_smoothing_arguments, run_smoothing
from .table import render
from .training import add_training_arguments, run_training
from .widths import add_widths_arguments, run_widths

_EXTENT = ("batch_sizes", "repeats", "frames", "data_limit", "clip_frames")


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the command line names; returns the exit code."""
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    _, _, run = COMMANDS[options.command]
    return run(options)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed command line; without a command's name, `run` is meant."""
    given = list(arguments)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given.insert(0, "run")
    return _parser().parse_args(given)


def _run(options: argparse.Namespace) -> int:
    settings = read_settings(options)
    check_out(settings.out)
    import_pyplot()
    result = run_benchmark(settings, say=_progress)
    _progress("")
    try:
        # Neither a full disk nor a closed pipe may lose the figures: they are printed first and written in any case.
        put(*(result.to_json() if options.json else render(result)).removesuffix("\n").split("\n"))
    finally:
        paths = write_report(result, new_folder(settings.out))
    print("wrote " + ", ".join(str(path) for path in paths), file=sys.stderr)
    return 1 if result.failed else 0


def _compare(options: argparse.Namespace) -> int:
    before, after = read_result(options.before), read_result(options.after)
    comparison = compare(before, after, other_models=options.other_models)
    print(json.dumps(comparison.to_dict(), indent=2) + "\n" if options.json else render_comparison(comparison), end="")
    return 1 if comparison.losses else 0


def read_settings(options: argparse.Namespace) -> Settings:
    """What the options of `run` ask for."""
    clip = None if options.no_clip else options.clip or bundled_clip()
    settings = Settings(
        run=options.run or BUNDLED_RUN,
        models=tuple(options.model or [bundled_model()]),
        fp32=options.fp32,
        data=options.data or default_data(),
        clip=clip,
        peers=options.peers,
        devices=options.devices,
        notes=tuple(options.note or ()),
        out=options.out,
    )
    if options.quick:
        settings = replace(settings, **QUICK)
    given = {name: getattr(options, name) for name in _EXTENT}
    return replace(settings, **{name: value for name, value in given.items() if value is not None})


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks",
        description="Throughput and IoU parity of edge_seg against Keras. Without a COMMAND it measures, as "
        "`run` does, whose options `python -m benchmarks run --help` lists.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, add_arguments, _) in COMMANDS.items():
        add_arguments(commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}."))
    return parser


def _add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "How many times faster B is than A. Exit code 1: a loss beyond the noise, in speed, mean IoU or agreement with "
        "Keras; 2: the two cannot be compared."
    )
    add = parser.add_argument
    add("before", type=Path, metavar="A.json", help="results.json of the first run, or its folder")
    add("after", type=Path, metavar="B.json", help="results.json of the second run, or its folder")
    add("--other-models", action="store_true", help="let models be other files (default: refuse, as unlike machines)")
    add("--json", action="store_true", help="print JSON instead of a table (default: a table)")


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Measure; without options, what ships with the project."
    add = parser.add_argument
    add(
        "--run",
        type=Path,
        metavar="RUN",
        help="folder of the Keras run that is the reference (default: the bundled weights)",
    )
    add(
        "--model",
        type=Path,
        action="append",
        metavar="FILE",
        help="ONNX file that takes part; give it again for more (default: the bundled model)",
    )
    add(
        "--fp32", type=Path, metavar="FILE", help="the run's own fp32 ONNX file (default: exported once into OUT/cache)"
    )
    add(
        "--data",
        type=Path,
        metavar="DATASET",
        help="dataset whose test folder is segmented (default: dataset1 of EDGE_SEG_DATA, else rendered scenes)",
    )
    clip = parser.add_mutually_exclusive_group()
    clip.add_argument(
        "--clip",
        type=Path,
        metavar="FILE",
        help="video for the measurement from end to end (default: the bundled clip)",
    )
    clip.add_argument(
        "--no-clip", action="store_true", help="leave out the measurement from end to end (default: do it)"
    )
    add("--data-limit", type=positive, metavar="N", help="frames of the data, evenly spread (default: all)")
    add("--clip-frames", type=positive, metavar="N", help="frames of the clip (default: all)")
    add("--note", action="append", metavar="TEXT", help="a line that the result keeps among its notes (default: none)")
    add("--devices", type=device_list, metavar="D,D", help="edge_seg's devices (default: each that is present)")
    add(
        "--peers",
        type=peer_list,
        default=PEERS,
        metavar="P,P",
        help=f"other runtimes that take part, of {','.join(PEERS)}, or none (default: all; the missing are skipped)",
    )
    _add_extent(parser)
    add(
        "--out",
        type=path,
        default=DEFAULT_OUT,
        metavar="DIR",
        help="each run gets a folder of its own in DIR (default: %(default)s)",
    )
    add("--json", action="store_true", help="print results.json instead of the tables (default: tables)")


def _add_extent(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how much is measured."""
    defaults = Settings(run=BUNDLED_RUN, models=())
    add = parser.add_argument
    add(
        "--batch-sizes",
        type=whole_numbers,
        metavar="N,N",
        help=f"frames a call (default: {','.join(map(str, defaults.batch_sizes))}; 1 with --quick)",
    )
    add(
        "--repeats",
        type=positive,
        metavar="N",
        help=f"turns of each contender (default: {defaults.repeats}; {QUICK['repeats']} with --quick)",
    )
    add(
        "--frames",
        type=positive,
        metavar="N",
        help=f"frames of one turn (default: {defaults.frames}; {QUICK['frames']} with --quick)",
    )
    add(
        "--quick",
        action="store_true",
        help="a rough look: few frames, batch 1, a second of the clip once (default: the whole)",
    )


def _progress(text: str) -> None:
    """Show progress on standard error: one line that is overwritten on a terminal, a new line each elsewhere."""
    text = harmless(text)
    if sys.stderr.isatty():
        print(f"\r\033[K{text[: columns_of(sys.stderr) - 1]}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


# Name -> what it does in words, what adds its options, and what carries it out.
COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]] = {
    "run": ("measure (the default)", _add_run_arguments, _run),
    "compare": ("compare two results", _add_compare_arguments, _compare),
    "growth": ("cost against batch, resolution, threads and clip length", add_growth_arguments, run_growth),
    "widths": (
        "mean IoU, size and speed of each width that `python -m train study widths` trained",
        add_widths_arguments,
        lambda options: run_widths(options, say=_progress),
    ),
    "smoothing": (
        "what predict --smooth gives: mean IoU on rendered drives, flicker on them and on real clips",
        add_smoothing_arguments,
        lambda options: run_smoothing(options, say=_progress),
    ),
    "readme": (
        "README's figures and the pictures of docs/, from docs/benchmark/*.json",
        add_readme_arguments,
        run_readme,
    ),
    "gpu": (
        "a CUDA machine in one run: edge_seg, the same bound, torch, the matrix peak, the decoder",
        add_gpu_arguments,
        run_gpu,
    ),
    "training": (
        "images a second of the input pipeline, of the training step and of both",
        add_training_arguments,
        run_training,
    ),
}
