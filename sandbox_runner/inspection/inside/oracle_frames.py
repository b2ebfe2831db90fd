"""Frames between a sealed process and the other end of its pipe (sandbox_runner/oracle.py).

Four bytes of length, a JSON head, and the bytes that the head counts; both ways.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable
from typing import Any

# The pipes are moved away from 0 and 1 before anything of the submission runs, so that a print
# in a model is lost instead of breaking the conversation.
REQUESTS = os.fdopen(os.dup(0), "rb")
ANSWERS = os.fdopen(os.dup(1), "wb")
_nothing = os.open(os.devnull, os.O_RDWR)
os.dup2(_nothing, 0)
os.dup2(_nothing, 1)


def receive() -> tuple[dict[str, Any], bytearray]:
    """Return the next request and its bytes."""
    size = REQUESTS.read(4)
    if len(size) < 4:
        sys.exit(0)
    head = json.loads(REQUESTS.read(struct.unpack("<I", size)[0]))
    body = bytearray(head.get("bytes", 0))
    view, done = memoryview(body), 0
    while done < len(body):
        count = REQUESTS.readinto(view[done:])
        if not count:
            sys.exit(0)
        done += count
    return head, body


def answer(head: dict[str, Any], body: bytes = b"") -> None:
    """Send one answer."""
    text = json.dumps(head | {"bytes": len(body)}).encode()
    ANSWERS.write(struct.pack("<I", len(text)) + text + body)
    ANSWERS.flush()


def serve(answers: Callable[[dict[str, Any], bytearray], tuple[dict[str, Any], bytes]]) -> None:
    """Answer until the pipe closes. Of an exception only its type is told."""
    while True:
        head, body = receive()
        payload = b""
        try:
            said, payload = answers(head, body)
        except Exception as error:
            said, payload = {"error": type(error).__name__[:60]}, b""
        answer(said, payload)
