"""RO-Crate metadata, version 1.2 (https://w3id.org/ro/crate/1.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bundle import canonical, members

CONTEXT = "https://w3id.org/ro/crate/1.2/context"
SPECIFICATION = "https://w3id.org/ro/crate/1.2"

_NAMES = {
    members.EVIDENCE: "Signed evidence of this release",
    members.METRICS: "Metrics, as released",
    members.CARD_MARKDOWN: "Model card",
    members.CARD_HTML: "Model card, as a page",
    members.CARD_PICTURE: "Figures and curves of the model card, drawn",
    members.LICENCE: "Licence",
    members.OBLIGATIONS: "Obligations of the data-use agreement",
}


def for_recipient(described: Mapping[str, Any], recipient: str) -> bytes:
    """Return read metadata with another recipient."""
    graph = [
        {**entity, "name": recipient} if entity["@id"] == "#recipient" else entity
        for entity in described["@graph"]
    ]
    return canonical.dump({**described, "@graph": graph})


def write(
    files: Mapping[str, tuple[int, str]],
    *,
    title: str,
    description: str,
    released: str,
    recipient: str,
) -> bytes:
    """Return ``ro-crate-metadata.json`` for ``files``: name to size in bytes and SHA-256.

    The evidence is listed without a digest, for it signs this document's own.
    """
    listed = sorted({*files, members.EVIDENCE})
    graph: list[dict[str, Any]] = [
        {
            "@id": members.CRATE,
            "@type": "CreativeWork",
            "about": {"@id": "./"},
            "conformsTo": {"@id": SPECIFICATION},
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "audience": {"@id": "#recipient"},
            "datePublished": released,
            "description": description,
            "hasPart": [{"@id": name} for name in listed],
            "license": {"@id": members.LICENCE},
            "name": title,
        },
        {"@id": "#recipient", "@type": "Audience", "name": recipient},
    ]
    for name in listed:
        entity: dict[str, Any] = {
            "@id": name,
            "@type": ["File", "CreativeWork"] if name == members.LICENCE else "File",
            "encodingFormat": members.encoding(name),
            "name": _NAMES.get(name, name),
        }
        if name in files:
            entity["contentSize"] = str(files[name][0])
            entity["sha256"] = files[name][1]
        graph.append(entity)
    return canonical.dump({"@context": CONTEXT, "@graph": graph})
