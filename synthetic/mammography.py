"""A mammography screening set of phantoms, as a hospital would hand it over.

Four views a patient, lesions in a third of the patients, labels at the level of patient, breast
and view, a clinical table and polygons; on request with identifiers planted wherever they hide.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthetic.identity import Identity, invent_identity
from synthetic.lettering import burn, hangul_fonts, letter, measure, open_font
from synthetic.mammography_header import (
    DEVICES,
    Exposure,
    Planter,
    build_header,
    plant_header,
)
from synthetic.phantom import MAXIMUM, Phantom, draw_anatomy, draw_phantom
from synthetic.planted import Planted
from synthetic.splits import split_subjects

VIEWS = (("R", "CC"), ("L", "CC"), ("R", "MLO"), ("L", "MLO"))
BENIGN_SHARE = 0.4
BURNED_SHARE = 0.15
"""Share of images with text burned in; at least one of every set."""

LABEL_COLUMNS = (
    "file", "subject", "label", "split", "patient_label", "breast_label", "view", "laterality",
    "birads",
)  # fmt: skip
CLINICAL_COLUMNS = (
    "grp", "recvid", "manufacturer", "manufacturerModelName", "both1", "left1", "spr_loca_cmnt",
    "invs_size_vl", "htlg_type_cmnt", "path_t_stag",
)  # fmt: skip


@dataclass(frozen=True)
class Patient:
    """One patient of the set: group normal, benign or cancer, and lesions of each side."""

    place: int
    group: str
    lesions: Mapping[str, int]
    device: tuple[str, str]
    birads: Mapping[str, str]

    @property
    def label(self) -> str:
        """The label of the patient as a whole."""
        return "normal" if self.group == "normal" else "lesion"


def write_phantoms(
    target: Path,
    *,
    patients: int,
    seed: int,
    identifiers: bool,
    shape: tuple[int, int] = (320, 256),
) -> list[Planted]:
    """Write a source tree into the new folder ``target`` and say what was planted in it.

    ``dataset.toml``, ``labels.csv``, ``clinical.csv``, ``annotations/*.json`` and a folder a
    patient with four DICOM files (12 bits in 16, ``shape`` rows and columns). With
    ``identifiers`` the files look as they leave a hospital: names, numbers and dates in headers,
    nested and private elements, descriptions, file and folder names and, on some images, burned
    into the pixels. Without them subjects are numbers and nothing is planted. The same ``seed``
    writes the same bytes, given the same installed fonts.
    """
    if patients < 1:
        raise ValueError("At least one patient is needed.")
    target.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    writer = _Writer(target, seed, identifiers, shape)
    people = _draw_patients(patients, rng)
    taken: set[str] = set()
    identities = {each.place: invent_identity(rng, taken) for each in people}
    subjects = {
        each.place: identities[each.place].number if identifiers else f"{10001 + each.place}"
        for each in people
    }
    splits = split_subjects({subjects[each.place]: each.label for each in people}, rng)
    for each in people:
        subject = subjects[each.place]
        writer.add(each, identities[each.place], subject, splits[subject], rng)
    writer.finish()
    return writer.planted


def _draw_patients(count: int, rng: np.random.Generator) -> list[Patient]:
    with_lesion = set(rng.permutation(count)[: max(1, round(count / 3))].tolist())
    people = []
    for place in range(count):
        sides = {"R": 0, "L": 0}
        birads = {side: str(rng.choice(["1", "2"], p=[0.7, 0.3])) for side in sides}
        group = "normal"
        if place in with_lesion:
            group = "benign" if rng.random() < BENIGN_SHARE else "cancer"
            affected = ["R", "L"] if rng.random() < 0.25 else [str(rng.choice(["R", "L"]))]
            for side in affected:
                sides[side] = int(rng.integers(1, 3))
                grades = ["3", "4a", "4b"] if group == "benign" else ["4b", "4c", "5"]
                birads[side] = str(rng.choice(grades))
        device = DEVICES[int(rng.integers(len(DEVICES)))]
        people.append(Patient(place, group, sides, device, birads))
    return people


class _Writer:
    """The growing source tree."""

    def __init__(self, target: Path, seed: int, identifiers: bool, shape: tuple[int, int]) -> None:
        self.planted: list[Planted] = []
        self._target = target
        self._seed = seed
        self._identifiers = identifiers
        self._shape = shape
        self._labels: list[dict[str, str]] = []
        self._clinical: list[dict[str, str]] = []
        self._burned = 0
        (target / "annotations").mkdir()

    def add(
        self,
        patient: Patient,
        identity: Identity,
        subject: str,
        split: str,
        rng: np.random.Generator,
    ) -> None:
        folder = (
            f"{identity.latin}_{identity.number}".replace("^", "_")
            if self._identifiers
            else subject
        )
        (self._target / folder).mkdir()
        anatomy = draw_anatomy(rng)
        for number, (side, view) in enumerate(VIEWS, start=1):
            lesions = patient.lesions[side]
            phantom = draw_phantom(
                rng, anatomy, laterality=side, view=view, lesions=lesions, shape=self._shape
            )
            name = (
                f"{side}{view}_{identity.hangul}.dcm" if self._identifiers else f"{number:04d}.dcm"
            )
            file = f"{folder}/{name}"
            exposure = self._exposure(patient, identity, number, side, view)
            self._write_image(file, phantom, exposure, identity, subject, rng)
            self._annotate(file, phantom, identity, subject, side + view)
            self._labels.append(
                {
                    "file": file,
                    "subject": subject,
                    "label": "lesion" if lesions else "normal",
                    "split": split,
                    "patient_label": patient.label,
                    "breast_label": "lesion" if lesions else "normal",
                    "view": side + view,
                    "laterality": side,
                    "birads": patient.birads[side],
                }
            )
        self._clinical.append(self._clinical_row(patient, identity, subject, rng))

    def finish(self) -> None:
        _write_csv(self._target / "labels.csv", LABEL_COLUMNS, self._labels)
        _write_csv(self._target / "clinical.csv", CLINICAL_COLUMNS, self._clinical)
        words = "Synthetic mammography phantoms, four views a patient, lesions in a third of them."
        if self._identifiers and not hangul_fonts():
            words += " No Hangul is burned in: no font with Hangul was installed."
        (self._target / "dataset.toml").write_text(
            f'kind = "mammography"\ndescription = "{words}"\n', encoding="utf-8"
        )

    def _exposure(
        self, patient: Patient, identity: Identity, number: int, side: str, view: str
    ) -> Exposure:
        if self._identifiers:
            # Scanners put the day and a number into the UIDs that they make.
            # 2.999 is the arc for examples.
            root = f"2.999.{identity.exam_date}.{identity.number}"
            uids = (f"{root}.1", f"{root}.1.1", f"{root}.1.1.{number}")
        else:
            uids = (
                _uid(self._seed, patient.place, 0),
                _uid(self._seed, patient.place, 100),
                _uid(self._seed, patient.place, number),
            )
        return Exposure(side, view, number, patient.device, *uids)

    def _write_image(
        self,
        file: str,
        phantom: Phantom,
        exposure: Exposure,
        identity: Identity,
        subject: str,
        rng: np.random.Generator,
    ) -> None:
        pixels = phantom.pixels
        if not self._identifiers:
            build_header(pixels, exposure, subject).save_as(
                self._target / file, enforce_file_format=True
            )
            return
        korean = identity.number[-1] in "02468"
        planter = Planter(file, "euc-kr" if korean else "utf-8")
        if rng.random() < BURNED_SHARE or self._burned == 0:
            pixels = self._burn(pixels, identity, exposure.laterality, file, rng)
        ds = build_header(pixels, exposure, subject)
        ds.SpecificCharacterSet = ["", "ISO 2022 IR 149"] if korean else "ISO_IR 192"
        plant_header(ds, identity, exposure, planter, identity.latin_text)
        if exposure.number == 1 and pixels is not phantom.pixels:
            ds.BurnedInAnnotation = "YES"
        ds.save_as(self._target / file, enforce_file_format=True)
        folder, name = file.split("/")
        planter.planted.append(Planted(folder, "folder name", file))
        planter.planted.append(Planted(Path(name).stem, "file name", file))
        self.planted.extend(planter.planted)

    def _burn(
        self,
        pixels: NDArray[np.uint16],
        identity: Identity,
        laterality: str,
        file: str,
        rng: np.random.Generator,
    ) -> NDArray[np.uint16]:
        """Two lines in the lower corner away from the chest wall, at the largest value."""
        rows, columns = pixels.shape
        first = f"{identity.latin_text} {identity.number}"
        if self._burned % 2 == 0 and hangul_fonts():
            first = f"{identity.hangul} {identity.number}"
        self._burned += 1
        y = rows - 46
        for text in (first, identity.exam_text):
            font = open_font(text, int(rng.integers(12, 19)))
            width, _height = measure(text, font)
            x = 4 if laterality == "R" else max(4, columns - width - 4)
            drawn = letter((rows, columns), text, font, x, y)
            pixels = burn(pixels, drawn, MAXIMUM).astype(np.uint16)
            self.planted.append(Planted(text, "pixels", file, drawn.box))
            y += 22
        return pixels

    def _annotate(
        self, file: str, phantom: Phantom, identity: Identity, subject: str, view: str
    ) -> None:
        for number, lesion in enumerate(phantom.lesions, start=1):
            name = f"annotations/{subject}_{view}_{number}.json"
            reader = identity.reader if self._identifiers else "reader-1"
            document = {
                "user_id": reader,
                "case_id": subject,
                "file": file,
                "view_location": view,
                "lesion_id": number,
                "contour": [list(point) for point in lesion.contour],
                "discard_yn": "N",
            }
            (self._target / name).write_text(
                json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            if self._identifiers:
                self.planted.append(Planted(reader, "user_id", name))
                self.planted.append(Planted(subject, "case_id", name))

    def _clinical_row(
        self, patient: Patient, identity: Identity, subject: str, rng: np.random.Generator
    ) -> dict[str, str]:
        cancer = patient.group == "cancer"
        place = str(rng.choice(["upper outer", "upper inner", "lower outer", "lower inner"]))
        size = int(rng.integers(6, 40))
        kind = str(rng.choice(["IDC", "ILC", "DCIS", "others"], p=[0.7, 0.1, 0.15, 0.05]))
        stage = "1" if size <= 20 else "2"
        if self._identifiers:
            self.planted.append(Planted(subject, "recvid", "clinical.csv"))
            self.planted.append(Planted(subject, "subject", "labels.csv"))
            if cancer:
                place = f"{place} quadrant, told {identity.hangul}"
                self.planted.append(Planted(identity.hangul, "spr_loca_cmnt", "clinical.csv"))
        return {
            "grp": patient.group,
            "recvid": subject,
            "manufacturer": patient.device[0],
            "manufacturerModelName": patient.device[1],
            "both1": patient.birads["R"],
            "left1": patient.birads["L"],
            "spr_loca_cmnt": place if cancer else "",
            "invs_size_vl": str(size) if cancer else "",
            "htlg_type_cmnt": kind if cancer else "",
            "path_t_stag": stage if cancer else "",
        }


def _uid(*parts: int) -> str:
    """A UID of the 2.25 root from numbers, the same every time."""
    digest = hashlib.sha256(",".join(str(part) for part in parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
