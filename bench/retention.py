"""What of a file's use is left: shares over the files that every tool wrote."""

from __future__ import annotations

import contextlib
import datetime
import io
import itertools
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pydicom
from pydicom.datadict import keyword_for_tag

from bench.burned_in import decoded

GEOMETRY = frozenset({
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing",
    "SliceThickness", "SliceLocation", "SpacingBetweenSlices", "Rows", "Columns",
    "NumberOfFrames", "GridFrameOffsetVector", "PatientPosition", "PixelAspectRatio",
    "NominalScannedPixelSpacing",
})  # fmt: skip
VIEW = frozenset({"ViewPosition", "ViewCodeSequence", "PatientOrientation"})
LATERALITY = frozenset({"Laterality", "ImageLaterality", "FrameLaterality"})
KEPT: dict[str, frozenset[str]] = {
    "modality": frozenset({"Modality"}),
    "geometry": GEOMETRY,
    "view": VIEW,
    "laterality": LATERALITY,
}
# UIDs of the standard name classes and syntaxes; they are nobody's.
STANDARD = "1.2.840.10008."

# Where a value stands: tags and numbers of items, down to the attribute and the number of a value.
Where = tuple[int, ...]


@dataclass
class Values:
    """What one file says."""

    kept: dict[str, dict[Where, str]] = field(default_factory=lambda: defaultdict(dict))
    dates: dict[Where, str] = field(default_factory=dict)
    uids: dict[Where, str] = field(default_factory=dict)
    references: set[Where] = field(default_factory=set)
    patient: str = ""
    instance: str = ""


@dataclass
class Share:
    """So many of so many."""

    held: int = 0
    all: int = 0

    def add(self, holds: bool) -> None:
        """Count one more."""
        self.held += holds
        self.all += 1

    def __str__(self) -> str:
        return f"{100 * self.held / self.all:.1f} %" if self.all else "no data"


def values(file: bytes) -> Values:
    """Read a file with pydicom."""
    found = Values()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(io.BytesIO(file), force=True)
        found.patient = str(dataset.get("PatientID", "") or "")
        found.instance = str(dataset.get("SOPInstanceUID", "") or "")
        for where, names, element in _elements(dataset, (), ()):
            texts = _texts(element)
            for kind, keywords in KEPT.items():
                # A view is a code: what stands inside of its sequence belongs to it.
                if keywords & set(names) and any(texts):
                    found.kept[kind][where] = "\\".join(texts)
            for number, text in enumerate(texts):
                place = (*where, number)
                if element.VR in ("DA", "DT") and _day(text):
                    found.dates[place] = text
                elif element.VR == "UI" and text and not text.startswith(STANDARD):
                    found.uids[place] = text
                    if names[-1] == "ReferencedSOPInstanceUID":
                        found.references.add(place)
    return found


def _elements(
    dataset: pydicom.Dataset, where: Where, names: tuple[str, ...]
) -> Iterator[tuple[Where, tuple[str, ...], pydicom.DataElement]]:
    for tag in list(dataset.keys()):
        # What is private has no meaning that could be looked for.
        if tag.is_private or tag.group == 0x7FE0:
            continue
        try:
            element = dataset[tag]
            value = element.value
        except Exception:  # broken on purpose: no value to keep
            continue
        here, called = (*where, int(tag)), (*names, keyword_for_tag(tag))
        if element.VR == "SQ":
            for number, item in enumerate(value):
                yield from _elements(item, (*here, number), called)
        else:
            yield here, called, element


def _texts(element: pydicom.DataElement) -> list[str]:
    value = element.value
    many = value if element.VM > 1 and not isinstance(value, (str, bytes)) else [value]
    texts = []
    for each in many:
        text = "" if each is None else str(each).strip(" \0")
        if element.VR in ("DS", "IS") and text:
            with contextlib.suppress(ValueError):  # what is no number is compared as it is
                text = repr(float(text))  # 0.50 and 0.5 are one number
        texts.append(text)
    return texts


def _day(text: str) -> datetime.date | None:
    try:
        return datetime.datetime.strptime(text[:8], "%Y%m%d").date()
    except ValueError:
        return None


def measure(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, Share]:
    """Compare the files of the same names."""
    old = {name: values(file) for name, file in before.items()}
    new = {name: values(file) for name, file in after.items()}
    shares: dict[str, Share] = {}
    for kind in KEPT:
        shares[kind] = _same(old, new, lambda each, kind=kind: each.kept[kind])  # type: ignore[misc]
    shares.update(_pixels(before, after))
    shares.update(_dates(old, new))
    shares.update(_uids(old, new))
    return shares


def _same(
    old: Mapping[str, Values], new: Mapping[str, Values], of: Callable[[Values], dict[Where, str]]
) -> Share:
    share = Share()
    for name, file in old.items():
        after = of(new[name])
        for where, text in of(file).items():
            share.add(after.get(where) == text)
    return share


def _pixels(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, Share]:
    whole, samples = Share(), Share()
    for name, file in before.items():
        pixels = decoded(file)
        if pixels is None:
            continue
        out = decoded(after[name])
        if out is None or out.shape != pixels.shape:
            whole.add(False)
            samples.all += pixels.size
            continue
        same = (out == pixels) | ((out != out) & (pixels != pixels))  # not-a-number stays so
        whole.add(bool(same.all()))
        samples.held += int(same.sum())
        samples.all += pixels.size
    return {"pictures with every sample unchanged": whole, "samples unchanged": samples}


def _dates(old: Mapping[str, Values], new: Mapping[str, Values]) -> dict[str, Share]:
    """Pairs of different days of one patient that are as many days apart as they were.

    A day more or less is allowed: a tool that moves the time of day moves some days over midnight.
    """
    unchanged, there, kept, of_there = Share(), Share(), Share(), Share()
    days: dict[str, dict[datetime.date, set[datetime.date | None]]] = defaultdict(dict)
    for name, file in old.items():
        for where, text in file.dates.items():
            out = new[name].dates.get(where, "")
            unchanged.add(out[:8] == text[:8])
            there.add(bool(out))
            first = _day(text)
            assert first is not None
            # Files without a patient's number may be of different patients.
            patient = days[file.patient or f"file {name}"]
            patient.setdefault(first, set()).add(_day(out))
    for patient in days.values():
        for (one, ones), (other, others) in itertools.combinations(sorted(patient.items()), 2):
            pairs = list(itertools.product(ones, others))
            same = all(_as_far(other - one, pair) for pair in pairs)
            kept.add(same)
            if not any(None in pair for pair in pairs):
                of_there.add(same)
    return {
        "dates still there, moved or not": there,
        "intervals between dates": kept,
        "the same, where both are still there": of_there,
        "dates left as they were (less is better)": unchanged,
    }


def _as_far(
    before: datetime.timedelta, after: tuple[datetime.date | None, datetime.date | None]
) -> bool:
    first, last = after
    if first is None or last is None or first == last:
        return False
    return abs((last - first) - before) <= datetime.timedelta(days=1)


def _uids(old: Mapping[str, Values], new: Mapping[str, Values]) -> dict[str, Share]:
    """UIDs that stand in several places, and references to files that are there."""
    became: dict[str, list[str]] = defaultdict(list)
    files: dict[str, set[str]] = defaultdict(set)
    unchanged = Share()
    for name, file in old.items():
        for where, uid in file.uids.items():
            out = new[name].uids.get(where, "")
            became[uid].append(out)
            files[uid].add(name)
            unchanged.add(out == uid)
    taken: dict[str, set[str]] = defaultdict(set)
    for uid, outs in became.items():
        for out in outs:
            taken[out].add(uid)
    consistent = Share()
    for uid, outs in became.items():
        if len(files[uid]) > 1:
            consistent.add(bool(outs[0]) and len(set(outs)) == 1 and len(taken[outs[0]]) == 1)
    instances = {file.instance: name for name, file in old.items() if file.instance}
    resolved = Share()
    for name, file in old.items():
        for where in file.references:
            target = instances.get(file.uids[where])
            if target is not None:
                out = new[name].uids.get(where, "")
                resolved.add(bool(out) and out == new[target].instance)
    return {
        "UIDs of several files consistent": consistent,
        "references to files of the set resolved": resolved,
        "UIDs left as they were (less is better)": unchanged,
    }
