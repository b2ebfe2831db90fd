"""Ed25519 keys (RFC 8032) in PEM files, and their names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
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
# RFC 7468 section 2 leaves the text between the blocks to whoever keeps the list.
_TIME = re.compile(rb"^(Signs-From|Signs-Until):[ \t]*(\S+)[ \t]*\r?$", re.MULTILINE)
_KEY_FILE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Period:
    """When a key signs: from its first moment on, and up to, not including, ``until``."""

    since: datetime | None = None
    until: datetime | None = None

    def holds(self, moment: datetime) -> bool:
        """Whether the key was in use at ``moment``."""
        return not (
            (self.since is not None and moment < self.since)
            or (self.until is not None and moment >= self.until)
        )

    def __str__(self) -> str:
        ends = (("from", self.since), ("until", self.until))
        return " ".join(f"{word} {at.isoformat()}" for word, at in ends if at) or "always"


@dataclass(frozen=True)
class ListedKey:
    """A public key of a key list, and when it signs."""

    key: Ed25519PublicKey
    period: Period = Period()


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
    """Return every public key of the PEM files by its id, whenever it signs.

    Raises as :func:`load_key_list`.
    """
    return {name: listed.key for name, listed in load_key_list(paths).items()}


def periods(keys: Mapping[str, ListedKey]) -> dict[str, Period]:
    """Return when each key of a list signs."""
    return {name: listed.period for name, listed in keys.items()}


def _period(text: bytes) -> Period:
    """Return what the lines before a key say. Raises Invalid for a time that is none."""
    found: dict[bytes, datetime] = {}
    for name, written in _TIME.findall(text):
        try:
            moment = datetime.fromisoformat(written.decode())
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None or name in found:
            raise Invalid(
                "A key's Signs-From or Signs-Until is no single time with its zone, as "
                "2026-01-31T00:00:00+00:00.",
                field="key",
                code="key-file",
            )
        found[name] = moment
    return Period(found.get(b"Signs-From"), found.get(b"Signs-Until"))


def load_key_list(paths: Iterable[Path]) -> dict[str, ListedKey]:
    """Return every public key of the PEM files by its id; one file may hold several (rotation).

    Lines ``Signs-From:`` and ``Signs-Until:`` before a key say when it signs; without them it
    always does. Raises Invalid, naming no path, where a file cannot be read, holds no Ed25519
    key, or says two things of one key.
    """
    keys: dict[str, ListedKey] = {}
    for path in paths:
        try:
            with path.open("rb") as stream:
                data = stream.read(_KEY_FILE_BYTES)
        except OSError as error:
            raise Invalid("The key file cannot be read.", field="key", code="key-file") from error
        blocks = list(_PEM.finditer(data))
        if not blocks:
            raise Invalid(
                "The key file holds no public key in PEM form.", field="key", code="key-file"
            )
        before = 0
        for block in blocks:
            try:
                key = load_pem_public_key(block.group())
            except ValueError as error:
                raise Invalid("The key file is damaged.", field="key", code="key-file") from error
            if not isinstance(key, Ed25519PublicKey):
                raise Invalid(
                    "Bundles are signed with Ed25519 keys only.", field="key", code="key-file"
                )
            listed = ListedKey(key, _period(data[before : block.start()]))
            before = block.end()
            if keys.setdefault(key_id(key), listed).period != listed.period:
                raise Invalid(
                    "Two of the key files say different times of one key.",
                    field="key",
                    code="key-file",
                )
    return keys
