"""The contract around the network: uint8 BGR frames in, uint8 class ids out, and a confidence if asked for.

Scaling. Keras saw u / 127.5 - 1. Written as (u - 127.5) / 128 with the first kernel larger by 128 / 127.5, every
input value is exact in float32, float16 and bfloat16 alike, and zero padding still means what it meant.

Argmax. It is taken while each position still holds a whole square of pixels, so that one id a pixel is moved into place
instead of a score for each class: half the time on the CPU provider. The last convolution becomes a matrix product with
channels last, so that the scores compared are adjacent in memory and rows of eight labels move at once; this nearly
halves the time again (docs/performance.md). The lowest id wins a tie, as in numpy and Keras.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from edge_seg.errors import ConversionError

from .convert import LOGITS, SCALED
from .draft import Draft, attributes
from .passes import Pass, run_passes

MIDDLE, STEP, KERAS_STEP = 127.5, 128.0, 127.5
# (N, C, h, w) -> (N, h, w, C); once C is split into classes and a position's square, classes are axis 3 of 5.
POSITIONS_FIRST, CLASS_AXIS = [0, 2, 3, 1], 3
CONFIDENCE_TYPES = {"float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT}


def wrap(
    draft: Draft,
    *,
    size: tuple[int, int],
    dynamic_size: bool = False,
    outputs: tuple[str, ...] = ("labels",),
    confidence_type: str = "float16",
) -> Draft:
    """Put the frame scaling before the network and the argmax after it; changes and returns `draft`.

    Args:
        draft: from `convert`: `scaled` (N, 3, H, W) float32 -> `logits`.
        size: (height, width) in pixels.
        dynamic_size: leave height and width free; otherwise they are fixed to `size`. N is always free.
        outputs: ("labels",) or ("labels", "confidence"): the largest softmax value of each pixel.
        confidence_type: "float16" or "float32".
    """
    tail = _Tail(draft, size, dynamic_size, "confidence" in outputs, confidence_type)
    contract = frozenset({"weights inside", "uint8 contract"})
    steps = (
        Pass(
            name="take uint8 frames",
            requires=frozenset({"weights inside", "plain operators"}),
            ensures=frozenset({"weights inside"}),
            apply=take_frames,
        ),
        Pass(name="give uint8 labels", requires=frozenset({"weights inside"}), ensures=contract, apply=tail.apply),
    )
    return run_passes(draft, steps)


def take_frames(draft: Draft) -> None:
    """Begin with `frames` (N, H, W, 3) uint8 instead of `scaled`."""
    readers = draft.consumers(SCALED)
    if len(readers) != 1 or readers[0].op_type != "Conv":
        raise ConversionError(
            "expected one convolution to read the scaled frames; the scaling cannot be folded into it."
        )
    kernel = readers[0].input[1]
    draft.weights[kernel] = draft.weights[kernel] * np.float32(STEP / KERAS_STEP)
    draft.weights["scaling.middle"] = np.array(MIDDLE, np.float32)
    draft.weights["scaling.step"] = np.array(1 / STEP, np.float32)
    # TensorRT accepts uint8 only as the input or output of a Cast, so no other node reads or writes it.
    head = [
        helper.make_node("Cast", ["frames"], ["frames.real"], "frames.real", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["frames.real"], ["frames.planes"], "frames.planes", perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["frames.planes", "scaling.middle"], ["frames.centered"], "frames.centered"),
        helper.make_node("Mul", ["frames.centered", "scaling.step"], [SCALED], SCALED),
    ]
    draft.set_nodes([*head, *draft.nodes])
    sides = [dim.dim_value for dim in draft.graph.input[0].type.tensor_type.shape.dim[2:]]
    del draft.graph.input[:]
    draft.graph.input.append(helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", *sides, 3]))


@dataclass
class _Tail:
    """Builds the nodes from logits to labels, in `nodes`."""

    draft: Draft
    size: tuple[int, int]
    dynamic_size: bool
    confidence: bool
    confidence_type: str
    nodes: list[NodeProto] = field(default_factory=list)

    def apply(self, draft: Draft) -> None:
        classes = draft.graph.output[0].type.tensor_type.shape.dim[1].dim_value
        draft.logits, draft.block = self.packed_logits()
        squares = self.reshape(draft.logits, "scores", [0, 0, 0, classes, draft.block**2])
        self.node("ArgMax", squares, "best", axis=CLASS_AXIS, keepdims=0)
        self.node("Cast", self.spread("best", "ids"), "labels", to=TensorProto.UINT8)
        if self.confidence:
            self.node("Softmax", squares, "probabilities", axis=CLASS_AXIS)
            self.largest("probabilities", "largest")
            spread = self.spread("largest", "shares")
            self.node("Cast", spread, "confidence", to=CONFIDENCE_TYPES[self.confidence_type])
        draft.set_nodes([*draft.nodes, *self.nodes])
        self.set_ends(draft)

    def packed_logits(self) -> tuple[str, int]:
        """Name of the scores, channels last, and the side of each position's square; drops a last DepthToSpace."""
        draft, packed, block = self.draft, LOGITS, 1
        spread = draft.producer(LOGITS)
        if spread is not None and spread.op_type == "DepthToSpace" and attributes(spread).get("mode") == "CRD":
            packed, block = spread.input[0], int(attributes(spread)["blocksize"])
            draft.set_nodes(node for node in draft.nodes if node != spread)
        last = draft.producer(packed)
        if last is None or not _is_product(last):
            return self.node("Transpose", packed, f"{packed}.positions", perm=POSITIONS_FIRST), block
        source, kernel = last.input
        matrix = np.ascontiguousarray(draft.weights[kernel][:, :, 0, 0].T)
        draft.set_nodes(node for node in draft.nodes if node != last)
        draft.weights[kernel] = matrix
        positions = self.node("Transpose", source, f"{packed}.positions", perm=POSITIONS_FIRST)
        return self.node("MatMul", positions, packed, kernel), block

    def node(self, operator: str, source: str, target: str, *more: str, **settings: Any) -> str:
        self.nodes.append(helper.make_node(operator, [source, *more], [target], target, **settings))
        return target

    def constant(self, name: str, values: list[int]) -> str:
        self.draft.weights[name] = np.array(values, np.int64)
        return name

    def largest(self, source: str, target: str) -> None:
        # From opset 18 on, the axes are an input.
        if self.draft.opset >= 18:
            self.node("ReduceMax", source, target, self.constant("class_axis", [CLASS_AXIS]), keepdims=0)
        else:
            self.node("ReduceMax", source, target, axes=[CLASS_AXIS], keepdims=0)

    def spread(self, source: str, target: str) -> str:
        """(N, h, w, block * block) -> (N, h * block, w * block)."""
        block = self.draft.block
        square = self.reshape(source, f"{target}.square", [0, 0, 0, block, block])
        rows = self.node("Transpose", square, f"{target}.rows", perm=[0, 1, 3, 2, 4])
        return self.node("Reshape", rows, target, self.frame_shape())

    def reshape(self, source: str, target: str, shape: list[int]) -> str:
        """Reshape; a 0 keeps that dimension."""
        return self.node("Reshape", source, target, self.constant(f"{target}.shape", shape))

    def frame_shape(self) -> str:
        """Name of the tensor with the labels' shape, made once: a constant, or computed from the scores' grid."""
        name = "frames.shape"
        if not self.dynamic_size:
            return self.constant(name, [0, *self.size])
        if not any(node.output[0] == name for node in self.nodes):
            self.node("Shape", self.draft.logits, "grid", start=1, end=3)
            self.node("Mul", "grid", "frames.size", self.constant("grid.factors", [self.draft.block] * 2))
            self.node("Concat", self.constant("frames.count", [0]), name, "frames.size", axis=0)
        return name

    def set_ends(self, draft: Draft) -> None:
        sides: list[Any] = ["H", "W"] if self.dynamic_size else list(self.size)
        ends = [(draft.graph.input, "frames", TensorProto.UINT8, ["N", *sides, 3])]
        # The same symbols for both say that labels are as high and wide as frames.
        ends.append((draft.graph.output, "labels", TensorProto.UINT8, ["N", *sides]))
        if self.confidence:
            ends.append((draft.graph.output, "confidence", CONFIDENCE_TYPES[self.confidence_type], ["N", *sides]))
        del draft.graph.input[:], draft.graph.output[:], draft.graph.value_info[:]
        for values, name, kind, shape in ends:
            values.append(helper.make_tensor_value_info(name, kind, shape))


def _is_product(node: NodeProto) -> bool:
    """Whether a node is a 1x1 convolution as `convert` writes the last one, and so a matrix product over channels."""
    return node.op_type == "Conv" and len(node.input) == 2 and attributes(node) == {"kernel_shape": [1, 1]}
