"""``python -m tests.fuzz PATH {hypothesis,atheris} --seconds N``.

Paths: dicom, photo and video of de-identification; weights, onnx, metrics and config of the gate.

Both fuzzers throw changed seeds at a path until the time is up, and end with an error where a
promise broke; the file that broke it then lies in ``.fuzz``. hypothesis changes files by a few
rules and makes a finding small; atheris is guided by which code a file reaches.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

FOLDER = Path(__file__).resolve().parents[2] / ".fuzz"
LARGEST = 100_000
DEID = ("dicom", "photo", "video")
GATE = ("weights", "onnx", "metrics", "config")
SLICE = 100
"""Seconds after which atheris goes on in a new process: code that it watches keeps its values alive
when it raises, so that large pictures add up to gigabytes. Without it they do not."""


def main() -> int:
    """Fuzz one path with one fuzzer."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("path", choices=(*DEID, *GATE))
    parser.add_argument("fuzzer", choices=("hypothesis", "atheris"))
    parser.add_argument("--seconds", type=int, default=600)
    args = parser.parse_args()
    if args.seconds < 1:
        parser.error("--seconds must be at least 1")
    FOLDER.mkdir(exist_ok=True)
    print(f"{args.path} with {args.fuzzer}, {args.seconds} s", flush=True)
    (_hypothesis if args.fuzzer == "hypothesis" else _atheris)(args.path, args.seconds)
    return 0


def _path(path: str) -> tuple[Callable[[], Iterator[bytes]], Callable[[bytes], bool]]:
    """Return the seeds of a path and its promise; imported late, so that atheris can watch."""
    if path in GATE:
        from tests.fuzz import gate

        return gate.SEEDS[path], gate.PROMISES[path]
    from tests.fuzz import promises, seeds

    return seeds.SEEDS[path], promises.PROMISES[path]


def _hypothesis(path: str, seconds: int) -> None:
    from tests.fuzz.mutations import explore

    seeds, promise = _path(path)
    saved = FOLDER / f"{path}-smallest"
    tried, written = explore(list(seeds()), promise, seconds=seconds, failed=saved.write_bytes)
    print(f"{tried} files, {written} with an output; every promise held")


def _atheris(path: str, seconds: int) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) >= 1:
        child = os.fork()
        if child == 0:
            # Ends the process, whatever it finds.
            _atheris_slice(path, min(SLICE, int(left)))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != 0:
            raise SystemExit(f"atheris ended with {code}; what it found lies in {FOLDER}")


def _atheris_slice(path: str, seconds: int) -> NoReturn:
    import atheris

    # Ours and Pillow's readers guide the search; what is imported before is not watched.
    watched = ["sandbox_runner", "policies"] if path in GATE else ["deid", "PIL"]
    with atheris.instrument_imports(include=watched):
        seeds, promise = _path(path)

    corpus = FOLDER / f"corpus-{path}"
    corpus.mkdir(exist_ok=True)
    for seed in seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)

    def once(data: bytes) -> None:
        promise(data)

    options = [
        sys.argv[0], f"-max_total_time={seconds}", f"-max_len={LARGEST}", "-timeout=60",
        "-rss_limit_mb=4096", f"-artifact_prefix={FOLDER}/{path}-", str(corpus),
    ]  # fmt: skip
    atheris.Setup(options, once)
    atheris.Fuzz()
    raise AssertionError("atheris ends its process itself")


if __name__ == "__main__":
    raise SystemExit(main())
