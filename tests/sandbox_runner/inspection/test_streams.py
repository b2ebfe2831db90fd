"""Files are searched in blocks, and nothing is lost where two blocks meet."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from policies.document import default_policy
from sandbox_runner.inspection import payloads, streams
from sandbox_runner.inspection.bar import Bar
from sandbox_runner.inspection.safetensors_file import read_header
from sandbox_runner.inspection.stored_samples import Search
from sandbox_runner.inspection.worker import Told
from sandbox_runner.sdk.glovebox import outputs, pictures

from .conftest import write_dataset
from .test_distributions import narrowed

SIZE = (48, 40)
POLICY = default_policy().release


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few hundred elements, so that every picture is cut many times."""
    from sandbox_runner.inspection import chunks, rows, stored_samples

    for module, name, size in (
        (streams, "ELEMENTS", 264),
        (streams, "_BYTES", 600),
        (stored_samples, "ELEMENTS", 264),
        (chunks, "_BLOCK", 128),
        (rows, "_BLOCK", 96),
    ):
        monkeypatch.setattr(module, name, size)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("streams") / "spots"
    write_dataset(root, subjects=12)
    return root


def _findings(dataset: Path, folder: Path, tensors: dict[str, np.ndarray]) -> dict[str, dict]:
    search = Search({"spots": dataset}, SIZE)
    path = outputs.save_weights(tensors)
    found = search.weights(path, read_header(path, POLICY), "model.safetensors")
    return {f.rule: dict(f.evidence) for f in found}


@pytest.mark.usefixtures("small_blocks")
def test_blocks_find_what_the_whole_does(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOVEBOX_OUTPUT", str(tmp_path))
    rng = np.random.default_rng(3)
    picture = pictures.prepare(dataset / "s6/0.png", SIZE)
    tensors = {
        "flat": np.concatenate([rng.normal(0, 1, 1237), picture.reshape(-1) * 0.1, [0.5] * 77]),
        "exact": picture,
        "columns": np.ascontiguousarray(np.stack([picture.reshape(-1)] * 2).T * 0.3),
    }
    stored = {name: array.astype(np.float32) for name, array in tensors.items()}
    blocks = _findings(dataset, tmp_path, stored)
    monkeypatch.undo()
    monkeypatch.setenv("GLOVEBOX_OUTPUT", str(tmp_path))
    whole = _findings(dataset, tmp_path, stored)
    assert blocks == whole
    assert {"samples.stored", "samples.rows"} <= blocks.keys()


@pytest.mark.usefixtures("small_blocks")
def test_a_text_and_a_file_across_blocks_are_told(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOVEBOX_OUTPUT", str(tmp_path))
    rng = np.random.default_rng(4)
    text = b"Hong Gildong, born on 3 May 1980, was seen here in 2019; no finding. " * 2
    for before in range(560, 604, 7):
        noise = rng.integers(128, 255, before).astype(np.uint8).tobytes()
        data = noise + text + noise[:40] + b"\x89PNG\r\n\x1a\n" + noise
        found = _findings(dataset, tmp_path, {"w": np.frombuffer(data, np.uint8).copy()})
        assert {"payload.text", "payload.file"} <= found.keys(), before


def test_text_is_found_wherever_it_begins_and_a_shorter_one_is_not() -> None:
    line = b"The quick brown fox jumps over a lazy dog and runs into the woods"[: payloads.TEXT_RUN]
    for before in range(40):
        block = np.frombuffer(b"\x80" * before + line + b"\xff" * 100, np.uint8)
        assert payloads.marks(block, 0) == [("text", "", payloads.TEXT_RUN)]
        assert payloads.marks(np.delete(block, before), 0) == []


def scales() -> Iterator[np.ndarray]:
    """What the scales and variances of normalising layers are like: numbers near each other."""
    rng = np.random.default_rng(6)
    for centre in np.geomspace(0.05, 4, 60):
        for spread in (0.003, 0.02, 0.05, 0.15):
            yield (centre * (1 + spread * rng.standard_normal(512))).astype(np.float32)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_scales_of_layers_are_no_text(dtype: str) -> None:
    for numbers in scales():
        block = narrowed(numbers, dtype)
        for name, part in [("data", block.view(np.uint8)), *streams.byte_streams(block)]:
            if name != f"byte {block.itemsize - 1}":
                found = payloads.marks(part, 0, codes=not name.startswith(streams.PACKED))
                assert found == [], (name, numbers.mean(), numbers.std())


@pytest.mark.parametrize("code", ["words", "base64", "hex", "lines", "json"])
def test_texts_and_codes_of_letters_are_told(code: str) -> None:
    rng = np.random.default_rng(7)
    data = rng.integers(0, 256, 300).astype(np.uint8).tobytes()
    text = {
        "words": b"mass in the upper outer quadrant, seen again after a year; no change. " * 2,
        "base64": base64.b64encode(data),
        "hex": data.hex().encode(),
        "lines": b"".join(b"%.3f %d\n" % (x / 256, x) for x in data),
        "json": json.dumps([{"name": "Hong", "born": 1980 + n} for n in range(9)]).encode(),
    }[code]
    block = np.frombuffer(b"\x00" * 40 + text + b"\xff" * 40, np.uint8)
    assert [what for what, _, _ in payloads.marks(block, 0)] == ["text"]


def test_each_stream_gives_back_what_was_hidden_in_it() -> None:
    rng = np.random.default_rng(5)
    hidden = rng.integers(0, 256, 100).astype(np.uint8)
    for kind, width in (("<u8", 8), ("<u4", 4), ("<u2", 2), ("|u1", 1)):
        bits = rng.integers(0, 2 ** (8 * width), 800, dtype="u8").astype(kind)
        for k, name in ((1, "lowest bit"), (2, "lowest 2 bits"), (4, "lowest 4 bits")):
            for order in ("low first", "high first"):
                plane = np.unpackbits(hidden, bitorder="little").reshape(-1, 8 // k, k)
                values = (plane * (1 << np.arange(k))).sum(axis=2)
                if order == "high first":
                    values = values[:, ::-1]
                high = bits[: values.size].astype("u8") >> np.uint64(k) << np.uint64(k)
                changed = high | values.reshape(-1).astype("u8")
                found = dict(streams.byte_streams(changed.astype(kind)))
                assert (found[f"{name}, {order}"][:100] == hidden).all(), (kind, name, order)


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_and_a_file_gets_lines() -> None:
    for stream, expected in ((_Screen(), "["), (io.StringIO(), "contents ...\nnetwork ...\n")):
        bar = Bar(stream)
        for step, share in (("contents", 0.0), ("contents", 0.5), ("network", 0.0)):
            bar(step, share)
        bar.end()
        assert expected in stream.getvalue()
    assert " 50%" not in stream.getvalue()


def test_the_worker_tells_each_hundredth_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    monkeypatch.setenv("GLOVEBOX_PROGRESS_FD", str(write))
    told = Told()
    for share in (0.0, 0.001, 0.5, 0.5, 1.0):
        told(share)
    os.close(write)
    with os.fdopen(read) as stream:
        lines = [json.loads(line) for line in stream]
    assert [line["metrics"]["share"] for line in lines] == [0.0, 0.5, 1.0]
