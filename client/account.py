"""Where the token of ``glovebox login`` is kept: a file that only its owner can read."""

from __future__ import annotations

import json
import os
from pathlib import Path

from client.api import Portal
from policies.errors import CannotRun, _


def place() -> Path:
    """Return the credentials' file: ``GLOVEBOX_CREDENTIALS`` or the user's configuration."""
    named = os.environ.get("GLOVEBOX_CREDENTIALS")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "glovebox" / "credentials.json"


def keep(url: str, token: str) -> Path:
    """Write the token, readable by its owner alone, and return the file."""
    path = place()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.part")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump({"url": url, "token": token}, stream)
    draft.replace(path)
    return path


def signed_in(url: str = "") -> Portal:
    """Return the portal as whoever signed in here; ``GLOVEBOX_TOKEN`` goes before the file.

    Raises CannotRun where nobody has.
    """
    token = os.environ.get("GLOVEBOX_TOKEN", "")
    address = url or os.environ.get("GLOVEBOX_URL", "")
    if token and address:
        return Portal(address, token)
    try:
        kept = json.loads(place().read_text())
        kept_url, kept_token = str(kept["url"]), str(kept["token"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CannotRun(
            _("Nobody is signed in here; type: glovebox login URL"), code="client.nobody"
        ) from None
    if url and url.rstrip("/") != kept_url.rstrip("/"):
        # A token is for one portal; it is never shown to another.
        raise CannotRun(
            _("You are signed in at {kept}, not there; type: glovebox login {url}"),
            code="client.other-portal",
            kept=kept_url,
            url=url,
        )
    return Portal(kept_url, kept_token)
