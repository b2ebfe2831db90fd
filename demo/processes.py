"""Start the portal's processes and end every one of them, whatever happens."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import requests

from policies.errors import CannotRun, _

PR_SET_PDEATHSIG = 1
COMMANDS = {
    "web": ("portal", "serve", "--bind", "{bind}", "--threads", "8"),
    "worker-short": ("portal", "worker", "--queue", "short", "--processes", "1"),
    "worker-long": ("portal", "worker", "--queue", "long", "--processes", "2"),
    "beat": ("portal", "beat", "--every", "1"),
}


def _dies_with(parent: int) -> Callable[[], None]:
    """Return what a child runs first: it gets SIGTERM when its parent dies (prctl(2))."""
    library = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        library.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def check_port(host: str, port: int) -> None:
    """Raise CannotRun where something answers there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise CannotRun(
                _("Port {port} is in use. Choose another with ARGS='--port 8001'."),
                code="demo.port",
                port=port,
            ) from None


@contextlib.contextmanager
def portal(home: Path, bind: str, environment: dict[str, str]) -> Iterator[None]:
    """Run web, workers and beat as separate processes while the block runs."""
    logs = home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in COMMANDS.items():
            with (logs / f"{name}.log").open("ab") as log:
                children[name] = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "glovebox_cli",
                        *(part.format(bind=bind) for part in command),
                    ],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=_dies_with(os.getpid()),
                )
        _wait_until_up(f"http://{bind}/api/v1/datasets", children, logs)
        yield
    finally:
        end(children.values())


def _wait_until_up(url: str, children: dict[str, subprocess.Popen[bytes]], logs: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for name, child in children.items():
            if child.poll() is not None:
                raise CannotRun(
                    _("The process {name} ended; its log is {log}."),
                    code="demo.process",
                    name=name,
                    log=logs / f"{name}.log",
                )
        with contextlib.suppress(requests.RequestException):
            if requests.get(url, timeout=5).status_code == 200:
                return
        time.sleep(0.3)
    raise CannotRun(_("The portal did not answer within a minute."), code="demo.slow")


def end(children: object) -> None:
    """End processes with all their children: asked first, then killed."""
    running: list[subprocess.Popen[bytes]] = list(children)  # type: ignore[call-overload]
    for child in running:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
    until = time.monotonic() + 10
    for child in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=max(0.1, until - time.monotonic()))
    for child in running:
        # The group outlives its leader where a worker was stuck.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
