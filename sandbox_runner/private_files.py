"""New files of ours: never through a link, never over something that stands there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Final

FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def create(path: Path, buffer: int) -> BinaryIO:
    """Open a new file for writing; it is read-only for everybody who opens it later."""
    descriptor = os.open(path, FLAGS, 0o444)
    # Whatever our umask is: the sandbox's user reads it, behind a folder that others cannot enter.
    os.fchmod(descriptor, 0o444)
    return os.fdopen(descriptor, "wb", buffering=buffer)


def write_new(path: Path, content: bytes) -> None:
    """Write a new small file, read-only."""
    with create(path, 0) as file:
        written = file.write(content)
        while written < len(content):
            written += file.write(memoryview(content)[written:])


def begin_writeback(descriptor: int, offset: int, length: int) -> None:
    """Have the kernel begin to bring what was just written to its disk, without waiting for it.

    Else it begins when memory is short, or when somebody waits. In memory it does nothing.
    """
    # Pages that wait to be written stay, whatever the name says.
    os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)
