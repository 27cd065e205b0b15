"""Hypothesis strategies that spoil bytes: bit flips, cuts, splices, numbers where lengths stand, and edits that keep a
model's, a video's or a picture's structure while what it says becomes false.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

# What breaks arithmetic on sizes: nothing, signs, and the ends of the integer types.
NUMBERS = st.sampled_from([0, 1, 2, 3, 7, 16, 255, 1000, 65535, 65536, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**40])
SIGNED = NUMBERS | NUMBERS.map(lambda value: -value) | st.just(2**63 - 1) | st.just(-(2**63))
Edit = Callable[[bytearray], None]


class Case(bytes):
    """Bytes that do not fill a terminal when hypothesis shows them; its line to reproduce a failure holds them all."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


@st.composite
def spoiled(draw: Any, seeds: list[bytes], structured: Any = None) -> bytes:
    """One of the seeds after a few edits, plain ones or of the file's own structure."""
    data = bytearray(draw(st.sampled_from(seeds)))
    edits = PLAIN if structured is None else structured | PLAIN
    for edit in draw(st.lists(edits, min_size=1, max_size=4)):
        if data:
            edit(data)
    return Case(data)


def _flip(place: float, bit: int) -> Edit:
    def edit(data: bytearray) -> None:
        data[int(place * len(data))] ^= 1 << bit

    return edit


def _cut(place: float) -> Edit:
    def edit(data: bytearray) -> None:
        del data[int(place * len(data)) :]

    return edit


def _splice(source: float, target: float, size: int) -> Edit:
    def edit(data: bytearray) -> None:
        piece = data[int(source * len(data)) :][:size]
        at = int(target * len(data))
        data[at:at] = piece

    return edit


def _remove(place: float, size: int) -> Edit:
    def edit(data: bytearray) -> None:
        at = int(place * len(data))
        del data[at : at + size]

    return edit


def _number(place: float, value: int, form: str) -> Edit:
    def edit(data: bytearray) -> None:
        packed = struct.pack(form, value & (2 ** (8 * struct.calcsize(form)) - 1))
        at = int(place * len(data))
        data[at : at + len(packed)] = packed[: len(data) - at]

    return edit


PLACE = st.floats(0, 1, exclude_max=True)
HEAD = PLACE.map(lambda value: value**3)  # files say what they are at their beginning
PLAIN = st.one_of(
    st.builds(_flip, PLACE | HEAD, st.integers(0, 7)),
    st.builds(_cut, PLACE),
    st.builds(_splice, PLACE, PLACE, st.integers(1, 400)),
    st.builds(_remove, PLACE | HEAD, st.integers(1, 400)),
    st.builds(_number, PLACE | HEAD, NUMBERS, st.sampled_from(["<H", ">H", "<I", ">I", "<Q", "B"])),
)


# Models


@st.composite
def spoiled_model(draw: Any, seeds: list[bytes]) -> bytes:
    """A model that is still a protobuf, with a few things in it changed; or a plainly spoiled one."""
    from onnx import ModelProto

    if draw(st.booleans()):
        return draw(spoiled(seeds))
    model = ModelProto.FromString(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 3))):
        draw(st.sampled_from(_MODEL_EDITS))(draw, model)
    return Case(model.SerializeToString())


def _pick(draw: Any, items: Any) -> Any:
    return items[draw(st.integers(0, len(items) - 1))] if len(items) else None


def _edit_dims(draw: Any, model: Any) -> None:
    tensor = _pick(draw, model.graph.initializer)
    if tensor is not None and len(tensor.dims):
        tensor.dims[draw(st.integers(0, len(tensor.dims) - 1))] = draw(SIGNED)


def _edit_type(draw: Any, model: Any) -> None:
    tensor = _pick(draw, model.graph.initializer)
    if tensor is not None:
        tensor.data_type = draw(st.integers(0, 27))


def _edit_attribute(draw: Any, model: Any) -> None:
    attribute = _pick(draw, [item for node in model.graph.node for item in node.attribute])
    if attribute is not None and len(attribute.ints):
        attribute.ints[draw(st.integers(0, len(attribute.ints) - 1))] = draw(SIGNED)
    elif attribute is not None:
        attribute.i = draw(SIGNED)


def _edit_operator(draw: Any, model: Any) -> None:
    from edge_seg.demand import OPERATORS

    node = _pick(draw, model.graph.node)
    if node is not None:
        node.op_type = draw(st.sampled_from([*sorted(OPERATORS), "Loop", "If", "ConstantOfShape", "NonZero"]))


def _edit_wires(draw: Any, model: Any) -> None:
    """Cycles, missing tensors, shadowed names."""
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    node = _pick(draw, model.graph.node)
    if node is None or not names:
        return
    wires = draw(st.sampled_from([node.input, node.output]))
    if len(wires):
        wires[draw(st.integers(0, len(wires) - 1))] = _pick(draw, [*names, "", "nowhere"])


def _drop_or_double(draw: Any, model: Any) -> None:
    at = draw(st.integers(0, max(0, len(model.graph.node) - 1)))
    if len(model.graph.node) and draw(st.booleans()):
        del model.graph.node[at]
    elif len(model.graph.node):
        model.graph.node.add().CopyFrom(model.graph.node[at])


def _nest(draw: Any, model: Any) -> None:
    from onnx import helper

    node = helper.make_node("Relu", ["x"], ["y"])
    for _ in range(draw(st.integers(1, 20))):
        node = helper.make_node("If", ["c"], ["y"], then_branch=helper.make_graph([node], "g", [], []))
    model.graph.node.add().CopyFrom(node)


def _go_outside(draw: Any, model: Any) -> None:
    tensor = _pick(draw, model.graph.initializer)
    if tensor is not None:
        tensor.data_location = draw(st.integers(0, 1))
        tensor.external_data.add(key="location", value=draw(st.sampled_from(["../x", "/etc/passwd", "case-model"])))


def _edit_interface(draw: Any, model: Any) -> None:
    value = _pick(draw, [*model.graph.input, *model.graph.output])
    if value is None:
        return
    if len(value.type.tensor_type.shape.dim) and draw(st.booleans()):
        _pick(draw, value.type.tensor_type.shape.dim).dim_value = draw(SIGNED)
    else:
        value.type.tensor_type.elem_type = draw(st.integers(0, 20))


def _edit_versions(draw: Any, model: Any) -> None:
    model.ir_version = draw(st.integers(0, 20) | NUMBERS)
    if len(model.opset_import):
        model.opset_import[0].version = draw(st.integers(0, 40) | SIGNED)
        model.opset_import[0].domain = draw(st.sampled_from(["", "ai.onnx", "com.microsoft", "x"]))


def _edit_spec(draw: Any, model: Any) -> None:
    for item in model.metadata_props:
        if item.key == "edge_seg":
            record = json.loads(item.value)
            record[draw(st.sampled_from(sorted(record)))] = draw(
                SIGNED | st.lists(SIGNED, max_size=3) | st.text(max_size=4) | st.none() | st.booleans()
            )
            item.value = json.dumps(record)


_MODEL_EDITS = [
    _edit_dims,
    _edit_type,
    _edit_attribute,
    _edit_operator,
    _edit_wires,
    _drop_or_double,
    _nest,
    _go_outside,
    _edit_interface,
    _edit_versions,
    _edit_spec,
]

# Videos: the boxes of MP4 and MOV, wherever they lie

BOXES = [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"stts", b"stsz", b"stco", b"stsc", b"stss", b"ctts",
         b"tkhd", b"mvhd", b"mdhd", b"elst", b"avc1", b"avcC", b"mdat", b"ftyp", b"dref", b"hdlr"]  # fmt: skip


def _box_size(kind: bytes, value: int) -> Edit:
    def edit(data: bytearray) -> None:
        at = data.find(kind)
        if at >= 4:
            data[at - 4 : at] = struct.pack(">I", value & 0xFFFFFFFF)

    return edit


def _box_field(kind: bytes, offset: int, value: int, form: str) -> Edit:
    def edit(data: bytearray) -> None:
        at = data.find(kind)
        packed = struct.pack(form, value & (2 ** (8 * struct.calcsize(form)) - 1))
        if at >= 0 and at + 4 + offset + len(packed) <= len(data):
            data[at + 4 + offset : at + 4 + offset + len(packed)] = packed

    return edit


def _box_name(kind: bytes, other: bytes) -> Edit:
    def edit(data: bytearray) -> None:
        at = data.find(kind)
        if at >= 0:
            data[at : at + 4] = other

    return edit


VIDEO_EDITS = st.one_of(
    st.builds(_box_size, st.sampled_from(BOXES), NUMBERS),
    st.builds(_box_field, st.sampled_from(BOXES), st.integers(0, 90), NUMBERS, st.sampled_from([">I", ">H", "B"])),
    st.builds(_box_name, st.sampled_from(BOXES), st.sampled_from([*BOXES, b"uuid", b"url ", b"moof", b"cmov"])),
)

# Pictures: sizes in headers, with checksums made right again


def _png_size(width: int, height: int, bits: int, color: int) -> Edit:
    def edit(data: bytearray) -> None:
        if data[:4] == b"\x89PNG" and len(data) > 33:
            data[16:26] = struct.pack(">IIBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, bits, color)
            data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))

    return edit


def _jpeg_size(width: int, height: int, channels: int) -> Edit:
    def edit(data: bytearray) -> None:
        at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        if at >= 0 and len(data) > at + 10:
            data[at + 5 : at + 10] = struct.pack(">HHB", height & 0xFFFF, width & 0xFFFF, channels)

    return edit


def _second_size(width: int, height: int) -> Edit:
    """A second frame header before the true one, or behind it: readers differ in which they believe."""

    def edit(data: bytearray) -> None:
        if data[:2] == b"\xff\xd8":
            header = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, height & 0xFFFF, width & 0xFFFF, 1) + b"\x01\x11\x00"
            data[2:2] = header
        elif data[:4] == b"\x89PNG" and len(data) > 33:
            body = b"IHDR" + struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, 8, 2, 0, 0, 0)
            data[33:33] = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))

    return edit


SIDES = st.sampled_from([0, 1, 6, 48, 64, 8192, 16384, 65535, 2**20, 2**31 - 1])
PICTURE_EDITS = st.one_of(
    st.builds(_png_size, SIDES, SIDES, st.sampled_from([1, 8, 16]), st.integers(0, 6)),
    st.builds(_jpeg_size, SIDES, SIDES, st.integers(0, 5)),
    st.builds(_second_size, SIDES, SIDES),
)
