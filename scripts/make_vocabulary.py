"""Make ``deid/dicom/vocabulary.txt``: the words that may stay in a text.

Words of the meanings of the codes that PS3.16 lists (by way of pydicom's concept tables, MIT),
without breeds, languages and places, plus ``vocabulary_own.txt``, without the names of
``vocabulary_names.txt``: a word that is also a usual surname or given name may not stay.
"""

from __future__ import annotations

import re
from pathlib import Path

from pydicom.sr._concepts_dict import concepts

HERE = Path(__file__).parent.parent / "deid" / "dicom"
# Context groups of breeds, breed registries, species, languages, countries, ethnic groups.
LEFT_OUT = {7454, 7480, 7481, 7486, 5000, 5001, 5002, 5003, 5004, 3850, 3851, 10040}
SCHEMES = ("DCM", "SCT", "RADLEX", "UCUM", "LN", "UMLS", "SRT", "IBSI", "MDC")


def main() -> None:
    """Write the list, one lower-case word a line."""
    words: set[str] = set()
    for scheme in SCHEMES:
        for codes in concepts.get(scheme, {}).values():
            for meaning, groups in codes.values():
                if not LEFT_OUT & set(groups):
                    words.update(re.findall(r"[a-z]{2,}", meaning.lower()))
    own = (HERE / "vocabulary_own.txt").read_text(encoding="utf-8").lower().split()
    names = set((HERE / "vocabulary_names.txt").read_text(encoding="utf-8").lower().split())
    words = (words - names) | set(own)
    (HERE / "vocabulary.txt").write_text("\n".join(sorted(words)) + "\n", encoding="utf-8")
    print(len(words))


if __name__ == "__main__":
    main()
