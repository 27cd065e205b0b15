"""Prove a model's parity again on this machine: run the golden frames in its file on the machine's devices.

A device must reach the bound of the arithmetic it really uses (`spec.AGREEMENT_BOUNDS`). Knows no Keras: its labels
travel in the file.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .devices import device_problem, machine_devices, precision_problem
from .errors import DeviceError, ModelFileError
from .golden import decode_golden
from .modelfile import ModelHeader, read_model_header
from .phrases import first_line
from .proof import DeviceVerdict, judge_session
from .session import load_runtime, open_session
from .spec import GOLDEN_KEY


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        model: the file, or "the model".
        sha256: of the file.
        frames: number of golden frames in it.
        verdicts: one for each device that was tried.
        absent: device -> why it is not available here; only filled for "all", and not a failure.
    """

    model: str
    sha256: str
    frames: int
    verdicts: tuple[DeviceVerdict, ...]
    absent: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether at least one device was tried and all that were tried passed."""
        return bool(self.verdicts) and all(verdict.passed for verdict in self.verdicts)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, `passed` included."""
        return {**asdict(self), "passed": self.passed}


def verify(model: str | os.PathLike[str] | bytes, device: str = "auto") -> VerifyReport:
    """Run the golden frames on a device, or on all that are available, and compare with Keras' labels.

    Args:
        model: path of an ONNX file of ours, or its bytes.
        device: as `open_session` takes it, or "all" for every device of this machine.

    Raises:
        ModelFileError: no model of ours, or one without golden frames.
        DeviceError: the device that was named is not available.
    """
    header = read_model_header(model)
    frames, labels = golden_of(header)
    names, absent = present_devices(header.spec.precision) if device == "all" else ([device], {})
    verdicts = []
    for name in names:
        try:
            verdicts.append(_judge(model, name, frames, labels))
        except DeviceError as error:
            if device != "all":
                raise
            verdicts.append(DeviceVerdict(device=name, passed=False, reason=first_line(error), seconds=0.0))
    return VerifyReport(
        model=header.name, sha256=header.sha256, frames=len(frames), verdicts=tuple(verdicts), absent=absent
    )


def golden_of(header: ModelHeader) -> tuple[np.ndarray, np.ndarray]:
    """The golden frames (N, H, W, 3) and labels (N, H, W) in a file; `ModelFileError` when there are none."""
    header.spec  # noqa: B018  raises first if the file is ONNX, but not ours
    if GOLDEN_KEY not in header.contents.metadata:
        raise ModelFileError(f"{header.name} has no golden frames to verify with. Export it again: python -m export")
    return decode_golden(header.contents.metadata[GOLDEN_KEY])


def present_devices(precision: str) -> tuple[list[str], dict[str, str]]:
    """(devices that seem available for files of `precision`, other device -> why not), each GPU by its number."""
    ort = load_runtime()
    present: list[str] = []
    absent: dict[str, str] = {}
    for name in machine_devices():
        problem = device_problem(ort, name) or precision_problem(name, precision)
        if problem:
            absent[str(name)] = problem
        else:
            present.append(str(name))
    return present, absent


def _judge(model: Any, device: str, frames: np.ndarray, labels: np.ndarray) -> DeviceVerdict:
    with contextlib.closing(open_session(model, device=device)) as session:
        return judge_session(session, frames, labels)
