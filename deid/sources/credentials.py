"""Credentials of a source: from the environment or a private file, never from the command line."""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import urlsplit

from policies.errors import Invalid, _


@dataclass(frozen=True)
class Credentials:
    """What a source asks for. Nothing of it is shown when the object is."""

    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


def read(path: Path | None) -> Credentials:
    """Read a TOML file with the names above, or the environment where there is no file."""
    if path is None:
        return Credentials(
            access_key=os.environ.get("GLOVEBOX_INTAKE_ACCESS_KEY", ""),
            secret_key=os.environ.get("GLOVEBOX_INTAKE_SECRET_KEY", ""),
            session_token=os.environ.get("GLOVEBOX_INTAKE_SESSION_TOKEN", ""),
            token=os.environ.get("GLOVEBOX_INTAKE_TOKEN", ""),
            user=os.environ.get("GLOVEBOX_INTAKE_USER", ""),
            password=os.environ.get("GLOVEBOX_INTAKE_PASSWORD", ""),
        )
    known = {each.name for each in fields(Credentials)}
    try:
        with path.open("rb") as handle:
            status = os.fstat(handle.fileno())
            if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise Invalid(
                    _("Others may read this file; take their rights away: chmod 600 FILE"),
                    field="--credentials",
                )
            found = tomllib.loads(handle.read(1 << 16).decode())
    except (OSError, ValueError):
        raise Invalid(_("This file cannot be read as TOML."), field="--credentials") from None
    if not set(found) <= known or not all(isinstance(each, str) for each in found.values()):
        raise Invalid(
            _("The file may hold as strings: {names}"),
            field="--credentials", names=", ".join(sorted(known)),
        )  # fmt: skip
    return Credentials(**found)


def checked_address(address: str, field: str, *, plain: bool) -> str:
    """An http(s) address without credentials, query or fragment; raises :class:`Invalid`.

    Without TLS only this machine is asked, unless ``plain`` says that somebody decided otherwise.
    """
    try:
        parts = urlsplit(address)
        _port = parts.port
    except ValueError:
        raise Invalid(_("This is not an address."), field=field) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid(_("The address must begin with https://"), field=field)
    if parts.username is not None or parts.password is not None:
        raise Invalid(
            _("Credentials do not belong into an address; use --credentials FILE."), field=field
        )
    if parts.query or parts.fragment:
        raise Invalid(_("The address may have no query; use --query FILE."), field=field)
    here = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme == "http" and not here and not plain:
        raise Invalid(
            _("Originals and credentials would travel in the clear; use https, or --plain-http."),
            field=field,
        )
    return address.rstrip("/")
