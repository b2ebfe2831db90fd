"""Originals under a prefix of an S3 bucket."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deid.sources.credentials import Credentials, checked_address
from deid.sources.fetching import Item
from deid.sources.originals import Refused
from policies.errors import CannotRun, Invalid, _

PIECE = 1 << 20
BUSY = frozenset({"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout"})
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class S3:
    """``s3://BUCKET/PREFIX`` at ``GLOVEBOX_INTAKE_S3_ENDPOINT``."""

    kind = "s3"

    def __init__(self, address: str, credentials: Credentials, *, plain: bool = False) -> None:
        bucket, _slash, self._prefix = address.removeprefix("s3://").partition("/")
        if not _BUCKET.fullmatch(bucket) or "@" in address:
            raise Invalid(_("Write the source as s3://BUCKET/PREFIX."), field="SOURCE")
        self._bucket = bucket
        endpoint = os.environ.get("GLOVEBOX_INTAKE_S3_ENDPOINT", "")
        if not endpoint:
            raise Invalid(
                _("Say where the store is, such as https://s3.example.org"),
                field="GLOVEBOX_INTAKE_S3_ENDPOINT",
            )
        if "://" not in endpoint:
            endpoint = f"https://{endpoint}"
        self._endpoint = checked_address(endpoint, "GLOVEBOX_INTAKE_S3_ENDPOINT", plain=plain)
        if urlsplit(self._endpoint).path:
            raise Invalid(
                _("The address of a store has no path."), field="GLOVEBOX_INTAKE_S3_ENDPOINT"
            )
        if bool(credentials.access_key) != bool(credentials.secret_key):
            raise Invalid(_("An access key and a secret key are needed together."), field="SOURCE")
        self._client = _client(self._endpoint, credentials)

    def items(self) -> Iterator[Item]:
        """List the objects in the order of their names; folders' own entries are left out."""
        with _reaching_list():
            for found in self._client.list_objects(
                self._bucket, prefix=self._prefix or None, recursive=True
            ):
                name, size, etag = found.object_name, found.size, str(found.etag or "").strip('"')
                if name is None or size is None or size < 0:
                    raise CannotRun(_("The store's list is not one of S3."), code="intake.list")
                if found.is_dir or (name.endswith("/") and not size):
                    continue
                yield Item((self._endpoint, self._bucket, name, etag, str(size)), size)

    @contextlib.contextmanager
    def open(self, item: Item) -> Iterator[Iterable[bytes]]:
        """Give an object as it was listed; one that changed since is refused."""
        _endpoint, bucket, name, etag, _size = item.name
        with _reaching_one():
            response = self._client.get_object(bucket, name)
            try:
                now = str(response.headers.get("ETag") or "").strip('"')
                if etag and now and etag != now:
                    raise Refused("changed")
                yield _exactly(response.stream(PIECE, decode_content=False), item.size or 0)
            finally:
                response.close()
                response.release_conn()

    def check(self, item: Item, part: Path) -> None:
        """Any object is an original: photographs and zips lie in buckets too."""


def _exactly(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    left = size
    try:
        for piece in pieces:
            left -= len(piece)
            if left < 0:
                raise Refused("changed")
            yield piece
    except OSError:
        raise Refused("unreachable", again=True) from None
    if left:
        raise Refused("truncated", again=True)


def _client(endpoint: str, credentials: Credentials) -> Any:
    try:
        import certifi
        import urllib3
        from minio import Minio
    except ImportError:
        raise CannotRun(_("This source needs the packages of glovebox[intake].")) from None

    parts = urlsplit(endpoint)
    return Minio(
        parts.netloc,
        access_key=credentials.access_key or None,
        secret_key=credentials.secret_key or None,
        session_token=credentials.session_token or None,
        secure=parts.scheme == "https",
        # Named, because the client would ask the store where the bucket lies and believe it.
        region=os.environ.get("GLOVEBOX_INTAKE_S3_REGION", "us-east-1"),
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=10, read=60),
            # Also follows no redirect: signature and original belong to one host.
            retries=False,
            cert_reqs="CERT_REQUIRED",
            ca_certs=os.environ.get("GLOVEBOX_INTAKE_CA") or certifi.where(),
        ),
    )


@contextlib.contextmanager
def _reaching_list() -> Iterator[None]:
    """Turn what the client raises into a sentence without names of objects."""
    from minio.error import MinioException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (MinioException, HTTPError, OSError, ValueError, SyntaxError) as error:
        # The store words its code itself, so only a word is believed.
        answer = str(getattr(error, "code", ""))
        if not re.fullmatch(r"[A-Za-z]{1,40}", answer):
            answer = type(error).__name__
        raise CannotRun(
            _("The store gave no list ({answer}); check the address, the bucket and the keys."),
            code="intake.list", answer=answer,
        ) from None  # fmt: skip


@contextlib.contextmanager
def _reaching_one() -> Iterator[None]:
    from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except HTTPError:
        raise Refused("unreachable", again=True) from None
    except (MinioException, ValueError) as error:
        if isinstance(error, S3Error) and error.code in ("NoSuchKey", "NoSuchObject"):
            raise Refused("gone") from None
        # A proxy in front answers in HTML; the client keeps that status to itself.
        status = getattr(error, "status_code", None) or getattr(error, "_code", 0)
        if (isinstance(error, S3Error) and error.code in BUSY) or (
            isinstance(error, ServerError | InvalidResponseError) and int(status or 0) >= 500
        ):
            raise Refused("busy", again=True) from None
        raise Refused("denied") from None
