"""One tool with one setting over one folder, once; what it writes is kept to be looked into.

``python -P clean_kept.py SETTING SOURCE TARGET``: writes what became of each file of SOURCE to
TARGET under the same name, and answers with one line of JSON: for each name ``written``, or why
not. Runs in our environment or the peers'; nothing of ours may be imported at the top, for in the
peers' environment ``deid`` is another package.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

OneFile = Callable[[Path, Path], None]
Answers = dict[str, str]


def each(clean: OneFile, source: Path, target: Path) -> Answers:
    """Clean every file, one after the other, with a tool that cleans one file."""
    answers = {}
    for path in sorted(source.iterdir()):
        out = target / path.name
        try:
            clean(path, out)
        # A tool may fail in any way (one of them ends the process), and then goes on here with the
        # next file; what it left half-written is no output.
        except (Exception, SystemExit) as error:
            out.unlink(missing_ok=True)
            answers[path.name] = f"failed: {type(error).__name__}"
            continue
        answers[path.name] = "written" if out.is_file() else "nothing written"
    return answers


def read_and_save(source: Path, target: Path) -> None:
    """What survives if nothing is removed."""
    import pydicom

    pydicom.dcmread(source).save_as(target)


def dicognito() -> OneFile:
    """dicognito as its command does it; one Anonymizer for the folder."""
    import pydicom
    from dicognito.anonymizer import Anonymizer  # type: ignore[import-not-found]

    anonymizer = Anonymizer()

    def clean(source: Path, target: Path) -> None:
        with pydicom.dcmread(source) as dataset:
            anonymizer.anonymize(dataset)
            dataset.save_as(target)

    return clean


def dicom_anonymizer(table: str) -> OneFile:
    """dicom-anonymizer by one of its tables, private elements removed."""
    from dicomanonymizer import anonymize_dicom_file  # type: ignore[import-not-found]
    from dicomanonymizer.simpledicomanonymizer import (  # type: ignore[import-not-found]
        initialize_actions,
    )

    def clean(source: Path, target: Path) -> None:
        anonymize_dicom_file(
            str(source), str(target), base_rules_gen=partial(initialize_actions, table)
        )

    return clean


def pydicom_deid(*, strict: bool) -> OneFile:
    """deid by the recipe that it carries.

    ``strict`` adds what it can do besides: private elements and all sequences removed, and the
    areas of pixels blanked that its recipe knows for some devices.
    """
    from deid.dicom import (  # type: ignore[attr-defined]
        DicomCleaner,
        get_identifiers,
        replace_identifiers,
    )

    def header(source: Path, target: Path) -> None:
        replace_identifiers(
            dicom_files=[str(source)],
            ids=get_identifiers([str(source)]),
            save=True,
            output_folder=str(target.parent),
            remove_private=strict,
            strip_sequences=strict,
        )

    def clean(source: Path, target: Path) -> None:
        if not strict:
            header(source, target)
            return
        with tempfile.TemporaryDirectory() as folder:
            blanked = DicomCleaner(output_folder=folder)
            found = blanked.detect(str(source))
            chosen = Path(folder) / source.name
            if any(each["coordinates"] for each in found["results"]):
                blanked.clean()
                shutil.move(blanked.save_dicom(), chosen)
            else:
                shutil.copyfile(source, chosen)
            header(chosen, target)

    return clean


def glovebox(source: Path, target: Path, *, headers_only: bool) -> Answers:
    """``glovebox deid`` by its default profile, or by that without what looks at pixels."""
    from deid import pipeline, profile
    from deid.report import read

    chosen = _cleaners()._profile() if headers_only else profile.load("research")
    digest = _cleaners()._digest
    with tempfile.TemporaryDirectory(dir=target) as folder:
        outputs, report = Path(folder) / "out", Path(folder) / "report.jsonl"
        pipeline.run(source, outputs, key=_cleaners().KEY, profile=chosen, workers=2, report=report)
        # Of files with the same content one is written; the rows of the others say duplicate.
        by_status = sorted(read(report), key=lambda row: row["status"] == "written")
        rows = {row["source"]: row for row in by_status}
        answers = {}
        for path in sorted(source.iterdir()):
            row = rows[digest(path)]
            if row["status"] == "written":
                shutil.copyfile(outputs / row["target"], target / path.name)
                answers[path.name] = "written"
            else:
                answers[path.name] = f"{row['status']}: {row['reason']}"
    return answers


def _cleaners() -> Any:
    """The module beside this one, found without making its folder a place to import from."""
    name = "bench_cleaners"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("cleaners.py"))
        assert spec is not None and spec.loader is not None
        module: ModuleType = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


OURS: dict[str, Callable[[Path, Path], Answers]] = {
    "glovebox": partial(glovebox, headers_only=False),
    "glovebox-headers": partial(glovebox, headers_only=True),
}
THEIRS: dict[str, Callable[[], OneFile]] = {
    "pydicom": lambda: read_and_save,
    "dicognito": dicognito,
    "dicom-anonymizer": partial(dicom_anonymizer, "dicomfields_2023"),
    "dicom-anonymizer-2026c": partial(dicom_anonymizer, "dicomfields_2026c"),
    "deid": partial(pydicom_deid, strict=False),
    "deid-strict": partial(pydicom_deid, strict=True),
}


def main(setting: str, source: Path, target: Path) -> None:
    """Clean the folder and say what became of each file."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    # Tools print what they do; standard output is for the answer alone.
    answer_to, sys.stdout = sys.stdout, sys.stderr
    target.mkdir(parents=True)
    if setting in OURS:
        answers = OURS[setting](source, target)
    else:
        answers = each(THEIRS[setting](), source, target)
    answer_to.write(json.dumps(answers) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
