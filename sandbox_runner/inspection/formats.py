"""Tell a file that is no safetensors by its first bytes, and say how to save one."""

from __future__ import annotations

from pathlib import Path

SAVE_LINE = "glovebox.save_weights(model)"

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


def foreign_kind(path: Path) -> str:
    """Return what else the file is, in words; empty if its first bytes could be safetensors."""
    with path.open("rb") as stream:
        start = stream.read(132)
    if start[128:132] == b"DICM":
        return "a DICOM file"
    return next((words for magic, words in _KINDS if start.startswith(magic)), "")
