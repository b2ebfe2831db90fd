"""A target with something to steal: files, services, a process, a variable."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, Protocol

import pytest

from sandbox_runner.backends import BACKENDS, Backend
from sandbox_runner.backends.choice import backend as backend_of
from sandbox_runner.backends.choice import missing
from sandbox_runner.image import ROOM
from tests.attacks import verdicts
from tests.attacks.attack import LIMITS, Assault, Attack, sandbox

__all__ = ["LIMITS"]
SLOW = {"gvisor"}  # several times slower to start, so the whole set is for `make verify`


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in BACKENDS
    ],
)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend that this machine has."""
    name: str = request.param
    if missing(name):
        pytest.skip(f"{name} is not whole here: {', '.join(missing(name))}")
    return backend_of(name)


def _serve(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"canary")


def _addresses() -> list[str]:
    """Return the addresses of this machine by which others know it."""
    with contextlib.suppress(OSError):
        return socket.gethostbyname_ex(socket.gethostname())[2]
    return []


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Any]]:
    """Return where the valuables are, as an attacker who knows everything would."""
    home = tmp_path_factory.mktemp("target")
    secret = home / "secret.txt"
    secret.write_text("canary", encoding="utf-8")
    data = home / "data"
    data.mkdir()
    (data / "labels.csv").write_text("file,subject,label,split\n", encoding="utf-8")
    word = f"bystander-{uuid.uuid4().hex}"
    abstract = f"glovebox-{uuid.uuid4().hex}"
    disks = [name for name in ("/dev/vda", "/dev/sda", "/dev/loop0") if Path(name).exists()]
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        local.bind("\0" + abstract)
        path_socket = stack.enter_context(socket.socket(socket.AF_UNIX))
        path_socket.bind(str(home / "socket"))
        everywhere = stack.enter_context(socket.create_server(("", 0)))
        left_open = [
            os.open(secret, os.O_RDONLY),
            os.open(home, os.O_RDONLY | os.O_DIRECTORY),
            stack.enter_context(socket.create_server(("127.0.0.1", 0))).detach(),
            stack.enter_context(socket.create_connection(tcp.getsockname())).detach(),
        ]
        for descriptor in left_open:
            os.set_inheritable(descriptor, True)
            stack.callback(os.close, descriptor)
        for listener in (tcp, local, path_socket, everywhere):
            listener.listen()
            threading.Thread(target=_serve, args=(listener,), daemon=True).start()
        bystander = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()", word], stdin=subprocess.PIPE
        )
        disk = disks[0] if disks else "/dev/null"
        yield {
            "secret": str(secret),
            "data": str(data),
            "tcp": tcp.getsockname()[1],
            "tcp_all": everywhere.getsockname()[1],
            "addresses": _addresses(),
            "left_open": left_open,
            "abstract": abstract,
            "path_socket": str(home / "socket"),
            "bystander": bystander.pid,
            "bystander_word": word,
            "hostname": socket.gethostname(),
            "disk": disk,
            "uid": os.getuid(),
            "cmdline": Path("/proc/cmdline").read_text(encoding="utf-8").strip(),
            "host_paths": [sys.base_prefix, str(ROOM.parent), "/root", "/home"],
        }
        bystander.kill()
        bystander.wait()


class Probe(Protocol):
    """Notes what came of a probe, and fails unless it was nothing."""

    def __call__(
        self,
        backend: Backend,
        attack: Attack,
        *,
        succeeded: bool,
        wrong: str,
        leftovers: Set[str],
    ) -> None: ...


@pytest.fixture
def probe(record_property: Callable[[str, object], None]) -> Probe:
    """Return the function that judges a probe."""

    def judge(
        backend: Backend,
        attack: Attack,
        *,
        succeeded: bool,
        wrong: str,
        leftovers: Set[str],
    ) -> None:
        known = backend.name in attack.known
        verdict = verdicts.said(succeeded=succeeded, wrong=wrong, leftovers=leftovers, known=known)
        record_property(verdicts.PROBE, (backend.name, verdict))
        assert known or not succeeded, f"{attack.name} got through"
        assert not wrong, wrong
        assert not leftovers

    return judge


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--attacks-table", action="store_true", help="print what came of each backend")


def _reports(config: pytest.Config) -> list[pytest.TestReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return []
    return [
        report
        for outcome in ("passed", "failed", "skipped")
        for report in reporter.getreports(outcome)
        if isinstance(report, pytest.TestReport) and report.when == "call"
    ]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where no probe has run there is nothing to be content with."""
    wanted = session.config.getoption("--attacks-table", default=False)
    if wanted and exitstatus == 0 and not verdicts.sums(_reports(session.config))[0]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table of `make verify-attacks`."""
    if config.getoption("--attacks-table", default=False):
        terminalreporter.section("attacks")
        for line in verdicts.lines(_reports(config)):
            terminalreporter.write_line(line)


@pytest.fixture
def assault(
    backend: Backend, target: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Attack], Assault]:
    """Return a function that runs an attack sealed."""
    monkeypatch.setenv("GLOVEBOX_CANARY", "canary")

    def run(attack: Attack) -> Assault:
        spec = sandbox(attack, {**target, "data": "/data/mini"}, Path(target["data"]), tmp_path)
        result = backend.run(spec)
        text = (tmp_path / "log").read_text(encoding="utf-8", errors="replace")
        return Assault(result, text, tmp_path / "output", spec.id)

    return run
