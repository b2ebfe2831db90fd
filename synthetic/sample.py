"""Open samples: the layout of a published dataset version, filled from public parameters alone.

Nothing here sees anybody's data; that is what makes a sample safe to give to everybody, and what a
model trained on it is not worth. Not even summary figures of the dataset are used.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from policies.errors import Invalid, _
from synthetic.mammography import write_phantoms
from synthetic.photos import write_photos

KINDS = ("mammography", "photos", "dicom")


def write_sample(kind: str, target: Path, *, subjects: int = 8, seed: int = 0) -> None:
    """Write a sample of ``kind`` into the new folder ``target``.

    ``dataset.toml``, ``labels.csv`` (file, subject, label, split, ...) and the files as
    ``<subject>/<number>.dcm|jpg``; mammography has ``clinical.csv`` and ``annotations`` too. A
    sample of ``dicom`` is a set of the same kind without tables beyond ``labels.csv``. With three
    or more subjects of a label all three splits are there, so that a rehearsal meets each of
    them. Nothing is left of a folder that could not be finished.

    Raises :class:`policies.errors.Invalid` for an unknown kind or for too few subjects.
    """
    if kind not in KINDS:
        raise Invalid(
            _("A sample is of one of the kinds {kinds}."), field="kind", kinds=", ".join(KINDS)
        )
    if not 1 <= subjects <= 1000:
        raise Invalid(_("A sample has from 1 to 1,000 subjects."), field="subjects")
    if target.exists():
        raise Invalid(_("The folder for the sample is there already."), field="target")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".sample-") as folder:
        inside = Path(folder) / "sample"
        if kind == "photos":
            write_photos(inside, seed, identifiers=False, subjects=subjects)
        else:
            write_phantoms(inside, patients=subjects, seed=seed, identifiers=False)
        if kind == "dicom":
            (inside / "clinical.csv").unlink()
            shutil.rmtree(inside / "annotations")
        _describe(inside, kind)
        inside.rename(target)


def _describe(folder: Path, kind: str) -> None:
    (folder / "dataset.toml").write_text(
        f'kind = "{kind}"\n'
        'description = "Synthetic sample from public parameters; not fitted to any data."\n'
        "sample = true\n",
        encoding="utf-8",
    )
