"""Where sealed bytes lie: files under ``HOME/objects``, or an S3 bucket through ``minio``.

Nothing here knows of keys or plain content; ``portal.blobs`` is the only caller.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from django.conf import settings

from policies.errors import GloveboxError

# One request to an S3 store reads this much ahead, unless the caller asks for a long piece itself.
S3_SPAN = 8 * 1024 * 1024
S3_LONG = 1024 * 1024


class Unreachable(GloveboxError):
    """The object store did not answer; the same call may go well later."""


class Source(Protocol):
    """A stored object's sealed bytes."""

    size: int

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset``."""

    def close(self) -> None:
        """Let go of the file or connection."""


def _objects() -> Path:
    return Path(settings.HOME) / "objects"


def path_of(name: str) -> Path:
    """Return where the file of an object lies on one machine."""
    return _objects() / name[:2] / name[2:4] / name


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut: the folder's own entry must reach the disk too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _draft() -> Iterator[tuple[Path, BinaryIO]]:
    drafts = _objects() / "drafts"
    drafts.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = drafts / secrets.token_hex(16)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        # Buffered, because a bare write to a disk with little room left takes a part and says so
        # only in its return value.
        with os.fdopen(descriptor, "wb") as stream:
            yield draft, stream
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def writer(name: str) -> Iterator[BinaryIO]:
    """Yield a stream; what was written appears under ``name``, whole, when the block ends well."""
    with _draft() as (draft, stream):
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
        if endpoint():
            with _reaching():
                _client().fput_object(_bucket(), name, str(draft))
            return
        target = path_of(name)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft.rename(target)
        _sync_folder(target.parent)
        _sync_folder(target.parent.parent)


class _File:
    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        self.size = os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    """Tell an S3 server that cannot be reached or is busy from one that answers no."""
    from minio.error import InvalidResponseError, S3Error, ServerError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (HTTPError, ServerError, InvalidResponseError) as error:
        raise Unreachable(type(error).__name__) from error
    except S3Error as error:
        if error.code in ("NoSuchKey", "NoSuchObject"):
            raise FileNotFoundError("no such object") from None
        if error.code in ("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout"):
            raise Unreachable(error.code) from error
        raise


class _S3:
    def __init__(self, name: str) -> None:
        self._name = name
        with _reaching():
            found = _client().stat_object(_bucket(), name)
        self.size = int(found.size or 0)
        self._at = 0
        self._span = b""

    def read_at(self, offset: int, length: int) -> bytes:
        if not self._at <= offset <= offset + length <= self._at + len(self._span):
            ahead = length if length >= S3_LONG else S3_SPAN
            ask = min(ahead, self.size - offset)
            if ask <= 0:
                return b""
            with _reaching():
                response = _client().get_object(_bucket(), self._name, offset=offset, length=ask)
                try:
                    self._span = response.read()
                finally:
                    response.close()
                    response.release_conn()
            self._at = offset
        start = offset - self._at
        return self._span[start : start + length]

    def close(self) -> None:
        self._span = b""


def reader(name: str) -> Source:
    """Open an object's sealed bytes. Raises FileNotFoundError."""
    return _S3(name) if endpoint() else _File(path_of(name))


def exists(name: str) -> bool:
    """Whether an object is there."""
    if endpoint():
        try:
            _S3(name)
        except FileNotFoundError:
            return False
        return True
    return path_of(name).is_file()


def delete(name: str) -> None:
    """Remove an object if it is there."""
    if endpoint():
        with _reaching():
            _client().remove_object(_bucket(), name)
        return
    path_of(name).unlink(missing_ok=True)


def endpoint() -> str:
    """Return the S3 server's ``host:port``, empty on one machine."""
    return os.environ.get("GLOVEBOX_S3_ENDPOINT", "")


def _bucket() -> str:
    return os.environ.get("GLOVEBOX_S3_BUCKET", "glovebox")


@functools.cache
def _client() -> Any:
    from minio import Minio

    client = Minio(
        endpoint(),
        access_key=os.environ.get("GLOVEBOX_S3_ACCESS_KEY", ""),
        secret_key=os.environ.get("GLOVEBOX_S3_SECRET_KEY", ""),
        secure=os.environ.get("GLOVEBOX_S3_TLS", "1") != "0",
    )
    if not client.bucket_exists(_bucket()):
        client.make_bucket(_bucket())
    return client
