"""Which SOP class and instance a file says it holds: read from its beginning, within bounds."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset

from deid.dicom.stream import BIG_ENDIAN, DEFLATED, IMPLICIT
from deid.sources.originals import Refused

# Group 0008 begins a data set; the UIDs stand in its first kilobytes.
HEAD_BYTES = 1 << 20
_INSTANCE = 0x00080018


def identity(path: Path) -> tuple[str, str]:
    """SOPClassUID and SOPInstanceUID of the data set in a file (PS3.10 section 7).

    Not those of the file meta, which whoever sent the file may have written by another book.
    Raises :class:`Refused`.
    """
    with path.open("rb") as handle:
        head = handle.read(HEAD_BYTES)
    if head[128:132] != b"DICM":
        raise Refused("not-dicom")
    try:
        stream = io.BytesIO(head)
        stream.seek(132)
        meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, size: tag.group != 2)
        syntax = str(meta.TransferSyntaxUID)
        if syntax == DEFLATED:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            stream = io.BytesIO(inflater.decompress(head[stream.tell() :], HEAD_BYTES))
        found = read_dataset(
            stream, syntax == IMPLICIT, syntax != BIG_ENDIAN,
            stop_when=lambda tag, vr, size: tag > _INSTANCE,
        )  # fmt: skip
        named = str(found.SOPClassUID), str(found.SOPInstanceUID)
    except (InvalidDicomError, AttributeError, ValueError, TypeError, KeyError, IndexError,
            NotImplementedError, OSError, EOFError, RecursionError, zlib.error):  # fmt: skip
        raise Refused("bad-structure") from None
    if not all(named):
        raise Refused("bad-structure")
    return named
