"""The signed package in which a model leaves, and how anyone checks it offline."""

from bundle.build import build
from bundle.copies import PersonalMembers, open_copy, personal
from bundle.keys import (
    Period,
    key_id,
    load_key_list,
    load_private_key,
    load_public_keys,
    periods,
    public_pem,
)
from bundle.revocations import Revocation, sign_revocations
from bundle.verify import Check, Verification, verify

__all__ = [
    "Check",
    "Period",
    "PersonalMembers",
    "Revocation",
    "Verification",
    "build",
    "key_id",
    "load_key_list",
    "load_private_key",
    "load_public_keys",
    "open_copy",
    "periods",
    "personal",
    "public_pem",
    "sign_revocations",
    "verify",
]
