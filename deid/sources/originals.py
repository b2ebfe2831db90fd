"""The folder that intake fills: whole originals under their digests, a manifest beside them.

``DIR`` holds only whole files, named by their SHA-256, so ``glovebox deid DIR`` may read it at any
moment. Beside it lie ``DIR.intake.jsonl`` (the manifest) and ``.DIR.intake`` (what is on its way).
A file goes through four steps, each of which a kill may end: written and synced under a random
name; renamed to its digest in ``whole``; its row appended and synced; renamed into ``DIR``. So a
row is never without its file, a file never without its row, once the next opening has finished
what lies in ``whole``.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from deid.intake import FILE_BYTES, MEMBERS
from policies.errors import CannotRun, Conflict, GloveboxError, Invalid, _

KINDS = ("s3", "dicomweb", "dimse")
# The free space is asked for again after so many bytes.
STEP = 16 << 20
_WHOLE = re.compile(r"([0-9a-f]{64})\.(s3|dicomweb|dimse)")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Refused(GloveboxError):
    """One original was not taken; ``reason`` is a code that says nothing of whose it is."""

    def __init__(self, reason: str, *, again: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        # Whether asking once more may go well.
        self.again = again


class Full(CannotRun):
    """A bound of the folder or the disk was reached; what was taken stays."""


@dataclass(frozen=True)
class Bounds:
    """What a folder of originals may hold; ``free`` bytes of its disk are left alone."""

    file_bytes: int = FILE_BYTES
    files: int = MEMBERS
    total_bytes: int = 1 << 40
    free: int = 4 << 30


class Originals:
    """The folder, open for one intake at a time. Its methods may be called by many threads."""

    def __init__(self, folder: Path, bounds: Bounds) -> None:
        self.folder = folder.resolve()
        self.bounds = bounds
        self.manifest = self.folder.parent / f"{self.folder.name}.intake.jsonl"
        self.state = self.folder.parent / f".{self.folder.name}.intake"
        self.parts, self.whole = self.state / "parts", self.state / "whole"
        self.digests: set[str] = set()
        self.bytes = 0
        self._seen: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Originals:
        """Open the folder; raises Conflict where another intake writes, Invalid where it cannot."""
        try:
            for each in (self.folder, self.state, self.parts, self.whole):
                each.mkdir(parents=each is self.folder, exist_ok=True, mode=0o700)
            one_disk = self.folder.stat().st_dev == self.state.stat().st_dev
            self._held = os.open(self.state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            raise Invalid(_("The folder cannot be made or written."), field="DIR") from None
        try:
            if not one_disk:
                raise Invalid(
                    _("The folder is a disk of its own; name a folder in it."), field="DIR"
                )
            try:
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Conflict(
                    _("Another intake writes into this folder; wait for it or name another one."),
                    field="DIR",
                ) from None
            if not self.manifest.exists() and any(self.folder.iterdir()):
                raise Conflict(
                    _("The folder holds files that no intake wrote; name an empty one."),
                    field="DIR",
                )
            self._salt = self._secret()
            self._open()
        except OSError as error:
            os.close(self._held)
            raise _disk_error(error) from None
        except BaseException:
            os.close(self._held)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in self.parts.iterdir():
            each.unlink(missing_ok=True)
        self._rows.close()
        self._tokens.close()
        os.close(self._held)

    def token(self, *parts: str) -> str:
        """A name for a remote original under this folder's own key, for :meth:`has`.

        Keyed, because whoever knows the numbers of patients could guess what a bare digest hides.
        """
        return hmac.digest(self._salt, "\0".join(parts).encode(), "sha256").hex()

    def has(self, token: str) -> bool:
        """Whether this remote original was taken before and still lies here whole."""
        known = self._seen.get(token)
        if known is None:
            return False
        digest, size = known
        path = self.path_of(digest)
        return path.is_file() and path.stat().st_size == size

    def remember(self, token: str, digest: str) -> None:
        """Note that a remote original was taken."""
        size = self.path_of(digest).stat().st_size
        with self._lock:
            self._seen[token] = (digest, size)
            row = {"token": token, "digest": digest, "bytes": size}
            try:
                self._append(self._tokens, row, sync=False)
            except OSError as error:
                raise _disk_error(error) from None

    def path_of(self, digest: str) -> Path:
        """Where the original of a digest lies."""
        return self.folder / digest[:2] / digest

    def room(self, more: int = 0) -> None:
        """Raise :class:`Full` when ``more`` bytes do not fit on the disk."""
        status = os.statvfs(self.state)
        if status.f_bavail * status.f_frsize - more < self.bounds.free:
            raise _disk_full()

    def take(
        self,
        pieces: Iterable[bytes],
        kind: str,
        check: Callable[[Path], None] = lambda part: None,
    ) -> tuple[str, bool]:
        """Write an original; return its digest and whether it is new.

        ``check`` looks at the whole file before it is taken. Raises :class:`Refused` for one that
        is too large or empty, :class:`Full` where nothing more fits, and whatever ``pieces`` and
        ``check`` raise; then nothing of it stays.
        """
        part = self.parts / secrets.token_hex(16)
        hasher, size, asked = hashlib.sha256(), 0, 0
        self.room()
        try:
            with _fresh(part) as handle:
                for piece in pieces:
                    size += len(piece)
                    if size > self.bounds.file_bytes:
                        raise Refused("too-large")
                    if size - asked >= STEP:
                        self.room()
                        asked = size
                    hasher.update(piece)
                    handle.write(piece)
                handle.flush()
                os.fsync(handle.fileno())
            check(part)
            return hasher.hexdigest(), self._publish(part, hasher.hexdigest(), size, kind)
        except OSError as error:
            raise _disk_error(error) from None
        finally:
            part.unlink(missing_ok=True)

    def take_part(self, part: Path, kind: str) -> tuple[str, bool]:
        """Take a whole file that somebody else wrote into ``parts``; see :meth:`take`."""
        try:
            with part.open("rb") as handle:
                os.fsync(handle.fileno())
                size = os.fstat(handle.fileno()).st_size
                if size > self.bounds.file_bytes:
                    raise Refused("too-large")
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
            return digest, self._publish(part, digest, size, kind)
        except OSError as error:
            raise _disk_error(error) from None
        finally:
            part.unlink(missing_ok=True)

    def _publish(self, part: Path, digest: str, size: int, kind: str) -> bool:
        if not size:
            raise Refused("empty")
        with self._lock:
            known = digest in self.digests
            target = self.path_of(digest)
            if known and target.is_file() and target.stat().st_size == size:
                return False
            if not known and len(self.digests) >= self.bounds.files:
                raise Full(
                    _("The folder holds as many files as it may; raise --files or name another."),
                    code="intake.files",
                )
            if not known and self.bytes + size > self.bounds.total_bytes:
                raise Full(
                    _("The folder holds as many bytes as it may; raise --bytes or name another."),
                    code="intake.bytes",
                )
            whole = self.whole / f"{digest}.{kind}"
            part.replace(whole)
            self._finish(whole, digest, size, kind)
            return True

    def _finish(self, whole: Path, digest: str, size: int, kind: str) -> None:
        if digest not in self.digests:
            when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            row = {"digest": digest, "bytes": size, "source": kind, "when": when}
            self._append(self._rows, row, sync=True)
            self.digests.add(digest)
            self.bytes += size
        target = self.path_of(digest)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        whole.replace(target)
        for folder in (target.parent, self.folder):
            _sync(folder)

    def _append(self, handle: BinaryIO, row: dict[str, Any], *, sync: bool) -> None:
        end = handle.seek(0, os.SEEK_END)
        line = json.dumps(row).encode() + b"\n"
        try:
            # Unbuffered, so a disk with little room left takes a part and says so only here.
            if handle.write(line) != len(line):
                raise OSError(errno.ENOSPC, "no room")
            if sync:
                os.fsync(handle.fileno())
        except OSError:
            # Half a line would join the next one.
            os.ftruncate(handle.fileno(), end)
            raise

    def _secret(self) -> bytes:
        path = self.state / "key"
        if not path.exists():
            fresh = self.state / "key.new"
            fresh.unlink(missing_ok=True)
            with _fresh(fresh) as handle:
                handle.write(secrets.token_bytes(32))
                handle.flush()
                os.fsync(handle.fileno())
            fresh.replace(path)
        return path.read_bytes()

    def _open(self) -> None:
        for each in self.parts.iterdir():
            each.unlink()
        self._rows = _lines(self.manifest)
        self._tokens = _lines(self.state / "seen.jsonl")
        for row in _read(self._rows):
            self.digests.add(str(row["digest"]))
            self.bytes += int(row["bytes"])
        for row in _read(self._tokens):
            self._seen[str(row["token"])] = (str(row["digest"]), int(row["bytes"]))
        for whole in sorted(self.whole.iterdir()):
            found = _WHOLE.fullmatch(whole.name)
            with whole.open("rb") as handle:
                same = found and hashlib.file_digest(handle, "sha256").hexdigest() == found[1]
            if found and same:
                self._finish(whole, found[1], whole.stat().st_size, found[2])
            else:
                whole.unlink()


def _lines(path: Path) -> BinaryIO:
    # Unbuffered: what a failed write left in a buffer would come out with the next row.
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", 0)


def _read(handle: BinaryIO) -> list[dict[str, Any]]:
    """The rows of a journal; a last line without its end was never said, and is cut off."""
    handle.seek(0)
    data = handle.read()
    end = data.rfind(b"\n") + 1
    os.ftruncate(handle.fileno(), end)
    rows = []
    for line in data[:end].splitlines():
        try:
            row = json.loads(line)
            if len(row["digest"]) != 64 or int(row["bytes"]) < 0:
                raise ValueError
        except (ValueError, TypeError, KeyError):
            raise Invalid(
                _("The manifest of this folder was changed by somebody; name an empty folder."),
                field="DIR",
            ) from None
        rows.append(row)
    return rows


def _fresh(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_error(error: OSError) -> GloveboxError:
    if error.errno in _FULL:
        return _disk_full()
    return CannotRun(_("The folder cannot be written; look at its disk and its rights."))


def _disk_full() -> Full:
    return Full(
        _(
            "The disk has less free space than intake leaves alone. Nothing was lost: free some "
            "space, or lower --free, and run the same command again."
        ),
        code="intake.disk-full",
    )
