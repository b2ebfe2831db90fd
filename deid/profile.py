"""A profile: what a dataset's owner chose within PS3.15 Annex E, as a small TOML document."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword

from deid.dicom import regions
from policies.errors import Invalid, _

# Options of PS3.15 table E.1-1 with the codes of PS3.16 CID 7050.
OPTION_CODES: Mapping[str, tuple[str, str]] = {
    "clean_pixel_data": ("113101", "Clean Pixel Data Option"),
    "clean_recognizable_visual_features": ("113102", "Clean Recognizable Visual Features Option"),
    "clean_graphics": ("113103", "Clean Graphics Option"),
    "clean_structured_content": ("113104", "Clean Structured Content Option"),
    "clean_descriptors": ("113105", "Clean Descriptors Option"),
    "retain_full_dates": (
        "113106",
        "Retain Longitudinal Temporal Information Full Dates Option",
    ),
    "retain_modified_dates": (
        "113107",
        "Retain Longitudinal Temporal Information Modified Dates Option",
    ),
    "retain_patient_characteristics": ("113108", "Retain Patient Characteristics Option"),
    "retain_device": ("113109", "Retain Device Identity Option"),
    "retain_uids": ("113110", "Retain UIDs Option"),
    "retain_safe_private": ("113111", "Retain Safe Private Option"),
    "retain_institution": ("113112", "Retain Institution Identity Option"),
}
CONFLICTS = (("retain_full_dates", "retain_modified_dates"),)
OVERRIDE_ACTIONS = frozenset("XZDKUCP")
COLUMN_KINDS = frozenset(
    {"file", "subject", "identifier", "date", "keep", "text", "polygon", "items"}
)
_KEYS = frozenset(
    {
        "name", "description", "options", "overrides", "constants", "keep_only", "modalities",
        "head_volumes", "safe_private", "tables", "photos", "regions",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Profile:
    """A checked profile. ``document`` is what it was made from, for a worker or a record."""

    name: str
    options: frozenset[str]
    overrides: Mapping[int, str]
    constants: Mapping[int, str]
    keep_only: frozenset[int] | None
    modalities: frozenset[str]
    hold_head_volumes: bool
    safe_private: Mapping[str, frozenset[int]]
    tables: Mapping[str, Mapping[str, str]]
    photos: Mapping[str, bool]
    devices: tuple[regions.Layout, ...]
    outside_ultrasound: bool
    document: Mapping[str, Any]

    def has(self, option: str) -> bool:
        """Whether an option of PS3.15 is chosen."""
        return option in self.options

    @property
    def digest(self) -> str:
        """SHA-256 of the document: two runs with one digest do the same to the same file."""
        text = json.dumps(self.document, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


def shipped() -> tuple[str, ...]:
    """The names of the profiles that come with the package."""
    folder = resources.files("deid.profiles")
    return tuple(
        sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))
    )


def load(name_or_path: str) -> Profile:
    """A shipped profile by its name, or one from a TOML file."""
    if name_or_path in shipped():
        text = resources.files("deid.profiles").joinpath(f"{name_or_path}.toml").read_text("utf-8")
    else:
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise Invalid(
                _("There is no such profile. Shipped are {names}; anything else is a TOML file."),
                field="--profile",
                names=", ".join(shipped()),
            ) from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid(
            _("The profile is not TOML: {error}"), field="--profile", error=str(error)
        ) from None
    return from_document(document)


def from_document(document: Mapping[str, Any]) -> Profile:
    """Check a profile's document; raises :class:`Invalid` naming the field that is wrong."""
    for key in document:
        if key not in _KEYS:
            raise Invalid(_("The profile does not know this setting."), field=str(key))
    options = frozenset(_strings(document, "options"))
    for option in sorted(options - set(OPTION_CODES)):
        raise Invalid(_("{option} is not an option that can be chosen."), field="options",
                      option=option)  # fmt: skip
    for one, other in CONFLICTS:
        if one in options and other in options:
            raise Invalid(_("{one} and {other} exclude each other."), field="options",
                          one=one, other=other)  # fmt: skip
    safe = {
        str(creator): frozenset(_private(code) for code in codes)
        for creator, codes in _table(document, "safe_private").items()
    }
    if bool(safe) != ("retain_safe_private" in options):
        raise Invalid(
            _("retain_safe_private and the list of private elements to keep belong together."),
            field="safe_private",
        )
    overrides: dict[int, str] = {}
    for keyword, action in _table(document, "overrides").items():
        if action not in OVERRIDE_ACTIONS:
            raise Invalid(_("An override is one of X Z D K U C P."), field=f"overrides.{keyword}")
        overrides[_tag(keyword, "overrides")] = str(action)
    keep = document.get("keep_only")
    head = document.get("head_volumes", "hold")
    if head not in ("hold", "allow"):
        raise Invalid(_("Head volumes are held or allowed."), field="head_volumes")
    tables: dict[str, dict[str, str]] = {}
    for pattern, columns in _table(document, "tables").items():
        for column, kind in columns.items():
            if kind not in COLUMN_KINDS:
                raise Invalid(
                    _("A column is one of {kinds}."),
                    field=f"tables.{pattern}.{column}",
                    kinds=", ".join(sorted(COLUMN_KINDS)),
                )
        tables[str(pattern)] = dict(columns)
    photos = {"text": True, "faces": True, "plates": True}
    for name, value in _table(document, "photos").items():
        if name not in photos or not isinstance(value, bool):
            raise Invalid(_("Photos have text, faces and plates, true or false."), field="photos")
        photos[name] = value
    places = _table(document, "regions")
    for name, value in places.items():
        if name not in ("ultrasound", "shipped", "device"):
            raise Invalid(_("The profile does not know this setting."), field=f"regions.{name}")
        if name != "device" and not isinstance(value, bool):
            raise Invalid(_("This is true or false."), field=f"regions.{name}")
    devices = regions.layouts(places.get("device", []))
    if places.get("shipped", True):
        devices = (*regions.shipped(), *devices)
    return Profile(
        name=str(document.get("name", "custom")),
        options=options,
        overrides=overrides,
        constants={
            _tag(keyword, "constants"): str(value)
            for keyword, value in _table(document, "constants").items()
        },
        keep_only=None
        if keep is None
        else frozenset(_tag(keyword, "keep_only") for keyword in _strings(document, "keep_only")),
        modalities=frozenset(_strings(document, "modalities")),
        hold_head_volumes=head == "hold",
        safe_private=safe,
        tables=tables,
        photos=photos,
        devices=devices,
        outside_ultrasound=bool(places.get("ultrasound", True)),
        document=document,
    )


def _strings(document: Mapping[str, Any], field: str) -> Sequence[str]:
    value = document.get(field, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Invalid(_("This must be a list of names."), field=field)
    return value


def _table(document: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = document.get(field, {})
    if not isinstance(value, dict):
        raise Invalid(_("This must be a table."), field=field)
    return value


def _tag(keyword: str, field: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise Invalid(_("The DICOM dictionary has no such keyword."), field=f"{field}.{keyword}")
    return int(tag)


def _private(code: object) -> int:
    """``0019xx0C`` as 0x0019000C: the block is found by its creator."""
    text = str(code)
    if len(text) == 8 and text[4:6] == "xx":
        try:
            tag = int(text[:4] + "00" + text[6:], 16)
        except ValueError:
            tag = 0
        if (tag >> 16) & 1:
            return tag
    raise Invalid(_("A private element is written as 0019xx0C."), field="safe_private")
