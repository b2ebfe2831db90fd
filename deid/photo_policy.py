"""What a dataset wants masked in photographs and videos, and why one is held back."""

from __future__ import annotations

from dataclasses import dataclass

from deid.pixels.interface import Box
from policies.errors import Invalid, _

MAXIMUM_PIXELS = 60_000_000
MAXIMUM_BYTES = 256 << 20
MAXIMUM_PICTURES = 300
"""Pages of one TIFF, or frames of one animation."""

MAXIMUM_ALL_PIXELS = 100_000_000
"""Of all pages or frames together: they are in memory at once."""

REASONS = {
    "unsupported-format": _(
        "This picture's format cannot be read; JPEG, PNG, TIFF, WebP, AVIF, GIF and BMP can."
    ),
    "heic": _("HEIC cannot be read here; export the picture as JPEG, PNG, TIFF or AVIF."),
    "too-large": _("This picture is larger than {limit} million pixels or {megabytes} MiB."),
    "too-many-pictures": _(
        "This file holds more than {pictures} pictures, or too many pixels in all; split it."
    ),
    "sample-type": _("This picture's kind of samples cannot be cleaned without loss."),
    "cannot-decode": _("This picture is damaged or incomplete."),
    "not-clean": _("The cleaned picture still held more than pixels and was not kept."),
}


class PhotoRefused(Invalid):
    """A picture that cannot be proven clean; ``reason`` is one of ``REASONS``."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            REASONS[reason],
            code=f"deid.photo.{reason}",
            limit=MAXIMUM_PIXELS // 1_000_000,
            megabytes=MAXIMUM_BYTES >> 20,
            pictures=MAXIMUM_PICTURES,
        )
        self.reason = reason


@dataclass(frozen=True)
class PhotoPolicy:
    """What a dataset wants masked. ``plates`` says that plates would have to be masked if seen."""

    text: bool = True
    faces: bool = True
    plates: bool = True

    def masks(self, box: Box) -> bool:
        """Whether boxes of this kind are masked."""
        return {"text": self.text, "face": self.faces, "plate": self.plates}[box.kind]
