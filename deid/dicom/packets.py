"""Whether the data of a JPEG 2000 tile are its packets and nothing else (ITU-T T.800 annex B).

A decoder reads as many packets as the header announces and leaves what comes behind them. Here
only the headers of packets are read: they say how long each is. What they describe, the
coefficients, is not decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

PRECINCTS, SOP, EPH = 1, 2, 4
_BY_LEVEL = 1
# Styles of code-blocks whose passes end one by one: their lengths are written in another way.
_BYPASS, _TERMINATED = 1, 4
_MOST_PLANES, _MOST_COMPONENTS, _MOST_BLOCKS = 64, 4, 1 << 18
_UNKNOWN = 1 << 20


class Inexact(Exception):
    """Something is not as the standard writes it, or is of a kind that is not read here."""


@dataclass(frozen=True)
class Coding:
    """How all tiles and components are coded (COD, A.6.1)."""

    style: int
    progression: int
    layers: int
    levels: int
    width: int  # of a code-block, as an exponent of two
    height: int
    precincts: tuple[tuple[int, int], ...]  # exponents, by resolution


def coding_of(body: bytes) -> Coding:
    """The COD segment's body; raises :class:`Inexact` for what is not read here."""
    if len(body) < 10:
        raise Inexact
    style, progression, layers, _mct, levels, width, height, blocks, _transform = (
        struct.unpack_from(">BBHBBBBBB", body)
    )
    sizes = body[10:]
    if style & PRECINCTS:
        if len(sizes) != levels + 1:
            raise Inexact
        precincts = tuple((size & 15, size >> 4) for size in sizes)
    else:
        if sizes:
            raise Inexact
        precincts = ((15, 15),) * (levels + 1)
    if progression > _BY_LEVEL and style & PRECINCTS:
        raise Inexact  # where each begins would decide on the order
    if blocks & (_BYPASS | _TERMINATED) or style > 7 or levels > 32 or width > 8 or height > 8:
        raise Inexact
    return Coding(style, progression, layers, levels, width + 2, height + 2, precincts)


def are_all(data: bytes, tile: int, size: bytes, coding: Coding) -> bool:
    """Whether ``data``, the parts of a tile one after another, are exactly its packets.

    ``size`` is the body of the SIZ segment (A.5.1).
    """
    try:
        bands = _bands(tile, size, coding)
        reader = _Reader(data)
        for number, (layer, resolution) in enumerate(_order(bands, coding)):
            reader.packet(number, layer, resolution, coding.style)
    except (Inexact, IndexError, ArithmeticError, struct.error):
        return False
    return reader.position == len(data)


Resolution = list["_Band"]


def _order(
    components: list[list[Resolution | None]], coding: Coding
) -> Iterator[tuple[int, Resolution]]:
    """The packets in the order of the file (B.12), where a resolution is one precinct."""
    layers, levels = range(coding.layers), range(coding.levels + 1)
    numbers = range(len(components))
    # By places (PCRL, and CPRL too): every precinct begins where the tile does.
    by_component = (
        (layer, level, each) for each in numbers for level in levels for layer in layers
    )
    orders = (
        ((layer, level, each) for layer in layers for level in levels for each in numbers),
        ((layer, level, each) for level in levels for layer in layers for each in numbers),
        ((layer, level, each) for level in levels for each in numbers for layer in layers),
        by_component,
        by_component,
    )
    for layer, level, each in orders[coding.progression]:
        resolution = components[each][level]
        if resolution is not None:
            yield layer, resolution


def _up(value: int, exponent: int) -> int:
    return -(-value >> exponent)


def _bands(tile: int, size: bytes, coding: Coding) -> list[list[Resolution | None]]:
    """The code-blocks of each component's resolutions (B.5 to B.7), None where there is nothing."""
    right, bottom, left, top, wide, high, x, y, count = struct.unpack_from(">8IH", size, 2)
    if count > _MOST_COMPONENTS:
        raise Inexact
    across = -(-(right - x) // wide)
    column, row = tile % across, tile // across
    tile_left, tile_right = max(x + column * wide, left), min(x + (column + 1) * wide, right)
    tile_top, tile_bottom = max(y + row * high, top), min(y + (row + 1) * high, bottom)
    found = []
    for number in range(count):
        step_x, step_y = struct.unpack_from(">BB", size, 36 + 3 * number + 1)
        x0, x1 = -(-tile_left // step_x), -(-tile_right // step_x)
        y0, y1 = -(-tile_top // step_y), -(-tile_bottom // step_y)
        levels: list[Resolution | None] = []
        for level in range(coding.levels + 1):
            down = coding.levels - level
            left_, right_ = _up(x0, down), _up(x1, down)
            top_, bottom_ = _up(y0, down), _up(y1, down)
            if left_ >= right_ or top_ >= bottom_:
                levels.append(None)
                continue
            wide_, high_ = coding.precincts[level]
            single = left_ >> wide_ == right_ - 1 >> wide_ and top_ >> high_ == bottom_ - 1 >> high_
            if not single or (level and not (wide_ and high_)):
                raise Inexact
            width = min(coding.width, wide_ - bool(level))
            height = min(coding.height, high_ - bool(level))
            kinds = ((1, 0), (0, 1), (1, 1)) if level else ((0, 0),)
            depth = down + bool(level)
            levels.append(
                [
                    _band(
                        (_part(x0, depth, right), _part(x1, depth, right)),
                        (_part(y0, depth, lower), _part(y1, depth, lower)),
                        (width, height),
                    )
                    for right, lower in kinds
                ]
            )
        found.append(levels)
    return found


def _part(place: int, depth: int, high: int) -> int:
    """A place of the component in one of its bands (B.5)."""
    return _up(place - (high << depth >> 1), depth)


def _band(across: tuple[int, int], down: tuple[int, int], block: tuple[int, int]) -> _Band:
    if across[0] >= across[1] or down[0] >= down[1]:
        return _Band(0, 0)
    wide = _up(across[1], block[0]) - (across[0] >> block[0])
    high = _up(down[1], block[1]) - (down[0] >> block[1])
    if wide * high > _MOST_BLOCKS:
        raise Inexact
    return _Band(wide, high)


class _Band:
    """The code-blocks of a band: which were in a packet before, and how their lengths are said."""

    def __init__(self, wide: int, high: int) -> None:
        self.count = wide * high
        self._size = (wide, high)
        self.lengths = [0] * self.count  # bits of a length, 0 before the first

    # Many tiles of a picture are empty and need neither.
    @cached_property
    def included(self) -> _Tree:
        return _Tree(*self._size)

    @cached_property
    def planes(self) -> _Tree:
        return _Tree(*self._size)


class _Tree:
    """A tag tree (B.10.2): each node is the least of the four below."""

    def __init__(self, wide: int, high: int) -> None:
        self.above: list[int] = []  # of each node the one above, -1 at the top
        start = 0
        while wide and high:
            last = wide == 1 and high == 1
            after, half = start + wide * high, (wide + 1) // 2
            self.above += (
                -1 if last else after + (number // wide // 2) * half + number % wide // 2
                for number in range(wide * high)
            )
            if last:
                break
            start, wide, high = after, half, (high + 1) // 2
        self.least = [0] * len(self.above)
        self.value = [_UNKNOWN] * len(self.above)

    def is_below(self, leaf: int, limit: int, bits: _Bits) -> bool:
        """Whether a leaf's value is less than ``limit``, as the next bits say."""
        path = [leaf]
        while (above := self.above[path[-1]]) >= 0:
            path.append(above)
        least = 0
        for node in reversed(path):
            least = max(least, self.least[node])
            while least < limit and least < self.value[node]:
                if bits.one():
                    self.value[node] = least
                else:
                    least += 1
            self.least[node] = least
        return self.value[leaf] < limit


class _Bits:
    """The bits of a packet's header: behind a byte of ones the next begins with a zero (B.10.1)."""

    __slots__ = ("byte", "data", "left", "position")

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position
        self.byte = self.left = 0

    def one(self) -> int:
        """The next bit."""
        if not self.left:
            after_ones = self.byte == 0xFF
            self.byte = self.data[self.position]
            self.position += 1
            self.left = 8
            if after_ones:
                if self.byte & 0x80:
                    raise Inexact
                self.left = 7
        self.left -= 1
        return self.byte >> self.left & 1

    def number(self, count: int) -> int:
        """The next bits as a number, the highest first."""
        value = 0
        for _bit in range(count):
            value = value << 1 | self.one()
        return value

    def end(self) -> int:
        """Where the header ends; the bits up to there are zeros."""
        if self.byte & (1 << self.left) - 1:
            raise Inexact
        if self.byte == 0xFF:
            self.left = 0
            if self.number(7):
                raise Inexact
        return self.position


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def packet(self, number: int, layer: int, resolution: Resolution, style: int) -> None:
        """Go behind one packet."""
        data = self.data
        if style & SOP and data[self.position : self.position + 2] == b"\xff\x91":
            if data[self.position + 2 : self.position + 6] != struct.pack(">HH", 4, number & 65535):
                raise Inexact
            self.position += 6
        bits = _Bits(data, self.position)
        body = 0
        if bits.one():
            body = sum(_contribution(bits, band, layer) for band in resolution)
        self.position = bits.end()
        if style & EPH:
            if data[self.position : self.position + 2] != b"\xff\x92":
                raise Inexact
            self.position += 2
        self.position += body
        if self.position > len(data):
            raise Inexact


def _contribution(bits: _Bits, band: _Band, layer: int) -> int:
    """The bytes that a band's code-blocks have in a packet."""
    total = 0
    for block in range(band.count):
        if band.lengths[block]:
            if not bits.one():
                continue
        else:
            if not band.included.is_below(block, layer + 1, bits):
                continue
            planes = 1
            while not band.planes.is_below(block, planes, bits):
                planes += 1
                if planes > _MOST_PLANES:
                    raise Inexact
            band.lengths[block] = 3
        passes = _passes(bits)
        while bits.one():
            band.lengths[block] += 1
            if band.lengths[block] > 32:
                raise Inexact
        total += bits.number(band.lengths[block] + passes.bit_length() - 1)
    return total


def _passes(bits: _Bits) -> int:
    """The number of coding passes (B.10.6, table B.4)."""
    if not bits.one():
        return 1
    if not bits.one():
        return 2
    if (more := bits.number(2)) < 3:
        return 3 + more
    if (more := bits.number(5)) < 31:
        return 6 + more
    return 37 + bits.number(7)
