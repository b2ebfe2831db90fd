"""A JSON file has one reading, finite numbers and bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_runner.inspection.json_file import BadJson, read_object

HOSTILE = {
    "empty": (b"", "syntax"),
    "cut": (b'{"a": 1', "syntax"),
    "not UTF-8": (b'{"a": "\xff"}', "encoding"),
    "a list": (b"[1]", "object"),
    "a duplicate key": (b'{"a": 1, "a": 2}', "duplicate"),
    "a duplicate key inside": (b'{"x": {"a": 1, "a": 2}}', "duplicate"),
    "NaN": (b'{"a": NaN}', "not-finite"),
    "infinity": (b'{"a": -Infinity}', "not-finite"),
    "a number that overflows": (b'{"a": 1e999}', "not-finite"),
    "a number of a thousand digits": (b'{"a": ' + b"7" * 1000 + b"}", "number"),
    "deep": (b'{"a": [[[[[[[1]]]]]]]}', "depth"),
    "very deep": (b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "depth"),
    "two documents": (b"{}{}", "syntax"),
    "too large": (b'{"a": "' + b"x" * 200_000 + b'"}', "size"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_json_is_refused_by_its_own_rule(tmp_path: Path, name: str) -> None:
    data, rule = HOSTILE[name]
    path = tmp_path / "metrics.json"
    path.write_bytes(data)
    with pytest.raises(BadJson) as caught:
        read_object(path, 128 * 1024)
    assert caught.value.rule == f"json.{rule}"


def test_ordinary_metrics_are_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"auc": 0.9, "loss": [1.5, 1e-3], "n": -3}')
    assert read_object(path, 1000) == {"auc": 0.9, "loss": [1.5, 1e-3], "n": -3}
