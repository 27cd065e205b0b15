"""A reader of protobuf field headers: just enough to look inside an ONNX file without the onnx package.

Payloads are skipped, never copied, so a 540 MB file costs only its few thousand headers. The bytes are not trusted:
every length is checked against the enclosing message, and a budget bounds the work. What protobuf's own parser, which
the runtime reads the file with, would read otherwise than this one is refused. Knows wire types, nothing of ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class DamagedError(ValueError):
    """The bytes are not a well-formed message, or would take too much work to read."""


class Field(NamedTuple):
    """One field of a message: its number, its wire type, and its value (varint) or the extent of its payload."""

    number: int
    wire: int
    value: int
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes of payload."""
        return self.end - self.start


class Reader:
    """Reads messages inside one buffer.

    Args:
        data: the whole file, as a view of bytes or of a memory map.
        budget: how many fields and packed numbers may be read in all before the file counts as hostile.
    """

    def __init__(self, data: memoryview, *, budget: int = 2_000_000) -> None:
        self.data = data
        self.budget = budget

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message between `start` and `end`.

        Raises:
            DamagedError: a field that is malformed or reaches past `end`, or the budget is spent.
        """
        position = start
        while position < end:
            self.budget -= 1
            if self.budget < 0:
                raise DamagedError("it has more fields than any model of ours")
            key, position = self.short(position, end)
            number, wire = key >> 3, key & 7
            value, first = 0, position
            if wire == VARINT:
                value, position = self.varint(position, end)
            elif wire == BYTES:
                size, first = self.short(position, end)
                position = first + size
            elif wire in (FIXED32, FIXED64):
                position += 4 if wire == FIXED32 else 8
            else:
                raise DamagedError(f"wire type {wire} at byte {first}")
            if number == 0 or position > end:
                raise DamagedError(f"field {number} at byte {first} reaches past its end")
            yield Field(number, wire, value, first, position)

    def varint(self, position: int, end: int) -> tuple[int, int]:
        """An unsigned number of at most 64 bits, and the position after it."""
        value = 0
        for shift in range(0, 70, 7):
            if position >= end:
                raise DamagedError(f"it ends inside a number at byte {position}")
            byte = self.data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, position
        raise DamagedError(f"a number longer than 64 bits at byte {position}")

    def short(self, position: int, end: int) -> tuple[int, int]:
        """A tag or a length, and the position after it.

        protobuf reads at most 5 bytes of one and drops what is above 32 bits of a tag: with those bits kept, a field
        would be unknown here and real to the runtime.
        """
        value, after = self.varint(position, end)
        if after - position > 5 or value > 0xFFFF_FFFF:
            raise DamagedError(f"a tag or a length of more than 32 bits at byte {position}")
        return value, after

    def whole(self, field: Field) -> int:
        """The value of a whole-number field; protobuf passes over one of another wire type."""
        if field.wire != VARINT:
            raise DamagedError(f"field {field.number} should hold a whole number")
        return field.value

    def numbers(self, field: Field) -> list[int]:
        """The values of a repeated integer field, packed or not."""
        if field.wire == VARINT:
            return [field.value]
        if field.wire != BYTES:
            raise DamagedError(f"field {field.number} should hold whole numbers")
        values, position = [], field.start
        while position < field.end:
            self.budget -= 1
            if self.budget < 0:
                raise DamagedError("it has more numbers than any model of ours")
            value, position = self.varint(position, field.end)
            values.append(value)
        return values

    def text(self, field: Field, *, limit: int) -> str:
        """The text of a string field of at most `limit` bytes."""
        if field.wire != BYTES or field.size > limit:
            raise DamagedError(f"field {field.number} should be a text of at most {limit} bytes")
        try:
            return bytes(self.data[field.start : field.end]).decode("utf-8")
        except UnicodeDecodeError as error:
            raise DamagedError(f"field {field.number} is not UTF-8") from error
