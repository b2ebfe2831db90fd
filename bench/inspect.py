"""A gibibyte of weights through ``glovebox inspect``, without a network, against hashing it."""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from bench.ratios import Ratio
from policies.errors import CannotRun

MEBIBYTES = 1023  # the default policy lets a gibibyte leave, the header included
SIDE = 2048
SUBJECTS = 100
_TYPES = {"F32": 4, "BF16": 2, "I8": 1}
_MANIFEST = """
[job]
name = "large"
entrypoint = "train.py"
[datasets]
textures = "1"
[config]
size = [96, 96]
"""


def run(folder: Path) -> list[Ratio]:
    """Inspect files of three types once each; a second run would measure the same."""
    data, code = folder / "textures", folder / "code"
    _write_dataset(data)
    code.mkdir()
    (code / "glovebox.toml").write_text(_MANIFEST)
    (code / "train.py").write_text("")
    ratios = []
    for dtype in _TYPES:
        output = folder / dtype
        output.mkdir()
        path = output / "model.safetensors"
        _write_weights(path, dtype)
        began = time.perf_counter()
        with path.open("rb") as stream:
            hashlib.file_digest(stream, "sha256")
        hashed = time.perf_counter() - began
        wall, cpu, peak = _inspect(output, code, data)
        print(f"  {dtype}: {wall:.1f} s on the clock, {cpu:.1f} s of processors, at most "
              f"{peak / 2**20:.0f} MiB in one process")  # fmt: skip
        ratios.append(
            Ratio(f"inspecting 1 GiB of {dtype} against SHA-256", "s", "lower", "inspect", [wall],
                  "hash", [hashed])
        )  # fmt: skip
        path.unlink()
    return ratios


def _inspect(output: Path, code: Path, data: Path) -> tuple[float, float, int]:
    """Return seconds, processor seconds, and the bytes of the largest process."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "glovebox_cli", "inspect", output, "--submission", code,
         "--data", f"textures={data}", "--json"],
        capture_output=True,
        check=False,
    )  # fmt: skip
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        rules = {found["rule"] for found in json.loads(done.stdout)["findings"]}
    except ValueError as error:
        raise CannotRun(done.stderr.decode()[-500:]) from error
    if "contents.unread" in rules or "samples.search" not in rules:
        raise CannotRun("the weights were not examined")
    cpu = sum(getattr(after, of) - getattr(before, of) for of in ("ru_utime", "ru_stime"))
    return wall, cpu, after.ru_maxrss * 1024


def _write_weights(path: Path, dtype: str) -> None:
    """Write four layers of normally distributed weights, like those of a large network."""
    rng = np.random.default_rng(0)
    width = _TYPES[dtype]
    rows = MEBIBYTES * 2**20 // width // SIDE // 4
    size = rows * SIDE * width
    entries = {
        f"layer{i}.weight": {
            "dtype": dtype, "shape": [rows, SIDE], "data_offsets": [i * size, (i + 1) * size]
        }
        for i in range(4)
    }  # fmt: skip
    text = json.dumps(entries, separators=(",", ":")).encode()
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for _layer in range(4):
            for first in range(0, rows, 2048):
                some = rng.normal(0, 0.03, (min(2048, rows - first), SIDE)).astype("<f4")
                if dtype == "BF16":
                    stream.write((some.view("<u4") >> 16).astype("<u2").tobytes())
                elif dtype == "I8":
                    stream.write(np.clip(np.rint(some * 900), -127, 127).astype(np.int8).tobytes())
                else:
                    stream.write(some.tobytes())


def _write_dataset(root: Path) -> None:
    rng = np.random.default_rng(1)
    root.mkdir()
    lines = ["file,subject,label,split"]
    for number in range(SUBJECTS):
        field = rng.normal(0, 1, (130, 130)).cumsum(axis=0).cumsum(axis=1)[2:, 2:]
        low, high = field.min(), field.max()
        picture = (255 * (field - low) / (high - low)).astype(np.uint8)
        Image.fromarray(picture).save(root / f"{number}.png")
        lines.append(f"{number}.png,s{number},{number % 2},{'sealed' if number > 90 else 'train'}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
