"""Parity proved on this machine: a session against the golden frames in its file, and what `auto` takes by it.

Knows no runtime: sessions come opened, or as functions that open them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .devices import first_line
from .errors import DeviceError, EdgeSegError
from .modelfile import ModelHeader
from .spec import AGREEMENT_BOUNDS, GOLDEN_KEY

if TYPE_CHECKING:
    from .session import Session

Candidate = tuple[str, Callable[[], "Session"]]


def open_first_proved(candidates: list[Candidate], header: ModelHeader, *, batch_size: int = 1) -> Session:
    """The first candidate that opens and whose labels agree with the golden frames; why others fell out is recorded.

    The last candidate is the CPU, on which the export gate proved the file: it needs no second proof.
    """
    passed_over: list[str] = []
    for position, (name, attempt) in enumerate(candidates):
        try:
            session = attempt()
        except DeviceError as error:
            if position == len(candidates) - 1:
                raise
            # The first sentence says why; the cure belongs to who asks for the device by name.
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
    """(proof, problem) of a session against the golden frames in its file: one of the two is empty."""
    arithmetic = session.device.arithmetic
    from .golden import decode_golden, labels_of, lost_classes  # here, so that `checks` works where cv2 does not

    if GOLDEN_KEY not in header.metadata:
        if arithmetic == session.spec.precision:
            return f"in the file's own {arithmetic}, unproved: the file has no golden frames", ""
        return "", f"would compute in {arithmetic}, and the file has no golden frames to prove that with"
    frames, labels = decode_golden(header.metadata[GOLDEN_KEY])
    try:
        found = labels_of(session.run, frames, batch_size=batch_size)
    except EdgeSegError as error:
        return "", first_line(error)
    share, bound = float(np.mean(found == labels)), AGREEMENT_BOUNDS[arithmetic]
    lost = lost_classes(found, labels, session.spec.classes)
    text = f"{share:.3%} of the golden frames' pixels agree with Keras in {arithmetic} (bound {bound:.2%})"
    if share < bound:
        return "", f"only {text}"
    return ("", "; ".join(lost)) if lost else (text, "")
