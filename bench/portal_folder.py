"""A portal of its own in a folder: its environment, programs that fill it, its web server."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import requests

from policies.errors import CannotRun

START_SECONDS = 60


def environment(folder: Path, port: int = 8000, **more: str) -> dict[str, str]:
    """Return the environment of a portal that lives in ``folder`` alone."""
    outside = {name: value for name, value in os.environ.items() if "GLOVEBOX" not in name}
    return {
        **outside,
        "GLOVEBOX_HOME": str(folder / "data"),
        "GLOVEBOX_KEYS": str(folder / "keys"),
        "GLOVEBOX_CHECKPOINTS": str(folder / "checkpoints"),
        "GLOVEBOX_URL": f"http://127.0.0.1:{port}",
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def program(module: str, *arguments: str, environment: dict[str, str]) -> dict[str, Any]:
    """Run one of our modules to its end; return the JSON object of its last line."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**environment, "GLOVEBOX_ROLE": "all"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed:\n{done.stderr[-2000:]}")
    return cast(dict[str, Any], json.loads(done.stdout.splitlines()[-1]))


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def served(folder: Path, port: int) -> Iterator[str]:
    """Serve the portal of ``folder`` as in production while the block runs; yield its address."""
    url = f"http://127.0.0.1:{port}"
    with (folder / "web.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "glovebox_cli", "portal", "serve", "--bind", f"127.0.0.1:{port}",
             "--processes", "1", "--threads", "4"],
            env=environment(folder, port), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            until = time.monotonic() + START_SECONDS
            while not _answers(url):
                if server.poll() is not None or time.monotonic() > until:
                    raise CannotRun("The portal's web server did not start.")
                time.sleep(0.2)
            yield url
        finally:
            server.terminate()
            try:
                server.wait(timeout=15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _answers(url: str) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(f"{url}/health/", timeout=5).status_code == 200
    return False
