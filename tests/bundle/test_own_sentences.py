"""Every single thing that is changed fails with a sentence of its own, which says what it was."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import bundle
from policies.errors import Invalid
from tests.bundle.test_bundle import (
    KEY,
    MUTATIONS,
    OTHER,
    PUBLIC,
    WHEN,
    make,
    members_of,
    revoke,
)

MINE, THEIRS = (bundle.key_id(key.public_key()) for key in (KEY, OTHER))
BOTH = [KEY.public_key(), OTHER.public_key()]

# What is done to the file -> what is said. A payload and its signature are one thing to the
# mathematics: a change of either reads the same, so only one of the two stands here; so do the
# two kinds of file that begin as no zip does.
OF_THE_FILE: dict[str, str] = {
    "empty file": "The file is empty.",
    "not a zip": "The file is not a bundle.",
    "cut in a member": "The bundle ends in the middle of a member.",
    "cut in the directory": "The bundle ends in the middle of its directory.",
    "trailing bytes": "There are bytes after the end of the bundle.",
    "zip comment": "The zip file has a comment; a bundle has none.",
    "encrypted flag": "LICENCE.txt is encrypted.",
    "another date": "The header of LICENCE.txt is not as a bundle's is.",
    "name in the directory": "The zip directory says another thing of ro-crate-metadata.json.",
    "a flipped byte of the weights": "model.safetensors is damaged: its checksum differs.",
    "compressed": "LICENCE.txt is compressed; a bundle's members never are.",
    "zip bomb": "model.safetensors is compressed; a bundle's members never are.",
    "members reordered": "The members are not in their order: model.safetensors.",
    "a member twice": "The bundle holds ro-crate-metadata.json twice.",
    "a member that climbs": "A member would be unpacked elsewhere: ../../.bashrc.",
    "an absolute member": "A member would be unpacked elsewhere: /etc/cron.d/x.",
    "a Windows path": "A member would be unpacked elsewhere: ..\\x.json.",
    "a program": "run.py is not one of the files that a bundle may hold.",
    "a hidden file": ".env.json is not one of the files that a bundle may hold.",
    "evidence in capitals": "Evidence.DSSE.json is not one of the files that a bundle may hold.",
    "a file more": "The zip directory says another thing of LICENCE.txt.",
    "unsigned file": "zz.json is not named in the evidence.",
    "no evidence": "The bundle lacks evidence.dsse.json.",
    "no weights": "The evidence names model.safetensors, which is missing.",
    "weights changed": "model.safetensors was changed after it was signed.",
    "metrics changed": "metrics.json was changed after it was signed.",
    "card changed": "MODEL_CARD.md was changed after it was signed.",
    "metadata changed": "ro-crate-metadata.json was changed after it was signed.",
    "envelope no JSON": "The evidence is not JSON.",
    "envelope respelled": "The evidence is not in its canonical spelling.",
    "envelope with a duplicate key": "The evidence says one thing twice.",
    "envelope with a field more": "The evidence is not a DSSE envelope.",
    "another payload type": "The evidence is of another type than application/vnd.in-toto+json.",
    "payload not base64": "The payload is not base64.",
    "signature changed": "The signature of the evidence does not hold.",
    "no signature": "The evidence carries 0 signatures; it must be exactly one.",
    "two signatures": "The evidence carries 2 signatures; it must be exactly one.",
    "key renamed": f"The evidence names the key {THEIRS}, which is none of those you gave.",
    "another statement type": "The evidence is not an in-toto statement of version 1.",
    "another predicate type": "The evidence is not about a release of Glovebox.",
    "a subject twice": "The evidence names LICENCE.txt twice.",
    "a wrong digest signed": "LICENCE.txt was changed after it was signed.",
    "a wrong recipient signed": "The RO-Crate metadata do not describe these files.",
}


def _listed(folder: Path, *digests: str, **options: Any) -> dict[str, Any]:
    return {"revocations": revoke(folder / "listed", *digests, **options)}


def _altered_list(folder: Path, old: bytes, new: bytes) -> dict[str, Any]:
    listed = revoke(folder / "listed")
    data = listed.read_bytes()
    assert data.count(old) == 1
    listed.write_bytes(data.replace(old, new))
    return {"revocations": listed}


def _until(moment: datetime) -> dict[str, Any]:
    return {"periods": {MINE: bundle.Period(until=moment)}}


def _weights(good: Path) -> str:
    return hashlib.sha256(members_of(good)["model.safetensors"]).hexdigest()


Given = Callable[[Path, Path], dict[str, Any]]

# What it is checked with -> what is said; the file itself is as it was made.
OF_THE_KEYS: dict[str, tuple[Given, str]] = {
    "another portal's key": (
        lambda folder, good: {"public_keys": [OTHER.public_key()]},
        f"The evidence names the key {MINE}, which is none of those you gave.",
    ),
    "a key out of use": (
        lambda folder, good: _until(WHEN),
        f"The key {MINE} signs until {WHEN.isoformat()}; this release is of {WHEN.isoformat()}.",
    ),
    "a revoked copy": (
        lambda folder, good: _listed(folder, bundle.verify(good, PUBLIC).bundle),
        "This release was revoked on 2026-12-01: consent withdrawn",
    ),
    "a revoked key": (
        lambda folder, good: {"public_keys": BOTH, **_listed(folder, MINE, key=OTHER)},
        "The signing key was revoked on 2026-12-01: consent withdrawn",
    ),
    "a list by the key that it revokes": (
        lambda folder, good: {"public_keys": BOTH, **_listed(folder, THEIRS, key=OTHER)},
        "The revocation list is signed by a key that it revokes.",
    ),
    "a list by a key out of use": (
        lambda folder, good: {
            "public_keys": BOTH,
            "periods": {THEIRS: bundle.Period(until=WHEN)},
            **_listed(folder, key=OTHER),
        },
        f"The key {THEIRS} signs until {WHEN.isoformat()}; this revocation list is of "
        f"{WHEN.isoformat()}.",
    ),
    "no list where one was promised": (
        lambda folder, good: {"revocations": folder / "absent"},
        "The revocation list cannot be read.",
    ),
    "a list of another portal": (
        lambda folder, good: _listed(folder, key=OTHER),
        f"The revocation list names the key {THEIRS}, which is none of those you gave.",
    ),
    "a list that was respelled": (
        lambda folder, good: _altered_list(folder, b'"payloadType"', b' "payloadType"'),
        "The revocation list is not in its canonical spelling.",
    ),
}


def said(path: Path, **options: Any) -> str:
    """Return the one sentence with which a bundle fails."""
    answer = bundle.verify(path, options.pop("public_keys", PUBLIC), **options)
    failed = [line.message for line in answer.lines if not line.held]
    assert not answer.held and len(failed) == 1
    return failed[0]


@pytest.mark.parametrize("name", OF_THE_FILE)
def test_a_changed_file_says_what_was_changed(tmp_path: Path, name: str) -> None:
    good = make(tmp_path)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # a name that is twice
        MUTATIONS[name][0](good)
    assert said(good) == OF_THE_FILE[name]


@pytest.mark.parametrize("name", OF_THE_KEYS)
def test_a_wrong_key_or_a_revocation_says_so(tmp_path: Path, name: str) -> None:
    good = make(tmp_path)
    given, sentence = OF_THE_KEYS[name]
    assert said(good, **given(tmp_path, good)) == sentence


def test_no_two_of_them_say_the_same() -> None:
    sentences = [*OF_THE_FILE.values(), *(sentence for _given, sentence in OF_THE_KEYS.values())]
    assert len(sentences) == len(set(sentences)) >= 30
    assert OF_THE_FILE.keys() <= MUTATIONS.keys()
    assert MUTATIONS.keys() - OF_THE_FILE.keys() == {"prefix before the zip", "payload changed"}


def test_without_a_list_it_says_that_revocation_was_not_checked(tmp_path: Path) -> None:
    last = bundle.verify(make(tmp_path), PUBLIC).lines[-1]
    assert last.held
    assert last.message == ("Revocation was not checked: give the current list with --revocations.")


def _pem(key: Any, **times: datetime) -> bytes:
    lines = [f"Signs-{name.title()}: {at.isoformat()}\n" for name, at in times.items()]
    return "".join(lines).encode() + bundle.public_pem(key.public_key())


def test_a_key_list_says_when_each_key_signs(tmp_path: Path) -> None:
    good, pems = make(tmp_path), tmp_path / "keys.pem"
    change = WHEN + timedelta(days=30)
    pems.write_bytes(_pem(KEY, until=change) + _pem(OTHER, **{"from": change}))
    listed = bundle.load_key_list([pems])
    keys, periods = bundle.load_public_keys([pems]), bundle.periods(listed)
    # The older key still verifies what it signed while it was in use.
    assert bundle.verify(good, keys, periods=periods).held
    (tmp_path / "late").mkdir()
    late = make(tmp_path / "late", released=change)
    assert "signs until" in said(late, public_keys=keys, periods=periods)
    (tmp_path / "early").mkdir()
    early = make(tmp_path / "early", signing_key=OTHER)
    assert "signs from" in said(early, public_keys=keys, periods=periods)
    assert bundle.verify(make(tmp_path / "late", released=change, signing_key=OTHER),
                         keys, periods=periods).held  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        b"Signs-Until: tomorrow\n",
        b"Signs-Until: 2026-01-01T00:00:00\n",
        b"Signs-From: 2026-01-01T00:00:00+00:00\nSigns-From: 2027-01-01T00:00:00+00:00\n",
    ],
    ids=["no time", "no zone", "twice"],
)
def test_a_key_list_that_cannot_be_read_is_refused(tmp_path: Path, text: bytes) -> None:
    pems = tmp_path / "keys.pem"
    pems.write_bytes(text + bundle.public_pem(KEY.public_key()))
    with pytest.raises(Invalid):
        bundle.load_key_list([pems])


def test_two_lists_may_not_disagree_on_a_key(tmp_path: Path) -> None:
    one, two = tmp_path / "one.pem", tmp_path / "two.pem"
    one.write_bytes(_pem(KEY, until=datetime(2026, 1, 1, tzinfo=UTC)))
    two.write_bytes(_pem(KEY))
    with pytest.raises(Invalid):
        bundle.load_key_list([one, two])
