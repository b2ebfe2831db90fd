"""The same backend on a real cluster with the chart installed.

Needs KUBECONFIG, and GLOVEBOX_KUBERNETES naming settings whose roots are mounted here.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox_runner.backends.kubernetes import KubernetesBackend
from sandbox_runner.spec import Limits, SandboxResult, SandboxSpec

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        not (os.environ.get("KUBECONFIG") and os.environ.get("GLOVEBOX_KUBERNETES")),
        reason="no cluster: set KUBECONFIG and GLOVEBOX_KUBERNETES",
    ),
]
SMALL = Limits(
    cpus=0.5,
    memory_bytes=512 * 2**20,
    wall_seconds=120,
    output_bytes=2**20,
    tmp_bytes=2**20,
    shm_bytes=2**20,
)


def run(name: str, program: str, tmp_path: Path, limits: Limits = SMALL) -> SandboxResult:
    spec = SandboxSpec(
        id=f"test-{name}-{os.getpid()}",
        argv=("python", "-c", program),
        output=tmp_path / "out",
        log=tmp_path / "log",
        limits=limits,
    )
    return KubernetesBackend().run(spec)


def test_every_required_line_holds() -> None:
    lines = KubernetesBackend().check()
    assert [line.name for line in lines if line.required and line.state == "missing"] == []


def test_files_come_back(tmp_path: Path) -> None:
    result = run("files", "open('/output/a.json','w').write('[1]')", tmp_path)
    assert (result.state, result.reason) == ("finished", "exit")
    assert (tmp_path / "out" / "a.json").read_text() == "[1]"


def test_exit_status_is_told(tmp_path: Path) -> None:
    result = run("exit", "raise SystemExit(3)", tmp_path)
    assert (result.state, result.reason, result.exit_code) == ("failed", "exit", 3)


def test_nothing_of_the_cluster_is_seen(tmp_path: Path) -> None:
    program = (
        "import os;assert not [n for n in os.environ if n.startswith('KUBERNETES')];"
        "assert not os.path.exists('/var/run/secrets/kubernetes.io');"
        "assert os.getuid()!=0"
    )
    assert run("seen", program, tmp_path).state == "finished"


@pytest.mark.parametrize("address", ["10.96.0.1:443", "169.254.169.254:80", "1.1.1.1:53"])
def test_nothing_is_reached(address: str, tmp_path: Path) -> None:
    host, port = address.split(":")
    program = (
        "import socket,sys\ntry:\n"
        f" socket.create_connection(('{host}',{port}),5)\nexcept OSError: sys.exit(0)\nsys.exit(9)"
    )
    assert run(f"net-{port}", program, tmp_path).state == "finished"


def test_time_and_memory_end_it(tmp_path: Path) -> None:
    late = run("late", "import time;time.sleep(600)", tmp_path, replace(SMALL, wall_seconds=5))
    assert (late.state, late.reason) == ("stopped", "timeout")
    large = run("large", "x=b'x'*2**31", tmp_path)
    assert large.state == "failed" and large.reason in ("memory", "exit")
