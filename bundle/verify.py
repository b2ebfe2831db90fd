"""Check a bundle offline, with nothing but the public key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bundle import canonical, container, crate, dsse, members, statement
from bundle.faults import Fault, inert
from bundle.keys import Period, key_id
from bundle.revocations import RevocationList, read_revocations

_EVIDENCE_BYTES = 64 * 1024 * 1024
_CRATE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Check:
    """One line of the answer. ``code`` is the kind of failure, empty where the check held."""

    name: str
    held: bool
    message: str
    code: str = ""


@dataclass(frozen=True)
class Verification:
    """What was checked; ``held`` only if every check held.

    ``bundle`` is the digest under which this copy is revoked, ``evidence`` what was signed; both
    are empty unless the signature held.
    """

    held: bool
    lines: tuple[Check, ...]
    key: str = ""
    bundle: str = ""
    recipient: str = ""
    released: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def as_mapping(self) -> dict[str, Any]:
        """Return the JSON document of ``glovebox verify --json``."""
        return {
            "held": self.held,
            "key": self.key,
            "bundle": self.bundle,
            "recipient": self.recipient,
            "released": self.released,
            "lines": [vars(line) for line in self.lines],
        }


def verify(
    path: Path,
    public_keys: Mapping[str, Ed25519PublicKey] | Iterable[Ed25519PublicKey],
    revocations: Path | None = None,
    periods: Mapping[str, Period] | None = None,
) -> Verification:
    """Return whether the bundle holds, line by line; it stops at the first thing that fails.

    ``periods`` say, by key id, when a key signs: what a key says to have released at another time
    fails. Without ``revocations`` the answer says that revocation was not checked. Never raises
    for what is in the bundle.
    """
    if isinstance(public_keys, Mapping):
        keys = dict(public_keys)
    else:
        keys = {key_id(key): key for key in public_keys}
    lines: list[Check] = []
    known: dict[str, Any] = {}
    step = "container"
    try:
        with path.open("rb") as stream:
            found = container.read(stream)
            lines.append(Check(step, True, f"The file is a bundle of {len(found)} members."))
            step = "members"
            _check_required(found)
            lines.append(Check(step, True, "Every file that a bundle needs is there."))
            step = "signature"
            envelope = container.content(stream, found[members.EVIDENCE], _EVIDENCE_BYTES)
            opened = dsse.open_envelope(envelope, statement.PAYLOAD_TYPE, keys, "The evidence")
            lines.append(Check(step, True, f"The evidence is signed by the key {opened.key}."))
            step = "evidence"
            said = statement.read(opened.payload)
            _check_period(opened.key, said.released, (periods or {}).get(opened.key, Period()))
            _check_digests(found, said)
            lines.append(Check(step, True, "Every file is the one that was signed."))
            step = "metadata"
            _check_crate(stream, found, said)
            lines.append(Check(step, True, "The metadata describe these files."))
        known = {
            "key": opened.key,
            "bundle": hashlib.sha256(opened.payload).hexdigest(),
            "recipient": inert(said.recipient),
            "released": inert(said.released),
            "evidence": said.evidence,
        }
        step = "revocation"
        lines.append(_check_revocation(opened, said, keys, revocations, periods or {}))
    except OSError:
        lines.append(Check(step, False, "The file cannot be read.", "unreadable"))
    except Fault as fault:
        lines.append(Check(step, False, str(fault), fault.code))
    return Verification(all(line.held for line in lines), tuple(lines), **known)


def _check_required(found: Mapping[str, container.Member]) -> None:
    for name in sorted(members.REQUIRED):
        if name not in found:
            raise Fault("The bundle lacks {name}.", code="missing", name=name)


def _moment(text: str) -> datetime | None:
    """Return a time with its zone, None for any other text."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _check_period(key: str, released: str, period: Period) -> None:
    """A key that was put out of use signs no new release.

    The time is the signer's own word: against a stolen key only its revocation helps.
    """
    moment = _moment(released)
    if moment is None:
        raise Fault("The evidence does not say when it was released.", code="predicate")
    if not period.holds(moment):
        raise Fault(
            "The key {key} signs {period}; this release is of {released}.",
            code="key-period",
            key=key,
            period=str(period),
            released=inert(released),
        )


def _check_digests(found: Mapping[str, container.Member], said: statement.Statement) -> None:
    for name in sorted(said.subjects.keys() - found.keys()):
        raise Fault("The evidence names {name}, which is missing.", code="missing", name=name)
    for name, member in found.items():
        if name == members.EVIDENCE:
            continue
        if name not in said.subjects:
            raise Fault("{name} is not named in the evidence.", code="unsigned", name=name)
        if member.sha256 != said.subjects[name]:
            raise Fault("{name} was changed after it was signed.", code="digest", name=name)


def _check_crate(
    stream: IO[bytes], found: Mapping[str, container.Member], said: statement.Statement
) -> None:
    """The metadata are signed too; this finds a signer whose two documents disagree."""
    fault = Fault("The RO-Crate metadata do not describe these files.", code="metadata")
    value = canonical.load(
        container.content(stream, found[members.CRATE], _CRATE_BYTES), "The RO-Crate metadata"
    )
    try:
        if value["@context"] != crate.CONTEXT:
            raise fault
        entities = {entity["@id"]: entity for entity in value["@graph"]}
        if len(entities) != len(value["@graph"]):
            raise fault
        for name, member in found.items():
            if name in (members.CRATE, members.EVIDENCE):
                continue
            told = entities[name]["contentSize"], entities[name]["sha256"]
            if told != (str(member.size), member.sha256):
                raise fault
        if entities["#recipient"]["name"] != said.recipient:
            raise fault
    except (KeyError, TypeError) as error:
        raise fault from error


def _check_issued(revoked: RevocationList, period: Period) -> None:
    """A key that was put out of use signs no new list either: an empty one would hide the rest."""
    moment = _moment(revoked.issued)
    if moment is None:
        raise Fault("The revocation list does not say when it was issued.", code="revocations")
    if not period.holds(moment):
        raise Fault(
            "The key {key} signs {period}; this revocation list is of {issued}.",
            code="key-period",
            key=revoked.key,
            period=str(period),
            issued=inert(revoked.issued),
        )


def _check_revocation(
    opened: dsse.Opened,
    said: statement.Statement,
    keys: Mapping[str, Ed25519PublicKey],
    path: Path | None,
    periods: Mapping[str, Period],
) -> Check:
    if path is None:
        return Check(
            "revocation",
            True,
            "Revocation was not checked: give the current list with --revocations.",
        )
    revoked = read_revocations(path, keys)
    _check_issued(revoked, periods.get(revoked.key, Period()))
    weights = [d for n, d in said.subjects.items() if n.endswith((".safetensors", ".onnx"))]
    if opened.key in revoked.entries:
        entry = revoked.entries[opened.key]
        raise Fault(
            "The signing key was revoked on {date}: {reason}",
            code="key-revoked",
            date=inert(entry.date),
            reason=inert(entry.reason),
        )
    if revoked.key in revoked.entries:
        raise Fault("The revocation list is signed by a key that it revokes.", code="revocations")
    for digest in (hashlib.sha256(opened.payload).hexdigest(), *weights):
        if digest in revoked.entries:
            entry = revoked.entries[digest]
            raise Fault(
                "This release was revoked on {date}: {reason}",
                code="revoked",
                date=inert(entry.date),
                reason=inert(entry.reason),
            )
    return Check(
        "revocation",
        True,
        f"Not revoked by list {revoked.number}, issued {inert(revoked.issued)}.",
    )
