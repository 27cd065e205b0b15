"""The `edge-seg` command: its arguments, its exit codes, its errors. What the commands do is in `commands.py`.

Imports nothing heavy, so that `--help` answers at once. Exit codes: 0 all done, 1 something failed, 2 a wrong call.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from . import __version__
from .arguments import Parser, name, number, positive
from .codecs import CODECS
from .console import answer, put_error
from .devices import parse_device
from .errors import ConfigurationError
from .native import end_program
from .signals import asked_twice, held_back, interrupt

DEVICE_HELP = "auto, cpu, openvino, cuda[:N] or tensorrt[:N]; a named device is that one or an error"
MODEL_HELP = "ONNX file, or fast, the bundled model for speed (default: best, the accurate one)"


class _Parser(Parser):
    """With `--json`, an error of the call is an object on stdout too."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Print the message, and exit."""
        if message and "--json" in self._given:
            put_error(message.removeprefix("error: ").rstrip())
        super().exit(status, message)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(prog="edge-seg", description="Road-scene segmentation of video from one ONNX file.")
    parser.add_argument("--version", action="version", version=f"edge-seg {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_predict(commands)
    info = _add_command(commands, "info", "what a model file says of itself, its licence terms too")
    info.add_argument("model", metavar="MODEL", nargs="?", type=name, help=MODEL_HELP)
    verify = _add_command(commands, "verify", "prove parity with Keras again, on this machine")
    verify.add_argument("model", metavar="MODEL", nargs="?", type=name, help=MODEL_HELP)
    verify.add_argument(
        "--device",
        type=_device_or_all,
        default="auto",
        metavar="D",
        help=f"{DEVICE_HELP}; all proves each that is here (default: auto)",
    )
    checks = _add_command(commands, "checks", "versions, devices, and what auto would pick here and why")
    demo = _add_command(commands, "demo", "the bundled clip through a bundled model")
    demo.add_argument("-m", "--model", type=name, metavar="MODEL", help=MODEL_HELP)
    demo.add_argument(
        "-o",
        "--out",
        type=name,
        metavar="OUT",
        help="file or folder for the overlay, which replaces one that is there (default: edge_seg_out/)",
    )
    demo.add_argument("--device", type=_device, default="auto", metavar="D", help=f"{DEVICE_HELP} (default: auto)")
    for command in (info, verify, checks, demo):
        _add_json(command)
    return parser


def _add_command(commands: argparse._SubParsersAction[_Parser], name: str, text: str) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")


def _add_predict(commands: argparse._SubParsersAction[_Parser]) -> None:
    predict = commands.add_parser(
        "predict",
        help="segment videos, pictures, folders, cameras and streams",
        description="Segment videos, pictures, folders, cameras and streams. The first Ctrl-C finishes what is under "
        "way; a file then stays NAME.partial.mp4, playable. The second stops at once.",
    )
    predict.add_argument(
        "source",
        metavar="SOURCE",
        nargs="+",
        help='video, picture, folder, quoted "glob", camera index, address '
        "(rtsp, http, https, rtmp, tcp, udp), or - for what is piped in",
    )
    predict.add_argument("-m", "--model", type=name, metavar="MODEL", help=MODEL_HELP)
    predict.add_argument(
        "-o",
        "--out",
        type=name,
        metavar="OUT",
        help="a file for one source, a folder for many (default: edge_seg_out/)",
    )
    predict.add_argument("--device", type=_device, default="auto", metavar="D", help=f"{DEVICE_HELP} (default: auto)")
    predict.add_argument(
        "--batch", type=positive, default=1, metavar="N", help="frames a run, always 1 with a live source (default: 1)"
    )
    _add_results(predict)
    _add_frames(predict)
    _add_encoding(predict)
    _add_json(predict)


def _add_results(predict: argparse.ArgumentParser) -> None:
    predict.add_argument(
        "--save", default="overlay", metavar="KINDS", help="comma list of overlay,mask,labels,jsonl (default: overlay)"
    )
    predict.add_argument(
        "--alpha",
        type=partial(number, lowest=0.0, highest=1.0),
        default=0.5,
        metavar="A",
        help="overlay: 0 frame alone, 1 colours alone (default: 0.5)",
    )
    again = predict.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="keep what an earlier run finished from the same source, by the same model and options, and whatever a "
        "live source gave; make the rest anew (default: refuse)",
    )
    again.add_argument("--overwrite", action="store_true", help="replace results (default: refuse)")


def _add_frames(predict: argparse.ArgumentParser) -> None:
    predict.add_argument(
        "--stride",
        type=positive,
        default=1,
        metavar="N",
        help="segment every Nth frame of a video; the others keep its labels (default: 1)",
    )
    predict.add_argument(
        "--smooth",
        type=positive,
        default=1,
        metavar="N",
        help="steady a video's classes: each pixel keeps its class, along the picture's motion, until up to N frames "
        "speak against it; 2 is a good N (default: 1, classes as the model gives them)",
    )
    predict.add_argument(
        "--track",
        type=positive,
        default=1,
        metavar="N",
        help="which video track of a file that has several, as cameras with two lenses write (default: 1)",
    )
    predict.add_argument("--limit", type=positive, metavar="N", help="stop after N frames a video (default: no limit)")
    predict.add_argument(
        "--drop-corrupt", action="store_true", help="leave damaged frames out (default: keep and count them)"
    )
    predict.add_argument(
        "--give-up",
        type=partial(number, lowest=0.1, highest=1e6),
        default=30.0,
        metavar="S",
        help="end a live source after S seconds without a frame (default: 30)",
    )
    predict.add_argument(
        "--wait",
        type=partial(number, lowest=0.0, highest=1e6),
        default=0.0,
        metavar="S",
        help="wait up to S seconds for a live source that is not there yet (default: 0)",
    )


def _add_encoding(predict: argparse.ArgumentParser) -> None:
    """Add the options for how videos are compressed."""
    predict.add_argument("--codec", choices=list(CODECS), default="libx264", help="video codec (default: libx264)")
    predict.add_argument(
        "--crf", type=int, metavar="N", help="quality, lower is better (default: 23 for libx264; 28, 35 for the others)"
    )
    predict.add_argument(
        "--preset", default="", metavar="P", help="encoder speed (default: superfast; 10 for libsvtav1)"
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json",
        action="store_true",
        help='print one JSON object on stdout, {"error": TEXT} if there is nothing else (default: text)',
    )


def _device(text: str) -> str:
    """The device name as given, checked so that a misspelled one is reported before anything is opened."""
    try:
        parse_device(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _device_or_all(text: str) -> str:
    return text if text == "all" else _device(text)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line. SOURCEs may stand before, between and after options; argparse takes only one group."""
    parser = build_parser()
    options, left = parser.parse_known_args(arguments)
    end = left.index("--") if "--" in left else len(left)
    unknown = left
    if options.command == "predict":
        # "-" itself is a source, standard input.
        unknown = [word for word in left[:end] if word.startswith("-") and word != "-"]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if left:
        options.source += left[:end] + left[end + 1 :]
    return options


def run() -> NoReturn:
    """The `edge-seg` command."""
    end_program(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    return answer(lambda: _run(given), as_json="--json" in given)


def _run(arguments: Sequence[str]) -> int:
    with asked_twice(interrupt, last_words="error: stopped at once."):
        with held_back():
            options = parse_arguments(arguments)
            # Imported only now, since nothing before it needs anything heavy.
            from . import commands

        command: Callable[[argparse.Namespace], int] = getattr(commands, options.command)
        return command(options)
