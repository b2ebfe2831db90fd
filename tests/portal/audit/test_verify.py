"""Whatever is done to the trail behind the portal's back is found and its place named."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portal import keys
from portal.audit import chain, checkpoints
from portal.audit.models import Checkpoint, Event, Link
from portal.audit.record import _plain, canonical, record_attempt
from portal.audit.verify import verify

pytestmark = pytest.mark.django_db


def add(count: int, start: int = 0) -> None:
    with transaction.atomic():
        for number in range(start, start + count):
            record_attempt(
                "test.done",
                by=None,
                subject=f"thing {number}",
                details={"number": number, "ü": 0.5},
            )


@pytest.fixture
def trail() -> list[int]:
    """Twelve sealed events; their ids."""
    add(12)
    chain.seal()
    return list(Event.objects.values_list("id", flat=True))


def faults() -> list[str]:
    return [f"{fault.place}: {fault.message}" for fault in verify().faults]


def statement() -> checkpoints.Statement:
    row = checkpoints.make()
    assert row is not None
    return checkpoints.of_row(row)


def forget_exports() -> None:
    """The attacker owns the database and its machine, not the auditor's copy."""
    Checkpoint.objects.all().delete()
    for path in checkpoints.exported():
        path.unlink()


def forget_numbers() -> None:
    """Let SQLite draw the numbers of deleted events again."""
    assert connection.vendor == "sqlite"
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE sqlite_sequence SET seq = (SELECT max(id) FROM audit_event) WHERE name = %s",
            [Event._meta.db_table],
        )


def rewrite() -> None:
    """Recompute every digest and link: what an owner of the database can do."""
    Link.objects.all().delete()
    for event in Event.objects.order_by("id"):
        digest = hashlib.sha256(canonical(event)).hexdigest()
        Event.objects.filter(pk=event.pk).update(digest=digest)
    chain.seal()


def test_an_untouched_trail_holds(trail: list[int]) -> None:
    statement()
    add(3, 12)
    result = verify([statement()])
    assert (result.held, result.events, result.position, result.unsealed) == (True, 15, 12, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"actor": "somebody else"},
        {"actor_id": "7"},
        {"action": "other"},
        {"about": "another thing"},
        {"about_id": "8"},
        {"about_kind": "jobs.job"},
        {"details": {"number": 99}},
        {"at": "2020-01-01T00:00:00Z"},
        {"digest": "0" * 64},
    ],
)
def test_a_changed_row_is_named(change: dict[str, object], trail: list[int]) -> None:
    Event.objects.filter(pk=trail[4]).update(**change)
    assert faults()[0] == (f"event {trail[4]}: was changed: its content does not fit its digest")


def test_a_row_changed_together_with_its_digest_is_named(trail: list[int]) -> None:
    event = Event.objects.get(pk=trail[4])
    event.actor = "somebody else"
    event.digest = hashlib.sha256(canonical(event)).hexdigest()
    event.save()
    assert faults() == [
        f"position 5: the chain is broken at event {trail[4]}: moved, replaced or recomputed"
    ]


@pytest.mark.parametrize("which", [0, 5, 11])
def test_a_deleted_row_is_named(which: int, trail: list[int]) -> None:
    Event.objects.filter(pk=trail[which]).delete()
    assert faults() == [f"event {trail[which]}: was deleted: position {which + 1} speaks of it"]


def last_id() -> int:
    newest = Event.objects.order_by("-id").first()
    assert newest is not None
    return newest.pk


def test_a_row_deleted_before_it_was_sealed_leaves_a_gap(trail: list[int]) -> None:
    add(5, 12)
    gone = trail[-1] + 2
    Event.objects.filter(pk__in=[gone, gone + 1]).delete()
    sentence = f"event {gone}: events {gone} to {gone + 1} were deleted: no link speaks of them"
    assert faults() == [sentence]
    chain.seal()
    told = Event.objects.get(action="audit.gap")
    assert told.details == {"first": gone, "last": gone + 1}
    chain.seal()
    assert Event.objects.filter(action="audit.gap").count() == 1
    assert faults() == [sentence]


def test_the_newest_row_deleted_before_it_was_sealed_leaves_a_gap(trail: list[int]) -> None:
    add(1, 12)
    gone = last_id()
    Event.objects.filter(pk=gone).delete()
    sentence = f"event {gone}: events {gone} to {gone} were deleted: no link speaks of them"
    assert faults() == [sentence]
    add(1, 13)
    chain.seal()
    assert Event.objects.get(action="audit.gap").details == {"first": gone, "last": gone}
    assert faults() == [sentence]


def test_what_is_rolled_back_leaves_no_gap(trail: list[int]) -> None:
    for _time in range(3):
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            add(2, 12)
            raise ZeroDivisionError
    add(1, 12)
    assert last_id() == trail[-1] + 1
    chain.seal()
    assert verify().held
    assert not Event.objects.filter(action="audit.gap").exists()


def test_a_row_deleted_with_its_link_is_named(trail: list[int]) -> None:
    Event.objects.filter(pk=trail[5]).delete()
    Link.objects.filter(position=6).delete()
    found = faults()
    gone = trail[5]
    assert found[:2] == [
        "position 7: links 6 to 6 are missing",
        f"event {gone}: events {gone} to {gone} were deleted: no link speaks of them",
    ]
    assert found[2].startswith("position 7: the chain is broken")


def test_a_row_deleted_and_the_rest_moved_up_is_named(trail: list[int]) -> None:
    Event.objects.filter(pk=trail[5]).delete()
    Link.objects.filter(position=6).delete()
    for position in range(7, 13):
        Link.objects.filter(position=position).update(position=position - 1)
    gone = trail[5]
    found = faults()
    assert found[0] == f"event {gone}: events {gone} to {gone} were deleted: no link speaks of them"
    assert found[1].startswith("position 6: the chain is broken")


def test_an_inserted_row_is_named(trail: list[int]) -> None:
    Event.objects.filter(pk=trail[5]).update(id=10_000)
    Event.objects.filter(pk=trail[6]).update(id=trail[5])
    Event.objects.filter(pk=10_000).update(id=trail[6])
    found = faults()
    assert found[0].startswith("position 6: the chain is broken")


def test_a_row_forged_between_others_is_named(trail: list[int]) -> None:
    # Ids leave room where a transaction was rolled back.
    Event.objects.filter(pk=trail[-1]).update(id=trail[-1] + 5)
    Link.objects.filter(event_id=trail[-1]).update(event_id=trail[-1] + 5)
    forged = Event.objects.get(pk=trail[3])
    forged.pk = trail[-1] + 2
    forged.save(force_insert=True)
    assert f"event {forged.pk}: was inserted: it has no link in the chain" in faults()


def test_two_rows_with_their_contents_exchanged_are_named(trail: list[int]) -> None:
    one, two = Event.objects.get(pk=trail[2]), Event.objects.get(pk=trail[8])
    one.pk, two.pk = two.pk, one.pk
    one.save()
    two.save()
    assert [fault.split(":")[0] for fault in faults()] == ["position 3", "position 9"]


def test_two_links_exchanged_are_named(trail: list[int]) -> None:
    Link.objects.filter(position=3).update(event_id=10_000)
    Link.objects.filter(position=9).update(event_id=trail[2])
    Link.objects.filter(position=3).update(event_id=trail[8])
    assert "position 3" in faults()[0] or "event" in faults()[0]
    assert any(fault.startswith("position 9") for fault in faults())


def test_a_cut_tail_is_found_by_an_earlier_checkpoint(trail: list[int]) -> None:
    kept = statement()
    forget_exports()
    Event.objects.filter(pk__gt=trail[7]).delete()
    Link.objects.filter(position__gt=8).delete()
    assert faults()[0].startswith(f"event {trail[8]}: events {trail[8]} to {trail[11]} were")
    forget_numbers()
    assert verify().held  # nothing in the database tells
    found = verify([kept]).faults
    assert [fault.place for fault in found] == ["position 8"]
    assert "the end was cut off: the given checkpoint saw 12 links" in found[0].message


def test_a_tail_cut_and_filled_up_again_is_found(trail: list[int]) -> None:
    kept = statement()
    forget_exports()
    Event.objects.filter(pk__gt=trail[7]).delete()
    Link.objects.filter(position__gt=8).delete()
    assert faults()[0].startswith(f"event {trail[8]}: events {trail[8]} to {trail[11]} were")
    forget_numbers()
    add(4, 100)
    chain.seal()
    assert verify().held
    assert [fault.place for fault in verify([kept]).faults] == ["position 12"]


def test_a_trail_emptied_completely_is_found(trail: list[int]) -> None:
    kept = statement()
    forget_exports()
    Event.objects.all().delete()
    Link.objects.all().delete()
    assert verify().held
    assert [fault.place for fault in verify([kept]).faults] == ["position 0"]


def test_a_recomputed_chain_is_found_by_an_earlier_checkpoint(trail: list[int]) -> None:
    kept = statement()
    add(5, 12)
    chain.seal()
    forget_exports()
    Event.objects.filter(pk=trail[4]).update(actor="somebody else")
    rewrite()
    assert verify().held
    found = verify([kept]).faults
    assert [fault.place for fault in found] == ["position 12"]
    assert "the chain was rewritten: the given checkpoint signed another digest" in found[0].message


def test_checkpoints_kept_here_are_used_without_being_named(trail: list[int]) -> None:
    statement()
    Checkpoint.objects.all().delete()
    Event.objects.filter(pk=trail[4]).update(actor="somebody else")
    rewrite()
    assert "the chain was rewritten" in faults()[0]


def test_a_forged_checkpoint_is_named(trail: list[int]) -> None:
    statement()
    Event.objects.filter(pk=trail[4]).update(actor="somebody else")
    rewrite()
    for path in checkpoints.exported():
        path.unlink()
    row = Checkpoint.objects.get()
    row.digest = chain.head()[1]
    row.save()
    assert faults() == [f"stored checkpoint {row.pk}: its signature is not one of the audit keys'"]
    row.delete()
    stranger = Ed25519PrivateKey.generate()
    position, digest, _event = chain.head()
    draft = checkpoints.Statement(
        position, digest, "2026-01-01T00:00:00+00:00", keys.public_key_id(stranger.public_key())
    )
    import base64

    signed = replace(
        draft, signature=base64.b64encode(stranger.sign(draft.signed_bytes())).decode()
    )
    assert [fault.place for fault in verify([signed]).faults] == ["given checkpoint"]


def test_a_checkpoint_s_every_field_is_signed(trail: list[int]) -> None:
    good = statement()
    public = keys.public_keys("audit")
    assert good.holds(public)
    for changed in (
        replace(good, position=11),
        replace(good, digest="0" * 64),
        replace(good, at="2020-01-01T00:00:00+00:00"),
        replace(good, key_id="0" * 32),
        replace(good, signature="AAAA"),
        replace(good, signature="not base64 §"),
    ):
        assert not changed.holds(public)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("audit_event", "details", "not json"),
        ("audit_event", "at", "not a time"),
        ("audit_event", "digest", "zz"),
        ("audit_link", "digest", "zz"),
        ("audit_checkpoint", "digest", "zz"),
        ("audit_checkpoint", "signature", "zz"),
    ],
)
def test_a_trail_made_unreadable_is_a_fault_and_no_crash(
    table: str, column: str, value: str, trail: list[int]
) -> None:
    statement()
    if connection.vendor != "sqlite":
        pytest.skip("other databases refuse such values")
    with connection.cursor() as cursor:
        if table == "audit_event" and column == "details":
            cursor.execute("PRAGMA ignore_check_constraints = ON")
        key = "position" if table == "audit_link" else "id"
        where = f"{key} = (SELECT max({key}) FROM {table})"
        cursor.execute(f"UPDATE {table} SET {column} = %s WHERE {where}", [value])
        cursor.execute("PRAGMA ignore_check_constraints = OFF")
    assert faults()


def test_a_checkpoint_file_is_never_replaced(trail: list[int], tmp_path: Path) -> None:
    from policies.errors import CannotRun

    target = tmp_path / "kept.json"
    target.write_text("mine")
    with pytest.raises(CannotRun):
        checkpoints.export(statement(), target)
    assert target.read_text() == "mine"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        "1",
        '{"kind": "glovebox audit checkpoint v1"}',
        "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    from policies.errors import Invalid

    with pytest.raises(Invalid):
        checkpoints.parse(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(st.text(), json_values, max_size=4), st.text(max_size=400))
def test_any_content_comes_back_as_it_was_digested(details: dict[str, object], about: str) -> None:
    with transaction.atomic():
        event = record_attempt("test.done", by=None, subject=about, details=details)
    fresh = Event.objects.get(pk=event.pk)
    assert hashlib.sha256(canonical(fresh)).hexdigest() == event.digest
    assert json.loads(json.dumps(_plain(details))) == fresh.details


def test_the_command_names_what_is_wrong(
    trail: list[int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import glovebox_cli
    from glovebox_cli import main

    monkeypatch.setattr(glovebox_cli, "ROOMS", (("portal.cli", "django"),))
    kept = tmp_path / "kept.json"
    assert main(["audit", "checkpoint", str(kept)]) == 0
    monkeypatch.setenv("GLOVEBOX_ROLE", "all")
    assert main(["audit", "verify", "--checkpoint", str(kept), "--json"]) == 0
    forget_exports()
    Event.objects.filter(pk=trail[4]).update(actor="somebody else")
    rewrite()
    capsys.readouterr()
    assert main(["audit", "verify", "--json"]) == 0
    capsys.readouterr()
    assert main(["audit", "verify", "--checkpoint", str(kept), "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["faults"][0]["place"] == "position 12"
    assert "the chain was rewritten" in printed.err
    assert main(["audit", "verify", "--checkpoint", str(tmp_path / "none.json")]) == 2
