"""Objects are whole, private and theirs, or they are refused."""

from __future__ import annotations

import errno
import io
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.errors import Invalid, UserError
from portal import blobs, keys, object_store

pytestmark = pytest.mark.usefixtures("portal_home")
property_test = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks without many bytes."""
    monkeypatch.setattr(blobs, "CHUNK", 64)


def stored(plain: bytes, key: bytes, *parts: str) -> tuple[str, Path]:
    name = blobs.object_name(key, *(parts or ("object",)))
    blobs.put(io.BytesIO(plain), key=key, name=name)
    return name, object_store.path_of(name)


def outcome(name: str, key: bytes) -> bytes | None:
    """Return what a reader gets, None for a refusal."""
    try:
        return blobs.read(name, key=key)
    except blobs.Damaged:
        return None


@property_test
@given(st.binary(max_size=700))
def test_what_was_put_is_read(plain: bytes) -> None:
    key = keys.new_key()
    name = blobs.object_name(key, "a")
    kept = blobs.put(io.BytesIO(plain), key=key, name=name)
    assert kept.bytes == len(plain)
    assert blobs.read(name, key=key) == plain
    sealed = object_store.path_of(name).read_bytes()
    assert len(plain) < 8 or plain not in sealed


@property_test
@given(st.binary(min_size=1, max_size=400), st.data())
def test_no_changed_byte_is_read(plain: bytes, data: st.DataObject) -> None:
    key = keys.new_key()
    name, path = stored(plain, key)
    sealed = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(sealed)
    assert outcome(name, key) is None


@property_test
@given(st.binary(max_size=400), st.data())
def test_no_cut_object_is_read_however_it_was_cut(plain: bytes, data: st.DataObject) -> None:
    key = keys.new_key()
    name, path = stored(plain, key)
    sealed = path.read_bytes()
    path.write_bytes(sealed[: data.draw(st.integers(0, len(sealed) - 1))])
    assert outcome(name, key) is None


@pytest.mark.parametrize("chunks", [1, 2, 5])
def test_a_cut_at_the_edge_of_a_chunk_is_found_when_opening(chunks: int) -> None:
    key = keys.new_key()
    name, path = stored(os.urandom(64 * 6), key)
    head = blobs.HEAD.size
    path.write_bytes(path.read_bytes()[: head + chunks * (64 + blobs.TAG)])
    with pytest.raises(blobs.Damaged):
        blobs.open(name, key=key)


@property_test
@given(st.data())
def test_chunks_cannot_be_reordered_doubled_or_moved_between_objects(data: st.DataObject) -> None:
    key = keys.new_key()
    name, path = stored(os.urandom(64 * 5), key)
    _other, other_path = stored(os.urandom(64 * 5), key, "other")
    step, head = 64 + blobs.TAG, blobs.HEAD.size

    def chunks(of: Path) -> list[bytes]:
        body = of.read_bytes()[head:]
        return [body[i : i + step] for i in range(0, len(body), step)]

    mine, others = chunks(path), chunks(other_path)
    pool = [*mine, *others]
    order = data.draw(st.lists(st.integers(0, len(pool) - 1), min_size=1, max_size=8))
    made = [pool[i] for i in order]
    if made == mine:
        return
    path.write_bytes(path.read_bytes()[:head] + b"".join(made))
    assert outcome(name, key) is None


def test_bytes_after_the_end_are_refused() -> None:
    key = keys.new_key()
    for extra in (b"x", b"x" * 16, b"x" * 80, b"x" * 500):
        name, path = stored(b"content" * 40, key)
        path.write_bytes(path.read_bytes() + extra)
        assert outcome(name, key) is None


def test_an_object_under_anothers_name_is_refused() -> None:
    key = keys.new_key()
    one, one_path = stored(b"one", key, "one")
    two, two_path = stored(b"two", key, "two")
    swapped = one_path.read_bytes()
    one_path.write_bytes(two_path.read_bytes())
    two_path.write_bytes(swapped)
    assert outcome(one, key) is None
    assert outcome(two, key) is None


def test_another_key_opens_nothing() -> None:
    name, _path = stored(b"content", keys.new_key())
    assert outcome(name, keys.new_key()) is None


def test_the_same_content_twice_looks_different() -> None:
    key = keys.new_key()
    _name, path = stored(b"content" * 100, key)
    first = path.read_bytes()
    stored(b"content" * 100, key)
    second = path.read_bytes()
    assert first[blobs.HEAD.size :] != second[blobs.HEAD.size :]


def test_names_tell_nothing_and_are_bound_to_their_parts() -> None:
    key = keys.new_key()
    assert blobs.object_name(key, "ab", "c") != blobs.object_name(key, "a", "bc")
    assert blobs.object_name(key, "a") != blobs.object_name(keys.new_key(), "a")
    for name in ("../" * 21 + "x", "a" * 63, "A" * 64, "g" * 64, "a" * 64 + "\n"):
        with pytest.raises(ValueError, match="64 hex digits"):
            blobs.open(name, key=key)


@property_test
@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 300)), max_size=8))
def test_a_reader_may_seek_like_in_a_file(moves: list[tuple[int, int]]) -> None:
    key, plain = keys.new_key(), random.Random(4).randbytes(500)
    name, _path = stored(plain, key)
    reference = io.BytesIO(plain)
    with blobs.open(name, key=key) as stream:
        for offset, size in moves:
            assert stream.seek(offset) == reference.seek(offset)
            assert stream.read(size) == reference.read(size)
        assert stream.seek(-3, io.SEEK_END) == 497
        assert stream.read() == plain[-3:]


def test_a_stream_that_gives_little_at_once_is_read_to_its_end() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(7, size or 7))

    key = keys.new_key()
    name = blobs.object_name(key, "slow")
    assert blobs.put(Slow(b"x" * 300), key=key, name=name).bytes == 300
    assert blobs.read(name, key=key) == b"x" * 300


def test_too_much_is_refused_and_leaves_nothing() -> None:
    key = keys.new_key()
    name = blobs.object_name(key, "limited")
    with pytest.raises(Invalid):
        blobs.put(io.BytesIO(b"x" * 101), key=key, name=name, limit=100)
    assert not blobs.exists(name)
    assert blobs.put(io.BytesIO(b"x" * 100), key=key, name=name, limit=100).bytes == 100


def test_a_full_disk_is_named_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, portal_home: Path
) -> None:
    key = keys.new_key()
    name = blobs.object_name(key, "full")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/secret/path")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError) as caught:
        blobs.put(io.BytesIO(b"content"), key=key, name=name)
    assert "encrypted objects" in str(caught.value)
    assert "/secret" not in str(caught.value)
    assert not blobs.exists(name)
    assert list((portal_home / "objects" / "drafts").iterdir()) == []
    monkeypatch.undo()
    assert blobs.put(io.BytesIO(b"content"), key=key, name=name).bytes == 7


def test_a_really_full_disk(tmp_path: Path) -> None:
    """The same with a file size limit, which the kernel itself enforces."""
    program = """
import io, resource, signal, django
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
django.setup()
from portal import blobs, keys
key = keys.new_key()
name = blobs.object_name(key, "a")
blobs.put(io.BytesIO(b"before"), key=key, name=name)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    blobs.put(io.BytesIO(b"x" * 1_000_000), key=key, name=name)
except OSError as error:
    print("refused", error.errno)
print(blobs.read(name, key=key).decode())
"""
    done = run(program, tmp_path)
    assert done.stdout.split() == ["refused", str(errno.EFBIG), "before"]


def run(program: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment(home),
        text=True,
        capture_output=True,
        check=True,
    )


def environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "GLOVEBOX_HOME": str(home / "data"),
        "GLOVEBOX_KEYS": str(home / "keys"),
    }


def test_a_killed_writer_leaves_no_object_under_its_name(tmp_path: Path) -> None:
    program = """
import django
django.setup()
from portal import blobs, keys
key = bytes(32)
class Endless:
    sent = 0
    def read(self, size):
        self.sent += 1
        if self.sent == 40:
            print("writing", flush=True)
        return b"x" * size
blobs.put(Endless(), key=key, name=blobs.object_name(key, "a"))
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", program], env=environment(tmp_path), stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"writing\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    name = blobs.object_name(bytes(32), "a")
    objects = tmp_path / "data" / "objects"
    assert [path.name for path in objects.rglob(name)] == []
    drafts = list((objects / "drafts").iterdir())
    assert len(drafts) == 1
    swept = run(
        "import django; django.setup(); from portal import blobs;"
        "print(blobs.sweep(older_than_seconds=-1))",
        tmp_path,
    )
    assert swept.stdout.strip() == "1"
    assert list((objects / "drafts").iterdir()) == []


def test_deleting_twice_is_no_error() -> None:
    key = keys.new_key()
    name, path = stored(b"content", key)
    blobs.delete(name)
    blobs.delete(name)
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        blobs.open(name, key=key)


def test_objects_are_readable_by_their_user_alone() -> None:
    _name, path = stored(b"content", keys.new_key())
    assert path.stat().st_mode & 0o077 == 0
