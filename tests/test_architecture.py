"""The arrows of docs/architecture.md: who may import whom, and what must work without Django."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("policies", "deid", "sandbox_runner", "bundle", "client", "synthetic", "demo", "portal")
MAY_IMPORT: dict[str, frozenset[str]] = {
    "policies": frozenset(),
    "deid": frozenset({"policies"}),
    "sandbox_runner": frozenset({"policies"}),
    "bundle": frozenset({"policies"}),
    "client": frozenset({"policies"}),
    "synthetic": frozenset({"policies"}),
    "demo": frozenset({"policies", "client", "synthetic"}),
    "portal": frozenset({"policies", "deid", "sandbox_runner", "bundle", "synthetic"}),
}
SDK = ROOT / "sandbox_runner" / "sdk"
# What runs inside the sandbox beside a stranger's code imports nothing of ours but the SDK.
INSIDE = (
    SDK,
    ROOT / "sandbox_runner" / "recipes",
    ROOT / "sandbox_runner" / "private" / "inside",
)
FORBIDDEN_IN_POLICIES = frozenset(
    {"os", "pathlib", "socket", "subprocess", "django", "torch", "numpy", "shutil", "tempfile"}
)


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Give the first name of each absolute import in a file, with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0], node.lineno


def files_of(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_its_arrows_allow(room: str) -> None:
    files = [path for path in files_of(room) if not any(path.is_relative_to(i) for i in INSIDE)]
    assert files
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files
        for name, line in imported(path)
        if name in ROOMS and name != room and name not in MAY_IMPORT[room]
    ]
    assert not wrong


def test_code_beside_the_user_imports_none_of_our_rooms() -> None:
    files = [path for folder in INSIDE for path in sorted(folder.rglob("*.py"))]
    assert files
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files
        for name, line in imported(path)
        if name in ROOMS
    ]
    assert not wrong


def test_policies_touch_no_files_network_or_framework() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files_of("policies")
        for name, line in imported(path)
        if name in FORBIDDEN_IN_POLICIES
    ]
    assert not wrong


def test_only_the_portal_imports_django() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for room in ROOMS
        if room != "portal"
        for path in files_of(room)
        for name, line in imported(path)
        if name in {"django", "rest_framework", "celery"}
    ]
    assert not wrong


WITHOUT_DJANGO = """
import sys
from importlib.machinery import PathFinder

class Absent(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] in {"django", "celery", "rest_framework", "kombu", "allauth"}:
            return None
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Absent
import glovebox_cli
words = glovebox_cli.build_parser().format_help()
for word in ("deid", "sandbox", "rehearse", "inspect", "verify", "login"):
    assert word in words, word
for word in ("portal", "audit", "demo"):
    assert f"    {word} " not in words, word
assert "django" not in sys.modules
"""


def test_the_core_works_without_django_and_the_portal_is_left_out() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DJANGO], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
