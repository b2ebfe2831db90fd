"""Advice on code: the line is right, nothing is quoted, and nothing makes it fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_runner.static_scan import scan


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("import socket", "network"),
        ("from urllib.request import urlopen", "network"),
        ("import subprocess", "process"),
        ("import os; os.system('ls')", "process"),
        ("import ctypes", "native"),
        ("eval('1')", "dynamic-code"),
        ("__import__('so' + 'cket')", "dynamic-code"),
        ("().__class__.__base__.__subclasses__()", "dynamic-code"),
        ("import pickle", "pickle"),
        ("import torch; torch.load('x')", "pickle"),
        ("open('/etc/passwd')", "path"),
        ("x = '" + "A" * 3000 + "'", "constant"),
        ("import torch; torch.nn.Module().register_buffer('x', None)", "buffer"),
        ("import os; os.symlink('a', 'b')", "links"),
    ],
)
def test_a_line_worth_a_look_is_pointed_at(tmp_path: Path, line: str, rule: str) -> None:
    (tmp_path / "train.py").write_text(f"# first\n{line}\n", encoding="utf-8")

    found = [(each.file, each.line, each.rule) for each in scan(tmp_path)]

    assert ("train.py", 2, rule) in found


def test_plain_training_gets_no_advice(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import glovebox, numpy, torch\n"
        "x, y, _ = glovebox.dataset('m').arrays('train')\n"
        "open('/data/m/labels.csv')\nglovebox.save_weights(torch.nn.Linear(1, 1))\n",
        encoding="utf-8",
    )

    assert scan(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [b"def (", b"\x00", b"\xff\xfe", b"(" * 5000, b"x = " + b"-" * 100_000 + b"1", b"1" * 5000],
)
def test_nothing_that_a_file_holds_makes_it_fail(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.py").write_bytes(content)

    assert all(each.rule in ("unreadable", "constant") for each in scan(tmp_path))


def test_compiled_code_is_named_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "net.so").write_bytes(b"\x7fELF")
    (tmp_path / "link.py").symlink_to("/etc/passwd")

    assert [(each.file, each.rule) for each in scan(tmp_path)] == [("net.so", "native")]
