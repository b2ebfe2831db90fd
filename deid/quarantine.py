"""Why a file is held back: a short code, never anything of the file itself."""

from __future__ import annotations

from policies.errors import GloveboxError


class Quarantined(GloveboxError):
    """The file cannot be proven clean; ``reason`` is the code that the report shows."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
