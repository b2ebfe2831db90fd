"""A target with something to steal: files, services, a process, a variable."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sandbox_runner.backends import BACKENDS, Backend
from sandbox_runner.backends.choice import backend as backend_of
from sandbox_runner.backends.choice import missing
from sandbox_runner.image import ROOM
from sandbox_runner.spec import Limits, MiB, Mount, SandboxSpec
from tests.attacks.attack import Assault, Attack

LIMITS = Limits(
    cpus=1,
    memory_bytes=512 * MiB,
    processes=64,
    wall_seconds=20,
    output_bytes=8 * MiB,
    output_inodes=1000,
    tmp_bytes=8 * MiB,
    shm_bytes=8 * MiB,
    open_files=256,
    log_bytes=256 * 1024,
    grace_seconds=1,
)


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
        for listener in (tcp, local, path_socket):
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


@pytest.fixture
def assault(
    backend: Backend, target: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Attack], Assault]:
    """Return a function that runs an attack sealed."""
    monkeypatch.setenv("GLOVEBOX_CANARY", "canary")

    def run(attack: Attack) -> Assault:
        code, output, log = tmp_path / "code", tmp_path / "output", tmp_path / "log"
        attack.write(code, {**target, "data": "/data/mini"})
        limits = Limits(**{**vars(LIMITS), **attack.limits})
        identifier = f"attack-{uuid.uuid4().hex[:12]}"
        result = backend.run(
            SandboxSpec(
                id=identifier,
                argv=("python", "/opt/glovebox/start.py", "/code/train.py"),
                limits=limits,
                mounts=(
                    Mount(code, "/code"),
                    Mount(ROOM / "inside", "/opt/glovebox"),
                    Mount(Path(target["data"]), "/data/mini"),
                ),
                env={"GLOVEBOX_CODE": "/code", "GLOVEBOX_OUTPUT": "/output"},
                workdir="/code",
                output=output,
                log=log,
            )
        )
        text = log.read_text(encoding="utf-8", errors="replace")
        return Assault(result, text, output, identifier)

    return run
