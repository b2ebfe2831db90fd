"""Make a bundle: equal inputs give equal bytes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bundle import canonical, card, container, crate, dsse, members, statement
from bundle.pictures import Curve, Interval, svg
from policies.errors import Invalid, _

DEFAULT_LICENCE = (
    "Use of this model is governed by the data-use agreement under which it was trained.\n"
)


def _size_and_digest(source: Path | bytes) -> tuple[int, str]:
    if isinstance(source, bytes):
        return len(source), hashlib.sha256(source).hexdigest()
    with source.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return stream.tell(), digest


def build(
    target: Path,
    *,
    artefacts: Mapping[str, Path],
    metrics: Mapping[str, Any],
    model_card: Mapping[str, Any],
    evidence: Mapping[str, Any],
    signing_key: Ed25519PrivateKey,
    recipient: str,
    released: datetime,
    licence: str = DEFAULT_LICENCE,
    obligations: str = "",
    intervals: Sequence[Interval] = (),
    curves: Sequence[Curve] = (),
) -> Path:
    """Write the bundle to ``target``, whole or not at all, and return ``target``.

    ``artefacts`` are the files that leave, by member name (``.safetensors``, ``.onnx``,
    ``.json``); ``metrics`` the released values, which become ``metrics.json``; ``model_card`` the
    facts by section (:data:`bundle.card.SECTIONS`, and ``title``); ``evidence`` JSON values: what
    the statement says of the release; ``recipient`` the mark of who received this copy;
    ``released`` when it left, with its time zone; ``intervals`` and ``curves`` what the card draws.

    Raises Invalid for a member name that is not allowed, NaN anywhere, or a time without a zone.
    """
    if released.tzinfo is None:
        raise Invalid(_("The time of the release needs a time zone."), field="released")
    when = released.isoformat(timespec="seconds")
    for name in artefacts:
        if not members.is_artefact_name(name):
            raise Invalid(
                _("A bundle cannot hold an artefact of this name."), field=f"artefacts.{name}"
            )
    if len({name.lower() for name in artefacts}) != len(artefacts):
        raise Invalid(_("Two artefacts differ in case only."), field="artefacts")
    picture = svg(intervals, curves)
    title = str(model_card.get(card.TITLE, "Model"))
    summary = model_card.get("summary")
    try:
        contents: dict[str, Path | bytes] = {
            **artefacts,
            members.METRICS: canonical.dump(dict(metrics)),
            members.CARD_MARKDOWN: card.markdown(model_card, pictured=bool(picture)).encode(),
            members.CARD_HTML: card.page(model_card, picture).encode(),
            members.LICENCE: licence.encode(),
        }
        if picture:
            contents[members.CARD_PICTURE] = picture.encode()
        if obligations:
            contents[members.OBLIGATIONS] = obligations.encode()
        files = {name: _size_and_digest(source) for name, source in contents.items()}
        contents[members.CRATE] = crate.write(
            files,
            title=title,
            description=summary if isinstance(summary, str) and summary else title,
            released=when,
            recipient=recipient,
        )
        files[members.CRATE] = _size_and_digest(contents[members.CRATE])
        payload = statement.write(
            {name: digest for name, (_size, digest) in files.items()}, evidence, recipient, when
        )
    except (ValueError, TypeError, UnicodeError) as error:
        raise Invalid(_("The bundle holds only text, finite numbers and lists of them.")) from error
    contents[members.EVIDENCE] = dsse.seal(statement.PAYLOAD_TYPE, payload, signing_key)
    _write_whole(target, contents)
    return target


def _write_whole(target: Path, contents: Mapping[str, Path | bytes]) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".bundle-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            container.write(stream, contents)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
