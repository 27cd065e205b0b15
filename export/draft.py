"""Draft, a model while it is being made: a graph without weights, and the weights beside it as arrays.

The full network's weights are 540 MB. Outside the protobuf, no pass, checker or shape inference copies them, and they
are written to the file one tensor at a time. Knows ONNX graphs in general; nothing of this network, Keras or what
metadata means.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_seg.errors import ConversionError, ModelFileError

MAX_FILE_BYTES = 2**31 - 1  # protobuf's limit for one message; readers refuse more
# Tags of length-delimited fields of onnx.proto.
_MODEL_GRAPH, _MODEL_METADATA = b"\x3a", b"\x72"
_GRAPH_INITIALIZER, _TENSOR_RAW_DATA = b"\x2a", b"\x4a"


@dataclass
class Draft:
    """A graph and its weights.

    Attributes:
        model: the ModelProto; its graph holds no initializer.
        weights: initializer name -> array, exactly those that the graph refers to.
        logits: name of the tensor that holds the scores before argmax, (N, h, w, classes * block * block).
        block: side of the square of pixels that each position of `logits` holds (class, then row, then column).
    """

    model: onnx.ModelProto
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    logits: str = ""
    block: int = 1

    @property
    def graph(self) -> onnx.GraphProto:
        return self.model.graph

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        return list(self.graph.node)

    @property
    def opset(self) -> int:
        return next(entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx"))

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The node that produces a tensor; None for inputs and weights."""
        return next((node for node in self.graph.node if name in node.output), None)

    def score_layer(self) -> onnx.NodeProto | None:
        """The convolution or matrix product that produces the scores; None if something else does."""
        node = self.producer(self.logits)
        if node is not None and node.op_type == "Transpose":
            node = self.producer(node.input[0])
        return node if node is not None and node.op_type in ("Conv", "ConvTranspose", "MatMul") else None

    def consumers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that read a tensor."""
        return [node for node in self.graph.node if name in node.input]

    def set_nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Replace the graph's nodes, and drop the weights that nothing reads any more."""
        kept = list(nodes)
        del self.graph.node[:]
        self.graph.node.extend(kept)
        used = {name for node in kept for name in node.input}
        self.weights = {name: array for name, array in self.weights.items() if name in used}

    def rename(self, old: str, new: str) -> None:
        """Make every node that reads tensor `old` read `new` instead."""
        for node in self.graph.node:
            for index, name in enumerate(node.input):
                if name == old:
                    node.input[index] = new

    def fork(self) -> Draft:
        """A draft whose graph can be changed without touching this one; the arrays are shared, not copied."""
        return Draft(copy.deepcopy(self.model), dict(self.weights), self.logits, self.block)

    def skeleton(self, *, values: bool = False) -> onnx.ModelProto:
        """A copy of the graph in which weights are typed inputs, so that it is small; or initializers, if `values`."""
        model = copy.deepcopy(self.model)
        for name, array in self.weights.items():
            # Short integer arrays are shapes, whose values shape inference needs.
            if values or (array.dtype == np.int64 and array.size <= 16):
                model.graph.initializer.append(numpy_helper.from_array(array, name))
            else:
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
                model.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
        return model

    def check(self) -> None:
        """Run onnx's checker with strict shape inference over the graph. Raises `ConversionError` naming the fault."""
        try:
            onnx.checker.check_model(self.skeleton(), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            first = str(error).strip().splitlines()[0]
            raise ConversionError(f"the exported graph is not valid ONNX at opset {self.opset}: {first}") from error


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values (text as str)."""
    found = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def write_draft(draft: Draft, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write one ONNX file, holding no more than one weight's bytes at a time.

    The bytes are what protobuf itself would write, except that the metadata comes last, where `append_metadata` can add
    to it.

    Raises:
        ModelFileError: the file would exceed 2 GB, protobuf's limit for a single-file model.
    """
    head, graph = copy.deepcopy(draft.model), draft.graph.SerializeToString()
    head.ClearField("graph")
    tensors = [(_tensor_head(name, array), array) for name, array in draft.weights.items()]
    sizes = [_tensor_size(prefix, array) for prefix, array in tensors]
    initializers = sum(len(_GRAPH_INITIALIZER + _varint(size)) + size for size in sizes)
    if len(graph) + initializers > MAX_FILE_BYTES:
        raise ModelFileError(
            f"the model would be {(len(graph) + initializers) / 2**30:.1f} GiB; one ONNX file holds at most 2 GiB. "
            "Export a narrower network, or --precision fp16."
        )
    with open(path, "wb") as file:
        file.write(head.SerializeToString())
        file.write(_MODEL_GRAPH + _varint(len(graph) + initializers) + graph)
        for (prefix, array), size in zip(tensors, sizes, strict=True):
            file.write(_GRAPH_INITIALIZER + _varint(size))
            _write_tensor(file, prefix, array)
    append_metadata(path, metadata or {})


def append_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Append metadata to a written file: in protobuf, a repeated field of the outermost message may stand anywhere."""
    with open(path, "ab") as file:
        for key, value in metadata.items():
            entry = onnx.StringStringEntryProto(key=key, value=value).SerializeToString()
            file.write(_MODEL_METADATA + _varint(len(entry)) + entry)
        file.flush()
        os.fsync(file.fileno())


def adopt(model: onnx.ModelProto) -> Draft:
    """Split a ModelProto into graph and weights; removes the initializers from `model`."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    del model.graph.initializer[:]
    return Draft(model, weights)


def fresh_name(draft: Draft, name: str) -> str:
    """The first of `name`, `name_2`, `name_3`, ... that no tensor of the draft has."""
    taken = set(draft.weights) | set(_tensor_names(draft))
    candidates = (name, *(f"{name}_{number}" for number in range(2, len(taken) + 3)))
    return next(candidate for candidate in candidates if candidate not in taken)


def _varint(number: int) -> bytes:
    """A length as protobuf writes it: seven bits a byte, lowest first, the top bit set in all bytes but the last."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def _tensor_names(draft: Draft) -> Iterator[str]:
    yield from (value.name for value in draft.graph.input)
    for node in draft.graph.node:
        yield from node.output


def _tensor_head(name: str, array: np.ndarray) -> bytes:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return TensorProto(name=name, data_type=kind, dims=array.shape).SerializeToString()


def _tensor_size(prefix: bytes, array: np.ndarray) -> int:
    return len(prefix) + len(_TENSOR_RAW_DATA) + len(_varint(array.nbytes)) + array.nbytes


def _write_tensor(file: BinaryIO, prefix: bytes, array: np.ndarray) -> None:
    file.write(prefix + _TENSOR_RAW_DATA + _varint(array.nbytes))
    # ONNX stores little-endian; on little-endian machines `astype` copies nothing.
    plain = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    file.write(plain.reshape(-1).view(np.uint8).data)
