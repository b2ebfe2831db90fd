"""``python -m bench [NAME ...] [--json FILE]``."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from bench.ratios import load
from policies.errors import CannotRun

BENCHES = {
    "deid": "de-identification of headers, one worker, against others' tools",
    "faces": "faces in a photograph, one thread, against deface",
    "text": "text in a picture, one thread, against PP-OCRv6",
    "start": "an empty job in each backend against the same program bare",
    "training": "training a CNN sealed against bare",
    "jobs": "twenty jobs queued at once on two cores against their own bare work",
    "staging": "staging a version against dd of the same bytes with fsync, cold",
    "reading": "reading small images through the SDK against opening each, and one large file",
    "inspect": "the gate's static part on a gibibyte of weights against hashing it",
    "audit": "verifying the audit chain against reading and hashing its rows",
    "pages": "pages of a full portal against an empty one",
}


def main() -> int:
    """Run the benches that were named, or all; 3 where one could not run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(BENCHES))
    if unknown:
        parser.error(f"no such bench: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    signal.signal(signal.SIGTERM, _end)
    print(f"{platform.python_implementation()} {platform.python_version()}, {load()}, no GPU used")
    figures, code, began = {}, 0, time.monotonic()
    for name in args.names or BENCHES:
        print(f"\n{name}: {BENCHES[name]}", flush=True)
        since, before = time.monotonic(), load()
        with tempfile.TemporaryDirectory(prefix="glovebox-bench-") as folder:
            try:
                rows = importlib.import_module(f"bench.{name}").run(Path(folder))
            except CannotRun as error:
                print(f"  could not run: {error}", file=sys.stderr)
                code = 3
                continue
        for row in rows:
            print(f"  {row.as_line()}")
        print(f"  {time.monotonic() - since:.0f} s, {before} before, {load()} after", flush=True)
        figures[name] = [row.as_mapping() for row in rows]
    print(f"\n{time.monotonic() - began:.0f} s in all")
    if args.json:
        document = {"figures": figures, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return code


def _end(_number: int, _frame: FrameType | None) -> None:
    # As Ctrl-C: what was started is ended on the way out.
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
