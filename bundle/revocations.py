"""The signed list of what was revoked: releases by digest, and signing keys by id."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bundle import canonical, dsse
from bundle.faults import Fault
from policies.errors import Invalid, _

PAYLOAD_TYPE = "application/vnd.glovebox.revocations+json"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Revocation:
    """One revoked thing and why.

    ``sha256`` is the digest of the statement (one copy), of a weights file (every copy of that
    model) or the id of a signing key.
    """

    sha256: str
    reason: str
    date: str


@dataclass(frozen=True)
class RevocationList:
    """A list whose signature held."""

    issued: str
    number: int
    entries: Mapping[str, Revocation]
    key: str


def sign_revocations(
    entries: Sequence[Revocation], *, issued: datetime, number: int, signing_key: Ed25519PrivateKey
) -> bytes:
    """Return the signed list; ``number`` counts its issues, so that an older one is told apart.

    Raises Invalid for a digest that is not 64 hexadecimal digits or a time without a zone.
    """
    if issued.tzinfo is None:
        raise Invalid(_("The time of issue needs a time zone."), field="issued")
    for entry in entries:
        if not _DIGEST.fullmatch(entry.sha256):
            raise Invalid(_("A revocation names a SHA-256 in hexadecimal digits."), field="sha256")
    payload = canonical.dump(
        {
            "issued": issued.isoformat(timespec="seconds"),
            "number": number,
            "revoked": [vars(e) for e in sorted(entries, key=lambda entry: entry.sha256)],
        }
    )
    return dsse.seal(PAYLOAD_TYPE, payload, signing_key)


def read_revocations(path: Path, keys: Mapping[str, Ed25519PublicKey]) -> RevocationList:
    """Return the list if its signature holds.

    Raises :class:`Fault`: a list that cannot be believed fails the bundle, it is never skipped.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise Fault("The revocation list cannot be read.", code="revocations") from error
    if len(data) > _MOST_BYTES:
        raise Fault("The revocation list is too large.", code="revocations")
    opened = dsse.open_envelope(data.strip(), PAYLOAD_TYPE, keys, "The revocation list")
    value: Any = canonical.load(opened.payload, "The revocation list")
    fault = Fault("The revocation list is not as it must be.", code="revocations")
    if not isinstance(value, dict) or set(value) != {"issued", "number", "revoked"}:
        raise fault
    if not isinstance(value["issued"], str) or type(value["number"]) is not int:
        raise fault
    if not isinstance(value["revoked"], list):
        raise fault
    entries: dict[str, Revocation] = {}
    for row in value["revoked"]:
        if not isinstance(row, dict) or set(row) != {"sha256", "reason", "date"}:
            raise fault
        if not all(isinstance(text, str) for text in row.values()):
            raise fault
        # One that names nothing, or names it twice, is not what the portal wrote.
        if not _DIGEST.fullmatch(row["sha256"]) or row["sha256"] in entries:
            raise fault
        entries[row["sha256"]] = Revocation(**row)
    return RevocationList(value["issued"], value["number"], entries, opened.key)
