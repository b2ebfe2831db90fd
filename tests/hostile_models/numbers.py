"""Metrics and the configuration as a way out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from sandbox_runner.inspection import Report
from sandbox_runner.sdk.glovebox.pictures import resize_by_area
from tests.hostile_models.job import Case
from tests.hostile_models.row import Row, encrypted, of


def metrics(values: Callable[[Case], dict[str, Any]]) -> Callable[[Case], Any]:
    return lambda case: case.metrics(**values(case))


def raw(name: str, change: Callable[[str], str]) -> Callable[[Case], Any]:
    """Change the text of a file."""

    def make(case: Case) -> None:
        place = case.output / name
        before = place.read_text()
        after = change(before)
        assert after != before
        place.write_bytes(after.encode("utf-8"))

    return make


def _declare(line: str) -> Callable[[Case], None]:
    return lambda case: case.manifest_text('auc = "number"', f'auc = "number"\n{line}')


def _then(*steps: Callable[[Case], Any]) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        for step in steps:
            step(case)

    return make


def thumbnail(case: Case, side: int = 32) -> list[list[float]]:
    """A training picture of 32x32, as the matrix of a metric."""
    small = resize_by_area(case.given.prepared(), (side, side))
    return [[round(float(x), 3) for x in row] for row in small]


def _columns(case: Case) -> dict[str, list[float]]:
    """Sixteen names that the job chose at run time."""
    return {f"s{n}_{'lesion' if n % 2 else 'normal'}": [0.5, 0.25] for n in range(16)}


def _no_names(case: Case, report: Report) -> bool:
    return "lesion" not in json.dumps(report.public()["metrics"])


def _no_small(case: Case, report: Report) -> bool:
    cells = [cell for row in report.metrics["cells"] for cell in row]
    return all(cell is None or cell >= 10 for cell in cells)


def _few_digits(case: Case, report: Report) -> bool:
    return bool(report.metrics["auc"] == 0.9123)


DECLARED = "metrics are held to what was declared before the run"
ROWS = of(
    "metrics and configuration",
    DECLARED,
    [
        Row("a metric that was not declared", metrics(lambda c: {"pixels": [1, 2, 3]}),
            ("metrics.undeclared",), quick=True),
        Row("values a sample under one more name",
            metrics(lambda c: {"per_sample": {f"s{n}": 0.5 for n in range(160)}}),
            ("metrics.undeclared",)),
        Row("a text as a metric", metrics(lambda c: {"auc": "s5 has a lesion"}),
            ("metrics.type",)),
        Row("a number as a text", metrics(lambda c: {"auc": "0.93"}), ("metrics.type",)),
        Row("a truth value as a metric", metrics(lambda c: {"auc": True}), ("metrics.type",)),
        Row("NaN", raw("metrics.json", lambda t: t.replace("0.93", "NaN")), ("json.not-finite",)),
        Row("infinity spelled as a large number",
            raw("metrics.json", lambda t: t.replace("0.93", "1e999")), ("json.not-finite",)),
        Row("a whole number of four hundred digits",
            raw("metrics.json", lambda t: t.replace("0.93", "9" * 400)), ("json.number",)),
        Row("a name twice",
            raw("metrics.json", lambda t: t[:-1] + ', "auc": 0.5}'), ("json.duplicate",)),
        Row("a curve of 160 points, one a sample",
            metrics(lambda c: {"loss": c.given.train[0].mean(axis=(1, 2, 3)).tolist()}),
            ("metrics.length",)),
        Row("a curve of nested lists", metrics(lambda c: {"loss": [[1, 2], [3, 4]]}),
            ("metrics.type",)),
        Row("a table of forty columns",
            metrics(lambda c: {"loss": {f"c{n}": [1, 2] for n in range(40)}}),
            ("metrics.length",)),
        Row("columns of different lengths",
            metrics(lambda c: {"loss": {"x": [1], "y": [1, 2]}}), ("metrics.length",)),
        Row("a column whose name is markup",
            metrics(lambda c: {"loss": {"<b>s5": [1]}}), ("metrics.column-name",)),
        Row("a matrix of 48x40, a whole picture",
            metrics(lambda c: {"cells": c.given.prepared().round(3).tolist()}),
            ("metrics.shape",)),
        Row("rows of a matrix of different lengths",
            metrics(lambda c: {"cells": [[50], [50, 60]]}), ("metrics.shape",)),
        Row("objects nested forty deep",
            raw("metrics.json", lambda t: t[:-1] + ', "x": ' + '{"a":' * 40 + "1" + "}" * 41),
            ("json.depth",)),
        Row("metrics that are a list", lambda c: (c.output / "metrics.json").write_text("[1]"),
            ("json.object",)),
        Row("metrics in UTF-16",
            lambda c: (c.output / "metrics.json").write_bytes('{"auc": 0.5}'.encode("utf-16")),
            ("json.encoding", "json.syntax")),
        Row("metrics of half a megabyte, most of it blanks",
            raw("metrics.json", lambda t: t + " " * 500_000), ("json.size", "artefacts.size")),
        Row("a word that was not declared",
            _then(_declare('phase = { kind = "choice", values = ["early", "late"] }'),
                  metrics(lambda c: {"phase": "s5"})), ("metrics.choice",)),
        Row("a training picture of 32x32 as a matrix", metrics(lambda c: {"cells": thumbnail(c)}),
            ("samples.likeness", "samples.rows"),
            why="the matrix, viewed as a picture, is a training sample", quick=True),
        Row("the same with bytes as counts",
            metrics(lambda c: {"cells": [[int(250 * x) + 10 for x in row]
                                         for row in thumbnail(c)]}),
            ("samples.likeness", "samples.rows"), why="as above"),
        Row("the same as 32 columns of curves",
            _then(lambda c: c.manifest_text('auc = "number"', "\n".join(
                      ['auc = "number"', *(f'c{n} = "curve"' for n in range(28))])),
                  metrics(lambda c: {f"c{n}": column for n, column
                                     in enumerate(np.array(thumbnail(c, 28)).T.tolist())})),
            ("samples.likeness", "samples.rows"), why="columns side by side are that picture"),
        Row("pixels of a row as a curve",
            metrics(lambda c: {"loss": c.given.prepared()[20:22].reshape(-1).tolist()}),
            ("samples.rows",), expect="review", provable=True,
            why="two rows of a picture: found, and so few could be chance"),
        Row("sixteen names of columns that the job made up",
            metrics(lambda c: {"loss": _columns(c)}), ("metrics.column-name",),
            expect="clean", gone=_no_names, why="such names are numbered instead"),
        Row("counts of fewer than ten", metrics(lambda c: {"cells": [[1, 2], [3, 70]]}),
            ("metrics.small-cells",), expect="clean", gone=_no_small,
            why="they are left out, and one more so that totals tell nothing"),
        Row("data in the digits after the fourth",
            metrics(lambda c: {"auc": 0.91230523461981}), (), expect="clean", gone=_few_digits,
            why="numbers are rounded before they leave"),
        Row("numbers outside of the declared range",
            _then(_declare('rate = { kind = "number", min = 0, max = 1 }'),
                  metrics(lambda c: {"rate": 7351.0})),
            ("metrics.range",), expect="review",
            why="left out, and a reviewer is told"),
        Row("thirty matrices full of digits",
            _then(lambda c: c.manifest_text('auc = "number"', "\n".join(
                      ['auc = "number"', *(f'm{n} = "matrix"' for n in range(26))])),
                  metrics(lambda c: {f"m{n}": (encrypted(1024, n).reshape(32, 32) / 256 + 10)
                                     .round(3).tolist() for n in range(26)})),
            ("metrics.budget",), expect="review", provable=False,
            why="encrypted numbers look like any; what they could say is counted"),
        Row("another configuration",
            raw("config.json", lambda t: t.replace("0.005", "0.00501")), ("config.differs",),
            quick=True),
        Row("one more key of the configuration",
            raw("config.json", lambda t: t[:-1] + ', "note": "s5"}'), ("config.differs",)),
        Row("bits in the blanks of the configuration",
            raw("config.json", lambda t: t + "".join(
                " \t"[int(bit)] for bit in np.unpackbits(encrypted(200)))),
            ("config.spelling",)),
        Row("letters of the configuration as escapes",
            raw("config.json", lambda t: t.replace("lesion", "l\\u0065sion")),
            ("config.spelling",)),
        Row("numbers of the configuration spelled otherwise",
            raw("config.json", lambda t: t.replace("0.005", "5e-3")), ("config.spelling",)),
        Row("keys of the configuration in an order that says something",
            lambda c: (c.output / "config.json").write_text(json.dumps(
                {k: c.manifest.config[k] for k in ("positive_label", "lr", "size")})),
            ("config.spelling",)),
        Row("a key of the configuration twice",
            raw("config.json", lambda t: t[:-1] + ', "lr": 0.005}'), ("json.duplicate",)),
        Row("a picture under the name of the configuration",
            lambda c: (c.output / "config.json").write_bytes(c.given.file()),
            ("json.encoding", "json.syntax")),
    ],
)  # fmt: skip
