"""Seal a key so that only workers can open it: what the web process takes in, it cannot read back.

HPKE (RFC 9180) with X25519, HKDF-SHA256 and AES-256-GCM. The public half lies beside the other
public keys; the private half lies among the data keys, which the web process never opens.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from django.conf import settings

from policies.errors import CannotRun, _
from portal import keys
from portal.first_start import make_once

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def make_key() -> bool:
    """Make the workers' key pair unless it exists; whether it was made."""
    path = settings.KEYS / "data" / "intake.x25519"
    new = not path.exists()
    private = X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    kept = make_once(path, private)
    key = serialization.load_pem_private_key(kept, password=None)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    make_once(settings.KEYS / "public" / "intake.x25519.pem", public)
    return new


def seal(key: bytes, *, context: str) -> bytes:
    """Return ``key`` readable by workers only; ``context`` says what it opens."""
    path = settings.KEYS / "public" / "intake.x25519.pem"
    try:
        public = serialization.load_pem_public_key(path.read_bytes())
    except OSError:
        raise CannotRun(
            _("The intake key is missing; on a new installation run: glovebox portal init"),
            code="keys.missing",
        ) from None
    if not isinstance(public, X25519PublicKey):
        raise CannotRun(_("The intake key is damaged."), code="keys.damaged")
    return SUITE.encrypt(key, public, info=context.encode())


def unseal(sealed: bytes | memoryview, *, context: str) -> bytes:
    """Return the sealed key; workers only. Raises InvalidTag for another context."""
    if keys.role() not in keys.READERS["data"]:
        raise CannotRun(
            _("This process has no access to the {folder} keys."), code="keys.role", folder="data"
        )
    private = serialization.load_pem_private_key(
        (settings.KEYS / "data" / "intake.x25519").read_bytes(), password=None
    )
    if not isinstance(private, X25519PrivateKey):
        raise CannotRun(_("The intake key is damaged."), code="keys.damaged")
    return SUITE.decrypt(bytes(sealed), private, info=context.encode())
