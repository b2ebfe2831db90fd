"""A bundle holds only as it was built; every other file fails with its own sentence."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import bundle
from bundle import canonical, card, container, dsse, statement
from policies.errors import Invalid

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
WHEN = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
PUBLIC = [KEY.public_key()]


def make(folder: Path, **changes: Any) -> Path:
    weights = folder / "weights.bin"
    weights.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    config = folder / "config.in"
    config.write_text('{"lr":0.1}')
    values: dict[str, Any] = {
        "artefacts": {"model.safetensors": weights, "config.json": config},
        "metrics": {"auc": 0.91},
        "model_card": {"title": "Lesion network", "summary": "Says lesion or not."},
        "evidence": {"dataset": {"slug": "mammography", "version": "1"}},
        "signing_key": KEY,
        "recipient": "org-7",
        "released": WHEN,
        "obligations": "Publish nothing that names a patient.\n",
    }
    return bundle.build(folder / "b.zip", **(values | changes))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return make(tmp_path)


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, contents: dict[str, bytes]) -> None:
    with path.open("wb") as stream:
        container.write(stream, contents)


def codes(path: Path, **options: Any) -> list[str]:
    answer = bundle.verify(path, options.pop("keys", PUBLIC), **options)
    assert answer.held == all(line.held for line in answer.lines)
    return [line.code for line in answer.lines if not line.held]


def test_a_built_bundle_holds(good: Path) -> None:
    answer = bundle.verify(good, PUBLIC)
    assert answer.held
    assert answer.recipient == "org-7"
    assert answer.evidence["dataset"]["slug"] == "mammography"
    assert "not checked" in answer.lines[-1].message


def test_other_zip_programs_read_it(good: Path) -> None:
    assert zipfile.ZipFile(good).testzip() is None
    assert set(members_of(good)) == {
        "LICENCE.txt",
        "MODEL_CARD.html",
        "MODEL_CARD.md",
        "OBLIGATIONS.txt",
        "config.json",
        "evidence.dsse.json",
        "metrics.json",
        "model.safetensors",
        "ro-crate-metadata.json",
    }


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert make(tmp_path / "a").read_bytes() == make(tmp_path / "b").read_bytes()


def test_the_envelope_is_dsse_over_an_in_toto_statement(good: Path) -> None:
    envelope = json.loads(members_of(good)["evidence.dsse.json"])
    payload = base64.b64decode(envelope["payload"])
    signed = b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload) + payload
    KEY.public_key().verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)
    said = json.loads(payload)
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert {subject["name"] for subject in said["subject"]} == set(members_of(good)) - {
        "evidence.dsse.json"
    }


def test_the_metadata_are_an_ro_crate(good: Path) -> None:
    value = json.loads(members_of(good)["ro-crate-metadata.json"])
    graph = {entity["@id"]: entity for entity in value["@graph"]}
    assert value["@context"] == "https://w3id.org/ro/crate/1.2/context"
    assert graph["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    root = graph["./"]
    assert {"name", "description", "datePublished", "license"} <= root.keys()
    assert {part["@id"] for part in root["hasPart"]} == set(members_of(good)) - {
        "ro-crate-metadata.json"
    }


# Each mutation changes one thing; the code is the kind of failure that must be named.


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: (path.write_bytes(change(path.read_bytes())), None)[1]


def _member(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def mutate(path: Path) -> None:
        contents = members_of(path)
        contents[name] = change(contents[name])
        rewrite(path, contents)

    return mutate


def _without(name: str) -> Callable[[Path], None]:
    return lambda path: rewrite(path, {n: d for n, d in members_of(path).items() if n != name})


def _with(name: str, data: bytes = b"{}") -> Callable[[Path], None]:
    def mutate(path: Path) -> None:
        contents = members_of(path)
        # Forged past our own writer: other tools make such files.
        with zipfile.ZipFile(path, "w") as archive:
            for old, value in contents.items():
                _add(archive, old, value)
            _add(archive, name, data)

    return mutate


def _add(archive: zipfile.ZipFile, name: str, data: bytes, **changes: Any) -> None:
    info = zipfile.ZipInfo(name)
    for key, value in changes.items():
        setattr(info, key, value)
    archive.writestr(info, data, compress_type=changes.get("compress_type"))


def _envelope(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(data: bytes) -> bytes:
        value = json.loads(data)
        change(value)
        return canonical.dump(value)

    return _member("evidence.dsse.json", edit)


def _described(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """The signer itself lies in the metadata, and signs those."""

    def mutate(path: Path) -> None:
        contents = members_of(path)
        value = json.loads(contents["ro-crate-metadata.json"])
        change(value)
        contents["ro-crate-metadata.json"] = canonical.dump(value)
        digest = hashlib.sha256(contents["ro-crate-metadata.json"]).hexdigest()
        rewrite(path, contents)

        def follow(said: dict[str, Any]) -> None:
            for subject in said["subject"]:
                if subject["name"] == "ro-crate-metadata.json":
                    subject["digest"]["sha256"] = digest

        _resigned(follow)(path)

    return mutate


def _entity(value: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entity for entity in value["@graph"] if entity["@id"] == name)


def _resigned(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """The signer itself lies: what is signed is changed and signed again."""

    def edit(data: bytes) -> bytes:
        said = json.loads(base64.b64decode(json.loads(data)["payload"]))
        change(said)
        return dsse.seal(statement.PAYLOAD_TYPE, canonical.dump(said), KEY)

    return _member("evidence.dsse.json", edit)


def _compressed(path: Path) -> None:
    contents = members_of(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.safetensors", bytes(10_000_000))


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _reorder(path: Path) -> None:
    contents = members_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name in reversed(list(contents)):
            _add(archive, name, contents[name])


def _comment(data: bytes) -> bytes:
    return data[:-2] + struct.pack("<H", 4) + b"note"


def _encrypted(data: bytes) -> bytes:
    return data[:6] + struct.pack("<H", 1) + data[8:]


def _dated(data: bytes) -> bytes:
    return data[:10] + b"\x01" + data[11:]


def _directory_name(data: bytes) -> bytes:
    start = data.rindex(b"PK\1\2")
    return data[: start + 46] + b"X" + data[start + 47 :]


def _forge_signature(value: dict[str, Any]) -> None:
    sig = bytearray(base64.b64decode(value["signatures"][0]["sig"]))
    sig[0] ^= 1
    value["signatures"][0]["sig"] = base64.b64encode(bytes(sig)).decode()


def _forge_payload(value: dict[str, Any]) -> None:
    payload = base64.b64decode(value["payload"]).replace(b"org-7", b"org-8")
    value["payload"] = base64.b64encode(payload).decode()


def _twist_digest(said: dict[str, Any]) -> None:
    said["subject"][0]["digest"]["sha256"] = "0" * 64


def _twist_recipient(said: dict[str, Any]) -> None:
    said["predicate"]["recipient"] = "org-8"


MUTATIONS: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty file": (_bytes(lambda data: b""), "not-a-bundle"),
    "not a zip": (_bytes(lambda data: b"hello" + data[5:]), "not-a-bundle"),
    "prefix before the zip": (_bytes(lambda data: b"#!/bin/sh\n" + data), "not-a-bundle"),
    "cut in a member": (_bytes(lambda data: data[: len(data) // 3]), "truncated"),
    "cut in the directory": (_bytes(lambda data: data[:-30]), "truncated"),
    "trailing bytes": (_bytes(lambda data: data + b"more"), "trailing"),
    "zip comment": (_bytes(_comment), "comment"),
    "encrypted flag": (_bytes(_encrypted), "encrypted"),
    "another date": (_bytes(_dated), "header"),
    "name in the directory": (_bytes(_directory_name), "directory"),
    "a flipped byte of the weights": (
        _bytes(lambda data: data.replace(b"\x02\0\0\0\0\0\0\0{}", b"\x03\0\0\0\0\0\0\0{}")),
        "checksum",
    ),
    "compressed": (_compressed, "compressed"),
    "zip bomb": (_bomb, "compressed"),
    "members reordered": (_reorder, "order"),
    "a member twice": (_with("ro-crate-metadata.json"), "duplicate"),
    "a member that climbs": (_with("../../.bashrc"), "traversal"),
    "an absolute member": (_with("/etc/cron.d/x"), "traversal"),
    "a Windows path": (_with("..\\x.json"), "traversal"),
    "a program": (_with("run.py"), "member"),
    "a hidden file": (_with(".env.json"), "member"),
    "evidence in capitals": (_with("Evidence.DSSE.json"), "member"),
    "a file more": (_with("zz.json"), "directory"),
    "unsigned file": (
        lambda path: rewrite(path, {**members_of(path), "zz.json": b"{}"}),
        "unsigned",
    ),
    "no evidence": (_without("evidence.dsse.json"), "missing"),
    "no weights": (_without("model.safetensors"), "missing"),
    "weights changed": (_member("model.safetensors", _flip), "digest"),
    "metrics changed": (_member("metrics.json", lambda d: d.replace(b"0.91", b"0.99")), "digest"),
    "card changed": (_member("MODEL_CARD.md", lambda d: d + b"\n"), "digest"),
    "metadata changed": (
        _member("ro-crate-metadata.json", lambda d: d.replace(b"org-7", b"org-8")),
        "digest",
    ),
    "envelope no JSON": (_member("evidence.dsse.json", lambda d: d[:-1]), "json"),
    "envelope respelled": (
        _member("evidence.dsse.json", lambda d: d.replace(b",", b", ")),
        "canonical",
    ),
    "envelope with a duplicate key": (
        _member("evidence.dsse.json", lambda d: b'{"payload":"",' + d[1:]),
        "canonical",
    ),
    "envelope with a field more": (_envelope(lambda v: v.update(x=1)), "envelope"),
    "another payload type": (_envelope(lambda v: v.update(payloadType="text")), "payload-type"),
    "payload not base64": (_envelope(lambda v: v.update(payload="*")), "base64"),
    "payload changed": (_envelope(_forge_payload), "signature"),
    "signature changed": (_envelope(_forge_signature), "signature"),
    "no signature": (_envelope(lambda v: v.update(signatures=[])), "signatures"),
    "two signatures": (
        _envelope(lambda v: v.update(signatures=v["signatures"] * 2)),
        "signatures",
    ),
    "key renamed": (
        _envelope(lambda v: v["signatures"][0].update(keyid=bundle.key_id(OTHER.public_key()))),
        "unknown-key",
    ),
    "another statement type": (_resigned(lambda s: s.update(_type="x")), "statement"),
    "another predicate type": (_resigned(lambda s: s.update(predicateType="x")), "predicate"),
    "a subject twice": (_resigned(lambda s: s["subject"].append(s["subject"][0])), "statement"),
    "a wrong digest signed": (_resigned(_twist_digest), "digest"),
    "a wrong recipient signed": (_resigned(_twist_recipient), "metadata"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_fails_with_its_own_kind(good: Path, name: str) -> None:
    mutate, code = MUTATIONS[name]
    before = good.read_bytes()
    mutate(good)
    assert good.read_bytes() != before
    assert codes(good) == [code]


def test_every_single_byte_matters(good: Path) -> None:
    data = good.read_bytes()
    for position in range(0, len(data), 7):
        mutated = bytearray(data)
        mutated[position] ^= 0x10
        good.write_bytes(bytes(mutated))
        assert codes(good), f"byte {position} may be changed"


@pytest.mark.parametrize(
    "envelope",
    [
        b"[" + b"[]," * 2_000_000 + b"0]",
        b'{"payload":"","payloadType":[' + b"{}," * 2_000_000 + b'0],"signatures":[]}',
        b'{"payload":"' + b"A" * 6_000_000,
        b"[" * 6_000_000,
        b"9" * 6_000_000,
    ],
    ids=["lists", "objects beside the payload", "no end", "depth", "digits"],
)
def test_a_huge_envelope_that_nobody_signed_is_not_read_into_memory(
    good: Path, envelope: bytes
) -> None:
    rewrite(good, members_of(good) | {"evidence.dsse.json": envelope})
    tracemalloc.start()
    try:
        found = codes(good)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert found == ["envelope"]
    assert peak < 4 * len(envelope)


def test_a_long_signed_statement_is_read(tmp_path: Path) -> None:
    rows = [{"rule": f"rule-{n}", "severity": "info"} for n in range(20_000)]
    assert codes(make(tmp_path, evidence={"findings": rows})) == []


def test_a_member_forged_with_a_right_checksum_is_found(good: Path) -> None:
    contents = members_of(good)
    contents["config.json"] = b'{"lr":9.9}'
    assert zlib.crc32(contents["config.json"])
    rewrite(good, contents)
    assert codes(good) == ["digest"]


def test_another_key_does_not_verify(good: Path) -> None:
    assert codes(good, keys=[OTHER.public_key()]) == ["unknown-key"]
    assert codes(good, keys=[]) == ["unknown-key"]


def test_a_key_cannot_borrow_another_ones_name(good: Path) -> None:
    name = bundle.key_id(KEY.public_key())
    assert codes(good, keys={name: OTHER.public_key()}) == ["signature"]


def test_verification_survives_key_rotation(tmp_path: Path, good: Path) -> None:
    pems = tmp_path / "keys.pem"
    pems.write_bytes(bundle.public_pem(OTHER.public_key()) + bundle.public_pem(KEY.public_key()))
    assert codes(good, keys=bundle.load_public_keys([pems])) == []


SIGNED_LIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "another size": (
        _described(lambda v: _entity(v, "metrics.json").update(contentSize="1")),
        "metadata",
    ),
    "another digest": (
        _described(lambda v: _entity(v, "metrics.json").update(sha256="0" * 64)),
        "metadata",
    ),
    "another vocabulary": (_described(lambda v: v.update({"@context": "x"})), "metadata"),
    "no graph": (_described(lambda v: v.pop("@graph")), "metadata"),
    "a thing described twice": (
        _described(lambda v: v["@graph"].append(dict(_entity(v, "metrics.json"), name="other"))),
        "metadata",
    ),
    "a subject that climbs": (
        _resigned(lambda s: s["subject"][0].update(name="../LICENCE.txt")),
        "statement",
    ),
    "no time": (_resigned(lambda s: s["predicate"].update(released="soon")), "predicate"),
    "no zone": (
        _resigned(lambda s: s["predicate"].update(released="2026-11-21T09:30:00")),
        "predicate",
    ),
}


@pytest.mark.parametrize("name", SIGNED_LIES)
def test_a_signer_that_contradicts_itself_is_not_believed(good: Path, name: str) -> None:
    mutate, code = SIGNED_LIES[name]
    mutate(good)
    assert codes(good) == [code]


def _sig(value: dict[str, Any], change: Callable[[str], str]) -> None:
    value["signatures"][0]["sig"] = change(value["signatures"][0]["sig"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        # 64 bytes end in one character of which four bits count: another one means the same bytes.
        (lambda v: _sig(v, lambda sig: sig[:-3] + chr(ord(sig[-3]) + 1) + "=="), "base64"),
        (lambda v: v["signatures"][0].update(cert=""), "signatures"),
        (lambda v: v["signatures"][0].pop("keyid"), "signatures"),
        (lambda v: v["signatures"][0].update(keyid=7), "unknown-key"),
    ],
    ids=["unused bits", "a field more", "no key", "a key that is no text"],
)
def test_an_envelope_has_one_spelling(good: Path, change: Any, code: str) -> None:
    _envelope(change)(good)
    assert codes(good) == [code]


def test_more_than_a_bundle_holds_is_not_read(tmp_path: Path, good: Path) -> None:
    contents = members_of(good)
    rewrite(good, contents | {f"zz{n}.json": b"{}" for n in range(64)})
    answer = bundle.verify(good, PUBLIC)
    assert "more files than a bundle may" in answer.lines[-1].message
    with good.open("r+b") as stream:
        stream.truncate(2**32 + 1)  # a hole: nothing of it is stored
    assert codes(good) == ["size"]


def revoke(path: Path, *digests: str, key: Ed25519PrivateKey = KEY) -> Path:
    entries = [bundle.Revocation(digest, "consent withdrawn", "2026-12-01") for digest in digests]
    path.write_bytes(bundle.sign_revocations(entries, issued=WHEN, number=3, signing_key=key))
    return path


def test_a_revoked_copy_fails_with_the_reason(tmp_path: Path, good: Path) -> None:
    digest = bundle.verify(good, PUBLIC).bundle
    answer = bundle.verify(good, PUBLIC, revoke(tmp_path / "r", digest))
    assert [line.code for line in answer.lines if not line.held] == ["revoked"]
    assert "consent withdrawn" in answer.lines[-1].message


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
def test_revoked_weights_fail_every_copy(tmp_path: Path, name: str) -> None:
    (tmp_path / "copy").mkdir()
    weights = {"artefacts": {name: tmp_path / "weights.bin"}}
    make(tmp_path)
    copy = make(tmp_path / "copy", recipient="org-9", **weights)
    digest = hashlib.sha256(members_of(copy)[name]).hexdigest()
    listed = revoke(tmp_path / "r", digest)
    assert codes(copy, revocations=listed) == ["revoked"]
    assert codes(make(tmp_path, **weights), revocations=listed) == ["revoked"]


def test_a_revoked_key_fails(tmp_path: Path, good: Path) -> None:
    keys = [KEY.public_key(), OTHER.public_key()]
    listed = revoke(tmp_path / "r", bundle.key_id(KEY.public_key()), key=OTHER)
    assert codes(good, keys=keys, revocations=listed) == ["key-revoked"]


def test_a_list_that_cannot_be_believed_fails(tmp_path: Path, good: Path) -> None:
    listed = revoke(tmp_path / "r")
    assert codes(good, revocations=listed) == []
    assert codes(good, revocations=tmp_path / "absent") == ["revocations"]
    listed.write_bytes(listed.read_bytes().replace(b'"sig":"', b'"sig":"A', 1))
    assert codes(good, revocations=listed) == ["base64"]
    assert codes(good, revocations=revoke(tmp_path / "r", key=OTHER)) == ["unknown-key"]
    for changes in (
        {"number": "3"},
        {"number": True},
        {"revoked": {}},
        {"extra": 1},
        {"issued": "soon"},
        {"revoked": [{"sha256": "A" * 64, "reason": "", "date": ""}]},
        {"revoked": [{"sha256": "a" * 64, "reason": "", "date": "", "more": ""}]},
        {"revoked": [{"sha256": "a" * 64, "reason": "", "date": 1}]},
        {"revoked": [{"sha256": "a" * 64, "reason": word, "date": ""} for word in "xy"]},
    ):
        payload = {"issued": WHEN.isoformat(), "number": 3, "revoked": [], **changes}
        kind = "application/vnd.glovebox.revocations+json"
        listed.write_bytes(dsse.seal(kind, canonical.dump(payload), KEY))
        assert codes(good, revocations=listed) == ["revocations"], changes
    # The evidence itself, signed by the right key, is not a revocation list.
    listed.write_bytes(members_of(good)["evidence.dsse.json"])
    assert codes(good, revocations=listed) == ["payload-type"]


HOSTILE = "<img src=x onerror=alert(1)>\n# [x](javascript:y) | `z` \x1b[2J http://a.b www.a.b"


def test_a_card_shows_every_value_inert() -> None:
    facts = {
        "title": HOSTILE,
        "summary": HOSTILE,
        "data": {HOSTILE: HOSTILE},
        "findings": [{"rule": HOSTILE, HOSTILE: 1}],
        "limits": [HOSTILE, HOSTILE],
    }
    page = card.page(facts)
    assert "<img" not in page and "\x1b" not in page
    text = card.markdown(facts)
    assert "<img" not in text and "\x1b" not in text
    import markdown as markdown_library

    rendered = markdown_library.markdown(text, extensions=["tables"])
    assert "<img" not in rendered and "<a" not in rendered and "<code" not in rendered
    assert rendered.count("<h1>") == 1
    with pytest.raises(Invalid):
        card.page({"surprise": 1})


@pytest.mark.parametrize(
    "changes",
    [
        {"artefacts": {"../x.json": Path("x")}},
        {"artefacts": {"model.pt": Path("x")}},
        {"artefacts": {"metrics.json": Path("x")}},
        {"artefacts": {"Evidence.dsse.json": Path("x")}},
        {"artefacts": {"metrics.json/model.safetensors": Path("x")}},
        {"artefacts": {"licence.TXT/config.json": Path("x")}},
        {"artefacts": {"nul.safetensors": Path("x")}},
        {"artefacts": {"weights/COM1.old.onnx": Path("x")}},
        {"metrics": {"auc": float("nan")}},
        {"evidence": {"x": {1, 2}}},
        {"released": datetime(2026, 1, 1)},
    ],
)
def test_what_a_bundle_cannot_say_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        make(tmp_path, **changes)
    assert not (tmp_path / "b.zip").exists()
    assert not list(tmp_path.glob(".bundle-*"))


def test_the_command_explains_itself(tmp_path: Path, good: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(bundle.public_pem(KEY.public_key()))
    root = Path(__file__).parents[2]

    def glovebox(*words: object) -> subprocess.CompletedProcess[str]:
        code = (
            "import argparse, sys, bundle.cli as c, policies.errors as e\n"
            "p = argparse.ArgumentParser(); c.register(p.add_subparsers()); a = p.parse_args()\n"
            "try: sys.exit(a.run(a))\n"
            "except e.CannotRun: sys.exit(3)\nexcept e.UserError: sys.exit(2)"
        )
        return subprocess.run(
            [sys.executable, "-c", code, "verify", *map(str, words)],
            cwd=root,
            capture_output=True,
            text=True,
        )

    done = glovebox(good, "--key", key, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["held"] is True
    good.write_bytes(good.read_bytes() + b"x")
    done = glovebox(good, "--key", key)
    assert done.returncode == 1
    assert "after the end of the bundle" in done.stdout
    assert glovebox(good, "--key", good).returncode == 2
    assert glovebox(tmp_path / "absent.zip", "--key", key).returncode == 3
