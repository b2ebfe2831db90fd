"""Clean one value by its VR. Every function takes and gives bytes without a patient's words."""

from __future__ import annotations

import contextlib
import datetime
import re
import struct
import warnings
from functools import cache, lru_cache

from pydicom import charset
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_has_tag, dictionary_VM

from deid.dicom import text as free_text
from deid.dicom.stream import Buffer
from deid.dicom.wordlike import reads_as_text

GROUPED_AGE = b"090Y"
_DAYS = {"D": 1.0, "W": 7.0, "M": 30.4375, "Y": 365.25}
_DECIMAL = re.compile(rb"[ \0]*(?:[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)?[ \0]*")
_INTEGER = re.compile(rb"[ \0]*(?:[+-]?\d+)?[ \0]*")
_CODE = re.compile(r"[A-Z0-9_ ]{0,16}\Z")
_CODE_VALUE = re.compile(
    r"(?:[A-Z]{1,3}-)?[A-Z]?[0-9A-F]{2,12}(?:-[0-9])?\Z|[A-Za-z0-9{}./%^_-]{1,8}\Z"
)
_UID = re.compile(r"[0-9.]{1,64}\Z")
_DAY = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\Z")
_DATE = re.compile(r"((?:1[89]|20)\d\d)[.\-/]?(\d{2})[.\-/]?(\d{2})\Z")
# Six figures that are no time of day may be a day, or a number of the patient.
_HOUR, _MINUTE, _SECOND = r"(?:[01]\d|2[0-3])", r"[0-5]\d", r"(?:[0-5]\d|60)(?:\.\d{1,6})?"
_DATE_TIME = re.compile(
    rf"((?:1[89]|20)\d\d)(\d{{2}})?(\d{{2}})?({_HOUR}(?:{_MINUTE}(?:{_SECOND})?)?)?([+-]\d{{4}})?\Z"
)
_TIME = re.compile(rf"{_HOUR}:?(?:{_MINUTE}:?(?:{_SECOND})?)?\Z")
# Values of these are enumerated by the standard: the words of a name never make them go.
_DELIMITERS = {ord("\\"), ord("^"), ord("=")}
ENUMERATED = frozenset({0x00080060, 0x00100040, 0x00185100, 0x00185101, 0x00200060, 0x00200062})
PUBLIC_SCHEMES = frozenset(
    {
        "DCM", "SCT", "SRT", "SNM3", "99SDM", "LN", "UCUM", "RADLEX", "FMA", "UMLS", "NCIt", "BI",
        "MDC", "I10", "I9C", "ICDO3", "C4", "HL7", "ISO639_1", "ISO3166_1", "UNS", "NEU", "UBERON",
        "MSH", "RXNORM", "DCMUID", "ACR", "BARI", "CD8", "SNM", "MAYO", "IBSI", "PUBCHEM_CID",
    }
)  # fmt: skip


def words(value: Buffer, encodings: tuple[str, ...]) -> str:
    """A text value as a string, by the data set's character sets (PS3.5 section 6.1)."""
    raw = bytes(value)
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii").strip(" \0")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return str(charset.decode_bytes(raw, list(encodings), _DELIMITERS)).strip(" \0")
    except (LookupError, ValueError, TypeError, AttributeError):
        return raw.decode("latin-1").strip(" \0")


def guesses(value: Buffer) -> list[str]:
    """What a mislabelled text may mean: for names, so that they are known in other fields."""
    raw = bytes(value)
    found = []
    for encoding in ("utf-8", "cp949", "shift_jis", "gb18030"):
        try:
            found.append(raw.decode(encoding))
        except ValueError:
            continue
    return found


def is_number(value: Buffer, vr: str, own: frozenset[str]) -> bool:
    """Whether a DS or IS value holds numbers only, and none of the patient's own."""
    pattern, longest = (_INTEGER, 12) if vr == "IS" else (_DECIMAL, 24)
    for part in bytes(value).split(b"\\"):
        # The length first: a pattern is not tried on a megabyte of digits.
        if len(part) > longest or pattern.fullmatch(part) is None:
            return False
        plain = part.strip(b" \0+-").decode("ascii")
        if len(plain) >= 4 and own and plain in own:
            return False
        if is_a_persons_number(plain) or (len(plain) >= 6 and _hides_a_number(plain, own)):
            return False
    return True


def _hides_a_number(decimal: str, own: frozenset[str]) -> bool:
    """Whether a fraction or an exponent only dresses a person's number: 19550607.0, 7.712345e6."""
    mantissa, _e, exponent = decimal.lower().partition("e")
    whole, _point, fraction = mantissa.partition(".")
    if (whole + fraction).lstrip("0") in own and len(whole + fraction) >= OWN_DIGITS:
        return True
    if exponent:
        size = float(decimal)
        whole = str(round(size)) if size < 1e16 else ""
    return len(whole) >= OWN_DIGITS and (whole in own or is_a_persons_number(whole))


def is_a_persons_number(digits: str) -> bool:
    """Whether whole digits are those of a day, a telephone or a register, not of a measure.

    No device measures ten figures exactly; a dose in becquerels ends in zeros.
    """
    if not digits.isdigit():
        return False
    return len(digits.rstrip("0")) >= 10 or bool(
        (len(digits) == 8 and _DAY.match(digits)) or (len(digits) >= 9 and digits.startswith("0"))
    )


@lru_cache(maxsize=1 << 13)
def _code_words(value: bytes) -> tuple[tuple[bytes, tuple[str, ...]], ...]:
    """The values of a code string that are of known words, each with its words."""
    result = []
    for part in value.decode("ascii", "replace").split("\\"):
        stripped = part.strip(" \0")
        found = free_text.words_of(stripped.replace("_", " "))
        if _CODE.match(stripped) and all(free_text.is_known_word(word) for word in found):
            result.append((stripped.encode(), found))
        else:
            result.append((b"", ()))
    return tuple(result)


def code(tag: int, value: Buffer, own: frozenset[str]) -> bytes:
    """A code string with the values gone that are not of known words."""
    kept = []
    for part, found in _code_words(bytes(value)):
        enumerated = tag in ENUMERATED or tag >> 16 == 0x28
        theirs = not enumerated and any(word in own for word in found if len(word) >= 4)
        kept.append(b"" if theirs else part)
    return b"\\".join(kept)


def code_value(value: Buffer, own: frozenset[str]) -> bytes:
    """A code's value, if it has the form of one and is none of the patient's own numbers."""
    text = bytes(value).decode("ascii", "replace").strip(" \0")
    if not _CODE_VALUE.match(text) or text.lower() in own or is_a_persons_number(text):
        return b""
    parts = re.findall(r"[^\W_]+", text)
    if "".join(parts).lower() in own or any(
        part.lower() in own and len(part) >= 3 and not free_text.is_known_word(part)
        for part in parts
    ):
        return b""
    # Codes of letters alone are short, or words (UCUM's units stand in braces); names are longer.
    if any(
        len(word) > 3 and word.isalpha() and not free_text.is_known_word(word) for word in parts
    ):
        return b""
    return text.encode()


def scheme(value: Buffer) -> bytes:
    """A coding scheme's designator: a public one, or the neutral private one."""
    text = bytes(value).decode("ascii", "replace").strip(" \0")
    return text.encode() if text in PUBLIC_SCHEMES else b"99LOCAL" if text else b""


def is_registered(uid: str) -> bool:
    """Whether a UID is one that DICOM itself registers (PS3.6 annex A)."""
    return uid in UID_dictionary


def has_own_part(value: Buffer, own: frozenset[str]) -> bool:
    """Whether a part of a UID is a number of the patient's own."""
    parts = re.split(r"\D+", bytes(value).decode("ascii", "replace"))
    return any(len(part) >= OWN_DIGITS and part in own for part in parts)


def is_uid(value: Buffer) -> bool:
    """Whether a value is a list of UIDs."""
    text = bytes(value).decode("ascii", "replace")
    return all(not part.strip(" \0") or _UID.match(part.strip(" \0")) for part in text.split("\\"))


def age(value: Buffer) -> bytes:
    """An age string with those over 89 years as one group (PS3.5 AS; HIPAA 164.514(b)(2)(i)(C))."""
    text = bytes(value).decode("ascii", "replace").strip(" \0")
    if not re.fullmatch(r"\d{3}[DWMY]", text):
        return b""
    years = int(text[:3]) * _DAYS[text[3]] / _DAYS["Y"]
    return GROUPED_AGE if years >= free_text.OLDEST_AGE + 1 else text.encode()


def date(value: Buffer, vr: str, days: int) -> bytes:
    """Dates moved by whole days, times of day kept; what is not a date becomes empty."""
    parts = [part.strip(" \0") for part in bytes(value).decode("ascii", "replace").split("\\")]
    return "\\".join(_moved(part, vr, days) for part in parts).encode()


@lru_cache(maxsize=1 << 12)
def _moved(text: str, vr: str, days: int) -> str:
    if not text:
        return ""
    if vr == "TM":
        return text if _TIME.match(text) else ""
    found = (_DATE if vr == "DA" else _DATE_TIME).match(text)
    if found is None:
        return ""
    try:
        moved = datetime.date(int(found[1]), int(found[2] or 1), int(found[3] or 1))
        moved += datetime.timedelta(days=days)
    except (ValueError, OverflowError):
        return ""
    written = f"{moved.year:04d}{moved.month:02d}{moved.day:02d}"
    if vr == "DA":
        return written
    # A date that says only the year or month says no more after it has moved.
    written = written[: 4 + 2 * ((found[2] is not None) + (found[3] is not None))]
    return written + (found[4] or "") + (found[5] or "")


@cache
def _most_values(tag: int) -> int:
    """The highest number of values that the dictionary allows, 0 for any number (PS3.6 VM)."""
    try:
        multiplicity = dictionary_VM(tag)
    except KeyError:
        return 0 if tag >> 16 & 1 else 1  # of private elements only their vendor knows
    last = multiplicity.split(" ")[0].split("-")[-1]
    return int(last) if last.isdigit() else 0


def is_binary(tag: int, value: Buffer, vr: str, own: frozenset[str]) -> bool:
    """Whether a binary value has the length of its numbers and reads as none of the own words."""
    size = BINARY_SIZES.get(vr, 0)
    if size:
        most = _most_values(tag)
        if len(value) % size or (most and len(value) > most * size):
            return False
        if vr == "AT":
            return all(_is_tag(number) for number in struct.iter_unpack("<HH", bytes(value)))
        # Eight letters as one number are beyond any measure, and so are four as a whole one.
        if len(value) >= (6 if size == 2 else 8) and _LETTERS.match(bytes(value)):
            return False
        if vr in ("UL", "SL") and _FOUR_LETTERS.match(bytes(value)):
            return False
        if vr in _NUMBERS and len(value) <= _FEW_BYTES and _has_own_number(bytes(value), vr, own):
            return False
    if len(value) <= _SEARCHED_BYTES:
        if len(value) >= _OWN_BYTES and any(word in bytes(value) for word in _written(own)):
            return False
        if len(value) > 8 and reads_as_text(value):
            return False
    if len(value) <= 8 or len(value) > _SEARCHED_BYTES:
        return True
    raw = bytes(value).lower()
    plain = raw.replace(b"\0", b"")
    return not any(
        word.encode() in raw or word.encode() in plain for word in own if len(word) >= _OWN_LENGTH
    )


@lru_cache(maxsize=256)
def _written(own: frozenset[str]) -> tuple[bytes, ...]:
    """The patient's words that are not in Latin letters as bytes: as 16-bit numbers too."""
    found = set()
    for word in own:
        for encoding in () if word.isascii() else ("utf-8", "cp949", "utf-16-le", "utf-16-be"):
            with contextlib.suppress(UnicodeError):
                found.add(word.encode(encoding))
    return tuple(sorted(each for each in found if len(each) >= _OWN_BYTES))


def _has_own_number(value: bytes, vr: str, own: frozenset[str]) -> bool:
    """Whether a number is, digit by digit, a day or a number of the patient's own."""
    for (number,) in struct.iter_unpack(_NUMBERS[vr], value):
        if not 10 ** (OWN_DIGITS - 1) <= number < 1e16 or number % 1:
            continue
        digits = str(int(number))
        if digits in own or (len(digits) == 8 and _DAY.match(digits)):
            return True
        # Of eight digits a short float holds seven.
        if vr in ("FL", "OF") and any(
            struct.unpack("<f", struct.pack("<f", float(word)))[0] == number
            for word in own
            if word.isascii() and word.isdigit() and OWN_DIGITS <= len(word) <= 16
        ):
            return True
    return False


_LETTERS = re.compile(rb"(?=.*[A-Za-z0-9]{3})[A-Za-z0-9^ ,.=-]+\0*\Z", re.DOTALL)
_FOUR_LETTERS = re.compile(rb"[A-Za-z]{4}\Z")


def _is_tag(number: tuple[int, int]) -> bool:
    """Whether a group and an element are those of an attribute, not letters."""
    group, element = number
    if group & 1:
        # A creator's block says only where it lies; letters lie where no vendor writes.
        return 0x10 <= element >> 8 <= 0xFF and group <= 0x20FF
    return dictionary_has_tag((group << 16) | element)


BINARY_SIZES = {
    "US": 2, "SS": 2, "AT": 4, "UL": 4, "SL": 4, "FL": 4, "OF": 4, "OL": 4, "FD": 8, "OD": 8,
    "SV": 8, "UV": 8, "OV": 8,
}  # fmt: skip
_NUMBERS = {
    "UL": "<I", "SL": "<i", "FL": "<f", "OF": "<f", "FD": "<d", "OD": "<d", "SV": "<q", "UV": "<Q",
}  # fmt: skip
_FEW_BYTES = 64
OWN_DIGITS = free_text.OWN_DIGITS
_SEARCHED_BYTES = 16 << 20
_OWN_BYTES = 6
_OWN_LENGTH = 5
DUMMIES = {
    "DA": b"19000101", "DT": b"19000101000000", "TM": b"000000", "PN": b"Anonymous",
    "AS": b"000Y", "CS": b"UNKNOWN", "DS": b"0", "IS": b"0", "AE": b"REMOVED", "SH": b"REMOVED",
    "LO": b"REMOVED", "ST": b"REMOVED", "LT": b"REMOVED", "UT": b"REMOVED", "UC": b"REMOVED",
    "UR": b"removed:", "US": bytes(2), "SS": bytes(2), "UL": bytes(4), "SL": bytes(4),
    "FL": bytes(4), "FD": bytes(8),
}  # fmt: skip
LONGEST = {"SH": 16, "LO": 64, "ST": 1024, "LT": 10240}
