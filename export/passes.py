"""Passes: small steps that each change a draft and declare which properties they require and ensure.

A property is a name with a test of the draft itself, so a pass that breaks its promise is found at once, not on a
device months later. Does not know the order of passes: the modules that run them do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import NodeProto, TensorProto

from edge_seg.errors import ConversionError

from .draft import Draft, attributes
from .sums import PAIR_LIMIT, largest_pair

# What remains without layout changes and with stride = kernel upsampling rewritten: fast, quantizable everywhere.
PLAIN_OPERATORS = frozenset({"Conv", "Relu", "MaxPool", "Add", "DepthToSpace", "ConvTranspose"})


def is_depth_to_space(node: NodeProto) -> bool:
    """Whether a transposed convolution writes each pixel to a square of its own: stride = kernel, no padding."""
    found = attributes(node)
    kernel, strides = found.get("kernel_shape"), found.get("strides", [1, 1])
    return (
        kernel is not None
        and len(kernel) == 2
        and kernel[0] == kernel[1]
        and list(strides) == list(kernel)
        and list(found.get("dilations", [1, 1])) == [1, 1]
        and not any(found.get("pads", ()))
        and not any(found.get("output_padding", ()))
        and found.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and found.get("group", 1) == 1
        and "output_shape" not in found
    )


def _has_weights_inside(draft: Draft) -> bool:
    made = {name for node in draft.nodes for name in node.output} | set(draft.weights)
    made |= {draft.graph.input[0].name, ""}
    return len(draft.graph.input) == 1 and all(name in made for node in draft.nodes for name in node.input)


def _is_channels_first(draft: Draft) -> bool:
    return not any(node.op_type == "Transpose" for node in draft.nodes)


def _has_no_stride_equal_kernel(draft: Draft) -> bool:
    return not any(node.op_type == "ConvTranspose" and is_depth_to_space(node) for node in draft.nodes)


def _is_plain(draft: Draft) -> bool:
    return all(node.op_type in PLAIN_OPERATORS for node in draft.nodes)


def _keeps_the_contract(draft: Draft) -> bool:
    frames, outputs = draft.graph.input, [output.name for output in draft.graph.output]
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*frames, *draft.graph.output)}
    return (
        [value.name for value in frames] == ["frames"]
        and outputs in (["labels"], ["labels", "confidence"])
        and kinds["frames"] == kinds["labels"] == TensorProto.UINT8
    )


def _is_float16(draft: Draft) -> bool:
    scores = draft.score_layer()
    exempt = set(scores.input) if scores is not None else set()
    rest = [array for name, array in draft.weights.items() if array.ndim == 4 and name not in exempt]
    return bool(rest) and all(array.dtype == np.float16 for array in rest)


def _is_int8(draft: Draft) -> bool:
    heavy = [node for node in draft.nodes if node.op_type == "Conv" and attributes(node).get("kernel_shape") != [1, 1]]
    return bool(heavy) and all(
        _reads_quantized(draft, node.input[0]) and _reads_quantized(draft, node.input[1]) for node in heavy
    )


def _has_exact_sums(draft: Draft) -> bool:
    kernels = [array for array in draft.weights.values() if array.ndim == 4 and array.dtype == np.int8]
    return bool(kernels) and all(largest_pair(kernel) <= PAIR_LIMIT for kernel in kernels)


def _reads_quantized(draft: Draft, name: str) -> bool:
    producer = draft.producer(name)
    return producer is not None and producer.op_type == "DequantizeLinear"


PROPERTIES: Mapping[str, Callable[[Draft], bool]] = {
    "weights inside": _has_weights_inside,
    "weights outside": lambda draft: not _has_weights_inside(draft),
    "channels first": _is_channels_first,
    "no exact transposed convolution": _has_no_stride_equal_kernel,
    "plain operators": _is_plain,
    "uint8 contract": _keeps_the_contract,
    "float16 weights": _is_float16,
    "int8 convolutions": _is_int8,
    "exact int8 sums": _has_exact_sums,
}


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One step on a draft.

    Attributes:
        name: what it does, for error messages.
        requires: properties the draft must have beforehand.
        ensures: properties it has afterwards.
        apply: changes the draft in place.
    """

    name: str
    apply: Callable[[Draft], None] = field(repr=False)
    requires: frozenset[str] = frozenset()
    ensures: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        unknown = (self.requires | self.ensures) - PROPERTIES.keys()
        if unknown:
            raise ValueError(f"pass {self.name!r} names unknown properties: {', '.join(sorted(unknown))}")


def run_passes(draft: Draft, passes: Sequence[Pass]) -> Draft:
    """Apply passes in order, and test what each requires and ensures; changes and returns `draft`.

    Raises:
        ConversionError: a property is missing; the message names the pass and the property.
    """
    for step in passes:
        _hold(draft, step.requires, f"{step.name!r} needs a graph with")
        step.apply(draft)
        _hold(draft, step.ensures, f"{step.name!r} left a graph without")
    return draft


def _hold(draft: Draft, names: frozenset[str], complaint: str) -> None:
    missing = sorted(name for name in names if not PROPERTIES[name](draft))
    if missing:
        operators = ", ".join(sorted({node.op_type for node in draft.nodes}))
        raise ConversionError(f"export pass {complaint}: {', '.join(missing)} (operators: {operators}).")
