"""Walk messages of Protocol Buffers strictly, in one spelling, without holding them.

The encoding (https://protobuf.dev/programming-guides/encoding/) lets a writer choose: longer forms
of numbers, fields in any order and twice, fields that nobody knows, groups. Each choice is a place
to hide something, so none is left: fields stand in the order of their numbers, those that may occur
once do, numbers have their shortest form, and what a table does not name is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sandbox_runner.inspection.safetensors_file import Malformed

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5


@dataclass(frozen=True)
class Known:
    """A field that may occur; one with ``refused`` (rule and sentence) may not, and says why."""

    wire: int = BYTES
    repeated: bool = False
    refused: tuple[str, str] | None = None


@dataclass(frozen=True)
class Field:
    """One field: ``value`` of a number, else ``start`` and ``end`` of its bytes in the file.

    ``from_`` is where its tag begins.
    """

    number: int
    value: int
    start: int
    end: int
    from_: int


class Walk:
    """Reads fields out of one file. ``format_`` begins each rule's name."""

    def __init__(self, data: memoryview, format_: str) -> None:
        self.data, self._format = data, format_

    def bad(self, rule: str, message: str, at: int) -> Malformed:
        """Return the refusal; where it was is for reviewers only."""
        return Malformed(f"{self._format}.{rule}", message, f"at byte {at}")

    def fields(self, start: int, end: int, known: Mapping[int, Known]) -> Iterator[Field]:
        """Give the fields of the message from ``start`` to ``end``; raises :class:`Malformed`."""
        at, last = start, 0
        seen: set[int] = set()
        while at < end:
            field, at = self._field(at, end, known)
            number = field.number
            if number in seen and not known[number].repeated:
                raise self.bad("repeated", "A field stands twice where it may stand once.", at)
            if number < last:
                raise self.bad("order", "Fields do not stand in the order of their numbers.", at)
            last = number
            seen.add(number)
            yield field

    def _field(self, at: int, end: int, known: Mapping[int, Known]) -> tuple[Field, int]:
        tag, after = self._varint(at, end)
        number, wire = tag >> 3, tag & 7
        if wire in (3, 4):
            raise self.bad("group", "There is a group, which no ONNX model has.", at)
        rule = known.get(number)
        if rule is None:
            raise self.bad("unknown-field", "There is a field that ONNX does not know.", at)
        if rule.refused is not None:
            raise self.bad(*rule.refused, at)
        if wire != rule.wire:
            raise self.bad("wire-type", "A field is written as another kind of value.", at)
        if wire == VARINT:
            value, stop = self._varint(after, end)
            return Field(number, value, after, stop, at), stop
        length = {FIXED64: 8, FIXED32: 4}.get(wire, 0)
        if wire == BYTES:
            length, after = self._varint(after, end)
        if length > end - after:
            raise self.bad("truncated", "A field is longer than what it stands in.", at)
        return Field(number, 0, after, after + length, at), after + length

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for place in range(10):
            if at + place >= end:
                raise self.bad("truncated", "The model ends inside of a number.", at)
            byte = self.data[at + place]
            value |= (byte & 127) << 7 * place
            if byte < 128:
                if (place and not byte) or value >= 2**64:
                    raise self.bad("varint", "A number is not in its shortest form.", at)
                return value, at + place + 1
        raise self.bad("varint", "A number is not in its shortest form.", at)

    def text(self, field: Field, most: int) -> str:
        """Return a field's bytes as printable ASCII of at most ``most`` letters."""
        if field.end - field.start > most:
            raise self.bad("text-length", "A name is longer than any that is allowed.", field.from_)
        raw = bytes(self.data[field.start : field.end])
        if not all(32 < byte < 127 for byte in raw):
            raise self.bad("text", "A name has letters that none may have.", field.from_)
        return raw.decode("ascii")


def signed(value: int) -> int:
    """Return the int64 that stands in a number of 64 bits."""
    return value - 2**64 if value >= 2**63 else value
