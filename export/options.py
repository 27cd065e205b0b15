"""The options of an export as one frozen record, checked when it is made. Knows nothing of how an export is done."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from edge_seg.devices import parse_device
from edge_seg.errors import ConfigurationError
from edge_seg.golden import MAX_FRAMES
from edge_seg.spec import PRECISIONS
from train.fcn8 import check_input_size

from .calibrate import Calibration
from .convert import DEFAULT_OPSET, MAX_OPSET, MIN_OPSET

DEFAULT_GOLDEN = 4


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export, and how.

    Attributes:
        out: the model file, `.onnx`.
        precision: "fp32", "fp16" or "int8".
        opset: version of the standard operators.
        outputs: ("labels",) or ("labels", "confidence").
        confidence_type: "float16" or "float32".
        input_size: (height, width); the run's own if None.
        dynamic_size: accept other multiples of 32 too.
        data: dataset to use instead of the one the run recorded.
        gate_on: "auto", "val", "test" or "rendered": the frames that the gate compares.
        gate_frames: most frames of the gate.
        golden: "rendered", "validation" or "none": frames that travel in the file.
        golden_frames: number of golden frames.
        calibration: how int8 finds activation ranges.
        calibration_data: "train" or "rendered".
        license: terms of the weights; the run's own if None.
        name: short name of the model.
        prove_on: devices besides the CPU on which the file must pass before it is published.
        report: the report's file; beside the model by default.
    """

    out: Path
    precision: str = "fp32"
    opset: int = DEFAULT_OPSET
    outputs: tuple[str, ...] = ("labels",)
    confidence_type: str = "float16"
    input_size: tuple[int, int] | None = None
    dynamic_size: bool = False
    data: Path | None = None
    gate_on: str = "auto"
    gate_frames: int = 64
    golden: str = "rendered"
    golden_frames: int = DEFAULT_GOLDEN
    calibration: Calibration = field(default_factory=Calibration)
    calibration_data: str = "train"
    license: str | None = None
    name: str = "fcn8"
    prove_on: tuple[str, ...] = ()
    report: Path | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigurationError(f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}.")
        if self.out.suffix != ".onnx":
            raise ConfigurationError(f"--out must name a file ending in .onnx; got {str(self.out)!r}.")
        for option, path in (("--out", self.out), ("--report", self.report_path)):
            folder = path.absolute().parent
            if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
                raise ConfigurationError(
                    f"{option} must name a file in a folder that exists and takes new files; got {str(path)!r}."
                )
        if self.report_path.resolve() == self.out.resolve():
            raise ConfigurationError(f"--report must be another file than --out; both are {str(self.out)!r}.")
        self._refuse_idle_options()
        if not MIN_OPSET <= self.opset <= MAX_OPSET:
            raise ConfigurationError(f"opset must lie between {MIN_OPSET} and {MAX_OPSET}; got {self.opset}.")
        if not 1 <= self.golden_frames <= MAX_FRAMES or self.gate_frames < 1:
            raise ConfigurationError(
                f"golden frames must be 1 to {MAX_FRAMES} and gate frames at least 1; "
                f"got {self.golden_frames} and {self.gate_frames}."
            )
        if self.input_size is not None:
            check_input_size(self.input_size)
        if "auto" in {parse_device(device).kind for device in self.prove_on}:
            raise ConfigurationError(
                "--prove-on names devices, like cuda or openvino; auto would be none in particular."
            )

    def _refuse_idle_options(self) -> None:
        """Raise `ConfigurationError` for an option that would change nothing, since another is missing."""
        if self.precision != "int8" and (self.calibration, self.calibration_data) != (Calibration(), "train"):
            raise ConfigurationError(
                f"calibration is for --precision int8; this export is {self.precision}. Add --precision int8, or leave "
                "the options of calibration out."
            )
        if self.golden == "none" and self.golden_frames != DEFAULT_GOLDEN:
            raise ConfigurationError("--golden-frames needs golden frames; leave out --golden-frames or --golden none.")
        calibrates = self.precision == "int8" and self.calibration_data == "train"
        if self.data is not None and self.gate_on == "rendered" and self.golden != "validation" and not calibrates:
            raise ConfigurationError(
                "--data is for images of the gate and of calibration, and both are to be rendered; leave out --data or "
                "--gate-on rendered."
            )
        if self.confidence_type != "float16" and "confidence" not in self.outputs:
            raise ConfigurationError(
                "--confidence-dtype needs a confidence: add --outputs labels,confidence, or leave it out."
            )

    @property
    def report_path(self) -> Path:
        return self.report or self.out.with_suffix(".report.json")
