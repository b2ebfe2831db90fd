"""What was planted, so that a test can look for every single one of them afterwards."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Planted:
    """One identifier hidden in a generated source tree.

    ``value`` is the text as written; ``where`` names the hiding place: a DICOM tag path
    (``0040,0275>0040,0007``), a photograph's segment (``EXIF GPS``), ``pixels``, ``file name``,
    ``folder name`` or a table's column. ``file`` is the path inside the tree. ``box`` is
    (x, y, width, height) for what is seen in pixels. ``encoding`` is how the bytes are written.
    """

    value: str
    where: str
    file: str
    box: tuple[int, int, int, int] | None = None
    encoding: str = "utf-8"

    def as_mapping(self) -> dict[str, object]:
        """The record as a JSON object."""
        return {
            "value": self.value,
            "where": self.where,
            "file": self.file,
            "box": list(self.box) if self.box else None,
            "encoding": self.encoding,
        }
