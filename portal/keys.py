"""Keys: where they lie, who may read them, and how one key wraps another.

The folder ``settings.KEYS`` lies outside the data. ``data/master.key`` wraps the keys of dataset
versions and is read by workers only; ``view/master.key`` wraps what pages must show; ``sign/``
holds the Ed25519 keys of releases and of the audit chain, their public halves lie in ``public/``.
Nothing here makes a key in passing: a lost key must be noticed, not quietly replaced by another
that opens nothing. ``make_all`` makes those that are missing, on the first start only.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from policies.errors import CannotRun, GloveboxError, Invalid, _
from portal.first_start import make_once

Master = Literal["data", "view"]
Signer = Literal["release", "audit"]

KEY_BYTES = 32
# Which processes may open which folder. An unknown or missing role is treated as the web's.
READERS: dict[str, frozenset[str]] = {
    "data": frozenset({"worker", "all"}),
    "view": frozenset({"web", "worker", "all"}),
    "sign": frozenset({"worker", "all"}),
}
_VERSION = b"\x01"


class WrongKey(GloveboxError):
    """The bytes were not wrapped by this key for this context, or were changed."""


def role() -> str:
    """Return what this process is: ``web``, ``worker``, ``beat`` or ``all`` (one-process tests)."""
    name = os.environ.get("GLOVEBOX_ROLE", "web")
    return name if name in {"web", "worker", "beat", "all"} else "web"


def new_key() -> bytes:
    """Return 32 fresh random bytes."""
    return secrets.token_bytes(KEY_BYTES)


def derive(key: bytes, *, info: str, salt: bytes | None = None) -> bytes:
    """Return a 32-byte key derived from ``key`` for one use (HKDF-SHA256, RFC 5869)."""
    return HKDF(hashes.SHA256(), KEY_BYTES, salt, info.encode()).derive(key)


def fingerprint(key: bytes) -> bytes:
    """Return eight bytes that name a key without telling anything of it."""
    return derive(key, info="glovebox.key-id.v1")[:8]


def wrap(key: bytes, *, by: bytes, context: str) -> bytes:
    """Return ``key`` encrypted by ``by`` (AES-256-GCM); ``context`` says whose key it is.

    Layout: version byte, eight bytes naming ``by``, twelve bytes nonce, ciphertext with tag.
    """
    head = _VERSION + fingerprint(by)
    nonce = secrets.token_bytes(12)
    return head + nonce + AESGCM(by).encrypt(nonce, key, head + context.encode())


def unwrap(wrapped: bytes | memoryview, *, by: bytes, context: str) -> bytes:
    """Return the key inside ``wrapped``. Raises WrongKey for another key, context or content."""
    wrapped = bytes(wrapped)
    head, nonce, body = wrapped[:9], wrapped[9:21], wrapped[21:]
    if head != _VERSION + fingerprint(by):
        raise WrongKey("wrapped by another key")
    try:
        return AESGCM(by).decrypt(nonce, body, head + context.encode())
    except InvalidTag:
        raise WrongKey("the wrapped key does not fit its context") from None


def _folder(name: str) -> Path:
    return Path(settings.KEYS) / name


def _read(folder: str, name: str) -> bytes:
    """Read a key file, for the roles that may."""
    if role() not in READERS[folder]:
        raise CannotRun(
            _("This process has no access to the {folder} keys."),
            code="keys.role",
            folder=folder,
        )
    try:
        return (_folder(folder) / name).read_bytes()
    except OSError:
        raise CannotRun(
            _("A {folder} key cannot be read; on a new installation run: glovebox portal init"),
            code="keys.missing",
            folder=folder,
        ) from None


def master(name: Master) -> bytes:
    """Return a master key (32 bytes).

    Raises CannotRun where this process's role may not have it, or where the file is missing.
    """
    key = bytes.fromhex(_read(name, "master.key").decode())
    if len(key) != KEY_BYTES:
        raise CannotRun(_("A {folder} key is damaged."), code="keys.damaged", folder=name)
    return key


def signing_key(name: Signer) -> Ed25519PrivateKey:
    """Return a signing key; workers only."""
    key = serialization.load_pem_private_key(_read("sign", f"{name}.ed25519"), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise CannotRun(_("A {folder} key is damaged."), code="keys.damaged", folder="sign")
    return key


def public_key_id(key: Ed25519PublicKey) -> str:
    """Return the first 32 hex digits of the SHA-256 of the raw public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:32]


def public_keys(name: Signer) -> dict[str, Ed25519PublicKey]:
    """Return every public key that ever signed under ``name``, by key id; none before init."""
    found = {}
    for path in sorted((_folder("public") / name).glob("*.pem")):
        key = serialization.load_pem_public_key(path.read_bytes())
        if isinstance(key, Ed25519PublicKey):
            found[public_key_id(key)] = key
    return found


def parse_public(pem: bytes) -> dict[str, Ed25519PublicKey]:
    """Read one public key that somebody trusts. Raises Invalid."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise Invalid(_("This is no Ed25519 public key in PEM."), field="key")
    return {public_key_id(key): key}


def public_pem(key: Ed25519PublicKey) -> bytes:
    """Return a public key as PEM text."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def make_all() -> list[str]:
    """Make the keys that are missing; return the names of those made."""
    from portal import dropbox  # it reads this module

    made = []
    for folder in ("data", "view"):
        path = _folder(folder) / "master.key"
        if not path.exists():
            made.append(f"{folder}/master.key")
        make_once(path, new_key().hex().encode())
    if dropbox.make_key():
        made.append("data/intake.x25519")
    for name in ("release", "audit"):
        path = _folder("sign") / f"{name}.ed25519"
        if not path.exists():
            made.append(f"sign/{name}.ed25519")
        private = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        key = serialization.load_pem_private_key(make_once(path, private), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise CannotRun(_("A {folder} key is damaged."), code="keys.damaged", folder="sign")
        public = key.public_key()
        make_once(_folder("public") / name / f"{public_key_id(public)}.pem", public_pem(public))
    return made
