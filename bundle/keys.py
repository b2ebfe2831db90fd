"""Ed25519 keys (RFC 8032) in PEM files, and their names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from policies.errors import Invalid

_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)
_KEY_FILE_BYTES = 64 * 1024


def key_id(key: Ed25519PublicKey) -> str:
    """Return the key's name: the SHA-256, as hex, of its DER SubjectPublicKeyInfo (RFC 8410)."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def public_pem(key: Ed25519PublicKey) -> bytes:
    """Return the key as PEM, to be given to whoever verifies."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def load_private_key(data: bytes) -> Ed25519PrivateKey:
    """Return the signing key of an unencrypted PEM. Raises Invalid for anything else."""
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise Invalid("This is not a private key in PEM form.", field="key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Invalid("Bundles are signed with Ed25519 keys only.", field="key")
    return key


def load_public_keys(paths: Iterable[Path]) -> dict[str, Ed25519PublicKey]:
    """Return every public key of the PEM files by its id; one file may hold several (rotation).

    Raises Invalid, naming no path, where a file cannot be read or holds no Ed25519 key.
    """
    keys: dict[str, Ed25519PublicKey] = {}
    for path in paths:
        try:
            with path.open("rb") as stream:
                data = stream.read(_KEY_FILE_BYTES)
        except OSError as error:
            raise Invalid("The key file cannot be read.", field="key", code="key-file") from error
        blocks = _PEM.findall(data)
        if not blocks:
            raise Invalid(
                "The key file holds no public key in PEM form.", field="key", code="key-file"
            )
        for block in blocks:
            try:
                key = load_pem_public_key(block)
            except ValueError as error:
                raise Invalid("The key file is damaged.", field="key", code="key-file") from error
            if not isinstance(key, Ed25519PublicKey):
                raise Invalid(
                    "Bundles are signed with Ed25519 keys only.", field="key", code="key-file"
                )
            keys[key_id(key)] = key
    return keys
