"""Objects in an S3 store, through the real client against a small server of the test's own."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from portal import blobs, keys, object_store, packs

pytestmark = pytest.mark.usefixtures("portal_home")


class Server(ThreadingHTTPServer):
    """The few S3 calls that the store makes; everything lies in a dictionary."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.buckets: set[str] = set()
        self.reads = 0
        self.busy = False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None:
        """Keep the test's output quiet."""

    def _answer(
        self, status: int, body: bytes = b"", length: int | None = None, **more: str
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Content-Type", "application/xml")
        self.send_header("ETag", '"0"')
        self.send_header("Last-Modified", "Sat, 21 Nov 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self) -> None:
        body = b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"
        self._answer(404, b"" if self.command == "HEAD" else body)

    @property
    def _parts(self) -> tuple[str, str]:
        bucket, _slash, name = self.path.partition("?")[0].strip("/").partition("/")
        return bucket, name

    def do_PUT(self) -> None:
        bucket, name = self._parts
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.busy:
            self._answer(400, b"<Error><Code>SlowDown</Code><Message>busy</Message></Error>")
            return
        if name:
            self.server.objects[name] = body
        else:
            self.server.buckets.add(bucket)
        self._answer(200)

    def do_HEAD(self) -> None:
        bucket, name = self._parts
        if not name:
            self._answer(200 if bucket in self.server.buckets else 404)
        elif name in self.server.objects:
            self._answer(200, length=len(self.server.objects[name]))
        else:
            self._missing()

    def do_GET(self) -> None:
        if "location" in self.path:
            self._answer(200, b"<LocationConstraint></LocationConstraint>")
            return
        _bucket, name = self._parts
        if name not in self.server.objects:
            self._missing()
            return
        self.server.reads += 1
        body = self.server.objects[name]
        first, _dash, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        self._answer(206, body[int(first) : int(last) + 1 if last else None])

    def do_DELETE(self) -> None:
        self.server.objects.pop(self._parts[1], None)
        self._answer(204)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("GLOVEBOX_S3_ENDPOINT", f"127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GLOVEBOX_S3_TLS", "0")
    monkeypatch.setenv("GLOVEBOX_S3_ACCESS_KEY", "test")
    monkeypatch.setenv("GLOVEBOX_S3_SECRET_KEY", "test-secret")
    object_store._client.cache_clear()
    yield server
    object_store._client.cache_clear()
    server.shutdown()
    thread.join()
    server.server_close()


def test_objects_come_back_from_the_store_and_go(server: Server) -> None:
    key, plain = keys.new_key(), os.urandom(700_000)
    name = blobs.object_name(key, "a")
    assert not blobs.exists(name)
    kept = blobs.put(io.BytesIO(plain), key=key, name=name)
    assert kept.bytes == len(plain)
    assert blobs.exists(name)
    assert blobs.read(name, key=key) == plain
    assert plain[:64] not in server.objects[name]
    with blobs.open(name, key=key) as stream:
        stream.seek(-10, io.SEEK_END)
        assert stream.read() == plain[-10:]
    blobs.delete(name)
    blobs.delete(name)
    with pytest.raises(FileNotFoundError):
        blobs.open(name, key=key)


def test_reading_on_asks_the_store_seldom(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "CHUNK", 1024)
    key, plain = keys.new_key(), os.urandom(300_000)
    name = blobs.object_name(key, "a")
    blobs.put(io.BytesIO(plain), key=key, name=name)
    server.reads = 0
    assert blobs.read(name, key=key) == plain
    assert server.reads <= 4


def test_a_pack_is_asked_for_once_and_for_no_more_than_is_wanted(server: Server) -> None:
    key = keys.new_key()
    contents = [os.urandom(100_000) for _file in range(40)]
    name = packs.new_name(key)
    written = packs.write([(key, content) for content in contents], name=name)
    members = [packs.Member(key, offset, 100_000) for offset in written.offsets]
    server.reads = 0

    assert list(packs.read(name, members[:20], size=written.bytes)) == contents[:20]

    assert server.reads == 1
    server.objects[name] = server.objects[name][:-1] + b"x"
    assert list(packs.read(name, members[:39], size=written.bytes)) == contents[:39]
    with pytest.raises(blobs.Damaged):
        list(packs.read(name, members, size=written.bytes))
    server.objects[name] = server.objects[name][:-1]
    with pytest.raises(blobs.Damaged):
        packs.read(name, members[:1], size=written.bytes)
    blobs.delete(name)
    with pytest.raises(FileNotFoundError):
        packs.read(name, members[:1], size=written.bytes)


def test_what_the_store_changed_is_refused(server: Server) -> None:
    key = keys.new_key()
    name = blobs.object_name(key, "a")
    blobs.put(io.BytesIO(b"content" * 1000), key=key, name=name)
    sealed = server.objects[name]
    for changed in (sealed[:-1], sealed[:60], sealed[:-1] + b"x", sealed + b"x" * 40, b""):
        server.objects[name] = changed
        with pytest.raises(blobs.Damaged):
            blobs.read(name, key=key)


def test_a_store_that_is_busy_or_away_is_told_from_one_that_lost_an_object(
    server: Server,
) -> None:
    key = keys.new_key()
    name = blobs.object_name(key, "a")
    server.buckets.add("glovebox")
    server.busy = True
    with pytest.raises(object_store.Unreachable):
        blobs.put(io.BytesIO(b"content"), key=key, name=name)
    with pytest.raises(FileNotFoundError):
        blobs.open(name, key=key)


def test_nothing_plain_and_no_draft_stays_here(server: Server, portal_home: object) -> None:
    from pathlib import Path

    key = keys.new_key()
    name = blobs.object_name(key, "a")
    blobs.put(io.BytesIO(b"content" * 1000), key=key, name=name)
    assert list((Path(str(portal_home)) / "objects" / "drafts").iterdir()) == []
    assert not object_store.path_of(name).exists()
