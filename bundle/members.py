"""Which files a bundle may hold."""

from __future__ import annotations

import re

EVIDENCE = "evidence.dsse.json"
CRATE = "ro-crate-metadata.json"
METRICS = "metrics.json"
CARD_MARKDOWN = "MODEL_CARD.md"
CARD_HTML = "MODEL_CARD.html"
CARD_PICTURE = "MODEL_CARD.svg"
LICENCE = "LICENCE.txt"
OBLIGATIONS = "OBLIGATIONS.txt"

OURS = frozenset(
    {EVIDENCE, CRATE, METRICS, CARD_MARKDOWN, CARD_HTML, CARD_PICTURE, LICENCE, OBLIGATIONS}
)
REQUIRED = frozenset({EVIDENCE, CRATE, METRICS, CARD_MARKDOWN, CARD_HTML, LICENCE})

ENCODINGS = {
    ".safetensors": "application/octet-stream",
    ".onnx": "application/octet-stream",
    ".json": "application/json",
    ".md": "text/markdown",
    ".html": "text/html",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}

# Plain names in plain folders: nothing hidden, nothing that climbs, nothing that a shell, a
# case-folding disk or Windows reads as something else.
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*"
_ARTEFACT = re.compile(rf"(?:{_SEGMENT}/){{0,4}}{_SEGMENT}\.(?:safetensors|onnx|json)", re.ASCII)
# Names that Windows takes for devices, whatever stands behind their first dot.
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
)
NAME_LENGTH = 200
MEMBERS = 64


def is_artefact_name(name: str) -> bool:
    """Whether a job's artefact may stand in a bundle under this name."""
    reserved = {ours.lower() for ours in OURS}
    first, *_rest = parts = name.lower().split("/")
    return (
        len(name) <= NAME_LENGTH
        and _ARTEFACT.fullmatch(name) is not None
        # Neither one of our files nor a folder of its name: on a disk it is one or the other.
        and first not in reserved
        and not any(part.partition(".")[0] in _DEVICES for part in parts)
    )


def is_allowed(name: str) -> bool:
    """Whether a bundle may hold a member of this name."""
    return name in OURS or is_artefact_name(name)


def encoding(name: str) -> str:
    """Return the media type of a member."""
    return ENCODINGS["." + name.rpartition(".")[2]]
