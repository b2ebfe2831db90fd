"""The certificate that originals, pictures or quarantined files were destroyed: signed, offline.

It names nothing but digests, object names (HMACs), identifiers of keys, counts and times.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bundle import canonical, dsse
from bundle.faults import Fault
from policies.errors import Invalid, _

PAYLOAD_TYPE = "application/vnd.glovebox.destruction+json"
KINDS = ("originals", "pictures", "quarantine")
MOST_BYTES = 64 * 1024 * 1024
_HEX = re.compile(r"(?:[0-9a-f]{2})*")
_DATASET = re.compile(r"[a-z0-9-]{1,100}")
_FIELDS = {"dataset", "version", "what", "count", "bytes", "at", "certified", "objects"}
_OBJECT = {"object", "key", "sha256"}


@dataclass(frozen=True)
class Certificate:
    """A destruction: ``at`` is when the keys went, ``certified`` when nothing was found left.

    Each of ``objects`` has ``object`` (its name in the store), ``key`` (the identifier of the key
    that was destroyed) and ``sha256`` of what it held, empty where that was not kept.
    """

    dataset: str
    version: int
    what: str
    count: int
    bytes: int
    at: str
    certified: str
    objects: tuple[Mapping[str, str], ...]


def sign_destruction(certificate: Certificate, key: Ed25519PrivateKey) -> bytes:
    """Return the signed certificate. Raises Invalid for one that could not be read again."""
    document = {**vars(certificate), "objects": [dict(each) for each in certificate.objects]}
    if _problem(document):
        raise Invalid(_("This is no record of a destruction."), field=_problem(document))
    return dsse.seal(PAYLOAD_TYPE, canonical.dump(document), key)


def read_destruction(data: bytes, keys: Mapping[str, Ed25519PublicKey]) -> tuple[Certificate, str]:
    """Return the certificate and the id of its key, if its signature holds; raises Fault."""
    if len(data) > MOST_BYTES:
        raise Fault("The certificate is too large.", code="certificate")
    opened = dsse.open_envelope(data.strip(), PAYLOAD_TYPE, keys, "The certificate")
    document: Any = canonical.load(opened.payload, "The certificate")
    if _problem(document):
        raise Fault("The certificate is not as it must be.", code="certificate")
    objects = tuple(document.pop("objects"))
    return Certificate(**document, objects=objects), opened.key


def is_certificate(data: bytes) -> bool:
    """Whether a file begins as a signed certificate does; a bundle is a zip."""
    return data.lstrip()[:1] == b"{"


def _problem(document: Any) -> str:
    """The field that is not as it must be, empty where all are."""
    if not isinstance(document, dict) or set(document) != _FIELDS:
        return "certificate"
    if document["what"] not in KINDS:
        return "what"
    if not isinstance(document["dataset"], str) or not _DATASET.fullmatch(document["dataset"]):
        return "dataset"
    for name in ("version", "count", "bytes"):
        if type(document[name]) is not int or document[name] < 0:
            return name
    for name in ("at", "certified"):
        if not isinstance(document[name], str):
            return name
    objects = document["objects"]
    return "" if isinstance(objects, list) and _are_objects(objects) else "objects"


def _are_objects(objects: Sequence[Any]) -> bool:
    return all(
        isinstance(each, dict)
        and set(each) == _OBJECT
        and all(isinstance(text, str) and _HEX.fullmatch(text) for text in each.values())
        for each in objects
    )
