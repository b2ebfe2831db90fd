"""Tell a file that holds no weights as they may leave by its first bytes; say how to save one."""

from __future__ import annotations

from pathlib import Path

SAVE_LINE = "glovebox.save_weights(model)"
SAVE_ONNX_LINE = "glovebox.save_onnx(model, example)"

# First bytes -> what the file is. Nothing is opened further: a pickle is a program.
_KINDS = (
    (b"PK\x03\x04", "a zip archive, as torch.save writes"),
    (b"PK\x05\x06", "a zip archive"),
    (b"\x80\x02", "a Python pickle, as torch.save writes"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
    (b"\x89HDF", "an HDF5 file, as Keras writes"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"GGUF", "a GGUF file"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x7fELF", "a program"),
    (b"#!", "a script"),
)


def foreign_kind(path: Path, *, onnx: bool = False) -> str:
    """Return what else the file is, in words; empty if its first bytes could be safetensors.

    An ONNX model is something else, too, unless ``onnx`` says that it must be one.
    """
    with path.open("rb") as stream:
        start = stream.read(132)
    if start[128:132] == b"DICM":
        return "a DICOM file"
    if onnx and start[8:10] == b'{"':
        return "a safetensors file, whose name must end in .safetensors"
    if is_onnx(start) and not onnx:
        return "an ONNX model, whose name must end in .onnx"
    return next((words for magic, words in _KINDS if start.startswith(magic)), "")


def is_onnx(start: bytes) -> bool:
    """Whether a file begins as onnx.proto's ModelProto is written: ir_version, then a field of it.

    Safetensors with so long a header has a brace at its ninth byte.
    """
    return (
        len(start) > 8
        and start[0] == 0x08
        and 3 <= start[1] <= 20
        and start[2] in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)
        and start[8:9] != b"{"
    )
