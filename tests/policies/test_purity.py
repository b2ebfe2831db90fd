"""The rules are pure: no Django, no files, no network, no torch, no clock, no chance."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[2] / "policies"
MODULES = sorted(ROOM.glob("*.py"))
ALLOWED = {
    "__future__",
    "collections",
    "dataclasses",
    "datetime",
    "difflib",
    "functools",
    "importlib",
    "itertools",
    "json",
    "math",
    "policies",
    "re",
    "tomllib",
    "typing",
    "unicodedata",
}
# Calls that read or change the world, or answer differently each time.
FORBIDDEN = {"open", "exec", "eval", "print", "input", "now", "utcnow", "today", "__import__"}


@pytest.mark.parametrize("module", MODULES, ids=[m.stem for m in MODULES])
def test_a_module_of_rules_reads_nothing_but_its_arguments(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            assert name not in FORBIDDEN, f"{module.name}:{node.lineno}"
            continue
        else:
            continue
        assert {name.split(".")[0] for name in names} <= ALLOWED, f"{module.name}:{node.lineno}"


def test_only_the_shipped_policy_is_read() -> None:
    readers = [m.name for m in MODULES if "importlib" in m.read_text("utf-8")]
    assert readers == ["document.py"]


def test_the_rules_load_where_nothing_else_is_installed() -> None:
    names = ", ".join(f"policies.{m.stem}" for m in MODULES if m.stem != "__init__")
    program = f"import {names}; from policies.document import default_policy; default_policy()"
    bare = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, '{ROOM.parent}');"]
    bare[-1] += program
    done = subprocess.run(bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
