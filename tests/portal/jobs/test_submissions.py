"""Bad submissions are answered at once, with the field's name."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from datetime import timedelta

import pytest
from django.utils import timezone

from policies.document import default_policy
from policies.errors import Conflict, Denied, Invalid
from portal import blobs
from portal.access.models import Grant
from portal.audit.models import Event
from portal.jobs import actions, queries, storage
from portal.jobs.archive import Archive
from portal.jobs.models import Job, LedgerEntry, Submission
from tests.portal.access.test_decisions import at_once
from tests.portal.cast import Cast
from tests.portal.jobs.material import MANIFEST, QUICK, archive, submission

pytestmark = pytest.mark.django_db

GOOD = {"glovebox.toml": MANIFEST.format(more=""), "train.py": QUICK}


def with_entry(name: str, mode: int, content: bytes = b"x", **extra: int) -> io.BytesIO:
    out = archive(GOOD)
    with zipfile.ZipFile(out, "a") as packed:
        info = zipfile.ZipInfo(name)
        info.create_system = 3
        info.external_attr = mode << 16
        for key, value in extra.items():
            setattr(info, key, value)
        packed.writestr(info, content)
    out.seek(0)
    return out


def a_bomb() -> io.BytesIO:
    return archive({**GOOD, "zeros.bin": b"\0" * (300 * 2**20)})


def too_many() -> io.BytesIO:
    return archive({**GOOD, **{f"f{number}.py": "" for number in range(2100)}})


def huge_directory() -> io.BytesIO:
    """An end record that claims a list of members of almost four gigabytes."""
    data = bytearray(archive(GOOD).getvalue())
    place = data.rindex(b"PK\x05\x06")
    data[place + 12 : place + 16] = struct.pack("<L", 0xFFFFFFF0)
    return io.BytesIO(bytes(data))


ARCHIVES = {
    "climbs out": lambda: with_entry("../evil.py", stat.S_IFREG | 0o644),
    "absolute": lambda: with_entry("/etc/evil.py", stat.S_IFREG | 0o644),
    "backslash": lambda: with_entry("..\\evil.py", stat.S_IFREG | 0o644),
    "a link": lambda: with_entry("data", stat.S_IFLNK | 0o777, b"/etc/passwd"),
    "a device": lambda: with_entry("null", stat.S_IFCHR | 0o666),
    "a pipe": lambda: with_entry("pipe", stat.S_IFIFO | 0o666),
    "twice": lambda: with_entry("train.py", stat.S_IFREG | 0o644),
    "unpacks to too much": a_bomb,
    "too many": too_many,
    "a list too long to read": huge_directory,
    "no zip": lambda: io.BytesIO(b"PK\x03\x04 no zip at all"),
    "empty": lambda: io.BytesIO(b""),
}


@pytest.mark.parametrize("what", ARCHIVES)
def test_a_hostile_archive_is_refused(what: str) -> None:
    with pytest.raises(Invalid) as refused:
        Archive(ARCHIVES[what](), default_policy())
    assert refused.value.field == "archive"


def test_what_unpacks_to_more_than_it_says_is_stopped(tmp_path) -> None:
    """The list of members is a stranger's word; the bytes that come out are counted."""
    data = bytearray(archive({**GOOD, "zeros.bin": b"\0" * 5_000_000}).getvalue())
    # The same lie in the local header and in the list: 10 bytes.
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = -1
        while (place := data.find(signature, place + 1)) >= 0:
            if struct.unpack_from("<L", data, place + offset)[0] == 5_000_000:
                data[place + offset : place + offset + 4] = struct.pack("<L", 10)
    opened = Archive(io.BytesIO(bytes(data)), default_policy())
    with pytest.raises(Invalid):
        opened.unpack(tmp_path / "code")
    assert (tmp_path / "code" / "zeros.bin").stat().st_size <= 10


MANIFESTS = [
    ("no manifest", {"glovebox.toml": None}, "glovebox.toml"),
    ("not toml", {"glovebox.toml": "[job"}, "glovebox.toml"),
    ("unknown key", {"glovebox.toml": MANIFEST.format(more="") + "[job2]\n"}, "job2"),
    ("unknown dataset", {"mammography =": "mammografy ="}, "datasets.mammografy"),
    ("unknown image", {'name = "quick"': 'name = "quick"\nimage = "alpine"'}, "job.image"),
    ("too much memory", {"1Gi": "900Gi"}, "resources.memory"),
    ("too long", {"60s": "90d"}, "resources.time"),
    ("no entrypoint there", {"train.py": "other.py"}, "job.entrypoint"),
    ("climbing entrypoint", {'"train.py"': '"../train.py"'}, "job.entrypoint"),
]


@pytest.mark.parametrize(("changes", "field"), [row[1:] for row in MANIFESTS],
                         ids=[row[0] for row in MANIFESTS])  # fmt: skip
def test_a_wrong_manifest_is_answered_with_its_field(cast: Cast, changes: dict, field: str) -> None:
    members = dict(GOOD)
    for old, new in changes.items():
        if old == "glovebox.toml":
            members[old] = new
        else:
            members["glovebox.toml"] = members["glovebox.toml"].replace(old, new)
    stream = archive({name: text for name, text in members.items() if text is not None})
    with pytest.raises(Invalid) as refused:
        actions.submit(by=cast.applicant, grant=cast.granted(), stream=stream)
    assert refused.value.field == field
    assert not Submission.objects.exists()


def test_a_zipped_folder_is_told_what_to_do(cast: Cast) -> None:
    stream = archive({f"folder/{name}": text for name, text in GOOD.items()})
    with pytest.raises(Invalid, match="zip the folder's content"):
        actions.submit(by=cast.applicant, grant=cast.granted(), stream=stream)


def test_without_a_grant_one_gets_nothing_and_it_is_recorded(cast: Cast) -> None:
    grant = cast.granted()
    for person in (cast.stranger, cast.steward, cast.administrator):
        with pytest.raises(Denied):
            actions.submit(by=person, grant=grant, stream=submission())
    Grant.objects.update(state="suspended")
    with pytest.raises(Denied):
        actions.submit(by=cast.applicant, grant=Grant.objects.get(), stream=submission())
    past = timezone.now() - timedelta(seconds=1)
    Grant.objects.update(state="active", starts_at=past - timedelta(days=1), ends_at=past)
    with pytest.raises(Denied):
        actions.submit(by=cast.applicant, grant=Grant.objects.get(), stream=submission())
    assert Event.objects.filter(action="submission.upload.refused").count() == 5
    assert not Job.objects.exists()


def test_the_archive_is_encrypted_and_opens_to_whom_it_may(cast: Cast, portal_home) -> None:
    job = actions.submit(by=cast.applicant, grant=cast.granted(), stream=submission())
    row = job.submission
    stored = b"".join(path.read_bytes() for path in portal_home.rglob("objects/*/*/*"))
    assert b"glovebox.toml" not in stored
    with queries.open_code(by=cast.analyst, submission=row) as stream:
        assert zipfile.is_zipfile(io.BytesIO(stream.read()))
    for person in (cast.stranger, cast.administrator, cast.reviewers[0], cast.steward):
        with pytest.raises(Denied):
            queries.open_code(by=person, submission=row)
    assert Event.objects.filter(action="submission.read").count() == 1
    assert Event.objects.filter(action="submission.read.refused").count() == 4


def test_the_sealed_split_is_asked_so_often_and_no_more(cast: Cast) -> None:
    grant = cast.granted()
    dataset = cast.version.dataset
    dataset.policy = {"release": {"sealed_evaluations": 1}}
    dataset.save()
    grant = Grant.objects.get(pk=grant.pk)
    job = actions.submit(by=cast.applicant, grant=grant, stream=submission())
    with pytest.raises(Denied) as refused:
        actions.submit(by=cast.applicant, grant=grant, stream=submission(QUICK + "#"))
    assert refused.value.code == "ledger.sealed"
    Job.objects.filter(pk=job.pk).update(state="failed")
    # A job that ended without asking has cost nothing.
    again = actions.submit(by=cast.applicant, grant=grant, stream=submission(QUICK + "#"))
    LedgerEntry.objects.create(
        kind="sealed",
        dataset=dataset,
        organisation=grant.unit.organisation,
        grant=grant,
        job=again,
    )
    Job.objects.filter(pk=again.pk).update(state="finished")
    with pytest.raises(Denied):
        actions.submit(by=cast.applicant, grant=grant, stream=submission(QUICK + "##"))


@pytest.mark.parametrize("what", ["submit", "cancel"])
def test_without_its_audit_event_nothing_is_written(cast: Cast, monkeypatch, what: str) -> None:
    grant = cast.granted()
    job = None
    if what == "cancel":
        job = actions.submit(by=cast.applicant, grant=grant, stream=submission())
    before = list(Job.objects.values("pk", "state", "stop_requested"))
    stored: list[str] = []
    real = storage.keep

    def keeping(*args, **kwargs):
        kept = real(*args, **kwargs)
        stored.append(kept.object_name)
        return kept

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(storage, "keep", keeping)
    monkeypatch.setattr(actions, "record", broken)
    monkeypatch.setattr("portal.jobs.transitions.record", broken)
    with pytest.raises(RuntimeError):
        if job is None:
            actions.submit(by=cast.applicant, grant=grant, stream=submission())
        else:
            actions.cancel(by=cast.applicant, job=job)
    assert list(Job.objects.values("pk", "state", "stop_requested")) == before
    assert not any(blobs.exists(name) for name in stored)


def test_who_cancels_and_what_it_is_called(cast: Cast) -> None:
    grant = cast.granted()
    for person, reason in (
        (cast.applicant, "cancelled"),
        (cast.steward, "evicted"),
        (cast.administrator, "evicted"),
    ):
        job = actions.submit(by=cast.applicant, grant=grant, stream=submission())
        with pytest.raises(Denied):
            actions.cancel(by=cast.stranger, job=job)
        # No worker holds it: it ends at once.
        job = actions.cancel(by=person, job=job)
        assert (job.state, job.reason) == ("stopped", reason)
        with pytest.raises(Conflict):
            actions.cancel(by=person, job=job)


@pytest.mark.django_db(transaction=True)
def test_a_double_click_is_one_job(cast: Cast) -> None:
    grant = cast.granted()
    data = submission().getvalue()

    def click() -> None:
        actions.submit(by=cast.applicant, grant=grant, stream=io.BytesIO(data))

    assert at_once(click, click) == [None, None]
    assert (Job.objects.count(), Submission.objects.count()) == (1, 1)
    # Of the two uploads one object is kept, and it is the one that the row names.
    row = Submission.objects.get()
    with storage.open_archive(row) as stream:
        assert stream.read() == data
