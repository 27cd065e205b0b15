"""Walk an ONNX file's structure: versions, metadata, operators, and every tensor with what it claims to hold.

Looks at subgraphs and functions too, since a reference hidden there is opened as well. Judges sizes against what the
file really holds; `modelfile` turns the findings into errors. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from .protobuf import BYTES, DamagedError, Field, Reader

MAX_DEPTH = 16
MAX_RANK = 16
MAX_TENSOR_BYTES = 2**30  # the full network's largest tensor is 411 MB
MAX_METADATA = 128 * 2**20
MAX_NAME = 2**16
# Bits of one element, by TensorProto.DataType; strings are refused, a segmenter has none.
_ELEMENT_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
_INT64 = 7
# Their memory or time cannot be bounded from the file, and no segmenter needs them.
_REFUSED = {"Loop", "Scan", "Range", "EyeLike", "SequenceMap", "Multinomial", "RandomNormal", "RandomUniform",
            "RandomNormalLike", "RandomUniformLike"}  # fmt: skip
# Operators that make a large tensor out of a small shape or repeat count.
_GROWING = {"ConstantOfShape", "Expand", "Tile", "Pad", "Resize", "Upsample"}
# Attributes that do the same; the full network's largest is a 7x7 kernel.
_GROWING_ATTRIBUTES = {"pads", "strides", "dilations", "kernel_shape", "output_shape", "output_padding", "shape"}
MAX_GROWTH = 2**26


@dataclass
class Contents:
    """What the walk found. `external` and `refused` are empty when all is well."""

    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    producer: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    operators: Counter[str] = field(default_factory=Counter)
    weight_bytes: int = 0
    external: str = ""
    refused: str = ""


class _Walk:
    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.found = Contents()
        self.shapes: dict[str, list[int]] = {}
        self.growing: list[tuple[str, list[str]]] = []

    def model(self, size: int) -> Contents:
        metadata_bytes = 0
        for item in self.reader.fields(0, size):
            if item.number == 1:
                self.found.ir_version = item.value
            elif item.number == 2:
                self.found.producer = self.reader.text(item, limit=MAX_NAME)
            elif item.number == 7:
                self.graph(self.message(item), 0)
            elif item.number == 8:
                self.opset(self.message(item))
            elif item.number == 14:
                metadata_bytes += item.size
                if metadata_bytes > MAX_METADATA:
                    raise DamagedError(f"its metadata is larger than {MAX_METADATA} bytes")
                key, value = self.pair(self.message(item))
                self.found.metadata[key] = value
            elif item.number in (20, 25):
                self.nested(self.message(item), 0, node_field=7 if item.number == 25 else 0)
        self.judge_growth()
        return self.found

    def message(self, item: Field) -> Field:
        if item.wire != BYTES:
            raise DamagedError(f"field {item.number} should be a message")
        return item

    def opset(self, item: Field) -> None:
        domain, version = "", 0
        for part in self.reader.fields(item.start, item.end):
            if part.number == 1:
                domain = self.reader.text(part, limit=MAX_NAME)
            elif part.number == 2:
                version = part.value
        self.found.opsets["" if domain == "ai.onnx" else domain] = version

    def pair(self, item: Field) -> tuple[str, str]:
        key = value = ""
        for part in self.reader.fields(item.start, item.end):
            if part.number == 1:
                key = self.reader.text(part, limit=MAX_NAME)
            elif part.number == 2:
                value = self.reader.text(part, limit=MAX_METADATA)
        return key, value

    def nested(self, item: Field, depth: int, *, node_field: int) -> None:
        """A function (nodes in `node_field`) or a training record (graphs in fields 1 and 2)."""
        for part in self.reader.fields(item.start, item.end):
            if node_field and part.number == node_field:
                self.node(self.message(part), depth)
            elif not node_field and part.number in (1, 2):
                self.graph(self.message(part), depth)

    def graph(self, item: Field, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise DamagedError(f"graphs inside graphs, more than {MAX_DEPTH} deep")
        for part in self.reader.fields(item.start, item.end):
            if part.number == 1:
                self.node(self.message(part), depth)
            elif part.number == 5:
                self.tensor(self.message(part))
            elif part.number == 15:
                self.sparse(self.message(part))

    def node(self, item: Field, depth: int) -> None:
        operator, inputs, outputs = "", [], []
        attributes = []
        for part in self.reader.fields(item.start, item.end):
            if part.number == 1:
                inputs.append(self.reader.text(part, limit=MAX_NAME))
            elif part.number == 2:
                outputs.append(self.reader.text(part, limit=MAX_NAME))
            elif part.number == 4:
                operator = self.reader.text(part, limit=MAX_NAME)
            elif part.number == 5:
                attributes.append(self.message(part))
        self.found.operators[operator] += 1
        if operator in _REFUSED:
            self.found.refused = f"its operator {operator} has no bounded cost"
        if operator in _GROWING:
            self.growing.append((operator, inputs))
        constant = outputs[0] if operator == "Constant" and outputs else ""
        for attribute in attributes:
            self.attribute(attribute, depth, constant)

    def attribute(self, item: Field, depth: int, constant: str) -> None:
        name, numbers = "", []
        for part in self.reader.fields(item.start, item.end):
            if part.number == 1:
                name = self.reader.text(part, limit=MAX_NAME)
            elif part.number in (5, 10):
                self.tensor(self.message(part), name=constant)
            elif part.number in (6, 11):
                self.graph(self.message(part), depth + 1)
            elif part.number in (22, 23):
                self.sparse(self.message(part))
            elif part.number == 8:
                numbers += self.reader.numbers(part)
        if constant and numbers:
            self.shapes[constant] = numbers
        if name in _GROWING_ATTRIBUTES and math.prod(1 + number for number in numbers[:MAX_RANK]) > MAX_GROWTH:
            self.found.refused = f"an operator has {name} of {numbers[:MAX_RANK]}"

    def sparse(self, item: Field) -> None:
        dims: list[int] = []
        for part in self.reader.fields(item.start, item.end):
            if part.number in (1, 2):
                self.tensor(self.message(part))
            elif part.number == 3:
                dims += self.reader.numbers(part)
        if self.product(dims) * 8 > MAX_TENSOR_BYTES:
            self.found.refused = f"a sparse tensor declares the shape {dims[:8]}"

    def tensor(self, item: Field, *, name: str = "") -> None:
        dims: list[int] = []
        data_type, payload, external = 0, 0, False
        place = ""
        last: Field | None = None
        for part in self.reader.fields(item.start, item.end):
            if part.number == 1:
                dims += self.reader.numbers(part)
            elif part.number == 2:
                data_type = part.value
            elif part.number in (4, 5, 6, 7, 9, 10, 11):
                payload += part.size
                last = part
            elif part.number == 8:
                name = name or self.reader.text(part, limit=MAX_NAME)
            elif part.number == 13:
                key, value = self.pair(self.message(part))
                place, external = (value if key == "location" else place), True
            elif part.number == 14:
                external = external or part.value != 0
        if external:
            self.found.external = repr((place or name)[:200])
            return
        self.judge_tensor(name, dims, data_type, payload)
        if data_type == _INT64 and last is not None and payload <= 8 * MAX_RANK:
            self.shapes[name] = self.small_integers(last)

    def judge_tensor(self, name: str, dims: list[int], data_type: int, payload: int) -> None:
        bits = _ELEMENT_BITS.get(data_type)
        if bits is None:
            raise DamagedError(f"tensor {name[:80]!r} has the element type {data_type}")
        declared = self.product(dims) * bits // 8
        if declared > MAX_TENSOR_BYTES:
            self.found.refused = f"tensor {name[:80]!r} declares {declared} bytes, more than {MAX_TENSOR_BYTES}"
        # A number in a packed list may take a single byte for up to 8 of memory, or hold several tiny ones.
        elif declared > 8 * payload:
            raise DamagedError(f"tensor {name[:80]!r} declares {declared} bytes and holds {payload}")
        self.found.weight_bytes += payload

    def product(self, dims: list[int]) -> int:
        if len(dims) > MAX_RANK:
            raise DamagedError(f"a tensor of {len(dims)} dimensions")
        return math.prod(dims)

    def small_integers(self, part: Field) -> list[int]:
        if part.number != 9:
            return self.reader.numbers(part)
        raw = bytes(self.reader.data[part.start : part.end])
        return [int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw), 8)]

    def judge_growth(self) -> None:
        """Refuse a constant shape, repeat count or padding that asks for more memory than a model of ours needs."""
        for operator, inputs in self.growing:
            for name in inputs:
                values = [value for value in self.shapes.get(name, [])[:MAX_RANK] if 0 < value < 2**63]
                if math.prod(values) > MAX_TENSOR_BYTES // 4:
                    self.found.refused = f"its operator {operator} makes a tensor of the shape {values}"


def walk_model(reader: Reader, size: int) -> Contents:
    """Walk the model that fills the reader's first `size` bytes.

    Raises:
        DamagedError: not a well-formed ONNX model, or one that would take too much work to read.
    """
    return _Walk(reader).model(size)
