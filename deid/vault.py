"""Keyed pseudonyms without a table, and the encrypted crosswalk where re-linking is approved.

Every pseudonym is HMAC-SHA-256 of a domain and the identifier under the project's key, so two
workers, two runs and two files agree without talking, and nobody without the key can guess one
from a list of patient numbers.
"""

from __future__ import annotations

import csv
import hmac
import io
import json
import os
import secrets
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from deid.output import FULL, PART_PREFIX, PART_SUFFIX, DiskFull
from policies.errors import Conflict, Invalid, _

KEY_BYTES = 32
SHIFT_DAYS = 3650
_MAGIC = b"GBXWALK1"


# A device may be given for a key, and have no end.
_KEY_FILE_BYTES = 1 << 12


def write_key(path: Path) -> None:
    """Write a new random key as 64 hex digits, readable by the owner only; never over a file."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Conflict(_("The key file exists already; a key is never overwritten.")) from None
    except OSError:
        raise Invalid(_("The key file cannot be written there."), field="FILE") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as handle:
        handle.write(secrets.token_hex(KEY_BYTES) + "\n")


def read_key(path: Path, field: str = "--key") -> bytes:
    """Read a key file; raises :class:`Invalid` when it does not hold 64 hex digits."""
    try:
        with path.open("rb") as handle:
            text = handle.read(_KEY_FILE_BYTES).decode("ascii").strip()
        key = bytes.fromhex(text)
    except (OSError, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise Invalid(
            _("The key file must hold 64 hex digits; make one with: glovebox deid keygen FILE"),
            field=field,
        )
    return key


def write_private(path: Path, data: bytes) -> None:
    """Write a file of secrets whole or not at all, readable by the owner only."""
    part = path.with_name(f"{PART_PREFIX}{secrets.token_hex(8)}{PART_SUFFIX}")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull from None
        raise Invalid(_("The file cannot be written there."), field="FILE") from None


class Pseudonyms:
    """The mapping of one project: equal identifiers give equal pseudonyms under one key."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise Invalid(_("A pseudonym key has 32 bytes."), field="key")
        self._key = key
        self.uid = lru_cache(maxsize=1 << 16)(self._uid)
        self.patient = lru_cache(maxsize=1 << 10)(self._patient)
        self.date_shift = lru_cache(maxsize=1 << 10)(self._date_shift)

    def digest(self, domain: str, value: str) -> bytes:
        """32 bytes for an identifier of one domain (patient, uid, accession, ...)."""
        return hmac.digest(
            self._key, f"{domain}\0{value}".encode("utf-8", "surrogatepass"), "sha256"
        )

    def _patient(self, identifier: str) -> str:
        """The pseudonym of a patient number: ``P`` and 15 base-32 letters (75 bits)."""
        return "P" + _base32(self.digest("patient", identifier.strip()), 15)

    def accession(self, number: str) -> str:
        """The pseudonym of an accession, order or study number: 15 letters fit an SH."""
        return "A" + _base32(self.digest("accession", number.strip()), 14)

    def device(self, serial: str) -> str:
        """The pseudonym of a device's serial number or name."""
        return "D" + _base32(self.digest("device", serial.strip()), 14)

    def _uid(self, uid: str) -> str:
        """A UID under 2.25 with 128 bits of the digest (PS3.5 annex B.2)."""
        return "2.25." + str(int.from_bytes(self.digest("uid", uid.strip())[:16], "big"))

    def _date_shift(self, patient: str) -> int:
        """Whole days, between -3650 and -1, by which all dates of a patient move."""
        number = int.from_bytes(self.digest("shift", patient.strip())[:8], "big")
        return -1 - number % SHIFT_DAYS

    def name(self, domain: str, value: str) -> str:
        """16 hex digits to name an output by."""
        return self.digest(domain, value)[:8].hex()


def _base32(digest: bytes, length: int) -> str:
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
    number = int.from_bytes(digest, "big")
    text = []
    for _place in range(length):
        number, place = divmod(number, 32)
        text.append(letters[place])
    return "".join(text)


class Crosswalk:
    """Old and new identifiers, kept in memory and written encrypted (AES-256-GCM).

    ``key`` is another key than the pseudonyms', held elsewhere.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self.entries: dict[str, dict[str, str]] = {"patient": {}, "uid": {}, "accession": {}}

    def add(self, entries: Mapping[str, Mapping[str, str]]) -> None:
        """Take in mappings by kind; equal ones are one."""
        for kind, mapping in entries.items():
            known = self.entries.setdefault(kind, {})
            # An empty number is nobody's: such files are told apart by their studies.
            known.update((old, new) for old, new in mapping.items() if old)

    def save(self, path: Path) -> None:
        """Write the file anew, atomically."""
        nonce = secrets.token_bytes(12)
        plain = json.dumps(self.entries, sort_keys=True).encode()
        write_private(path, _MAGIC + nonce + self._cipher.encrypt(nonce, plain, _MAGIC))

    @classmethod
    def load(cls, path: Path, key: bytes) -> Crosswalk:
        """Open a file; raises :class:`Invalid` for another key or changed bytes."""
        walk = cls(key)
        try:
            data = path.read_bytes()
        except OSError:
            raise Invalid(_("The crosswalk cannot be read."), field="--crosswalk") from None
        try:
            if data[:8] != _MAGIC:
                raise InvalidTag
            plain = walk._cipher.decrypt(data[8:20], data[20:], _MAGIC)
        except InvalidTag:
            raise Invalid(
                _("The crosswalk does not open with this key."), field="--crosswalk-key"
            ) from None
        walk.add(json.loads(plain))
        return walk

    def export(self, kind: str) -> str:
        """One mapping as CSV with the columns ``id_old,id_new`` (patient or uid)."""
        sheet = io.StringIO()
        writer = csv.writer(sheet, lineterminator="\n")
        writer.writerow(["id_old", "id_new"])
        writer.writerows(sorted(self.entries.get(kind, {}).items()))
        return sheet.getvalue()
