"""Mask what an officer marked: ``python -m deid.corrections PUBLISHED WANTED MENDED``.

WANTED is a JSON list of ``{"target", "boxes"}`` with boxes ``{"x", "y", "width", "height"}`` in
pixels of the image. MENDED gets each mended file under its target; a file that cannot be masked,
or that was marked without a box, is left out, and must not be published. Holds no key.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deid import output
from deid.decoding import Decoder
from deid.dicom import pixels, stream, writer
from deid.dicom.header import value_of
from deid.quarantine import Quarantined
from policies.errors import UserError

Marks = list[list[int]]


def mend(published: Path, wanted: Sequence[Mapping[str, Any]], mended: Path) -> list[str]:
    """Mask every wanted file that can be masked; return the targets that were mended."""
    done: list[str] = []
    decoder = Decoder()
    try:
        for each in wanted:
            target = str(each["target"])
            marks = [
                [int(box[side]) for side in ("x", "y", "width", "height")] for box in each["boxes"]
            ]
            if not marks:
                continue
            try:
                data = (published / target).read_bytes()
                chunks = _dicom(data, marks, decoder) if data[128:132] == b"DICM" else [
                    _photo(data, marks, decoder)
                ]  # fmt: skip
            except (Quarantined, OSError):
                continue
            output.write(mended, target, chunks)
            done.append(target)
    finally:
        decoder.close()
    return done


def _dicom(data: bytes, marks: Marks, decoder: Decoder) -> list[bytes | memoryview]:
    file = stream.parse(data)
    cleaned = pixels.masked_file(file.elements, file.syntax, decoder, marks)
    elements = [
        each
        for each in file.elements
        if each.tag not in pixels.PIXEL_TAGS and each.tag not in cleaned.attributes
    ]
    elements = sorted(
        [*elements, *cleaned.attributes.values(), cleaned.element], key=lambda each: each.tag
    )
    return writer.file_chunks(
        value_of(elements, 0x00080016), value_of(elements, 0x00080018), cleaned.syntax, elements
    )


def _photo(data: bytes, marks: Marks, decoder: Decoder) -> bytes:
    parts: list[bytes] = []
    whole = decoder.ask({"operation": "mask", "marks": marks}, data, sink=parts.append)[1]
    return whole or b"".join(parts)


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    published, wanted, mended = (Path(each) for each in argv)
    try:
        mend(published, json.loads(wanted.read_text("utf-8")), mended)
    except UserError as error:
        print(f"deid: {error}", file=sys.stderr)  # noqa: T201 - this is a command
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
