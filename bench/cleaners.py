"""One tool over one folder of DICOM files, again for each line on standard input.

``python cleaners.py TOOL SOURCE TARGET``: for each input line cleans every file of SOURCE, one
after the other, into a new folder of TARGET, and answers with a line of JSON: the seconds, and
the names of the files that were written. Every tool of the comparison runs in this loop; imports
and settings happen before the clock starts. Runs in our environment or the peers'.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deid.profile import Profile

# Cleans one file into another; raises where it will not.
OneFile = Callable[[Path, Path], None]
# Cleans a folder into another; what it returns names, once the clock stands, what was written.
Folder = Callable[[Path, Path], Callable[[], list[str]]]


def each(clean: OneFile) -> Folder:
    """Return how to clean a folder with a tool that cleans one file."""

    def folder(source: Path, target: Path) -> Callable[[], list[str]]:
        written: list[str] = []
        for path in sorted(source.iterdir()):
            try:
                clean(path, target / path.name)
            except Exception:  # a tool may fail on a file in any way; the file does not count
                continue
            written.append(path.name)
        return lambda: written

    return folder


def pydicom_alone() -> Folder:
    """Read and save: what any tool on pydicom pays."""
    import pydicom

    def clean(source: Path, target: Path) -> None:
        pydicom.dcmread(source).save_as(target)

    return each(clean)


def dicognito() -> Folder:
    """dicognito as its command does it."""
    import pydicom
    from dicognito.anonymizer import Anonymizer  # type: ignore[import-not-found]

    anonymizer = Anonymizer()

    def clean(source: Path, target: Path) -> None:
        with pydicom.dcmread(source) as dataset:
            anonymizer.anonymize(dataset)
            dataset.save_as(target)

    return each(clean)


def dicom_anonymizer() -> Folder:
    """dicom-anonymizer with its default rules, private elements removed."""
    from dicomanonymizer import anonymize_dicom_file  # type: ignore[import-not-found]

    def clean(source: Path, target: Path) -> None:
        anonymize_dicom_file(str(source), str(target))

    return each(clean)


def _profile() -> Profile:
    """Our default profile without what looks at pixels: headers only, as the others do."""
    from deid import profile

    document = dict(profile.load("research").document)
    looks = {"clean_pixel_data", "clean_recognizable_visual_features"}
    document["options"] = [option for option in document["options"] if option not in looks]
    document["head_volumes"] = "allow"
    return profile.from_document(document)


KEY = bytes(range(32))


def glovebox_pipeline() -> Folder:
    """``glovebox deid --workers 1``: with its report, digests, and outputs synced to disk."""
    from deid import pipeline

    chosen = _profile()

    def folder(source: Path, target: Path) -> Callable[[], list[str]]:
        report = target.with_name(f"{target.name}.report.jsonl")
        pipeline.run(source, target, key=KEY, profile=chosen, workers=1, report=report)

        def names() -> list[str]:
            rows = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
            cleaned = {row["source"] for row in rows if row["status"] == "written"}
            return [path.name for path in sorted(source.iterdir()) if _digest(path) in cleaned]

        return names

    return folder


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def glovebox_cleaner() -> Folder:
    """The cleaner of one file alone: bytes in, bytes out, written plainly."""
    from deid.decoding import Decoder
    from deid.dicom.clean import DicomCleaner
    from deid.dicom.header import HeaderCleaner
    from deid.dicom.plan import Plan
    from deid.vault import Pseudonyms

    plan, decoder = Plan(_profile()), Decoder()

    def folder(source: Path, target: Path) -> Callable[[], list[str]]:
        # A batch begins without what the cleaner remembers of the files before.
        cleaner = DicomCleaner(HeaderCleaner(plan, Pseudonyms(KEY)), decoder)

        def clean(source: Path, target: Path) -> None:
            result = cleaner.clean(source.read_bytes())
            with target.open("wb") as out:
                out.writelines(result.chunks)

        return each(clean)(source, target)

    return folder


TOOLS: dict[str, Callable[[], Folder]] = {
    "pydicom": pydicom_alone,
    "dicognito": dicognito,
    "dicom-anonymizer": dicom_anonymizer,
    "pipeline": glovebox_pipeline,
    "cleaner": glovebox_cleaner,
}


def main(tool: str, target: Path) -> None:
    """Answer each input line, which names the folder to clean."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    clean = TOOLS[tool]()
    for number, line in zip(itertools.count(), sys.stdin, strict=False):
        out = target / str(number)
        out.mkdir(parents=True)
        began = time.perf_counter()
        written = clean(Path(line.strip()), out)
        seconds = time.perf_counter() - began
        sys.stdout.write(json.dumps({"seconds": seconds, "written": written()}) + "\n")
        sys.stdout.flush()
        shutil.rmtree(out)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
