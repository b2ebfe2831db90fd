"""The process that decodes strangers' pictures: bytes in, boxes and pixels out, no key inside.

Started as ``python -m deid.decoder``; reads requests from standard input until it closes.
"""

from __future__ import annotations

import importlib
import io
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from deid import channel

if TYPE_CHECKING:
    from deid.dicom.decode import Search

ADDRESS_SPACE = 16 << 30

Tell = Callable[[bytes], None]
"""Says that the work goes on, with the next part of a long answer."""


def _dicom(head: dict[str, Any], body: bytes, _tell: Tell) -> tuple[dict[str, Any], bytes]:
    from deid.dicom.decode import examine
    from deid.pixels.interface import Box, listed

    detector = None
    if head["detect"]:
        from deid.pixels.text import default_text_detector

        detector = default_text_detector(1)
    marks = [Box("text", *(int(side) for side in mark)) for mark in head.get("marks", ())]
    source = io.BytesIO(body)
    del body  # closing the stream, once it is read, gives the memory back
    result = examine(
        source,
        detector,
        rewrite=bool(head["rewrite"]),
        marks=marks,
        fill=head.get("fill"),
        family=str(head.get("family", "")),
    )
    answer = {
        "boxes": listed(result.boxes),
        "attributes": dict(result.attributes),
        "pixels": result.pixels is not None,
        "doubt": result.doubt,
        "lengths": list(result.lengths),
    }
    return answer, result.pixels or b""


# The search of the file whose parts are being sent; a part of another file begins a new one.
_searches: dict[str, Search] = {}


def _part(head: dict[str, Any], body: bytes, _tell: Tell) -> tuple[dict[str, Any], bytes]:
    from deid.dicom import decode
    from deid.pixels.interface import listed

    if head["first"]:
        detector = None
        if head["detect"]:
            from deid.pixels.text import default_text_detector

            detector = default_text_detector(1)
        _searches["file"] = decode.Search(detector, int(head["frames"]))
    search = _searches["file"]
    source = io.BytesIO(body)
    del body
    boxes, fill = decode.search_part(search, source)
    return {"boxes": listed(boxes), "fill": list(fill), "doubt": search.doubt}, b""


def _photo(head: dict[str, Any], body: bytes, tell: Tell) -> tuple[dict[str, Any], bytes]:
    from deid.photo_room import clean_bytes

    return clean_bytes(head, body, lambda: tell(b""))


def _video(head: dict[str, Any], body: bytes, tell: Tell) -> tuple[dict[str, Any], bytes]:
    from deid.photo_room import clean_film

    return clean_film(head, body, tell)


def _picture(head: dict[str, Any], body: bytes, _tell: Tell) -> tuple[dict[str, Any], bytes]:
    from deid.dicom.picture import LARGEST_SIDE, picture_of

    size, picture = picture_of(
        body, largest=int(head.get("largest", LARGEST_SIDE)), small=bool(head.get("small"))
    )
    return dict(size), picture


def _frames(head: dict[str, Any], body: bytes, _tell: Tell) -> tuple[dict[str, Any], bytes]:
    from deid.dicom.picture import frames_of

    numbers, count, drawn = frames_of(body, most=int(head["most"]))
    return {"numbers": numbers, "count": count, "sizes": [len(each) for each in drawn]}, b"".join(
        drawn
    )


def _mask(head: dict[str, Any], body: bytes, tell: Tell) -> tuple[dict[str, Any], bytes]:
    from deid import stills
    from deid.quarantine import Quarantined

    if head.get("single") and stills.how_many(body) != 1:
        raise Quarantined("several-pictures")
    return {}, stills.masked(body, [[int(side) for side in mark] for mark in head["marks"]], tell)


def _metadata(_head: dict[str, Any], body: bytes, _tell: Tell) -> tuple[dict[str, Any], bytes]:
    from deid.dicom.picture import metadata_of

    return {"metadata": metadata_of(body)}, b""


def _text(_head: dict[str, Any], body: bytes, tell: Tell) -> tuple[dict[str, Any], bytes]:
    from deid.pixels.text import default_text_detector
    from deid.text_again import text_in

    boxes, whole = text_in(body, default_text_detector(1), lambda: tell(b""))
    return {
        "boxes": [[box.x, box.y, box.width, box.height] for box in boxes],
        "whole": whole,
    }, b""


OPERATIONS = {
    "dicom": _dicom, "part": _part, "photo": _photo, "video": _video, "picture": _picture,
    "mask": _mask, "text": _text, "frames": _frames, "metadata": _metadata,
}  # fmt: skip


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the stream ends. A failure is one word, never the file's own text."""

    def tell(part: bytes) -> None:
        channel.send(answers, {"goes on": True}, part)

    while (message := channel.receive(requests)) is not None:
        head, *bodies = message
        del message  # whoever answers holds the only copy
        try:
            answer, pixels = OPERATIONS[str(head["operation"])](head, bodies.pop(), tell)
        except MemoryError:
            answer, pixels = {"error": "too-large"}, b""
        except Exception as error:  # whatever a decoder raises on a hostile file
            reason = getattr(error, "reason", "")
            answer, pixels = {"error": reason or "cannot-decode", "kind": type(error).__name__}, b""
        channel.send(answers, answer, pixels)


def main() -> None:
    """Serve on the process's own standard streams; whatever libraries print goes nowhere."""
    answers = os.fdopen(os.dup(1), "wb")
    requests = os.fdopen(os.dup(0), "rb")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    _stand_nowhere()
    # Much of pydicom's start is for what downloads its examples.
    sys.modules["requests"] = None  # type: ignore[assignment]
    # Before the first question, so that whoever asks it does not wait.
    importlib.import_module("deid.dicom.decode")
    serve(requests, answers)


def _stand_nowhere() -> None:
    """Work in a folder that is removed at once: no file can be left in it, however this ends.

    What is too large for memory goes into a file without a name; see :mod:`deid.spill`.
    """
    folder = Path(tempfile.mkdtemp(prefix="glovebox-"))
    os.chdir(folder)
    folder.rmdir()


if __name__ == "__main__":
    main()
    # Nothing is left to write, and taking an interpreter with its libraries apart takes a while.
    os._exit(0)
