"""Places to hide in, each with a secret of its own."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

Build = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Place:
    """``build`` makes the file that hides ``secret``; ``may_hold`` says that it may be held."""

    name: str
    build: Build
    secret: bytes
    may_hold: bool

    def file(self) -> bytes:
        """The file with its secret."""
        return self.build(self.secret)


class Places:
    """A list of places that names each secret by its place."""

    def __init__(self) -> None:
        self._places: list[Place] = []

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def add(self, name: str, build: Build, *, may_hold: bool = False) -> None:
        """Add a place. Its secret is of letters and digits, and nobody else's."""
        digest = hashlib.sha256(name.encode()).hexdigest()[:9].upper()
        self._places.append(Place(name, build, f"KIM{digest}".encode(), may_hold))

    def place(self, build: Build) -> Build:
        """Add a builder under its own name."""
        self.add(build.__name__.replace("_", " "), build)
        return build


def secret_picture(secret: bytes) -> bytes:
    """A JPEG that no other is like, with the secret in it."""
    seed = int.from_bytes(hashlib.sha256(secret).digest()[:4])
    grain = np.random.default_rng(seed).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(grain).save(stream, "JPEG", comment=secret)
    return stream.getvalue()
