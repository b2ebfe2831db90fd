"""Messages are hints: whole or not there, taken once, and nothing is lost when one is."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, transaction
from django.test import override_settings
from kombu import Connection

from policies.errors import Conflict
from portal import beat, tasking
from portal.leases import LeaseLost


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("messages", "control"):
        (tmp_path / name).mkdir()
    return tmp_path


def connection(folder: Path) -> Connection:
    return Connection(
        transport="portal.file_queue:Transport",
        transport_options={
            "data_folder_in": str(folder / "messages"),
            "data_folder_out": str(folder / "messages"),
            "control_folder": str(folder / "control"),
        },
    )


def test_many_takers_get_each_message_once(folder: Path) -> None:
    with connection(folder) as sender:
        queue = sender.SimpleQueue(folder.name)
        for number in range(200):
            queue.put({"number": number})
    got: list[int] = []

    def take() -> None:
        with connection(folder) as mine:
            queue = mine.SimpleQueue(folder.name)
            while True:
                try:
                    message = queue.get(block=False)
                except queue.Empty:
                    return
                got.append(message.payload["number"])
                message.ack()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(200))
    assert list((folder / "messages").iterdir()) == []


def test_the_oldest_is_taken_first_and_queues_are_apart(folder: Path) -> None:
    with connection(folder) as link:
        # kombu keeps bindings by name for the whole process: each test has names of its own.
        short, long = (link.SimpleQueue(f"{folder.name}{end}") for end in ("short", "long"))
        long.put("long")
        for number in range(20):
            short.put(number)
        assert [short.get(block=False).payload for _ in range(20)] == list(range(20))
        with pytest.raises(short.Empty):
            short.get(block=False)
        assert long.get(block=False).payload == "long"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2"])
def test_a_message_that_cannot_be_read_stops_nobody(content: bytes, folder: Path) -> None:
    with connection(folder) as link:
        queue = link.SimpleQueue(folder.name)
        (folder / "messages" / f"{0:020d}_broken.{folder.name}.msg").write_bytes(content)
        queue.put("good")
        assert queue.get(block=False).payload == "good"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...], str]]:
    """What would be sent: the queue itself is tested with real workers below."""
    messages: list[tuple[str, tuple[Any, ...], str]] = []

    def send(name: str, args: tuple[Any, ...], queue: str, retry: bool) -> None:
        messages.append((name, args, queue))

    monkeypatch.setattr(tasking.app, "send_task", send)
    return messages


@pytest.mark.django_db(transaction=True)
def test_a_hint_is_sent_after_the_commit_and_not_after_a_rollback(
    sent: list[tuple[str, tuple[Any, ...], str]],
) -> None:
    with transaction.atomic():
        tasking.hint("audit.seal")
        assert sent == []
    assert sent == [("audit.seal", (), "short")]
    with pytest.raises(Conflict), transaction.atomic():
        tasking.hint("audit.seal")
        raise Conflict("moved on")
    assert len(sent) == 1


@pytest.mark.django_db(transaction=True)
def test_a_queue_that_is_down_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise OSError("no space left at /srv/data")

    monkeypatch.setattr(tasking.app, "send_task", broken)
    with transaction.atomic():
        tasking.hint("audit.seal")


@pytest.mark.django_db(transaction=True)
def test_beat_hints_waiting_work_now_and_then_and_not_at_every_tick(
    sent: list[tuple[str, tuple[Any, ...], str]],
) -> None:
    with tasking.from_beat():
        for _ in range(5):
            tasking.hint("jobs.advance", 1, again_after=60)
            tasking.hint("jobs.advance", 2, again_after=60)
        assert [args for _name, args, _queue in sent] == [(1,), (2,)]
        tasking.hint("jobs.sweep", again_after=0.01)
        time.sleep(0.05)
        # How soon one is sent again is its own affair: the others still wait.
        tasking.hint("jobs.sweep", again_after=0.01)
        tasking.hint("jobs.advance", 1, again_after=60)
        tasking.hint("jobs.advance", 1, again_after=0.01)
    assert [(name, args) for name, args, _queue in sent[2:]] == [("jobs.sweep", ())] * 2
    # Outside beat nothing is held back.
    tasking.hint("jobs.advance", 1)
    assert len(sent) == 5


@pytest.mark.django_db(transaction=True)
def test_one_app_that_fails_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def broken() -> None:
        raise RuntimeError("patient Kim")

    monkeypatch.setattr(
        beat, "finders", lambda: [("one", broken), ("two", lambda: called.append("two"))]
    )
    beat.tick()
    assert called == ["two"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, None),
        (tasking.TryAgain("busy"), None),
        (LeaseLost("gone"), None),
        (OperationalError("database is locked"), None),
        (Conflict("The job has moved on."), "The job has moved on."),
        (RuntimeError("patient Kim at /srv/data"), tasking.NEUTRAL),
    ],
)
@pytest.mark.django_db
def test_a_task_fails_only_for_reasons_that_stay(
    error: Exception | None, reason: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    failed: list[tuple[int, str]] = []

    def on_failure(number: int, *, reason: str) -> None:
        failed.append((number, reason))

    name = f"test.{type(error).__name__}"

    @tasking.task(name, on_failure=on_failure)
    def work(number: int) -> None:
        if error is not None:
            raise error

    try:
        with caplog.at_level("INFO"):
            tasking.app.tasks[name](7)
    finally:
        tasking.app.tasks.unregister(name)
    assert failed == ([(7, reason)] if reason else [])
    assert "Kim" not in caplog.text
    assert "/srv" not in caplog.text
    assert name in caplog.text


class Portal:
    """A portal of its own in a folder, driven by the commands that people use."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {
            **os.environ,
            "GLOVEBOX_HOME": str(home / "data"),
            "GLOVEBOX_KEYS": str(home / "keys"),
            "GLOVEBOX_CHECKPOINTS": str(home / "checkpoints"),
            "OMP_NUM_THREADS": "1",
        }
        self.messages = home / "data" / "queue" / "messages"
        self.running: list[subprocess.Popen[bytes]] = []

    def python(self, program: str) -> str:
        program = f"import django; django.setup()\n{program}"
        return subprocess.run(
            [sys.executable, "-c", program],
            env=self.environment,
            check=True,
            text=True,
            capture_output=True,
        ).stdout

    def command(self, *words: str) -> str:
        return subprocess.run(
            self._words(words), env=self.environment, check=True, text=True, capture_output=True
        ).stdout

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.home / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                self._words(words), env=self.environment, stdout=log, stderr=log
            )
        self.running.append(process)
        return process

    def _words(self, words: tuple[str, ...]) -> list[str]:
        # The dispatcher also loads rooms that this test is not about.
        only = (
            "import sys, glovebox_cli; glovebox_cli.ROOMS = (('portal.cli', 'django'),);"
            "sys.exit(glovebox_cli.main(sys.argv[1:]))"
        )
        return [sys.executable, "-c", only, *words]

    def events(self, count: int) -> None:
        self.python(
            "from django.db import transaction\n"
            "from portal.audit.record import record_attempt\n"
            "with transaction.atomic():\n"
            f"    for n in range({count}): record_attempt('test.done', by=None, subject=str(n))\n"
            "from portal.tasking import hint\n"
            "hint('audit.seal')\n"
        )

    def verified(self) -> dict[str, Any]:
        return dict(json.loads(self.command("audit", "verify", "--json")))

    def unsealed(self) -> int:
        with contextlib.closing(sqlite3.connect(self.home / "data" / "portal.sqlite3")) as link:
            query = "SELECT (SELECT count(*) FROM audit_event) - (SELECT count(*) FROM audit_link)"
            return int(link.execute(query).fetchone()[0])

    def sealed(self) -> dict[str, Any]:
        """Wait until every event has its link, and verify."""
        for _ in range(600):
            if self.unsealed() == 0:
                return self.verified()
            time.sleep(0.1)
        raise AssertionError((self.home / "log.txt").read_text())

    def stop(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait(timeout=30)
        self.running.clear()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A portal after its first start, to be copied: migrations take seconds."""
    portal = Portal(tmp_path_factory.mktemp("prepared"))
    portal.command(
        *("portal", "init", "--json"),
        *("--administrator", "one@example.org", "--administrator", "two@example.org"),
    )
    return portal.home


@pytest.fixture
def portal(prepared: Path, tmp_path: Path) -> Iterator[Portal]:
    portal = Portal(Path(shutil.copytree(prepared, tmp_path / "portal")))
    yield portal
    portal.stop()


def test_lost_and_doubled_messages_change_nothing(portal: Portal) -> None:
    """Real workers and beat: one message is dropped, one comes four times, one worker dies."""
    portal.events(5)
    before = portal.unsealed()
    assert before > 5
    (message,) = portal.messages.glob("[0-9]*.msg")
    content = message.read_bytes()
    message.unlink()  # lost
    first = portal.start("portal", "worker", "--queue", "short", "--processes", "1")
    portal.start("portal", "worker", "--queue", "short", "--processes", "1")
    time.sleep(2)
    assert portal.unsealed() == before
    portal.start("portal", "beat", "--every", "0.5")
    found = portal.sealed()
    assert found["held"]
    assert found["checkpoints"] >= 2  # in the database and exported

    portal.events(30)
    for copy in range(3):
        draft = portal.messages / f".{copy}.draft"
        draft.write_bytes(content)
        draft.rename(message.with_name(message.name.replace("_", f"_{copy}", 1)))
    found = portal.sealed()
    assert found["held"]
    assert found["events"] == found["position"]

    first.kill()
    portal.events(30)
    found = portal.sealed()
    assert found["held"]


def test_init_twice_changes_nothing(portal: Portal) -> None:
    before = portal.verified()
    printed = json.loads(
        portal.command(
            *("portal", "init", "--json"),
            *("--administrator", "three@example.org", "--administrator", "four@example.org"),
        )
    )
    assert printed == {"keys": [], "administrators": []}
    assert portal.verified() == before


def test_init_without_two_administrators_is_refused_and_makes_none(tmp_path: Path) -> None:
    portal = Portal(tmp_path)
    done = subprocess.run(
        portal._words(("portal", "init", "--administrator", "one@example.org")),
        env=portal.environment,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 2
    assert "administrator" in done.stderr
    assert not (tmp_path / "data" / "portal.sqlite3").exists()
    assert not (tmp_path / "keys" / "data").exists()


@pytest.mark.django_db
def test_secrets_of_the_first_administrators_open_the_portal() -> None:
    from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
    from django.core.cache import cache
    from django.test import Client

    from portal import first_people

    cache.clear()
    with override_settings():
        made = first_people.make(
            ["One@example.org", "two@example.org"], organisation="Operator", unit="IT"
        )
    one = made[0]
    code = format_hotp_value(hotp_value(one["totp_secret"], int(time.time()) // 30))
    answer = Client().post(
        "/api/v1/tokens",
        {"email": one["email"], "password": one["password"], "totp": code, "name": "t"},
        content_type="application/json",
    )
    assert answer.status_code == 201
    me = Client().get("/api/v1/me", HTTP_AUTHORIZATION=f"Bearer {answer.json()['token']}")
    assert me.json()["roles"] == ["administrator"]
