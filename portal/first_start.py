"""Files that a fresh installation makes for itself: no Django here, settings import it."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def make_once(path: Path, content: bytes) -> bytes:
    """Create ``path`` with ``content`` unless it exists; return what the file holds.

    Two processes that start at the same instant both get the first one's content: the file is
    written under a private name and linked into place, which fails for the second.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_bytes()


def web_secret(keys: Path) -> str:
    """Return the web processes' session secret; it opens no data."""
    return make_once(keys / "web" / "session.secret", secrets.token_hex(48).encode()).decode()
