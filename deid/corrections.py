"""Mask what an officer marked: ``python -m deid.corrections PUBLISHED WANTED MENDED [ORIGINALS]``.

WANTED is a JSON list of ``{"target", "boxes"}`` with boxes ``{"x", "y", "width", "height"}`` in
pixels of the image. An entry with ``source`` (the original's digest) is made from the original's
pixels anew, with ``boxes`` masked and nothing else: so the box ``wrong``, which hid nothing, is
taken away. Outside of all of these the file must be what was published, or it is left out.
MENDED gets each mended file under its target; a file that cannot be masked, or that was marked
without a box, is left out, and must not be published. Holds no key.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deid import intake, output
from deid.decoding import Decoder
from deid.dicom import clean, pixels, stream, writer
from deid.dicom.header import value_of
from deid.dicom.samples import facts_of
from deid.dicom.stream import Buffer, Element
from deid.quarantine import Quarantined
from policies.errors import UserError

Marks = list[list[int]]


def mend(
    published: Path,
    wanted: Sequence[Mapping[str, Any]],
    mended: Path,
    originals: Path | None = None,
) -> list[str]:
    """Mask every wanted file that can be masked; return the targets that were mended."""
    done: list[str] = []
    anew = {str(each["source"]): each for each in wanted if each.get("source")}
    decoder = Decoder()
    try:
        for each in wanted:
            if not each.get("source") and each["boxes"]:
                done += _kept(published, each, mended, decoder, None)
        if anew and originals is not None:
            for digest, data in _found(originals, set(anew)):
                done += _kept(published, anew[digest], mended, decoder, data)
    finally:
        decoder.close()
    return done


def _found(originals: Path, digests: set[str]) -> Iterator[tuple[str, Buffer]]:
    reader = intake.Reader()
    try:
        for source in intake.walk(originals):
            if not digests:
                return
            try:
                data = reader.read(source)
            except Quarantined:
                continue
            digest = output.digest_of_bytes(data)
            if digest in digests:
                digests.remove(digest)
                yield digest, data
    finally:
        reader.close()


def _kept(
    published: Path,
    wanted: Mapping[str, Any],
    mended: Path,
    decoder: Decoder,
    original: Buffer | None,
) -> list[str]:
    """Write one mended file; return its target, or nothing where it cannot be masked."""
    target = str(wanted["target"])
    marks = _marks(wanted["boxes"])
    try:
        data = (published / target).read_bytes()
        if data[128:132] == b"DICM":
            chunks = _dicom(data, marks, decoder, original, _marks(wanted.get("wrong", ())))
        else:
            chunks = _photo(data, marks, decoder, original)
    except (Quarantined, OSError):
        return []
    output.write(mended, target, chunks)
    return [target]


def _marks(boxes: Iterable[Mapping[str, Any]]) -> Marks:
    return [[int(box[side]) for side in ("x", "y", "width", "height")] for box in boxes]


def _agrees(
    published: list[Element], syntax: str, anew: list[Element], encoded: str,
    marks: Marks, decoder: Decoder,
) -> bool:  # fmt: skip
    """Whether nothing but what lies in the boxes differs from what was published.

    Whatever the report does not name was masked for a reason too: such a file stays as it is.
    """
    both = []
    for elements, kind in ((published, syntax), (anew, encoded)):
        facts = facts_of(elements)
        if facts.allocated % 8:
            return False
        shape = (facts.frames, facts.rows, facts.columns, facts.samples * facts.allocated // 8)
        value = pixels.decoded(elements, kind, decoder).element.value
        if len(value) < math.prod(shape):
            return False
        pixel = np.frombuffer(value, np.uint8, math.prod(shape)).reshape(shape).copy()
        for x, y, width, height in marks:
            pixel[:, max(y, 0) : y + height, max(x, 0) : x + width] = 0
        both.append(pixel)
    return bool(np.array_equal(both[0], both[1]))


def _dicom(
    data: bytes, marks: Marks, decoder: Decoder, original: Buffer | None, wrong: Marks
) -> list[Buffer]:
    """The published file's header with its own pixels, or the original's, masked."""
    file = stream.parse(data)
    source = file if original is None else stream.parse(original)
    if original is not None:
        clean.resolve_ambiguous(source.elements, clean.is_signed(source.elements))
    cleaned = pixels.masked_file(source.elements, source.syntax, decoder, marks)
    elements = [
        each
        for each in file.elements
        if each.tag not in pixels.PIXEL_TAGS and each.tag not in cleaned.attributes
    ]
    elements = sorted(
        [*elements, *cleaned.attributes.values(), cleaned.element], key=lambda each: each.tag
    )
    if original is not None and not _agrees(
        file.elements, file.syntax, elements, cleaned.syntax, [*marks, *wrong], decoder
    ):
        raise Quarantined("not-clean")
    return writer.file_chunks(
        value_of(elements, 0x00080016), value_of(elements, 0x00080018), cleaned.syntax, elements
    )


def _photo(data: Buffer, marks: Marks, decoder: Decoder, original: Buffer | None) -> list[Buffer]:
    """A photograph or a video with the marks masked.

    Of the original only where it is one picture: what was masked as it moved from frame to frame
    stands in no report, and would be uncovered.
    """
    parts: list[Buffer] = []
    head = {"operation": "mask", "marks": marks, "single": original is not None}
    whole = decoder.ask(head, data if original is None else original, sink=parts.append)[1]
    return [whole] if whole else parts


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    published, wanted, mended, *originals = (Path(each) for each in argv)
    try:
        mend(published, json.loads(wanted.read_text("utf-8")), mended, *originals[:1])
    except UserError as error:
        print(f"deid: {error}", file=sys.stderr)  # noqa: T201 - this is a command
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
