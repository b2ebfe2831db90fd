"""Counterparts of intake, started by the tests: an S3 store and a DICOMweb archive over HTTP."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.sax.saxutils import escape

from deid.sources.originals import Bounds, Originals
from synthetic import dicom_files

ROOT = Path(__file__).resolve().parents[3]
NAME = "HWANGBO"
# The tests' disk may be smaller than the default leaves free.
BOUNDS = Bounds(free=1 << 20)


def dicom(number: int, size: int = 0) -> bytes:
    """A whole DICOM file of its own instance, of a patient with a name that can be searched."""
    data = dicom_files.base()
    data.PatientName = f"{NAME}^MYUNGHEE"
    data.PatientID = f"{NAME}{number}"
    data.StudyInstanceUID = f"{dicom_files.PREFIX}.100.{number % 3}"
    data.SeriesInstanceUID = f"{dicom_files.PREFIX}.200.{number % 3}"
    data.SOPInstanceUID = f"{dicom_files.PREFIX}.300.{number}"
    if size:
        data.add_new(0x7FE00010, "OW", bytes(size))
    return dicom_files.written(data)


def taken(folder: Path) -> dict[str, bytes]:
    """What lies in a folder of originals, by name; every name must be its content's digest, every
    file must have one row in the manifest, and nothing may be left on its way."""
    found = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    rows = manifest(folder)
    assert sorted(row["digest"] for row in rows) == sorted(found)
    for name, data in found.items():
        assert name == hashlib.sha256(data).hexdigest()
    assert {row["digest"]: row["bytes"] for row in rows} == {k: len(v) for k, v in found.items()}
    state = folder.parent / f".{folder.name}.intake"
    assert not [*(state / "parts").iterdir(), *(state / "whole").iterdir()]
    return found


def manifest(folder: Path) -> list[dict[str, object]]:
    path = folder.parent / f"{folder.name}.intake.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def opened(folder: Path, **bounds: int) -> Originals:
    return Originals(folder, Bounds(**{"free": BOUNDS.free, **bounds}))


def command(*words: str, **variables: str) -> subprocess.Popen[str]:
    """Start ``glovebox intake`` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "glovebox_cli.py"), "intake", *words, "--free", "1Mi"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]]), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Server(ThreadingHTTPServer):
    """A store or archive: ``answers`` may replace the answer to a path; requests are counted."""

    daemon_threads = True

    def __init__(self, handler: type[Handler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.queries: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, Callable[[Handler], None]] = {}
        self.before_file: Callable[[], None] = lambda: None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None:
        """Keep the test's output quiet."""

    def answer(
        self, status: int, body: bytes = b"", kind: str = "application/xml", **more: str
    ) -> None:
        self.send_response(status)
        length = more.pop("length", str(len(body)))
        self.send_header("Content-Length", length)
        self.send_header("Content-Type", kind)
        for name, value in more.items():
            self.send_header(name, value)
        if int(length) != len(body):
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        path, _mark, query = self.path.partition("?")
        path = urllib.parse.unquote(path)
        self.server.requests.append(path)
        self.server.headers.append(dict(self.headers))
        self.server.queries.append(dict(urllib.parse.parse_qsl(query)))
        if path in self.server.answers:
            self.server.answers[path](self)
        else:
            self.reply(path, dict(urllib.parse.parse_qsl(query)))

    def reply(self, path: str, query: dict[str, str]) -> None:
        raise NotImplementedError


class Store(Handler):
    """``GET /bucket?list-type=2`` in pages of four, and ``GET /bucket/name``."""

    def reply(self, path: str, query: dict[str, str]) -> None:
        _root, bucket, name = (*path.split("/", 2), "")[:3]
        if "list-type" in query:
            self._list(bucket, query)
        elif name in self.server.files:
            self.server.before_file()
            body = self.server.files[name]
            self.answer(200, body, "application/octet-stream", ETag=f'"{_etag(body)}"')
        else:
            self.answer(404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>")

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        after = query.get("continuation-token", "")
        names = sorted(
            name for name in self.server.files
            if name.startswith(query.get("prefix", "")) and name > after
        )  # fmt: skip
        page = names[:4]
        rows = "".join(
            f"<Contents><Key>{urllib.parse.quote(escape(name))}</Key>"
            f"<LastModified>2026-11-21T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{_etag(self.server.files[name])}&quot;</ETag>"
            f"<Size>{len(self.server.files[name])}</Size><StorageClass>STANDARD</StorageClass>"
            "</Contents>"
            for name in page
        )
        more = len(names) > len(page)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        self.answer(
            200,
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><EncodingType>url</EncodingType>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}"
            "</ListBucketResult>".encode(),
        )


def _etag(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


class Archive(Handler):
    """QIDO-RS in pages of two however many are asked for, WADO-RS of one instance.

    ``files`` are named ``study/series/instance``.
    """

    def reply(self, path: str, query: dict[str, str]) -> None:
        words = path.strip("/").split("/")[1:]
        if words == ["studies"]:
            rows = sorted({name.split("/")[0] for name in self.server.files})
            self._page([{"0020000D": {"vr": "UI", "Value": [row]}} for row in rows], query)
        elif len(words) == 3:
            names = sorted(name for name in self.server.files if name.startswith(words[1] + "/"))
            split = [name.split("/") for name in names]
            self._page(
                [
                    {"0020000E": {"vr": "UI", "Value": [s]}, "00080018": {"vr": "UI", "Value": [i]}}
                    for _study, s, i in split
                ],
                query,
            )
        elif (name := "/".join(words[1::2])) in self.server.files:
            self.server.before_file()
            self.part(self.server.files[name])
        else:
            self.answer(404)

    def _page(self, rows: list[dict[str, object]], query: dict[str, str]) -> None:
        start = int(query.get("offset", "0"))
        page = rows[start : start + 2]
        if page:
            self.answer(200, json.dumps(page).encode(), "application/dicom+json")
        else:
            self.answer(204)

    def part(self, body: bytes, *, boundary: str = "b0undary", inner: str = "b0undary") -> None:
        data = (
            f"--{inner}\r\nContent-Type: application/dicom\r\n\r\n".encode()
            + body
            + f"\r\n--{inner}--\r\n".encode()
        )
        kind = f'multipart/related; type="application/dicom"; boundary="{boundary}"'
        self.answer(200, data, kind)


@contextlib.contextmanager
def serving(handler: type[Handler]) -> Iterator[Server]:
    server = Server(handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
