"""Dead Simple Signing Envelope, version 1 (https://github.com/secure-systems-lab/dsse)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bundle import canonical
from bundle.faults import Fault, inert
from bundle.keys import key_id

_SMALL_BYTES = 64 * 1024


@dataclass(frozen=True)
class Opened:
    """A payload whose signature holds, and the id of the key that made it."""

    payload: bytes
    key: str


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that are signed: PAE of the DSSE specification."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload_type: str, payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return the envelope with one signature, as canonical JSON."""
    signature = key.sign(pre_authentication_encoding(payload_type, payload))
    return canonical.dump(
        {
            "payload": base64.standard_b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [
                {
                    "keyid": key_id(key.public_key()),
                    "sig": base64.standard_b64encode(signature).decode(),
                }
            ],
        }
    )


def _decode(text: object, what: str) -> bytes:
    if not isinstance(text, str):
        raise Fault("{what} is missing from the envelope.", code="envelope", what=what)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Fault("{what} is not base64.", code="base64", what=what) from error
    # Unused low bits of the last character would let two texts mean the same bytes.
    if base64.standard_b64encode(data).decode() != text:
        raise Fault("{what} is not base64 in its one spelling.", code="base64", what=what)
    return data


def _check_bulk(data: bytes, what: str) -> None:
    """Raise :class:`Fault` for a large envelope in which anything but the payload is large.

    Before the signature nobody vouches for it, and JSON of many small values takes thirty times
    its size when it is read.
    """
    if len(data) <= _SMALL_BYTES:
        return
    start = b'{"payload":"'
    end = data.find(b'"', len(start))
    if not data.startswith(start) or end < 0 or len(data) - end > _SMALL_BYTES:
        raise Fault("{what} is not a DSSE envelope.", code="envelope", what=what)


def open_envelope(
    data: bytes, payload_type: str, keys: Mapping[str, Ed25519PublicKey], what: str
) -> Opened:
    """Return the payload if exactly one signature, by one of ``keys``, holds.

    ``what`` names the envelope in messages. Raises :class:`Fault` with codes json, canonical,
    envelope, payload-type, base64, unknown-key or signature.
    """
    _check_bulk(data, what)
    envelope: Any = canonical.load(data, what)
    if not isinstance(envelope, dict) or set(envelope) != {"payload", "payloadType", "signatures"}:
        raise Fault("{what} is not a DSSE envelope.", code="envelope", what=what)
    if envelope["payloadType"] != payload_type:
        raise Fault("{what} is of another type than {type}.", code="payload-type", what=what,
                    type=payload_type)  # fmt: skip
    payload = _decode(envelope["payload"], "The payload")
    signatures = envelope["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        count = len(signatures) if isinstance(signatures, list) else 0
        raise Fault(
            "{what} carries {count} signatures; it must be exactly one.",
            code="signatures",
            what=what,
            count=count,
        )
    if not isinstance(signatures[0], dict) or set(signatures[0]) != {"keyid", "sig"}:
        raise Fault(
            "The signature of {what} is not a key's name and its bytes.",
            code="signatures",
            what=what[0].lower() + what[1:],
        )
    name = signatures[0]["keyid"]
    key = keys.get(name) if isinstance(name, str) else None
    if key is None:
        raise Fault(
            "{what} names the key {key}, which is none of those you gave.",
            code="unknown-key",
            what=what,
            key=inert(str(name), 64),
        )
    try:
        key.verify(
            _decode(signatures[0]["sig"], "The signature"),
            pre_authentication_encoding(payload_type, payload),
        )
    except InvalidSignature as error:
        raise Fault("The signature of {what} does not hold.", code="signature",
                    what=what[0].lower() + what[1:]) from error  # fmt: skip
    return Opened(payload, str(name))
