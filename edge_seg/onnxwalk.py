"""Walk an ONNX file's structure: versions, metadata, operators, and every tensor with its declared size.

Also looks into subgraphs, functions, sparse tensors and training records: our models have none and all are refused, but
a reference to data outside the file is reported wherever it is. Checks declared sizes against what the file holds;
`demand` works out what the graph needs, `modelfile` turns findings into errors. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from .protobuf import BYTES, DamagedError, Field, Reader

MAX_DEPTH = 16
MAX_RANK = 16
MAX_NODES = 10_000  # FCN8 in int8 has 107
MAX_TENSOR_BYTES = 2**30  # the full network's largest tensor is 411 MB
MAX_METADATA = 128 * 2**20
MAX_NAME = 2**16
# Bits per element, by TensorProto.DataType; strings (8) are refused, as no segmentation model has any.
ELEMENT_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
_INT64 = 7
# AttributeProto.type
_WHOLE, _TEXT, _WHOLES = 2, 3, 7
_ATTRIBUTE_TYPES = range(15)
_STANDARD_DOMAINS = ("", "ai.onnx")


class Tensor(NamedTuple):
    """A tensor: its shape, bytes per element (at least 1), and its values if these are a few integers."""

    shape: tuple[int, ...]
    item_bytes: int
    values: tuple[int, ...] | None = None


class Node(NamedTuple):
    """One node of the main graph. Only integer and text attributes are kept: no others decide shapes in our models."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, tuple[int, ...] | str]


@dataclass
class Contents:
    """What the walk found.

    Attributes:
        ir_version: of the ONNX format.
        opsets: operator set domain -> version; the standard domain is "".
        producer: the program that wrote it.
        metadata: the file's key-value texts, including the golden frames.
        operators: operator -> how many nodes, those of subgraphs too.
        nodes, tensors: of the main graph.
        weight_bytes: bytes stored in the file as tensors.
        external, refused: what is wrong, empty when all is well.
    """

    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    producer: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    operators: Counter[str] = field(default_factory=Counter)
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    weight_bytes: int = 0
    external: str = ""
    refused: str = ""


class _Walk:
    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.found = Contents()

    def refuse(self, why: str) -> None:
        """Note why the file is refused; only the first reason is kept."""
        self.found.refused = self.found.refused or why

    def model(self, size: int) -> Contents:
        metadata_bytes = 0
        for item in self.reader.fields(0, size):
            if item.number == 1:
                self.found.ir_version = self.reader.whole(item)
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
                self.refuse("it holds functions" if item.number == 25 else "it holds a training record")
                self.nested(self.message(item), 1, node_field=7 if item.number == 25 else 0)
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
                version = self.reader.whole(part)
        self.known_domain(domain)
        self.found.opsets["" if domain == "ai.onnx" else domain] = version

    def known_domain(self, domain: str) -> None:
        if domain not in _STANDARD_DOMAINS:
            self.refuse(f"its operator domain {domain[:80]!r} is not the standard one, which is all that a model needs")

    def pair(self, item: Field) -> tuple[str, str]:
        key = value = ""
        for part in self.reader.fields(item.start, item.end):
            if part.number == 1:
                key = self.reader.text(part, limit=MAX_NAME)
            elif part.number == 2:
                value = self.reader.text(part, limit=MAX_METADATA)
        return key, value

    def nested(self, item: Field, depth: int, *, node_field: int) -> None:
        """Walk a function (nodes in `node_field`) or a training record (graphs in fields 1 and 2)."""
        for part in self.reader.fields(item.start, item.end):
            if node_field and part.number == node_field:
                self.node(self.message(part), depth)
            elif not node_field and part.number in (1, 2):
                self.graph(self.message(part), depth)

    def graph(self, item: Field, depth: int) -> None:
        """Walk the main graph (depth 0), or a nested one, in which only references to other files matter."""
        if depth > MAX_DEPTH:
            raise DamagedError(f"graphs inside graphs, more than {MAX_DEPTH} deep")
        for part in self.reader.fields(item.start, item.end):
            if part.number == 1:
                self.node(self.message(part), depth)
            elif part.number == 5:
                self.tensor(self.message(part), stored=depth == 0)
            elif part.number == 15:
                self.sparse(self.message(part))

    def node(self, item: Field, depth: int) -> None:
        operator, domain = "", ""
        inputs, outputs, attributes = [], [], []
        for part in self.reader.fields(item.start, item.end):
            if part.number == 1:
                inputs.append(self.reader.text(part, limit=MAX_NAME))
            elif part.number == 2:
                outputs.append(self.reader.text(part, limit=MAX_NAME))
            elif part.number == 4:
                operator = self.reader.text(part, limit=MAX_NAME)
            elif part.number == 5:
                attributes.append(self.message(part))
            elif part.number == 7:
                domain = self.reader.text(part, limit=MAX_NAME)
        self.known_domain(domain)
        self.found.operators[operator] += 1
        values: dict[str, tuple[int, ...] | str] = {}
        for attribute in attributes:
            name, value = self.attribute(attribute, depth)
            if name in values:
                raise DamagedError(f"a node of {operator[:80]!r} says {name[:80]!r} twice")
            values[name] = value
        if depth == 0:
            self.found.nodes.append(Node(operator, tuple(inputs), tuple(outputs), values))
        if self.found.operators.total() > MAX_NODES:
            raise DamagedError(f"it has more than {MAX_NODES} nodes")

    def attribute(self, item: Field, depth: int) -> tuple[str, tuple[int, ...] | str]:
        """(name, value) of an attribute, of the type that it declares, which is how the runtime reads it."""
        name, text, kind, whole = "", "", 0, 0
        numbers: list[int] = []
        for part in self.reader.fields(item.start, item.end):
            if part.number == 1:
                name = self.reader.text(part, limit=MAX_NAME)
            elif part.number == 3:
                whole = signed(self.reader.whole(part))
            elif part.number == 4:
                text = self.reader.text(part, limit=MAX_NAME)
            elif part.number in (5, 10):
                self.tensor(self.message(part))
            elif part.number in (6, 11):
                self.refuse("it holds a graph inside its graph")
                self.graph(self.message(part), depth + 1)
            elif part.number in (22, 23):
                self.sparse(self.message(part))
            elif part.number == 8:
                numbers += map(signed, self.reader.numbers(part))
            elif part.number == 20:
                kind = self.reader.whole(part)
                # protobuf drops what is above 32 bits, and a type that it does not know leaves the one read before.
                if kind not in _ATTRIBUTE_TYPES:
                    raise DamagedError(f"an attribute has the type {kind}")
        if kind == _TEXT:
            return name, text
        return name, (whole,) if kind == _WHOLE else tuple(numbers) if kind == _WHOLES else ()

    def sparse(self, item: Field) -> None:
        self.refuse("it holds a sparse tensor")
        for part in self.reader.fields(item.start, item.end):
            if part.number in (1, 2):
                self.tensor(self.message(part))

    def tensor(self, item: Field, *, stored: bool = False) -> None:
        """Check a tensor; an initializer of the main graph (`stored`) is also kept by its name."""
        dims: list[int] = []
        data_type, external = 0, False
        place = name = ""
        values: Field | None = None
        for part in self.reader.fields(item.start, item.end):
            if part.number == 1:
                dims += self.reader.numbers(part)
            elif part.number == 2:
                data_type = self.reader.whole(part)
            elif part.number in (4, 5, 6, 7, 9, 10, 11):
                # Of values in several fields the runtime takes some of the first kind that it looks for.
                if values is not None:
                    raise DamagedError("a tensor gives its values twice")
                values = self.message(part)
            elif part.number == 8:
                name = self.reader.text(part, limit=MAX_NAME)
            elif part.number == 13:
                key, value = self.pair(self.message(part))
                place, external = (value if key == "location" else place), True
            elif part.number == 14:
                external = external or self.reader.whole(part) != 0
        if external:
            self.found.external = repr((place or name)[:200])
            return
        bits = self.judge_tensor(name, dims, data_type, values.size if values else 0)
        if stored:
            few = None
            if values is not None and data_type == _INT64 and values.size <= 10 * MAX_RANK:
                few = self.small_integers(values)
            if few is not None and len(few) != math.prod(dims):
                raise DamagedError(f"tensor {name[:80]!r} declares {math.prod(dims)} values and holds {len(few)}")
            self.store(name, Tensor(tuple(dims), -(-bits // 8), few))

    def store(self, name: str, tensor: Tensor) -> None:
        if name in self.found.tensors:
            raise DamagedError(f"two tensors are called {name[:80]!r}")
        self.found.tensors[name] = tensor

    def judge_tensor(self, name: str, dims: list[int], data_type: int, payload: int) -> int:
        """Check that a tensor holds about as many bytes as it declares; returns the bits per element."""
        bits = ELEMENT_BITS.get(data_type)
        if bits is None:
            raise DamagedError(f"tensor {name[:80]!r} has the element type {data_type}")
        if len(dims) > MAX_RANK:
            raise DamagedError(f"a tensor of {len(dims)} dimensions")
        declared = math.prod(dims) * bits // 8
        if declared > MAX_TENSOR_BYTES:
            self.refuse(f"tensor {name[:80]!r} declares {declared} bytes, more than {MAX_TENSOR_BYTES}")
        # Up to 8 times: a varint of one byte may stand for an element of 8 bytes, or pack several tiny elements.
        elif declared > 8 * payload:
            raise DamagedError(f"tensor {name[:80]!r} declares {declared} bytes and holds {payload}")
        self.found.weight_bytes += payload
        return bits

    def small_integers(self, part: Field) -> tuple[int, ...]:
        if part.number != 9:
            return tuple(map(signed, self.reader.numbers(part)))
        raw = bytes(self.reader.data[part.start : part.end])
        return tuple(int.from_bytes(raw[at : at + 8], "little", signed=True) for at in range(0, len(raw), 8))


def signed(value: int) -> int:
    """The signed value of a protobuf int64, which is written as an unsigned two's complement."""
    return value - 2**64 if value >= 2**63 else value


def walk_model(reader: Reader, size: int) -> Contents:
    """Walk the model in the reader's first `size` bytes.

    Raises:
        DamagedError: not a well-formed ONNX model, or one that would take too much work to read.
    """
    return _Walk(reader).model(size)
