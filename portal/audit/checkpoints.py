"""Signed statements of the chain's head, kept where the database's owner cannot reach."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from policies.errors import CannotRun, Invalid, _
from portal import keys
from portal.audit import chain
from portal.audit.models import Checkpoint
from portal.first_start import make_once

KIND = "glovebox audit checkpoint v1"


@dataclass(frozen=True)
class Statement:
    """The chain's head at a time, signed: it had ``position`` links, the last with ``digest``."""

    position: int
    digest: str
    at: str
    key_id: str
    signature: str = ""

    def signed_bytes(self) -> bytes:
        """Return what the signature is over: the kind and every other field."""
        fields = {**asdict(self), "kind": KIND}
        del fields["signature"]
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()

    def as_json(self) -> str:
        """Return the checkpoint file's text."""
        return json.dumps({**asdict(self), "kind": KIND}, indent=2, sort_keys=True) + "\n"

    def holds(self, public: Mapping[str, Ed25519PublicKey]) -> bool:
        """Whether the signature is one of the audit keys'."""
        key = public.get(self.key_id)
        if key is None:
            return False
        try:
            key.verify(base64.b64decode(self.signature, validate=True), self.signed_bytes())
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True


def of_row(row: Checkpoint) -> Statement:
    """Return a stored checkpoint as a statement."""
    at = row.at.astimezone(UTC).isoformat()
    return Statement(row.position, row.digest, at, row.key_id, row.signature)


def parse(text: str) -> Statement:
    """Read a checkpoint file. Raises Invalid."""
    try:
        fields = json.loads(text)
        if fields.pop("kind") != KIND:
            raise ValueError
        statement = Statement(**fields)
        if not (isinstance(statement.position, int) and len(bytes.fromhex(statement.digest)) == 32):
            raise ValueError
        return statement
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Invalid(_("This is no checkpoint file."), field="checkpoint") from None


def make() -> Checkpoint | None:
    """Sign the chain's head, keep it in the database and export it; None for an empty chain."""
    position, digest, _event = chain.head()
    if position == 0:
        return None
    private = keys.signing_key("audit")
    at = timezone.now()
    key_id = keys.public_key_id(private.public_key())
    draft = Statement(position, digest, at.astimezone(UTC).isoformat(), key_id)
    signature = base64.b64encode(private.sign(draft.signed_bytes())).decode()
    with transaction.atomic():
        row = Checkpoint.objects.create(
            position=position, digest=digest, at=at, key_id=key_id, signature=signature
        )
    export(of_row(row))
    return row


def folder() -> Path:
    """Return where checkpoints are exported: another disk or machine, mounted here."""
    return Path(settings.AUDIT_CHECKPOINTS)


def export(statement: Statement, target: Path | None = None) -> Path:
    """Write a checkpoint file; one that is there is never replaced."""
    if target is None:
        stamp = datetime.fromisoformat(statement.at).strftime("%Y%m%dT%H%M%S%f")
        target = folder() / f"checkpoint-{statement.position:012d}-{stamp}.json"
    try:
        held = make_once(target, statement.as_json().encode())
    except OSError:
        raise CannotRun(
            _("The checkpoint could not be written to its folder."), code="audit.export"
        ) from None
    if held != statement.as_json().encode():
        raise CannotRun(_("There is another file in the checkpoint's place."), code="audit.export")
    return target


def exported() -> list[Path]:
    """Return the checkpoint files of the export folder, oldest first."""
    return sorted(folder().glob("checkpoint-*.json")) if folder().is_dir() else []


def due(*, every: timedelta = timedelta(minutes=10)) -> bool:
    """Whether the chain has grown since a checkpoint older than ``every``."""
    last = Checkpoint.objects.order_by("-id").first()
    position = chain.head()[0]
    if last is None:
        return position > 0
    return position > last.position and timezone.now() - last.at >= every
