"""The evidence: an in-toto Statement, version 1 (https://in-toto.io/Statement/v1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bundle import canonical, members
from bundle.faults import Fault

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE_TYPE = "urn:x-glovebox:release:v1"

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Statement:
    """A read statement: each file's SHA-256, the evidence, who received it and when it left."""

    subjects: Mapping[str, str]
    evidence: Mapping[str, Any]
    recipient: str
    released: str


def write(
    digests: Mapping[str, str], evidence: Mapping[str, Any], recipient: str, released: str
) -> bytes:
    """Return the statement about the files of ``digests`` (name to SHA-256), as canonical JSON."""
    return canonical.dump(
        {
            "_type": STATEMENT_TYPE,
            "subject": [
                {"name": name, "digest": {"sha256": digests[name]}} for name in sorted(digests)
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "evidence": dict(evidence),
                "recipient": recipient,
                "released": released,
            },
        }
    )


def read(payload: bytes) -> Statement:
    """Return the statement. Raises :class:`Fault` with code statement or predicate."""
    value: Any = canonical.load(payload, "The evidence")
    fault = Fault("The evidence is not an in-toto statement of version 1.", code="statement")
    if not isinstance(value, dict) or set(value) != {
        "_type",
        "subject",
        "predicateType",
        "predicate",
    }:
        raise fault
    if value["_type"] != STATEMENT_TYPE or not isinstance(value["subject"], list):
        raise fault
    if value["predicateType"] != PREDICATE_TYPE:
        raise Fault("The evidence is not about a release of Glovebox.", code="predicate")
    predicate = value["predicate"]
    if (
        not isinstance(predicate, dict)
        or set(predicate) != {"evidence", "recipient", "released"}
        or not isinstance(predicate["evidence"], dict)
        or not isinstance(predicate["recipient"], str)
        or not isinstance(predicate["released"], str)
    ):
        raise Fault("The evidence is not about a release of Glovebox.", code="predicate")
    subjects: dict[str, str] = {}
    for subject in value["subject"]:
        if not isinstance(subject, dict) or set(subject) != {"name", "digest"}:
            raise fault
        name, digest = subject["name"], subject["digest"]
        if not isinstance(name, str) or not members.is_allowed(name):
            raise fault
        if name in subjects:
            raise Fault("The evidence names {name} twice.", code="statement", name=name)
        if not isinstance(digest, dict) or set(digest) != {"sha256"}:
            raise fault
        if not isinstance(digest["sha256"], str) or not _SHA256.fullmatch(digest["sha256"]):
            raise fault
        subjects[name] = digest["sha256"]
    return Statement(subjects, predicate["evidence"], predicate["recipient"], predicate["released"])
