"""A served web process cannot open the data keys, whatever its code tries."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from portal import confinement

needs_landlock = pytest.mark.skipif(
    not confinement.available(), reason="the kernel has no Landlock"
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("confined")
    environment = {
        **os.environ,
        "GLOVEBOX_HOME": str(folder / "data"),
        "GLOVEBOX_KEYS": str(folder / "keys"),
        "GLOVEBOX_ROLE": "all",
        "TMPDIR": str(folder / "scratch"),
    }
    (folder / "scratch").mkdir()
    make = """
import django
django.setup()
from django.core.management import call_command
from portal import keys
keys.make_all()
call_command("migrate", verbosity=0)
call_command("createcachetable", verbosity=0)
"""
    subprocess.run([sys.executable, "-c", make], env=environment, check=True)
    return environment


@needs_landlock
def test_the_kernel_refuses_what_our_own_code_would_allow(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """With every role and by every path: directly, by a link, by a child, by another's memory."""
    program = """
import io, os, subprocess, sys, django
django.setup()
from django.conf import settings
from portal import blobs, confinement, keys
before = keys.master("data")
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
(settings.HOME / "link").unlink(missing_ok=True)
os.symlink(settings.KEYS / "data" / "master.key", settings.HOME / "link")
assert confinement.confine_web(base=settings.BASE_DIR, home=settings.HOME, keys=settings.KEYS)
def tried(what, work):
    try:
        work()
        print(what, "OPENED")
    except (OSError, subprocess.CalledProcessError):
        print(what, "refused")
from policies.errors import CannotRun
def by_our_code():
    try:
        keys.master("data")
    except CannotRun as error:
        raise OSError from error
tried("our code", by_our_code)
tried("link", lambda: open(settings.HOME / "link").read())
tried("hard link", lambda: os.link(settings.KEYS / "data/master.key", settings.HOME / "hard"))
tried("rename", lambda: os.rename(settings.KEYS / "data", settings.HOME / "moved"))
tried("child", lambda: subprocess.run(["cat", settings.KEYS / "data/master.key"], check=True,
                                      stderr=subprocess.DEVNULL))
tried("write", lambda: open(settings.KEYS / "data/master.key", "w"))
tried("memory", lambda: open(f"/proc/{worker.pid}/mem", "rb"))
tried("home", lambda: open(os.path.expanduser("~/.bashrc") if os.path.exists(
    os.path.expanduser("~/.bashrc")) else settings.KEYS / "sign/audit.ed25519"))
worker.kill()
key = keys.master("view")
name = blobs.object_name(key, "a")
blobs.put(io.BytesIO(b"content"), key=key, name=name)
assert blobs.read(name, key=key) == b"content"
blobs.delete(name)
import tempfile
tempfile.TemporaryFile().write(b"x")
import portal.audit.verify
from portal.audit.models import Event
print("works", Event.objects.count())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "OPENED" not in done.stdout
    assert sum(line.endswith("refused") for line in lines) == 8
    assert lines[-1].startswith("works")
    # The test can fail: without the confinement these are open.
    bare = (
        program.replace(
            "assert confinement.confine_web(base=settings.BASE_DIR, home=settings.HOME, "
            "keys=settings.KEYS)",
            "",
        )
        .replace('tried("write"', 'tried("nothing"')
        .replace('master.key", "w")', 'master.key")')
    )
    assert bare != program
    opened = subprocess.run(
        [sys.executable, "-c", bare], env={**environment}, text=True, capture_output=True
    )
    assert opened.stdout.count("OPENED") >= 4


@pytest.fixture
def served(environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["portal", "serve", "--bind", f"127.0.0.1:{port}"]
    only = (
        "import sys, glovebox_cli; glovebox_cli.ROOMS = (('portal.cli', 'django'),);"
        "sys.exit(glovebox_cli.main(sys.argv[1:]))"
    )
    with (tmp_path / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", only, *words], env=environment, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{address}/api/v1/keys", timeout=5)
            break
        except urllib.error.HTTPError:
            break
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, (tmp_path / "log.txt").read_text()
            time.sleep(0.1)
    yield address
    process.terminate()
    process.wait(timeout=30)


def test_a_served_portal_answers_and_says_that_it_is_confined(served: str, tmp_path: Path) -> None:
    page = urllib.request.urlopen(f"{served}/accounts/login/", timeout=20)
    assert page.status == 200
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{served}/api/v1/me", timeout=20)
    assert caught.value.code == 401
    said = (tmp_path / "log.txt").read_text()
    assert ("not confined by the kernel" in said) != confinement.available()
    assert "confined by the kernel" in said
