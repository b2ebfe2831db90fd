"""Pack a published version's small files, and remove the objects that the packs take the place of.

A version is packed once nothing of it changes any more. A pack's row comes first, then its object,
which is read back and verified, then in one transaction the rows of its files; their own objects
are listed there and removed some days later. Whoever takes the lease after a kill removes packs
that no file names and goes on with what is left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import timedelta

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from portal import blobs, packs
from portal.audit.record import record
from portal.catalog.contents import Contents, Withdrawn, ensure_version_key
from portal.catalog.models import DatasetVersion, Pack, Packing, StoredFile
from portal.leases import Lease
from sandbox_runner.stage import is_sealed

#: The largest member: it is sealed, and read, in one piece.
MEMBER_BYTES = 1 << 20
PACK_BYTES = 32 << 20
PACK_FILES = 4096
#: Fewer small files than this are not worth a pack.
FEW = 64
RETRY = timedelta(hours=6)
#: How long the files' own objects stay beside their pack: a backup copies the database first, and
#: must find afterwards what its rows name.
KEPT = timedelta(days=2)


def wanted() -> list[int]:
    """Return the versions with small files to pack, or with objects that packs have replaced."""
    late = Q(packing__retry_at__gt=timezone.now())
    done = Q(packing__done_at__isnull=False)
    begun = Q(packing__isnull=False)
    rows = DatasetVersion.objects.filter(Q(state="published") | begun).exclude(done | late)
    found = {*rows.values_list("pk", flat=True), *_over().values_list("version_id", flat=True)}
    return sorted(found)


def pack(version: DatasetVersion, lease: Lease) -> None:
    """Pack a version's small files; what was done before a kill is not done again.

    Raises ``blobs.Damaged`` where a file is not what its row says, and ``DiskFull``: what was
    packed until then stays packed, everything else is as it was.
    """
    for row in _over().filter(version=version):
        _remove_replaced(row)
    if Packing.objects.filter(version=version).exclude(done_at=None).exists():
        return
    for row in Pack.objects.filter(version=version, written_at=None):
        _forget(row)
    if version.state == "published":
        contents = Contents(version).for_all()
        for group in _groups(_small(version), contents):
            _pack(version, group, contents, lease)
    with transaction.atomic():
        lease.check()
        Packing.objects.filter(version=version).update(done_at=timezone.now(), retry_at=None)
        made = Pack.objects.filter(version=version).count()
        if made:
            files = StoredFile.objects.filter(version=version).exclude(pack=None).count()
            record("version.pack", by=None, about=version, details={"packs": made, "files": files})


def failed(version: DatasetVersion) -> None:
    """Leave a version as it is for some hours: it is staged from what there is."""
    Packing.objects.filter(version=version).update(retry_at=timezone.now() + RETRY)


def _small(version: DatasetVersion) -> QuerySet[StoredFile]:
    small = StoredFile.objects.filter(version=version, bytes__lte=MEMBER_BYTES)
    return small.filter(pack=None) if small.count() >= FEW else small.none()


def _groups(small: QuerySet[StoredFile], contents: Contents) -> Iterator[list[StoredFile]]:
    """Cut files into packs in the order in which they are staged, the sealed split apart."""
    group: list[StoredFile] = []
    size = 0
    for row in sorted(small.order_by("path"), key=lambda row: is_sealed(row.split)):
        try:
            contents.key_of(row)
        except Withdrawn:
            continue  # nobody can read it any more
        full = len(group) == PACK_FILES or size + row.bytes > PACK_BYTES
        if group and (full or is_sealed(row.split) != is_sealed(group[0].split)):
            yield group
            group, size = [], 0
        group.append(row)
        size += row.bytes
    if group:
        yield group


def _pack(
    version: DatasetVersion, files: Sequence[StoredFile], contents: Contents, lease: Lease
) -> None:
    """Write one pack, and let its files' rows name it."""
    with transaction.atomic():
        lease.check()
        name = packs.new_name(ensure_version_key(version))
        row = Pack.objects.create(version=version, object_name=name)
    try:
        written = packs.write(_members(files, contents), name=name)
        _read_back(name, written, files, contents)
        replaced = [file.object_name for file in files]
        for file, offset in zip(files, written.offsets, strict=True):
            file.pack, file.offset, file.object_name = row, offset, ""
        with transaction.atomic():
            lease.check()
            StoredFile.objects.bulk_update(files, ["pack", "offset", "object_name"], batch_size=500)
            Pack.objects.filter(pk=row.pk).update(
                bytes=written.bytes, written_at=timezone.now(), replaced=replaced
            )
    except BaseException:
        _forget(row)
        with transaction.atomic():
            lease.check()  # a successor at work explains whatever was missing
        raise


def _members(files: Sequence[StoredFile], contents: Contents) -> Iterator[tuple[bytes, bytes]]:
    for file, content in zip(files, contents.read_rows(files), strict=True):
        _check(file, content)
        yield contents.key_of(file), content


def _read_back(
    name: str, written: packs.Written, files: Sequence[StoredFile], contents: Contents
) -> None:
    """Verify a pack as the store gives it: it will be the only copy."""
    members = [
        packs.Member(contents.key_of(file), offset, file.bytes)
        for file, offset in zip(files, written.offsets, strict=True)
    ]
    read = packs.read(name, members, size=written.bytes)
    for file, content in zip(files, read, strict=True):
        _check(file, content)


def _check(file: StoredFile, content: bytes) -> None:
    if len(content) != file.bytes or hashlib.sha256(content).hexdigest() != file.sha256:
        raise blobs.Damaged("a stored file is not what its row says")


def _forget(row: Pack) -> None:
    """Remove a pack that no file names, and its object; one that files name stays."""
    Pack.objects.filter(pk=row.pk, written_at=None).delete()
    # Somebody else may have removed the row while we were still writing the object.
    if not Pack.objects.filter(pk=row.pk).exists():
        blobs.delete(row.object_name)


def _over() -> QuerySet[Pack]:
    """Return the packs whose files' own objects have been kept for long enough."""
    return Pack.objects.filter(written_at__lte=timezone.now() - KEPT).exclude(replaced=[])


def _remove_replaced(row: Pack) -> None:
    for name in row.replaced:
        blobs.delete(name)
    Pack.objects.filter(pk=row.pk).update(replaced=[])
