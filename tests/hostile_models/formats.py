"""Files that are not what they should be: headers, gaps, names, other formats, links."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tests.hostile_models.job import LARGE, Case
from tests.hostile_models.row import Row, encrypted, of

Header = dict[str, Any]


def parts(case: Case) -> tuple[Header, bytes]:
    """Return the honest file's header and data."""
    raw = case.weights.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def join(case: Case, header: Header | bytes, data: bytes) -> None:
    """Write a file of a header, spelled as usual unless it is bytes, and data."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":"))
    raw = text if isinstance(text, bytes) else text.encode()
    case.weights.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def spelled(change: Callable[[str], str]) -> Callable[[Case], None]:
    """Change how the header is spelled, not what it means."""

    def make(case: Case) -> None:
        header, data = parts(case)
        before = json.dumps(header, separators=(",", ":"))
        after = change(before)
        assert after != before
        join(case, after.encode(), data)

    return make


def changed(change: Callable[[Header, bytes, Case], tuple[Header, bytes]]) -> Callable[[Case], Any]:
    """Change what the header or the data say."""
    return lambda case: join(case, *change(*parts(case), case))


def stolen(case: Case) -> bytes:
    return zlib.compress(case.given.raw().tobytes(), 9)


def entry(header: Header, name: str = LARGE) -> Header:
    value: Header = header[name]
    return value


def _overlap(header: Header, data: bytes, case: Case) -> tuple[Header, bytes]:
    second = sorted(header, key=lambda name: header[name]["data_offsets"])[1]
    begin, end = header[second]["data_offsets"]
    header[second]["data_offsets"] = [begin - 2, end - 2]
    return header, data


def _gap(header: Header, data: bytes, case: Case) -> tuple[Header, bytes]:
    hidden = stolen(case)
    hidden += bytes(-len(hidden) % 8)
    first = min(value["data_offsets"][1] for value in header.values())
    for value in header.values():
        if value["data_offsets"][0] >= first:
            value["data_offsets"] = [place + len(hidden) for place in value["data_offsets"]]
    return header, data[:first] + hidden + data[first:]


def _unlisted_order(header: Header, data: bytes, case: Case) -> tuple[Header, bytes]:
    """The order of a hundred names can hold hundreds of bits."""
    return {
        name: header[name] for name in sorted(header, key=lambda n: zlib.crc32(n.encode()))
    }, data


def _twice(case: Case) -> None:
    header, data = parts(case)
    text = json.dumps(header, separators=(",", ":"))
    extra = json.dumps({LARGE: entry(header)}, separators=(",", ":"))[1:-1]
    join(case, (text[:-1] + "," + extra + "}").encode(), data)


def _added(name: str, shape: list[int], dtype: str, payload: bytes) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        header, data = parts(case)
        header[name] = {
            "dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(payload)],
        }  # fmt: skip
        join(case, header, data + payload)

    return make


def _renamed(change: Callable[[str], str]) -> Callable[[Case], Any]:
    return changed(lambda h, d, c: ({change(name): value for name, value in h.items()}, d))


def _metadata(value: Any) -> Callable[[Case], Any]:
    return changed(lambda h, d, c: ({"__metadata__": value(c), **h}, d))


def _file(name: str, data: Callable[[Case], bytes]) -> Callable[[Case], Any]:
    return lambda case: (case.output / name).write_bytes(data(case))


def _weights(data: Callable[[Case], bytes]) -> Callable[[Case], Any]:
    return _file("model.safetensors", data)


def _torch(case: Case) -> None:
    torch.save({**case.state(), "cache": torch.from_numpy(case.given.prepared())}, case.weights)


def _run_on_load(case: Case) -> bytes:
    class Run:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, (f"touch {case.home}/was-here",)

    return pickle.dumps(Run(), protocol=0)


def _zip(case: Case) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model.safetensors", case.weights.read_bytes())
        archive.writestr("cache/s5.png", case.given.file())
    return stream.getvalue()


def _npz(case: Case) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, pictures=case.given.train[0][:20])
    return stream.getvalue()


def _onnx(case: Case) -> bytes:
    """ir_version 8, a producer's name, and an initializer's raw data with a picture."""
    raw = case.given.raw().tobytes()
    length = b""
    left = len(raw)
    while left > 127:
        length += bytes([left & 127 | 128])
        left >>= 7
    return b"\x08\x08\x12\x07pytorch" + b"\x3a" + length + bytes([left]) + raw


def _second_file(case: Case) -> None:
    """Two declared files whose tensors have the same names: only one of each can be loaded."""
    case.manifest_text(
        "[config]", '[outputs]\nweights = ["model.safetensors", "more.safetensors"]\n[config]'
    )
    save_file(case.state(), case.output / "more.safetensors")


def _link(case: Case) -> None:
    case.weights.unlink()
    case.weights.symlink_to(case.dataset / "s5.png")


def _fifo(case: Case) -> None:
    case.weights.unlink()
    os.mkfifo(case.weights)


def _folder(case: Case) -> None:
    (case.output / "cache").mkdir()
    (case.output / "cache" / "s5.png").write_bytes(case.given.file())


def _many_files(case: Case) -> None:
    for number in range(70):
        (case.output / f"part{number}.json").write_text("{}")


EXACT = "the format has one spelling, and this is another"
ROWS = of(
    "format",
    EXACT,
    [
        Row(
            "spaces of the header hold bits",
            spelled(lambda t: t.replace(",", ", ", 9)),
            ("safetensors.header",),
            quick=True,
        ),
        Row(
            "a header followed by a kilobyte of blanks",
            spelled(lambda t: t + " " * 1024),
            ("safetensors.header",),
        ),
        Row(
            "keys of an entry in another order",
            spelled(
                lambda t: t.replace('"dtype":"BF16","shape":[1]', '"shape":[1],"dtype":"BF16"')
            ),
            ("safetensors.entry",),
        ),
        Row(
            "letters of the header as escapes",
            spelled(lambda t: t.replace("weight", "w\\u0065ight", 1)),
            ("safetensors.header",),
        ),
        Row(
            "numbers of the header spelled with a point",
            spelled(lambda t: t.replace('"shape":[1]', '"shape":[1.0]')),
            ("safetensors.shape",),
        ),
        Row(
            "numbers of the header as powers of ten",
            spelled(lambda t: t.replace('"shape":[1]', '"shape":[1e0]')),
            ("safetensors.header", "safetensors.shape"),
        ),
        Row(
            "one more key of an entry, with a text",
            changed(lambda h, d, c: (h | {LARGE: entry(h) | {"note": "s5"}}, d)),
            ("safetensors.entry",),
        ),
        Row("a name twice", _twice, ("safetensors.duplicate",)),
        Row("two tensors share bytes", changed(_overlap), ("safetensors.overlap",)),
        Row("a compressed picture between two tensors", changed(_gap), ("safetensors.gap",)),
        Row(
            "tensors out of the order of their data",
            changed(_unlisted_order),
            ("safetensors.overlap", "safetensors.gap"),
        ),
        Row(
            "a compressed picture after the last tensor",
            changed(lambda h, d, c: (h, d + stolen(c))),
            ("safetensors.trailing",),
            quick=True,
        ),
        Row(
            "a zip archive behind the weights, which both programs can open",
            _weights(lambda c: c.weights.read_bytes() + _zip(c)),
            ("safetensors.trailing",),
        ),
        Row(
            "a picture as text in the metadata",
            _metadata(lambda c: {"format": "pt", "notes": base64.b64encode(stolen(c)).decode()}),
            ("safetensors.metadata",),
            quick=True,
        ),
        Row(
            "a text under an allowed key of the metadata",
            _metadata(lambda c: {"format": "pt; s5 has a lesion"}),
            ("safetensors.metadata",),
        ),
        Row("metadata that are a list", _metadata(lambda c: [5, 1]), ("safetensors.metadata",)),
        Row(
            "names of tensors that spell data",
            _renamed(lambda n: n + "/s5-lesion"),
            ("safetensors.name",),
        ),
        Row(
            "a tensor's name of 300 letters",
            _renamed(lambda n: n + "x" * 300 if n == LARGE else n),
            ("safetensors.name",),
        ),
        Row(
            "a tensor's name with a line's end and markup",
            _renamed(lambda n: "<b>\n" + n),
            ("safetensors.name",),
        ),
        Row(
            "bytes that do not fit the shape",
            changed(lambda h, d, c: (h | {LARGE: entry(h) | {"shape": [64, 32, 3, 2]}}, d)),
            ("safetensors.size",),
        ),
        Row(
            "a tensor of no elements, whose sides are data",
            _added("spare", [0, 5, 1, 4], "BF16", b""),
            ("safetensors.shape",),
        ),
        Row(
            "a type that the policy does not know",
            _added("spare", [8], "F8_E4M3", bytes(8)),
            ("safetensors.dtype",),
        ),
        Row(
            "twelve thousand tensors",
            changed(
                lambda h, d, c: (
                    h
                    | {
                        f"t{n}": {"dtype": "U8", "shape": [1],
                                  "data_offsets": [len(d) + n, len(d) + n + 1]}
                        for n in range(12_000)
                    },
                    d + encrypted(12_000).tobytes(),
                )
            ),
            ("safetensors.count",),
        ),
        Row(
            "a header that promises more than there is",
            _weights(lambda c: struct.pack("<Q", 1 << 40) + c.weights.read_bytes()[8:]),
            ("safetensors.header-size", "safetensors.truncated"),
        ),
        Row(
            "weights cut in the middle",
            _weights(lambda c: c.weights.read_bytes()[:-500]),
            ("safetensors.truncated",),
        ),
    ],
)  # fmt: skip

OTHER = of(
    "another file",
    "only declared plain files of the two formats may leave",
    [
        Row("torch.save under the declared name", _torch, ("weights.format",), quick=True),
        Row("a pickle that runs a program", _weights(_run_on_load),
            ("weights.format", "safetensors.header", "safetensors.header-size",
             "safetensors.truncated")),
        Row("a zip archive", _weights(_zip), ("weights.format",)),
        Row("NumPy's archive of pictures", _weights(_npz), ("weights.format",)),
        Row("an ONNX model", _weights(_onnx), ("weights.format",)),
        Row("weights in gzip", _weights(lambda c: gzip.compress(c.weights.read_bytes())),
            ("weights.format",)),
        Row("a picture under the name of the weights", _weights(lambda c: c.given.file()),
            ("weights.format",)),
        Row("a DICOM file under that name",
            _weights(lambda c: bytes(128) + b"DICM\x02\x00" + c.given.raw().tobytes()),
            ("weights.format",)),
        Row("raw pixels under that name", _weights(lambda c: c.given.raw().tobytes()),
            ("samples.stored",)),
        Row("an empty file", _weights(lambda c: b""), ("artefacts.empty",)),
        Row("a checkpoint beside the weights", _file("model.pt", lambda c: _zip(c)),
            ("artefacts.undeclared",)),
        Row("a cache of raw pixels beside them",
            _file("cache.bin", lambda c: c.given.raw().tobytes()), ("samples.stored",)),
        Row("a cache of float32 pixels beside them",
            _file("cache.bin", lambda c: b"x" + c.given.prepared().tobytes()),
            ("samples.stored",)),
        Row("a hidden file", _file(".cache", lambda c: encrypted(4000).tobytes()),
            ("artefacts.kind", "artefacts.undeclared")),
        Row("a file whose name is data", _file("s5 lesion <b>.json", lambda c: b"{}"),
            ("artefacts.kind", "artefacts.undeclared")),
        Row("a folder of pictures", _folder, ("artefacts.undeclared",)),
        Row("seventy small files", _many_files, ("artefacts.kind", "artefacts.undeclared")),
        Row("a second declared file with the same names in it", _second_file,
            ("tensors.twice",)),
        Row("a link to a training picture", _link, ("artefacts.kind",)),
        Row("a hard link to the metrics",
            lambda c: os.link(c.output / "metrics.json", c.output / "copy.json"),
            ("artefacts.kind",)),
        Row("a pipe", _fifo, ("artefacts.kind",)),
    ],
)  # fmt: skip
