"""Originals from a PACS over DICOMweb: found by QIDO-RS, fetched by WADO-RS (PS3.18 chapter 10)."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import requests
import urllib3.exceptions

from deid.sources import multipart
from deid.sources.credentials import Credentials, checked_address
from deid.sources.fetching import Item
from deid.sources.instance import identity
from deid.sources.originals import Refused
from policies.errors import CannotRun, Invalid, _

PIECE = 1 << 20
# A list is read in pages; a server may give fewer rows a page, and a page has an end.
PAGE_ROWS, PAGE_BYTES = 200, 64 << 20
ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
TIMEOUT = (10, 60)
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
# PS3.5 section 9.1; nothing else is ever put into an address.
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*", re.ASCII)
_FILTER = re.compile(r"[A-Za-z]{1,64}|[0-9A-Fa-f]{8}", re.ASCII)


def read_query(path: Path | None) -> list[tuple[str, str]]:
    """Read ``Attribute=value`` lines: which studies. In a file, as a patient's number would stand
    in the list of processes and in a shell's history otherwise."""
    if path is None:
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise Invalid(_("The file of the query cannot be read."), field="--query") from None
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = (each.strip() for each in line.partition("="))
        if not equals or not value or not _FILTER.fullmatch(name):
            raise Invalid(_("Line {line} is not Attribute=value."), field="--query", line=number)
        if name.lower() in ("limit", "offset", "includefield", "fuzzymatching"):
            raise Invalid(
                _("Line {line}: this is no attribute of a study."), field="--query", line=number
            )
        found.append((name, value))
    return found


class DicomWeb:
    """The instances of the studies that a query matches."""

    kind = "dicomweb"

    def __init__(
        self,
        address: str,
        credentials: Credentials,
        query: list[tuple[str, str]],
        *,
        plain: bool = False,
        rows: int = 200_000,
    ) -> None:
        self._base = checked_address(address, "SOURCE", plain=plain)
        self._query, self._rows = query, rows
        self._session = requests.Session()
        # No .netrc, no proxy: credentials and originals go where the command says.
        self._session.trust_env = False
        self._session.verify = os.environ.get("GLOVEBOX_INTAKE_CA") or True
        self._session.headers["Accept-Encoding"] = "identity"
        if credentials.token:
            self._session.headers["Authorization"] = f"Bearer {credentials.token}"
        elif credentials.user:
            self._session.auth = (credentials.user, credentials.password)

    def items(self) -> Iterator[Item]:
        """List instances, study by study, as the archive orders them."""
        for (study,) in self._list("/studies", self._query, (STUDY,)):
            path = f"/studies/{study}/instances"
            for series, instance in self._list(path, [], (SERIES, INSTANCE)):
                yield Item((self._base, study, series, instance))

    @contextlib.contextmanager
    def open(self, item: Item) -> Iterator[Iterable[bytes]]:
        """Give one instance as the archive keeps it, in its own transfer syntax."""
        _base, study, series, instance = item.name
        path = f"/studies/{study}/series/{series}/instances/{instance}"
        with self._get(path, [], ACCEPT, _refused) as response:
            kind = str(response.headers.get("Content-Type", ""))
            yield multipart.only_part(
                _raw(response), multipart.boundary_of(kind), "application/dicom"
            )

    def check(self, item: Item, part: Path) -> None:
        """Raise :class:`Refused` when a file is another instance than was asked for."""
        if identity(part)[1] != item.name[3]:
            raise Refused("other-instance")

    def _list(
        self,
        path: str,
        query: list[tuple[str, str]],
        tags: tuple[str, ...],
    ) -> Iterator[tuple[str, ...]]:
        """Rows of UIDs, each once. A page without a new row is the last: servers cut pages as
        they like, and some know no offset and give the first page for ever."""
        given: set[tuple[str, ...]] = set()
        offset = 0
        while True:
            page = self._page(path, [*query, ("limit", str(PAGE_ROWS)), ("offset", str(offset))])
            fresh = [uids for uids in (_uids(row, tags) for row in page) if uids not in given]
            if not fresh:
                return
            for uids in fresh:
                if uids not in given:
                    given.add(uids)
                    yield uids
            if len(given) > self._rows:
                raise CannotRun(
                    _("The archive lists more than the folder may hold; ask for less."),
                    code="intake.files",
                )
            offset += len(page)

    def _page(self, path: str, query: list[tuple[str, str]]) -> list[Any]:
        with self._get(path, query, "application/dicom+json", _no_list) as response:
            if response.status_code == 204:
                return []
            data = bytearray()
            try:
                for piece in _raw(response):
                    data += piece
                    if len(data) > PAGE_BYTES:
                        raise _no_list("too-large")
                page = json.loads(data) if data else []
            except (ValueError, RecursionError):
                raise _no_list("not-json") from None
            except Refused as refused:
                raise _no_list(refused.reason) from None
        if not isinstance(page, list):
            raise _no_list("not-json")
        return page

    @contextlib.contextmanager
    def _get(
        self,
        path: str,
        query: list[tuple[str, str]],
        accept: str,
        failed: Callable[[str], Exception],
    ) -> Iterator[requests.Response]:
        try:
            response = self._session.get(
                self._base + path, params=query, headers={"Accept": accept},
                stream=True, timeout=TIMEOUT, allow_redirects=False,
            )  # fmt: skip
        except (requests.RequestException, OSError):
            raise failed("unreachable") from None
        try:
            status = response.status_code
            if status in (200, 204):
                yield response
            elif 300 <= status < 400:
                raise failed("redirect")
            elif status in (401, 403):
                raise failed("denied")
            elif status in (404, 410):
                raise failed("gone")
            else:
                raise failed("busy" if status >= 500 or status == 429 else "not-acceptable")
        finally:
            response.close()


def _raw(response: requests.Response) -> Iterator[bytes]:
    """The bytes of the body as they came; nothing is inflated for a stranger."""
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused("encoded")
    try:
        yield from response.raw.stream(PIECE, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError):
        raise Refused("truncated", again=True) from None


def _uids(row: Any, tags: tuple[str, ...]) -> tuple[str, ...]:
    """The UIDs of a row of DICOM JSON (PS3.18 annex F); raises CannotRun for anything else."""
    found = []
    for tag in tags:
        try:
            uid = row[tag]["Value"][0]
        except (TypeError, KeyError, IndexError):
            raise _no_list("no-uid") from None
        if not isinstance(uid, str) or len(uid) > 64 or not _UID.fullmatch(uid):
            raise _no_list("bad-uid")
        found.append(uid)
    return tuple(found)


def _refused(reason: str) -> Refused:
    return Refused(reason, again=reason in ("unreachable", "busy"))


def _no_list(reason: str) -> CannotRun:
    return CannotRun(
        _("The archive gave no list ({reason}); check the address, the query and the rights."),
        code="intake.list", reason=reason,
    )  # fmt: skip
