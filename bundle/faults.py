"""Why a bundle does not hold: one code and one sentence a kind of failure."""

from __future__ import annotations

from policies.errors import UserError


class Fault(UserError):
    """The bundle, its signature or the revocation list is not as it must be."""


def inert(text: str, most: int = 200) -> str:
    """Return text of a stranger that a terminal or a page shows without acting on it."""
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[:most])
    return shown + ("..." if len(text) > most else "")
