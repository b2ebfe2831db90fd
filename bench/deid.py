"""Files a second of header cleaning: ours, two peers', and pydicom's reading and saving alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from bench import peers
from bench.ratios import Ratio, in_turns

REPETITIONS = 5
COPIES = 3
# The pipeline syncs every output to disk before it is reported, which none of the others does;
# with outputs in memory, where that costs nothing, the rest of it can be compared.
MEMORY = Path("/dev/shm")
OURS = ("pipeline", "pipeline-in-memory", "cleaner")
BASES = ("dicognito", "dicom-anonymizer", "pydicom")
ROOT = Path(__file__).resolve().parent.parent


def run(folder: Path) -> list[Ratio]:
    """Measure every tool on the files that all of them clean, in turns."""
    readable = folder / "readable"
    count = _readable_files(readable)
    theirs = peers.python()
    with contextlib.ExitStack() as stack:
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
        tools = {}
        for name in (*OURS, *BASES):
            python = Path(sys.executable) if name in (*OURS, "pydicom") else theirs
            target = (memory if name.endswith("in-memory") else folder) / name
            tool = name.removesuffix("-in-memory")
            tools[name] = stack.enter_context(_tool(tool, python, target))
        written = {name: set(tool(readable)["written"]) for name, tool in tools.items()}
        common = folder / "common"
        common.mkdir()
        each = sorted(set.intersection(*written.values()))
        for name in each:
            for number, data in enumerate(_copies((readable / name).read_bytes())):
                (common / f"{number}-{name}").write_bytes(data)
        files = len(list(common.iterdir()))
        size = sum(path.stat().st_size for path in common.iterdir()) / 1e6
        did = ", ".join(f"{name} {len(names)}" for name, names in written.items())
        print(f"  of {count} readable files cleaned: {did}")
        print(f"  measured on the {len(each)} that all clean, {files} with copies ({size:.1f} MB)")

        def rate(name: str) -> float:
            answer = tools[name](common)
            if len(answer["written"]) != files:
                raise RuntimeError(f"{name} left files out in a measured run")
            return files / float(answer["seconds"])

        by = in_turns({name: lambda n=name: rate(n) for name in tools}, REPETITIONS)  # type: ignore[misc]
    return [
        Ratio(f"{ours} against {base}", "files/s", "higher", ours, by[ours], base, by[base])
        for ours in OURS
        for base in BASES
    ]


def _readable_files(target: Path) -> int:
    """Copy pydicom's test files that pydicom reads, each content once; return how many."""
    import pydicom

    places = [Path(pydicom.__file__).parent / "data" / "test_files"]
    with contextlib.suppress(ImportError):
        import data_store

        places.append(Path(next(iter(data_store.__path__))) / "data")
    target.mkdir()
    seen: set[str] = set()
    for path in sorted(path for place in places for path in place.rglob("*") if path.is_file()):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                elements = sum(1 for _element in pydicom.dcmread(path).iterall())
        except Exception:  # broken on purpose, in any way: not readable
            continue
        if elements and digest not in seen:
            (target / f"{len(seen):03d}.dcm").write_bytes(data)
            seen.add(digest)
    return len(seen)


def _copies(data: bytes) -> Iterator[bytes]:
    """The file and copies that differ from it in the last digit of their instance's UID.

    A batch of two hundred files takes half a second, of which starting a process is much.
    """
    yield data
    uid = re.search(rb"\x08\0\x18\0(?:UI..|....)([0-9.]{9,63}[0-9])", data, re.DOTALL)
    if uid is not None:
        for digit in sorted(set(b"1234") - {uid[1][-1]})[:COPIES]:
            yield data.replace(uid[1], uid[1][:-1] + bytes([digit]))


class _Tool:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, source: Path) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{source}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a cleaner's process ended early")
        return cast(dict[str, Any], json.loads(line))


@contextlib.contextmanager
def _tool(name: str, python: Path, target: Path) -> Iterator[_Tool]:
    """Keep one tool's process while the block runs."""
    path = str(ROOT) if python == Path(sys.executable) else ""
    process = subprocess.Popen(
        # -P: the folder of the script is not searched, where this module would hide our package.
        [str(python), "-P", str(Path(__file__).with_name("cleaners.py")), name, str(target)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield _Tool(process)
    finally:
        process.kill()
        process.communicate()
