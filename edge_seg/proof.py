"""Proof of parity on this machine: a session against the golden frames in its file, and which device `auto` then takes.

Knows no runtime: it is handed open sessions, or functions that open them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .batches import run_in_parts
from .errors import DeviceError, EdgeSegError
from .modelfile import ModelHeader
from .phrases import first_line, percent
from .spec import AGREEMENT_BOUNDS, CLASS_IOU_BOUND, GOLDEN_KEY, VISIBLE_SHARE

if TYPE_CHECKING:
    from .ort_session import OrtSession
    from .session import Session

CURE = (
    "Use a device that passes (--device), or update this one's driver and onnxruntime; if none passes, copy or export "
    "the model again"
)


Candidate = tuple[str, Callable[[], "OrtSession"]]


def open_first_proved(candidates: list[Candidate], header: ModelHeader, *, batch_size: int = 1) -> OrtSession:
    """The first candidate that opens and agrees with the golden frames; its `reason` says why others were passed over.

    The last candidate is the CPU, on which the export gate proved the file, so it needs no second proof.
    """
    passed_over: list[str] = []
    for position, (name, attempt) in enumerate(candidates):
        try:
            session = attempt()
        except DeviceError as error:
            if position == len(candidates) - 1:
                raise
            # The first sentence says why; the rest, how to fix it, matters only if the device was asked for by name.
            passed_over.append(f"{name}: {re.split(r'[.] (?=[A-Z])', first_line(error))[0]}")
            continue
        proof, problem = ("the provider it was proved on at export", "")
        if position < len(candidates) - 1:
            proof, problem = prove(session, header, batch_size=batch_size)
        if not problem:
            reason = "; ".join([f"auto chose {name}, the fastest that keeps parity here: {proof}", *passed_over])
            session.device = replace(session.device, reason=reason)
            return session
        session.close()
        passed_over.append(f"{name}: {problem}")
    raise DeviceError(f"No device runs this model: {'; '.join(passed_over)}.")


def prove(session: Session, header: ModelHeader, *, batch_size: int = 1) -> tuple[str, str]:
    """Compare a session with the golden frames in its file: (proof, problem), one of them empty."""
    arithmetic = session.device.arithmetic
    from .golden import decode_golden  # here, so that `checks` works where cv2 does not load

    if GOLDEN_KEY not in header.contents.metadata:
        if arithmetic == session.spec.precision:
            return f"in the file's own {arithmetic}, unproved: the file has no golden frames", ""
        return "", f"would compute in {arithmetic}, and the file has no golden frames to prove that with"
    try:
        verdict = judge_session(session, *decode_golden(header.contents.metadata[GOLDEN_KEY]), batch_size=batch_size)
    except EdgeSegError as error:
        return "", first_line(error)
    assert verdict.agreement is not None
    assert verdict.bound is not None
    text = f"{percent(verdict.agreement, 3)} of the golden frames' pixels agree with Keras in {arithmetic}"
    text += f" (bound {percent(verdict.bound, 2)})"
    if verdict.agreement < verdict.bound:
        return "", f"only {text}"
    return ("", "; ".join(verdict.lost)) if verdict.lost else (text, "")


@dataclass(frozen=True, kw_only=True)
class DeviceVerdict:
    """Whether one device keeps parity.

    Attributes:
        device: as the session names it.
        providers: as the session names them.
        arithmetic: what the device really computes in; it sets the bound. "" when the session did not open.
        agreement: share of the golden frames' pixels that agree with Keras, 0..1; None when nothing was computed.
        worst_frame: the same share for the worst frame.
        bound: lowest share that passes.
        lost: classes that collapsed, whatever the share; a phrase each.
        passed: whether the share reaches the bound and no class collapsed.
        reason: why this device was taken, or what went wrong.
        seconds: time that the golden frames took.
    """

    device: str
    providers: tuple[str, ...] = ()
    arithmetic: str = ""
    agreement: float | None = None
    worst_frame: float | None = None
    bound: float | None = None
    lost: tuple[str, ...] = ()
    passed: bool
    reason: str
    seconds: float

    def line(self) -> str:
        """The verdict in one line."""
        word = "passed" if self.passed else "FAILED"
        if self.agreement is None or self.bound is None or self.worst_frame is None:
            return f"{self.device}: {word}: {self.reason}"
        return (
            f"{self.device}: {word}: {percent(self.agreement, 4)} of pixels agree with Keras in {self.arithmetic} "
            f"(bound {percent(self.bound, 2)}, worst frame {percent(self.worst_frame, 4)}, {self.seconds:.1f} s)"
            + "".join(f"; {text}" for text in self.lost)
            + ("" if self.passed else f". {CURE}")
        )


def judge_session(session: Session, frames: np.ndarray, labels: np.ndarray, *, batch_size: int = 1) -> DeviceVerdict:
    """Compare an open session with Keras' labels (N, H, W) uint8 of frames (N, H, W, 3) uint8, by its bound."""
    started = time.perf_counter()
    found = run_in_parts(session.run, frames, batch_size)["labels"]
    agreements = (found == labels).mean(axis=(1, 2))
    agreement, bound = float(agreements.mean()), AGREEMENT_BOUNDS[session.device.arithmetic]
    lost = lost_classes(found, labels, session.spec.classes)
    return DeviceVerdict(
        device=session.device.name,
        providers=session.device.providers,
        arithmetic=session.device.arithmetic,
        agreement=agreement,
        worst_frame=float(agreements.min()),
        bound=bound,
        lost=lost,
        passed=agreement >= bound and not lost,
        reason=session.device.reason,
        seconds=time.perf_counter() - started,
    )


def lost_classes(found: np.ndarray, expected: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    """A phrase for each class that collapsed: its IoU with Keras' labels is below `CLASS_IOU_BOUND`.

    Args:
        found: (N, H, W) uint8 labels from a device.
        expected: (N, H, W) uint8, Keras' own; classes that cover less than `VISIBLE_SHARE` of it are not judged.
        names: class names, position = id.
    """
    lost = []
    for index, name in enumerate(names):
        here, there = found == index, expected == index
        if there.mean() < VISIBLE_SHARE:
            continue
        iou = np.count_nonzero(here & there) / np.count_nonzero(here | there)
        if iou < CLASS_IOU_BOUND:
            lost.append(
                f"class {name} keeps an IoU of {iou:.2f} with Keras' labels; it must keep {CLASS_IOU_BOUND:.2f}"
            )
    return tuple(lost)
