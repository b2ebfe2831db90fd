"""Compare pieces of files with their SHA-256, in a process of its own: one core more than Python's.

The program below holds no key and loads nothing but the standard library. It is told by its
standard input, and ends when that is closed: with 0 where every piece held, with 1 where one did
not. Each order is a path, a place in that file, and the lengths and digests of what lies there one
after another.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sandbox_runner.sealed_split import DataFault

_ORDER: Final = struct.Struct("<IQI")
DIGEST: Final = 32

_PROGRAM: Final = """
import hashlib, os, struct, sys
ORDER = struct.Struct("<IQI")
orders, opened, room = sys.stdin.buffer, {}, bytearray()
while head := orders.read(ORDER.size):
    length, offset, count = ORDER.unpack(head)
    path = orders.read(length)
    sizes = struct.unpack(f"<{count}I", orders.read(4 * count))
    digests = orders.read(32 * count)
    if path not in opened:
        opened[path] = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    whole = sum(sizes)
    if len(room) < whole:
        room = bytearray(whole)
    view = memoryview(room)[:whole]
    at = 0
    while at < whole:
        read = os.preadv(opened[path], [view[at:]], offset + at)
        if read == 0:
            sys.exit(1)
        at += read
    at = 0
    for number, size in enumerate(sizes):
        digest = hashlib.sha256(view[at : at + size]).digest()
        if digest != digests[32 * number : 32 * number + 32]:
            sys.exit(1)
        at += size
"""


class Verifier:
    """A running verifier; :meth:`finish` says whether everything held."""

    def __init__(self) -> None:
        # Isolated, without site packages: it starts in a hundredth of a second.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
        )

    def check(self, path: Path, offset: int, sizes: Sequence[int], digests: bytes) -> None:
        """Have pieces of a file looked at that lie one after another from ``offset`` on."""
        assert self._process.stdin is not None
        name = os.fsencode(path)
        head = _ORDER.pack(len(name), offset, len(sizes))
        try:
            self._process.stdin.write(head + name + struct.pack(f"<{len(sizes)}I", *sizes))
            self._process.stdin.write(digests)
            self._process.stdin.flush()
        except BrokenPipeError:
            self.finish()
            raise

    def finish(self) -> None:
        """Wait for the last piece. Raises :class:`DataFault` where one was not what it should be.

        ``OSError`` where somebody ended the process.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and how says why
            self._process.stdin.close()
        code = self._process.wait()
        if code == 1:
            raise DataFault("a file of the dataset is not what its manifest says")
        if code != 0:
            raise OSError(errno.ECHILD, "the process that verifies was ended")

    def close(self) -> None:
        """End it at once, whatever it was at; idempotent."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
