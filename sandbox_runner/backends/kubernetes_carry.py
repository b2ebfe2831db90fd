"""Copy regular files out of a directory that strangers wrote, and nothing else.

Runs in a pod of ours after the untrusted container has ended, and again in the runner on what the
first run brought. Standard library only: ``python -m ... SOURCE TARGET MAX_BYTES MAX_FILES``. Ends
with 0, or with 3 where more was there than may be carried; prints what it left as JSON.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

BLOCK = 1024 * 1024
MAX_DEPTH = 16
MAX_NAME_BYTES = 255
#: How many refusals are told, and how much of a hostile name each shows.
MAX_TOLD = 100
SHOWN = 120
OVER_LIMIT = 3

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking: opening a FIFO must not wait for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class OverLimit(Exception):
    """There is more than may be carried."""


@dataclass
class Carried:
    """How much was copied, and what was left with why."""

    files: int = 0
    bytes: int = 0
    left: list[tuple[str, str]] = field(default_factory=list)

    def leave(self, path: str, why: str) -> None:
        """Remember that ``path`` was not copied."""
        if len(self.left) < MAX_TOLD:
            shown = path.encode(errors="surrogateescape").decode(errors="replace")
            self.left.append((shown[:SHOWN], why))


def _why_not(name: str, mode: int, depth: int) -> str:
    """Return why an entry of this name and kind is not copied, ``""`` if it may be."""
    if len(os.fsencode(name)) > MAX_NAME_BYTES or not name.isprintable():
        return "name"
    if stat.S_ISDIR(mode):
        return "too deep" if depth >= MAX_DEPTH else ""
    if stat.S_ISLNK(mode):
        return "link"
    return "" if stat.S_ISREG(mode) else "not a regular file"


def _entries(directory: int) -> Iterator[str]:
    with os.scandir(directory) as found:
        yield from sorted(entry.name for entry in found)


class Carrier:
    """One copy of one tree, within ``max_bytes`` and ``max_files`` (directories count too)."""

    def __init__(self, max_bytes: int, max_files: int) -> None:
        self.max_bytes = max_bytes
        self.max_files = max_files
        self.carried = Carried()

    def _count(self) -> None:
        self.carried.files += 1
        if self.carried.files > self.max_files:
            raise OverLimit

    def copy_file(self, source: int, target: int, name: str, path: str) -> None:
        """Copy one file from one open directory into another. Raises OverLimit and OSError."""
        try:
            reader = os.open(name, _FILE, dir_fd=source)
        except OSError:
            self.carried.leave(path, "unreadable")
            return
        try:
            # Asked of what was opened, not of the name: it may have changed in between.
            if not stat.S_ISREG(os.fstat(reader).st_mode):
                self.carried.leave(path, "not a regular file")
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            writer = os.open(name, flags, 0o644, dir_fd=target)
            try:
                while block := os.read(reader, BLOCK):
                    self.carried.bytes += len(block)
                    if self.carried.bytes > self.max_bytes:
                        raise OverLimit
                    view = memoryview(block)
                    while view:
                        view = view[os.write(writer, view) :]
                os.fsync(writer)
            finally:
                os.close(writer)
        finally:
            os.close(reader)

    def copy_tree(self, source: int, target: int, prefix: str = "", depth: int = 0) -> None:
        """Copy what lies in one open directory into another. Raises OverLimit and OSError."""
        for name in _entries(source):
            self._count()
            path = prefix + name
            mode = os.stat(name, dir_fd=source, follow_symlinks=False).st_mode
            why = _why_not(name, mode, depth)
            if why:
                self.carried.leave(path, why)
            elif stat.S_ISREG(mode):
                self.copy_file(source, target, name, path)
            else:
                self._copy_directory(source, target, name, path, depth)

    def _copy_directory(self, source: int, target: int, name: str, path: str, depth: int) -> None:
        try:
            below = os.open(name, _DIRECTORY, dir_fd=source)
        except OSError:
            self.carried.leave(path, "unreadable")
            return
        try:
            os.mkdir(name, 0o700, dir_fd=target)  # noqa: PTH102 - pathlib has no dir_fd
            made = os.open(name, _DIRECTORY, dir_fd=target)
            try:
                # The runner, another user, must be able to take it away again.
                os.fchmod(made, 0o777)
                self.copy_tree(below, made, path + "/", depth + 1)
            finally:
                os.close(made)
        finally:
            os.close(below)


def carry(source: str, target: str, max_bytes: int, max_files: int) -> Carried:
    """Copy the regular files of ``source`` into the empty directory ``target``.

    Links are never followed, on either side. Raises OverLimit, and OSError where ours fails.
    """
    carrier = Carrier(max_bytes, max_files)
    reading = os.open(source, _DIRECTORY)
    try:
        writing = os.open(target, _DIRECTORY)
        try:
            carrier.copy_tree(reading, writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)
    return carrier.carried


def main(argv: list[str]) -> int:
    """Run one copy; see the module."""
    source, target, max_bytes, max_files = argv
    try:
        carried = carry(source, target, int(max_bytes), int(max_files))
    except OverLimit:
        return OVER_LIMIT
    sys.stdout.write(json.dumps({"left": carried.left}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
