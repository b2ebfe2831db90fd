"""The carrier, run as the program it is: plain files come along, nothing else does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from sandbox_runner.backends.kubernetes_manifests import job_manifest, pod_spec
from tests.sandbox_runner.test_kubernetes_manifests import GVISOR, SETTINGS, SPEC


def carry(source: Path, target: Path, *limits: int) -> subprocess.CompletedProcess[str]:
    module = "sandbox_runner.backends.kubernetes_carry"
    return subprocess.run(
        [sys.executable, "-m", module, str(source), str(target), *map(str, limits)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_only_plain_files_come_along(tmp_path: Path) -> None:
    source, target = tmp_path / "output", tmp_path / "outbox"
    (source / "plots").mkdir(parents=True)
    target.mkdir()
    (source / "model.safetensors").write_bytes(b"weights")
    (source / "plots" / "curve.json").write_text("[]")
    (source / "link").symlink_to("/etc/passwd")
    (source / "folder").symlink_to("/etc")
    os.mkfifo(source / "pipe")
    os.link(source / "model.safetensors", source / "again")
    (source / "bad\x1b[2Jname").write_text("x")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(source / "socket"))
    done = carry(source, target, 1000, 100)
    assert done.returncode == 0
    found = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert found == {"plots/curve.json"}, "a file with two names is not plain either"
    left = dict(json.loads(done.stdout)["left"])
    assert {"link", "folder", "pipe", "socket", "again", "model.safetensors"} <= set(left)
    assert "\x1b" not in done.stdout
    assert (target / "plots").stat().st_mode & 0o777 == 0o777, "the runner must take it away"


def test_no_more_than_the_limit(tmp_path: Path) -> None:
    source, target = tmp_path / "output", tmp_path / "outbox"
    source.mkdir()
    target.mkdir()
    (source / "a").write_bytes(b"x" * 600)
    (source / "b").write_bytes(b"x" * 600)
    with (source / "sparse").open("wb") as sparse:
        sparse.truncate(2**40)
    done = carry(source, target, 1000, 100)
    assert done.returncode == 0
    assert sum(path.stat().st_size for path in target.iterdir()) <= 1000
    assert {"b", "sparse"} <= set(dict(json.loads(done.stdout)["left"]))


def test_source_that_is_a_link_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "output").symlink_to("/etc")
    (tmp_path / "outbox").mkdir()
    assert carry(tmp_path / "output", tmp_path / "outbox", 1000, 100).returncode != 0
    assert list((tmp_path / "outbox").iterdir()) == []


def test_the_pod_calls_it_as_it_is() -> None:
    command = pod_spec(SPEC, SETTINGS, GVISOR)["containers"][0]["command"]
    at = command.index("-m")
    assert command[at + 1] == "sandbox_runner.backends.kubernetes_carry"
    assert command[at + 2 :] == ["/output", "/outbox", str(2**31), "20000"]
    assert job_manifest(SPEC, SETTINGS, GVISOR)["kind"] == "Job"
