"""Invented identities, put together by chance from common Korean name syllables.

Values are long enough that finding one in a file later is no coincidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SURNAMES = (
    ("Kim", "김"), ("Lee", "이"), ("Park", "박"), ("Choi", "최"), ("Jung", "정"), ("Kang", "강"),
    ("Cho", "조"), ("Yoon", "윤"), ("Jang", "장"), ("Lim", "임"), ("Han", "한"), ("Shin", "신"),
)  # fmt: skip
SYLLABLES = (
    ("seo", "서"), ("min", "민"), ("ji", "지"), ("hye", "혜"), ("yeon", "연"), ("su", "수"),
    ("eun", "은"), ("young", "영"), ("ha", "하"), ("jin", "진"), ("won", "원"), ("ra", "라"),
    ("kyung", "경"), ("sook", "숙"), ("mi", "미"), ("na", "나"),
)  # fmt: skip
HOSPITAL = ("Hanbyeol University Hospital", "한별대학교병원")


@dataclass(frozen=True)
class Identity:
    """A patient who does not exist, with the hospital's particulars of one examination."""

    number: str
    latin: str
    hangul: str
    birth_date: str
    age: int
    phone: str
    national_number: str
    address: str
    accession: str
    exam_date: str
    exam_time: str
    referring: str
    performing: str
    reader: str
    operator: str
    serial: str

    @property
    def latin_text(self) -> str:
        """The name as staff type it: ``KIM MINJI``."""
        return self.latin.replace("^", " ").upper()

    @property
    def exam_text(self) -> str:
        """The day of the examination as staff type it."""
        return f"{self.exam_date[:4]}-{self.exam_date[4:6]}-{self.exam_date[6:]}"


def invent_identity(rng: np.random.Generator, taken: set[str]) -> Identity:
    """The next identity; ``taken`` holds the patient numbers already given and gets the new one."""
    latin, hangul = invent_name(rng)
    number = _digits(rng, 8)
    while number in taken:
        number = _digits(rng, 8)
    taken.add(number)
    birth_year = int(rng.integers(1938, 1985))
    birth = f"{birth_year:04d}{int(rng.integers(1, 13)):02d}{int(rng.integers(1, 29)):02d}"
    exam_year = int(rng.integers(2017, 2024))
    exam = f"{exam_year:04d}{int(rng.integers(1, 13)):02d}{int(rng.integers(1, 29)):02d}"
    clock = f"{int(rng.integers(8, 18)):02d}{int(rng.integers(60)):02d}{int(rng.integers(60)):02d}"
    return Identity(
        number=number,
        latin=latin,
        hangul=hangul,
        birth_date=birth,
        age=exam_year - birth_year - (exam[4:] < birth[4:]),
        phone=f"010-{_digits(rng, 4)}-{_digits(rng, 4)}",
        national_number=f"{birth[2:]}-2{_digits(rng, 6)}",
        address=f"{int(rng.integers(1, 900))} Byeolbit-ro, Unit {_digits(rng, 4)}",
        accession=f"ACC{_digits(rng, 9)}",
        exam_date=exam,
        exam_time=clock,
        referring=invent_name(rng)[0],
        performing=invent_name(rng)[0],
        reader=invent_name(rng)[0],
        operator=invent_name(rng)[0],
        serial=f"SN{_digits(rng, 9)}",
    )


def invent_name(rng: np.random.Generator) -> tuple[str, str]:
    """A name in Latin letters, as DICOM writes it (``Kim^Minji``), and in Hangul."""
    latin, hangul = SURNAMES[int(rng.integers(len(SURNAMES)))]
    first, second = (SYLLABLES[int(each)] for each in rng.choice(len(SYLLABLES), 2, replace=False))
    return f"{latin}^{(first[0] + second[0]).capitalize()}", hangul + first[1] + second[1]


def _digits(rng: np.random.Generator, count: int) -> str:
    # No leading zero: a table that is read as numbers would lose it.
    return str(int(rng.integers(1, 10))) + "".join(
        str(each) for each in rng.integers(10, size=count - 1)
    )
