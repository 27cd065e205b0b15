"""float16 inside: weights and arithmetic, from the scaled frames to the inputs of the score layer.

The score layer, of a dozen channels, stays float32 (CUDA may compute it in TF32), so that rounding makes no ties before
the argmax. Frames, labels and confidence keep their types. Knows nothing of runtimes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import NodeProto, TensorProto, helper

from edge_seg.errors import ConversionError

from .convert import SCALED
from .draft import Draft
from .passes import Pass, run_passes

FLOAT16_MAX = 65504.0
# The most that a sum may reach on the frames looked at: others may reach more.
SUM_BOUND = FLOAT16_MAX / 2


def to_half(draft: Draft) -> Draft:
    """Turn a wrapped float32 draft into a float16 one, in place.

    Raises:
        ConversionError: a weight is too large for float16 (65504); the message names it.
    """
    return run_passes(
        draft,
        [
            Pass(
                name="compute in float16",
                requires=frozenset({"weights inside", "uint8 contract"}),
                ensures=frozenset({"weights inside", "uint8 contract", "float16 weights"}),
                apply=_halve,
            )
        ],
    )


def summed_tensors(draft: Draft) -> list[str]:
    """Names of the sums that float16 will have to hold, give or take a bias: all but those of the score layer."""
    last = draft.score_layer()
    return [node.output[0] for node in draft.nodes if node.op_type in ("Conv", "ConvTranspose", "Add") and node != last]


def refuse_overflow(ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuse a network with a sum that float16 may not hold: a GPU would make it infinite.

    The gate cannot find this out: onnxruntime's CPU provider computes float16 files in float32.

    Args:
        ranges: (lowest, highest) of each of `summed_tensors`.

    Raises:
        ConversionError: a sum exceeds half of 65504; the message names it.
    """
    extremes = {name: max(map(abs, pair)) for name, pair in ranges.items()}
    name = max(extremes, key=lambda name: extremes[name])
    if not extremes[name] <= SUM_BOUND:
        raise ConversionError(
            f"{name} reaches {extremes[name]:.3g} on the gate's frames, and float16 ends at 65504: at most half of "
            "that is allowed, as other frames may reach more. "
            "Export --precision fp32, or train with weight decay."
        )


def _halve(draft: Draft) -> None:
    last = draft.score_layer()
    if last is None:
        raise ConversionError("expected the scores to come from a convolution; they do not.")
    kept = set(last.input[1:])
    for name, array in draft.weights.items():
        if array.dtype == np.float32 and name not in kept:
            draft.weights[name] = _as_half(name, array)
    cast = helper.make_node("Cast", [last.input[0]], ["scores.real"], "scores.real", to=TensorProto.FLOAT)
    last.input[0] = "scores.real"
    # The frames are cast to float16 directly: bytes minus 127.5 are exact in it.
    _cast_of_frames(draft).attribute[0].i = TensorProto.FLOAT16
    at = next(index for index, node in enumerate(draft.nodes) if node == last)
    nodes = draft.nodes
    draft.set_nodes([*nodes[:at], cast, *nodes[at:]])


def _cast_of_frames(draft: Draft) -> NodeProto:
    found = [node for node in draft.nodes if node.op_type == "Cast" and node.output[0] == "frames.real"]
    if not found or draft.producer(SCALED) is None:
        raise ConversionError("expected the frames to be cast before they are scaled; wrap the network first.")
    return found[0]


def _as_half(name: str, array: np.ndarray) -> np.ndarray:
    largest = float(np.abs(array).max(initial=0.0))
    if not largest <= FLOAT16_MAX:
        raise ConversionError(
            f"{name} holds {largest:.3g}, and float16 ends at 65504. "
            "Export --precision fp32, or train with weight decay."
        )
    return array.astype(np.float16)
