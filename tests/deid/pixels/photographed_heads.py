"""Heads of 62 people in photographs that public repositories carry; the pictures are not ours.

``photographed_heads.csv`` says where each picture is, its SHA-256, which part of it is cut out
(hair, neck, a little of what is behind) and where the face is: from the hairline to the chin and
from cheek to cheek, marked by eye, not by a detector. ``scripts/fetch_heads.py`` brings the
pictures into ``.heads``, where git does not look: the repositories' licences are for their code,
whose the photographs are they do not say, so they are used to measure with and not given away.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from synthetic.photos import SCENES
from tests.deid.pixels.placed_faces import Head, Split

LIST = Path(__file__).with_name("photographed_heads.csv")
FOLDER = Path(__file__).parents[3] / ".heads"
HALVES = ("fitting", "measured")

LARGEST = 200
"""Widths of a face as it is kept; nothing larger is put into a picture."""


@dataclass(frozen=True)
class Photographed:
    """One head: its half, its picture, what is cut out of that, and the face in the picture."""

    half: str
    repository: str
    commit: str
    path: str
    sha256: str
    cut: tuple[int, int, int, int]
    """Left, top, right, bottom."""
    face: tuple[int, int, int, int]
    """x, y, width, height."""

    @property
    def name(self) -> str:
        """Differs from head to head."""
        return f"{self.repository}/{self.path} {self.cut[0]}"

    @property
    def address(self) -> str:
        """Where the picture is, below the address of all repositories' files."""
        return f"{self.repository}/{self.commit}/{self.path}"


@lru_cache(maxsize=1)
def listed() -> tuple[Photographed, ...]:
    """All heads, in the list's order."""
    found = []
    with LIST.open(encoding="utf-8", newline="") as stream:
        for half, repository, commit, path, digest, *numbers in list(csv.reader(stream))[1:]:
            left, top, right, bottom, x, y, width, height = map(int, numbers)
            cut, face = (left, top, right, bottom), (x, y, width, height)
            found.append(Photographed(half, repository, commit, path, digest, cut, face))
    return tuple(found)


def fetch(read: Callable[[str], bytes], folder: Path = FOLDER) -> int:
    """Bring what is missing into ``folder``, read by its address; the number of new pictures.

    Raises :class:`ValueError` where a picture is not the one that was marked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    new = 0
    for head in {each.sha256: each for each in listed()}.values():
        path = folder / head.sha256
        if path.is_file():
            continue
        data = read(head.address)
        if hashlib.sha256(data).hexdigest() != head.sha256:
            raise ValueError(f"{head.address} is another picture than the one that was marked")
        part = path.with_suffix(".part")
        part.write_bytes(data)
        part.replace(path)
        new += 1
    return new


def missing(folder: Path = FOLDER) -> int:
    """How many pictures are not there."""
    return sum(not (folder / each).is_file() for each in {head.sha256 for head in listed()})


@lru_cache(maxsize=2)
def photographed(half: str) -> list[Head]:
    """The heads of one half of the people, their faces at most :data:`LARGEST` wide."""
    return [_head(each) for each in listed() if each.half == half]


MANY = Split(lambda: photographed("measured"), SCENES)
"""Half of the people. Nothing was fitted with them."""

MANY_MORE = Split(lambda: photographed("fitting"), SCENES)
"""The other half, which may be fitted with. So far it was not: with them the weights found no more,
so what is found of them counts, too."""


def _head(one: Photographed) -> Head:
    data = np.frombuffer((FOLDER / one.sha256).read_bytes(), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{one.address} cannot be read as a picture")
    left, top, right, bottom = one.cut
    x, y, width, height = one.face
    cut = np.ascontiguousarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)[top:bottom, left:right])
    head = Head(one.name, cut, (x - left, y - top, width, height))
    return head.reduced(LARGEST) if width > LARGEST else head
