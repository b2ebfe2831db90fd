"""Several pictures of one file as one, for the people who look at them.

An officer examines one picture a file. A file of several pages or frames is shown as a sheet of
cells of one size; what is marked in a cell is masked at that place of every picture of the file,
which hides too much rather than too little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deid.pixels.interface import Box

CELLS = 9
COLUMNS = 3


def shown(count: int, most: int = CELLS) -> list[int]:
    """Which of ``count`` pictures are on the sheet: all, or so many at equal steps."""
    cells = min(count, most)
    return [(2 * cell + 1) * count // (2 * cells) for cell in range(cells)] if cells else []


def draw(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The sheet of the shown pictures ``[rows, columns, 3]``; one picture is its own sheet."""
    if len(pictures) == 1:
        return pictures[0]
    height, width = _cell([each.shape[:2] for each in pictures])
    columns = min(COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for number, picture in enumerate(pictures):
        top, left = _corner(number, columns, height, width)
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def boxes(sizes: Sequence[tuple[int, int]], found: Sequence[Sequence[Box]]) -> list[Box]:
    """The boxes of the shown pictures in pixels of the sheet; ``sizes`` are rows and columns."""
    places = shown(len(sizes))
    height, width = _cell([sizes[place] for place in places])
    columns = min(COLUMNS, len(places))
    moved = []
    for number, place in enumerate(places):
        top, left = _corner(number, columns, height, width)
        moved += [replace(box, x=box.x + left, y=box.y + top) for box in found[place]]
    return moved


def in_pictures(marks: Sequence[Sequence[int]], sizes: Sequence[tuple[int, int]]) -> list[Box]:
    """Marks of a sheet (x, y, width, height) as boxes of every picture."""
    places = shown(len(sizes))
    height, width = _cell([sizes[place] for place in places])
    columns = min(COLUMNS, len(places))
    found = []
    for x, y, mark_width, mark_height in marks:
        mark = Box("text", x, y, mark_width, mark_height)
        for number in range(len(places)):
            top, left = _corner(number, columns, height, width)
            inside = replace(mark, x=mark.x - left, y=mark.y - top).clipped(height, width)
            if inside is not None:
                found.append(inside)
    return found


def _cell(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return max(rows for rows, _columns in sizes), max(columns for _rows, columns in sizes)


def _corner(number: int, columns: int, height: int, width: int) -> tuple[int, int]:
    return number // columns * height, number % columns * width
