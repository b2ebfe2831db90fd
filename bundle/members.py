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
NAME_LENGTH = 200
MEMBERS = 64


def is_artefact_name(name: str) -> bool:
    """Whether a job's artefact may stand in a bundle under this name."""
    reserved = {ours.lower() for ours in OURS}
    return (
        len(name) <= NAME_LENGTH
        and _ARTEFACT.fullmatch(name) is not None
        and name.lower() not in reserved
    )


def is_allowed(name: str) -> bool:
    """Whether a bundle may hold a member of this name."""
    return name in OURS or is_artefact_name(name)


def encoding(name: str) -> str:
    """Return the media type of a member."""
    return ENCODINGS["." + name.rpartition(".")[2]]
