"""What an uploaded archive may hold, decided from its list of members before it is unpacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policies.document import Policy
from policies.errors import Invalid, _
from policies.names import path_fault, path_key, shown

FILE, DIRECTORY, LINK, OTHER = "file", "directory", "link", "other"
KINDS = (FILE, DIRECTORY, LINK, OTHER)

# Files that every small archive of text compresses to almost nothing; the ratio says nothing yet.
_RATIO_FROM_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """One entry as the archive declares it.

    ``bytes`` unpacked and ``compressed`` packed; ``kind`` is file, directory, link (symbolic or
    hard) or other (device, pipe, socket, encrypted).
    """

    name: str
    bytes: int
    compressed: int
    kind: str = FILE


def check_archive(members: Sequence[ArchiveMember], policy: Policy) -> tuple[str, ...]:
    """Return the names of the files, or raise Invalid for the first thing against the rules.

    The sizes are what the archive claims, so whoever unpacks must stop at the same limits.
    """
    limits = policy.submission.archive
    if len(members) > limits.members:
        raise Invalid(
            _("The archive holds more than {most} entries."),
            field="archive",
            code="archive.members",
            most=limits.members,
        )
    seen: dict[str, str] = {}
    files: list[str] = []
    total = packed = 0
    for member in members:
        name = member.name[:-1] if member.kind == DIRECTORY else member.name
        if member.kind not in (FILE, DIRECTORY):
            raise _fault(
                member, _("The archive holds a link or a device ({name})."), "archive.kind"
            )
        fault = path_fault(name, length=limits.name_length, depth=limits.depth)
        if fault is not None:
            raise Invalid(fault, field="archive", code="archive.path", member=shown(member.name))
        if member.bytes < 0 or member.compressed < 0 or member.bytes > limits.member_bytes:
            raise _fault(member, _("The file {name} is too large."), "archive.size")
        key = path_key(name)
        if key in seen and not (member.kind == DIRECTORY and seen[key] == DIRECTORY):
            raise _fault(
                member,
                _("The archive holds {name} twice, or two spellings of it."),
                "archive.twice",
            )
        seen[key] = member.kind
        total += member.bytes
        packed += member.compressed
        if member.kind == FILE:
            files.append(name)
    _check_totals(total, packed, policy)
    _check_files_are_no_folders(files)
    return tuple(files)


def _fault(member: ArchiveMember, message: str, code: str) -> Invalid:
    return Invalid(message, field="archive", code=code, name=shown(member.name))


def _check_totals(total: int, packed: int, policy: Policy) -> None:
    limits = policy.submission.archive
    if packed > limits.bytes or total > limits.unpacked_bytes:
        raise Invalid(
            _("The archive is too large: at most {packed} bytes packed and {unpacked} unpacked."),
            field="archive",
            code="archive.total",
            packed=limits.bytes,
            unpacked=limits.unpacked_bytes,
        )
    if total > _RATIO_FROM_BYTES and total > packed * limits.ratio:
        raise Invalid(
            _("The archive unpacks to more than {ratio} times its size."),
            field="archive",
            code="archive.ratio",
            ratio=limits.ratio,
        )


def _check_files_are_no_folders(files: Sequence[str]) -> None:
    keys = {path_key(name) for name in files}
    for name in files:
        parts = path_key(name).split("/")
        if any("/".join(parts[:end]) in keys for end in range(1, len(parts))):
            raise Invalid(
                _("The archive uses one name for a file and for a folder ({name})."),
                field="archive",
                code="archive.twice",
                name=shown(name),
            )
