"""Messages between processes over a pipe: a JSON head and plain bytes, never pickled objects.

A decoder of a stranger's file may be taken over by that file, so what it answers is data with a
length, checked here, and nothing that could run on the reading side.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

HEAD_BYTES = 64 << 20
BODY_BYTES = 8 << 30
_FRAME = struct.Struct("<IQ")


def send(stream: BinaryIO, head: Mapping[str, Any], *body: bytes | memoryview) -> None:
    """Write one message; the parts of ``body`` arrive as one."""
    encoded = json.dumps(head).encode()
    stream.write(_FRAME.pack(len(encoded), sum(len(part) for part in body)))
    stream.write(encoded)
    for part in body:
        stream.write(part)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """Read one message, None at the end of the stream; :class:`ValueError` for a malformed one."""
    frame = _exactly(stream, _FRAME.size)
    if frame is None:
        return None
    head_length, body_length = _FRAME.unpack(frame)
    if head_length > HEAD_BYTES or body_length > BODY_BYTES:
        raise ValueError("message too long")
    encoded, body = _exactly(stream, head_length), _exactly(stream, body_length)
    if encoded is None or body is None:
        return None
    head = json.loads(encoded)
    if not isinstance(head, dict):
        raise ValueError("message without a head")
    return head, body


def _exactly(stream: BinaryIO, length: int) -> bytes | None:
    if length == 0:
        return b""
    data = stream.read(length)
    return data if len(data) == length else None
