"""The datasets that the project makes, through the whole command: no planted value is left."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deid.__main__ import main
from deid.layers import layers
from synthetic.mammography import write_phantoms
from synthetic.photos import write_photos
from synthetic.planted import Planted
from synthetic.search import Search


def published(src: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    main(["keygen", str(tmp_path / "key")])
    capsys.readouterr()
    arguments = [str(src), str(tmp_path / "out"), "--key", str(tmp_path / "key"), "--json"]
    assert main([*arguments, "--workers", "2"]) == 0
    summary: dict[str, Any] = json.loads(capsys.readouterr().out)
    return summary


def leftovers(planted: list[Planted], tmp_path: Path) -> dict[str, set[str]]:
    """Every planted value by the output, name or report that holds it."""
    search = Search(each for each in planted if len(each.value) >= 5 and each.where != "subject")
    found: dict[str, set[str]] = {}
    report = tmp_path / "out.report.jsonl"
    for path in (report, *(each for each in (tmp_path / "out").rglob("*") if each.is_file())):
        hits = search.found(str(path.relative_to(tmp_path)).encode())
        for _place, content in layers(path.read_bytes()):
            hits |= search.found(content)
        if hits:
            found[path.name] = hits
    return found


def rows(tmp_path: Path) -> dict[str, dict[str, Any]]:
    lines = (tmp_path / "out.report.jsonl").read_text().splitlines()
    return {row["source"]: row for row in map(json.loads, lines)}


def uncovered(planted: list[Planted], where: str, src: Path, tmp_path: Path) -> list[str]:
    """The files in which a planted box of a kind is not wholly masked."""
    by_source = rows(tmp_path)
    missed = []
    for each in planted:
        if each.where != where or each.box is None:
            continue
        row = by_source[hashlib.sha256((src / each.file).read_bytes()).hexdigest()]
        x, y, width, height = each.box
        open_ = np.ones((height, width), bool)
        for boxes in row["boxes"].values():
            for box in boxes:
                left, top = max(0, int(box["x"]) - x), max(0, int(box["y"]) - y)
                right = max(0, int(box["x"] + box["width"]) - x)
                bottom = max(0, int(box["y"] + box["height"]) - y)
                open_[top:bottom, left:right] = False
        if open_.mean() > 0.1:
            missed.append(each.file)
    return missed


def test_mammography_phantoms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src = tmp_path / "src"
    planted = write_phantoms(src, patients=8, seed=3, identifiers=True)
    summary = published(src, tmp_path, capsys)
    assert (summary["quarantined"], summary["failed"]) == (0, 0)
    assert leftovers(planted, tmp_path) == {}
    assert any(each.where == "pixels" for each in planted)
    assert uncovered(planted, "pixels", src, tmp_path) == []
    assert main(["verify", str(tmp_path / "out"), "--against", str(src)]) == 0


def test_photographs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src = tmp_path / "src"
    planted = write_photos(src, seed=3, identifiers=True)
    summary = published(src, tmp_path, capsys)
    assert (summary["quarantined"], summary["failed"]) == (0, 0)
    assert leftovers(planted, tmp_path) == {}
    assert all(row["review"] for row in rows(tmp_path).values() if row["kind"] == "photo")
    assert main(["verify", str(tmp_path / "out"), "--against", str(src)]) == 0
