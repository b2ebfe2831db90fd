"""The table of docs/release-gate.md, row by row into a file, so that it can be stopped and go on.

usage: python -m tests.hostile_models.figures ROWS.jsonl [--minutes M] [--only WORD] [--whole]

Rows whose files say enough are judged by the gate's own steps on files, the others (with
``--whole``: all) by the whole gate, sealed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.hostile_models import job, table
from tests.hostile_models.every import ROWS, came_of


def main(argv: Sequence[str]) -> int:
    """Judge what is not in the file yet, and print the table; 0 if all rows are in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--only", default="")
    parser.add_argument("--whole", action="store_true")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * args.minutes
    done = args.file.read_text().splitlines() if args.file.exists() else []
    known = {(row["group"], row["row"]) for row in map(json.loads, done)}
    wanted = [row for row in ROWS if args.only in row.group or args.only in row.name]
    left = [row for row in wanted if (row.group, row.name) not in known]
    with tempfile.TemporaryDirectory() as folder:
        honest = job.honest(Path(folder)) if left else None
        for number, row in enumerate(left):
            if honest is None or time.monotonic() > until:
                break
            start = time.monotonic()
            place = Path(folder) / f"row{number}"
            report, harmless = came_of(row, honest.copy(place), args.whole or not row.static)
            said = table.outcome(row, report.findings, harmless)
            said["seconds"] = round(time.monotonic() - start, 1)
            with args.file.open("a") as stream:
                stream.write(json.dumps(said) + "\n")
            print(f"{said['came']:9} {row.group}: {row.name} {said['rules']}", file=sys.stderr)
    rows = [json.loads(line) for line in args.file.read_text().splitlines()]
    order = {(row.group, row.name): place for place, row in enumerate(ROWS)}
    rows.sort(key=lambda row: order[row["group"], row["row"]])
    print("\n".join(table.lines(rows, each=True)))
    return 0 if len(rows) >= len(ROWS) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
