"""`python -m export RUN --out model.onnx`: write a run of `train fit` as one ONNX file of proved parity with Keras.

Reads the command line and turns errors into one line and an exit code; knows nothing of how a model is made.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_seg.arguments import Parser, positive
from edge_seg.console import answer, harmless, put
from edge_seg.errors import MissingDependencyError
from edge_seg.phrases import percent
from edge_seg.signals import asked_twice, held_back, interrupt

# Everything else is imported where it is used, so that a missing package is one line.
if TYPE_CHECKING:
    from .options import ExportOptions

INSTALL = "pip install -e '.[export,gpu]'"


def main(argv: list[str] | None = None) -> int:
    """Export one run; returns the exit code (0 published, 1 failed, 2 wrong usage)."""
    watch = _Watch()
    return answer(lambda: _run(argv, watch), afterwards=watch.outcome)


def _run(argv: list[str] | None, watch: _Watch) -> int:
    args = build_parser().parse_args(argv)
    watch.begin(args.out)
    with asked_twice(interrupt, last_words=f"error: stopped at once; {args.out} is whole, the old or the new."):
        require_tools()
        from .publish import export_run

        options = options_from(args)
        report = export_run(args.run, options, say=_say)
    put(*summary_lines(report), f"report: {options.report_path}")
    return 0


class _Watch:
    """Tells whether this export has published its model file, for a user who interrupts it."""

    def __init__(self) -> None:
        self._out: Path | None = None
        self._before: tuple[int, int] | None = None

    def begin(self, out: Path) -> None:
        """Remember the file that has the name now, if any."""
        self._out, self._before = out, _identity(out)

    def outcome(self) -> str:
        """A sentence on whether the model file was published; empty if the export never began."""
        if self._out is None:
            return ""
        if _identity(self._out) == self._before:
            return "Nothing was published."
        return f"{self._out} was published before."


def build_parser() -> argparse.ArgumentParser:
    """The command-line parser; its help states every default."""
    from train.arguments import size

    parser = Parser(
        prog="python -m export",
        description="Make a run of `python -m train fit` one ONNX file whose parity with Keras is proved.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run of `python -m train fit`")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="the model file to write, ending in .onnx"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="of weights and arithmetic (default: fp32)",
    )
    parser.add_argument(
        "--data",
        metavar="DATASET",
        type=Path,
        help="dataset for gate and calibration (default: the one the run recorded)",
    )
    parser.add_argument(
        "--opset",
        type=positive,
        default=17,
        metavar="N",
        help="ONNX operator set, 15 to 22; older runtimes need a lower one (default: 17)",
    )
    parser.add_argument(
        "--outputs",
        metavar="NAMES",
        type=_outputs,
        default=("labels",),
        help='"labels" or "labels,confidence" (default: labels)',
    )
    parser.add_argument(
        "--confidence-dtype",
        choices=("float16", "float32"),
        default="float16",
        help="type of the confidence (default: float16)",
    )
    parser.add_argument(
        "--input-size", metavar="HxW", type=size, help="height and width, multiples of 32 (default: the run's)"
    )
    parser.add_argument(
        "--dynamic-size", action="store_true", help="accept any multiple of 32 at run time (default: the one size)"
    )
    parser.add_argument("--name", metavar="NAME", default="fcn8", help="short name stored in the file (default: fcn8)")
    parser.add_argument(
        "--license", metavar="TEXT", help="terms of the weights, stored in the file (default: the run's)"
    )
    _add_proof_arguments(parser)
    _add_int8_arguments(parser)
    return parser


def _add_proof_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("proof")
    group.add_argument(
        "--gate-on",
        choices=("auto", "val", "test", "rendered"),
        default="auto",
        help="what Keras and ONNX are compared on; auto: the run's validation images, "
        "or rendered scenes where they are not at hand (default: auto)",
    )
    group.add_argument(
        "--gate-frames", metavar="N", type=positive, default=64, help="at most so many of them (default: 64)"
    )
    group.add_argument(
        "--golden",
        choices=("rendered", "validation", "none"),
        default="rendered",
        help="frames that travel in the file with their Keras labels; "
        "only rendered ones may be handed on freely (default: rendered)",
    )
    group.add_argument("--golden-frames", metavar="N", type=positive, default=4, help="how many, 1 to 64 (default: 4)")
    group.add_argument(
        "--prove-on",
        metavar="DEVICE,...",
        type=lambda text: tuple(part.strip() for part in text.split(",")),
        default=(),
        help="devices that will run the file and must pass too, like cuda,openvino (default: the CPU alone)",
    )
    group.add_argument(
        "--report", metavar="FILE", type=Path, help="report as JSON (default: beside the model, NAME.report.json)"
    )


def _add_int8_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("int8")
    group.add_argument(
        "--calibration",
        choices=("minmax", "percentile", "entropy"),
        default="minmax",
        help="how ranges are found (default: minmax)",
    )
    group.add_argument(
        "--calibration-frames", metavar="N", type=positive, default=64, help="how many frames (default: 64)"
    )
    group.add_argument(
        "--percentile",
        metavar="P",
        type=float,
        default=99.99,
        help="share of values, in %%, kept in range by `percentile` (default: 99.99)",
    )
    group.add_argument(
        "--calibration-data",
        choices=("train", "rendered"),
        default="train",
        help="training images or rendered scenes (default: train)",
    )


def options_from(args: argparse.Namespace) -> ExportOptions:
    """The export's options from a parsed command line."""
    from .calibrate import Calibration
    from .options import ExportOptions

    return ExportOptions(
        out=args.out,
        precision=args.precision,
        opset=args.opset,
        outputs=args.outputs,
        confidence_type=args.confidence_dtype,
        input_size=args.input_size,
        dynamic_size=args.dynamic_size,
        data=args.data,
        gate_on=args.gate_on,
        gate_frames=args.gate_frames,
        golden=args.golden,
        golden_frames=args.golden_frames,
        calibration=Calibration(method=args.calibration, frames=args.calibration_frames, percentile=args.percentile),
        calibration_data=args.calibration_data,
        license=args.license,
        name=args.name,
        prove_on=args.prove_on,
        report=args.report,
    )


def require_tools() -> None:
    """Raise `MissingDependencyError` unless Keras on TensorFlow, tf2onnx, onnx and onnxruntime can be imported."""
    from train.quiet import import_keras_quietly

    asked = os.environ.get("KERAS_BACKEND", "tensorflow")
    if asked != "tensorflow":
        raise MissingDependencyError(
            f"export traces the network with TensorFlow, and KERAS_BACKEND is {asked!r}. "
            "Run it as: KERAS_BACKEND=tensorflow python -m export ... (a run of any backend can be exported)"
        )
    for module in ("keras", "tensorflow", "onnx", "tf2onnx", "onnxruntime"):
        try:
            with held_back():
                import_keras_quietly() if module == "keras" else __import__(module)
        except ImportError as error:
            raise MissingDependencyError(f"export needs {module} ({error}). From the clone: {INSTALL}") from error
    import keras

    if keras.backend.backend() != "tensorflow":
        raise MissingDependencyError(
            f"export traces the network with TensorFlow, and keras.json sets Keras up for {keras.backend.backend()!r}. "
            "Run it as: KERAS_BACKEND=tensorflow python -m export ..."
        )


def summary_lines(report: dict[str, Any]) -> list[str]:
    """A published model in a few lines: size, agreement with Keras, mean IoU."""
    gate = report["gate"]
    lines = [
        f"{report['out']}: {report['size_bytes'] / 1e6:.1f} MB, {report['precision']}, {report['nodes']} nodes, "
        f"opset {report['opset']} (IR {report['ir_version']})",
        f"{percent(gate['agreement'], 4)} of {gate['pixels']} pixels agree with Keras on {gate['source']} "
        f"(at least {percent(gate['bound'], 2)} must); "
        f"worst logit error {gate['worst_logit_error']:.2g} beside logits up to {gate['largest_logit']:.3g}",
    ]
    if gate["mean_iou_points"] is not None:
        lines.append(
            f"mean IoU {gate['mean_iou_onnx']:.4f}, Keras' {gate['mean_iou_keras']:.4f} "
            f"({gate['mean_iou_points']:+.3f} points)"
        )
    return lines


def _identity(path: Path) -> tuple[int, int] | None:
    """Inode and modification time of a file; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _outputs(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    if found not in (("labels",), ("labels", "confidence")):
        raise argparse.ArgumentTypeError(f'expected "labels" or "labels,confidence"; got {text!r}')
    return found


def _say(line: str) -> None:
    # A run's folders and files may have any name.
    print(harmless(line), file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
