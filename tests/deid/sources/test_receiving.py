"""A C-STORE receiver and a real sender of pynetdicom: success is said of whole files alone."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from deid.sources import receiving
from deid.sources.originals import Originals
from deid.sources.receiving import Listener, Received
from policies.errors import CannotRun, Conflict, Invalid
from synthetic import dicom_files
from tests.deid.sources.counterparts import NAME, command, dicom, manifest, opened, taken

pynetdicom = pytest.importorskip("pynetdicom", reason="needs the extra `intake`")

REAL = (
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "JPEG2000.dcm",
    "SC_rgb_rle.dcm",
    "image_dfl.dcm",
    "reportsi.dcm",
    "rtplan.dcm",
)


class Running:
    """A receiver in a thread of this process."""

    def __init__(self, folder: Path, **bounds: int) -> None:
        self.stop, self.port, self.received = threading.Event(), 0, Received()
        self._ready = threading.Event()
        self._originals = opened(folder, **bounds)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with self._originals as originals:
            listener = Listener("GLOVEBOX", 0, ("PACS",))
            self.received = receiving.receive(originals, listener, self.stop, self._on)

    def _on(self, port: int) -> None:
        self.port = port
        self._ready.set()

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def sending(
    port: int, datasets: list[pydicom.Dataset], *, aet: str = "PACS", called: str = "GLOVEBOX"
) -> Iterator[pynetdicom.Association]:
    entity = pynetdicom.AE(ae_title=aet)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 5
    for one, syntax in {
        (str(each.SOPClassUID), str(each.file_meta.TransferSyntaxUID)) for each in datasets
    }:
        entity.add_requested_context(one, syntax)
    association = entity.associate("127.0.0.1", port, ae_title=called)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def send(port: int, *datasets: pydicom.Dataset) -> list[int]:
    """Send; return the status of each, -1 where none came."""
    with sending(port, list(datasets)) as association:
        assert association.is_established
        answers = []
        for each in datasets:
            if not association.is_established:
                answers.append(-1)
                continue
            answers.append(int(getattr(association.send_c_store(each), "Status", -1)))
        return answers


def made(number: int, size: int = 0) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(dicom(number, size)))


def test_real_files_of_many_syntaxes_arrive_as_they_were_sent(tmp_path: Path) -> None:
    originals = [pydicom.dcmread(str(get_testdata_file(name))) for name in REAL]
    with Running(tmp_path / "in") as running:
        assert send(running.port, *originals) == [receiving.SUCCESS] * len(REAL)
    found = [pydicom.dcmread(io.BytesIO(data)) for data in taken(tmp_path / "in").values()]
    assert len(found) == len(REAL)
    # Three of the files are one instance in three transfer syntaxes; all of them are kept.
    named = {(each.SOPInstanceUID, each.file_meta.TransferSyntaxUID): each for each in found}
    for original in originals:
        assert named[original.SOPInstanceUID, original.file_meta.TransferSyntaxUID] == original
    assert {row["source"] for row in manifest(tmp_path / "in")} == {"dimse"}


def test_a_second_sending_is_answered_and_kept_once(tmp_path: Path) -> None:
    with Running(tmp_path / "in") as running:
        assert send(running.port, made(1), made(2), made(1)) == [0, 0, 0]
    assert (running.received.new, running.received.doubled) == (2, 1)
    with Running(tmp_path / "in") as running:
        assert send(running.port, made(2)) == [0]
    assert (running.received.new, running.received.doubled) == (0, 1)
    assert len(taken(tmp_path / "in")) == 2


@pytest.mark.parametrize(
    ("aet", "called"), [("STRANGER", "GLOVEBOX"), ("PACS", "ANY-SCP"), ("pacs", "GLOVEBOX")]
)
def test_an_association_that_is_not_allowed_is_rejected(
    aet: str, called: str, tmp_path: Path
) -> None:
    with Running(tmp_path / "in") as running:
        with sending(running.port, [made(1)], aet=aet, called=called) as association:
            assert association.is_rejected
        assert send(running.port, made(1)) == [0]
    assert len(taken(tmp_path / "in")) == 1


def test_a_sender_that_lies_about_the_instance_is_told_so_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pynetdicom.dimse_messages import C_STORE_RQ

    honest = C_STORE_RQ.primitive_to_message

    def lying(keyword: str, value: str) -> None:
        def changed(message: C_STORE_RQ, primitive: object) -> None:
            honest(message, primitive)
            setattr(message.command_set, keyword, value)

        monkeypatch.setattr(C_STORE_RQ, "primitive_to_message", changed)

    with Running(tmp_path / "in") as running:
        lying("AffectedSOPInstanceUID", f"{dicom_files.PREFIX}.300.2")
        assert send(running.port, made(1)) == [receiving.MISMATCH]
        lying("AffectedSOPClassUID", "1.2.840.10008.5.1.4.1.1.2")
        assert send(running.port, made(1)) == [receiving.MISMATCH]
        lying("AffectedSOPInstanceUID", "../../../etc/x")
        assert send(running.port, made(1))[0] != receiving.SUCCESS
        monkeypatch.setattr(C_STORE_RQ, "primitive_to_message", honest)
        assert send(running.port, made(1)) == [receiving.SUCCESS]
    assert len(taken(tmp_path / "in")) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"in", "in.intake.jsonl", ".in.intake"}


@pytest.mark.parametrize(
    ("bounds", "statuses"),
    [
        ({"file_bytes": 40_000}, [0, receiving.OUT_OF_RESOURCES, 0]),
        ({"files": 1}, [0, receiving.OUT_OF_RESOURCES, receiving.OUT_OF_RESOURCES]),
        ({"total_bytes": 20_000}, [0, receiving.OUT_OF_RESOURCES, receiving.OUT_OF_RESOURCES]),
    ],
)
def test_what_passes_a_bound_is_refused_so_that_the_sender_keeps_it(
    bounds: dict[str, int], statuses: list[int], tmp_path: Path
) -> None:
    with Running(tmp_path / "in", **bounds) as running:
        assert send(running.port, made(1), made(2, 60_000), made(3, 16_000)) == statuses
    assert len(taken(tmp_path / "in")) == statuses.count(0)


def test_a_message_far_too_long_is_cut_off_while_it_comes(tmp_path: Path) -> None:
    # Far enough for somebody who watches to see it grow.
    with Running(tmp_path / "in", file_bytes=8_000_000) as running:
        parts = tmp_path / ".in.intake" / "parts"
        largest = 0
        done = threading.Event()

        def watch() -> None:
            nonlocal largest
            while not done.is_set():
                for path in parts.glob("*"):
                    with contextlib.suppress(OSError):
                        largest = max(largest, path.stat().st_size)

        thread = threading.Thread(target=watch)
        thread.start()
        assert send(running.port, made(1, 60_000_000)) == [-1]
        done.set()
        thread.join()
        assert 0 < largest < 12 << 20
        assert send(running.port, made(2)) == [0]
    assert len(taken(tmp_path / "in")) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">BBL", 1, 0, 0xFFFFFFFF) + b"x" * 5_000_000,
        struct.pack(">BBL", 1, 0, 80) + b"\0" * 80,
        struct.pack(">BBL", 4, 0, 10) + b"\0" * 10,
    ],
)
def test_what_is_no_association_ends_and_the_next_is_served(data: bytes, tmp_path: Path) -> None:
    with Running(tmp_path / "in") as running:
        link = socket.create_connection(("127.0.0.1", running.port), timeout=10)
        # It hangs up by itself: waiting for what was announced would raise TimeoutError.
        with link, contextlib.suppress(ConnectionError):
            link.sendall(data)
            while link.recv(1 << 16):
                pass
        assert send(running.port, made(1)) == [0]
    assert len(taken(tmp_path / "in")) == 1


def test_a_sender_that_vanishes_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    big = made(1, 8_000_000)
    with Running(tmp_path / "in") as running:
        with sending(running.port, [big]) as association:
            link = association.dul.socket.socket
            whole, sent = link.send, 0

            def cut(data: bytes) -> int:
                nonlocal sent
                sent += len(data)
                if sent > 3_000_000:
                    link.shutdown(socket.SHUT_RDWR)
                    raise OSError("gone")
                return int(whole(data))

            class Cut:
                send = staticmethod(cut)

                def __getattr__(self, name: str) -> object:
                    return getattr(link, name)

            association.dul.socket.socket = Cut()
            association.send_c_store(big)
        assert send(running.port, made(2)) == [0]
        assert len(taken(tmp_path / "in")) == 1
        # Also a part whose connection went before it had a name, while the receiver goes on.
        parts = tmp_path / ".in.intake" / "parts"
        until = time.monotonic() + 10
        while list(parts.iterdir()) and time.monotonic() < until:
            time.sleep(0.1)
        assert not list(parts.iterdir())


def test_what_lies_about_goes_while_nobody_is_connected(tmp_path: Path) -> None:
    with Running(tmp_path / "in") as running:
        stray = tmp_path / ".in.intake" / "parts" / "stray"
        stray.write_bytes(b"half")
        until = time.monotonic() + 10
        while stray.exists() and time.monotonic() < until:
            time.sleep(0.1)
        assert not stray.exists()
        assert send(running.port, made(1)) == [0]


def test_two_receivers_do_not_share_a_folder_or_a_port(tmp_path: Path) -> None:
    with Running(tmp_path / "in") as running:
        with pytest.raises(Conflict), Originals(tmp_path / "in", running._originals.bounds):
            pass
        process = command(
            "receive", str(tmp_path / "in"), "--aet", "GLOVEBOX", "--port", "0", "--from", "PACS"
        )
        _out, err = process.communicate(timeout=60)
        assert process.returncode == 2
        assert "Another intake" in err
        with opened(tmp_path / "other") as originals, pytest.raises(CannotRun, match="port"):
            listener = Listener("GLOVEBOX", running.port, ("PACS",))
            receiving.receive(originals, listener, threading.Event())
        assert send(running.port, made(1)) == [0]
    assert len(taken(tmp_path / "in")) == 1


def started(folder: Path, *words: str) -> tuple[subprocess.Popen[str], int]:
    process = command(
        "receive", str(folder), "--aet", "GLOVEBOX", "--port", "0", "--from", "PACS", *words
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("listening on port "), line
    return process, int(line.split()[-1])


def test_killed_while_it_receives_everything_that_was_answered_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    answered: set[str] = set()
    for attempt in range(3):
        process, port = started(folder)
        before = len(answered)
        with sending(port, [made(0)]) as association:
            for number in range(200):
                each = made(number, 200_000)
                if not association.is_established:
                    break
                if getattr(association.send_c_store(each), "Status", -1) == 0:
                    answered.add(str(each.SOPInstanceUID))
                if number == 10 * (attempt + 1):
                    # At another point of the next file each time.
                    threading.Timer(0.007 * attempt, process.kill).start()
            assert number < 199
        assert len(answered) > before
        assert process.wait() == -9
        process.communicate()
        for path in folder.rglob("*"):
            assert path.is_dir() or pydicom.dcmread(path).PixelData == bytes(200_000)
    assert answered
    with opened(folder):
        pass
    found = [pydicom.dcmread(io.BytesIO(data)) for data in taken(folder).values()]
    uids = [str(each.SOPInstanceUID) for each in found]
    assert answered <= set(uids)
    assert len(uids) == len(set(uids))


def test_the_command_ends_by_itself_or_by_a_signal_and_says_no_name(tmp_path: Path) -> None:
    process, port = started(tmp_path / "in", "--json", "--idle", "1")
    bad = made(2)
    bad.file_meta.MediaStorageSOPInstanceUID = bad.SOPInstanceUID
    assert send(port, made(1), bad) == [0, 0]
    with sending(port, [made(1)], aet=NAME[:16]) as association:
        assert association.is_rejected
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out) == {"new": 2, "doubled": 0, "refused": {}}
    process, port = started(tmp_path / "in")
    process.send_signal(signal.SIGTERM)
    more = process.communicate(timeout=60)
    assert process.returncode == 0
    for word in (NAME, dicom_files.PREFIX, "Traceback"):
        assert word not in "".join([out, err, *more])


@pytest.mark.parametrize(
    ("aet", "port", "allowed"),
    [
        ("", 0, ("PACS",)),
        ("A" * 17, 0, ("PACS",)),
        ("A\\B", 0, ("PACS",)),
        ("GLOVEBOX", 0, ()),
        ("GLOVEBOX", 0, ("",)),
        ("GLOVEBOX", 70_000, ("PACS",)),
    ],
)
def test_a_listener_that_would_let_anybody_in_is_refused(
    aet: str, port: int, allowed: tuple[str, ...]
) -> None:
    with pytest.raises(Invalid):
        Listener(aet, port, allowed)


def test_the_command_line_is_there_without_the_packages_of_intake(tmp_path: Path) -> None:
    code = "import sys; sys.modules['pynetdicom'] = sys.modules['minio'] = None\n" + (
        "import glovebox_cli; glovebox_cli.build_parser()\n"
        "sys.exit(glovebox_cli.main(['intake', 'receive', sys.argv[1], '--aet', 'A', '--port', '0',"
        " '--from', 'B', '--free', '1Mi']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "in")],
        capture_output=True, text=True, cwd=Path(__file__).resolve().parents[3],
    )  # fmt: skip
    assert done.returncode == 3
    assert "glovebox[intake]" in done.stderr
