"""Steps 1 to 3: originals go in, an officer looks at a sample and signs, the catalogue shows."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from client.api import Portal
from demo.narration import StepFailed, until
from demo.originals import Originals
from policies.errors import Conflict

DATASETS: dict[str, dict[str, str]] = {
    "mammography": {
        "kind": "mammography",
        "profile": "research",
        "title": "Mammography phantoms",
        "title_ko": "유방촬영 팬텀",
        "description": "Four-view studies (RCC, LCC, RMLO, LMLO) of drawn phantoms, 12 bits, with "
        "lesions in a third of the patients and labels by patient, breast and view.",
        "description_ko": "병변이 있는 환자와 없는 환자의 4방향 유방촬영 팬텀 영상.",
    },
    "test-dicom": {
        "kind": "dicom",
        "profile": "research",
        "title": "DICOM of many makers",
        "title_ko": "여러 장비의 DICOM 영상",
        "description": "The public test files of the pydicom project: many modalities, transfer "
        "syntaxes and character sets, broken files included.",
        "description_ko": "pydicom 프로젝트가 공개한 여러 형식의 DICOM 시험 파일.",
    },
    "photos": {
        "kind": "photos",
        "profile": "research",
        "title": "Photographs with masked faces",
        "title_ko": "얼굴을 가린 사진",
        "description": "Photographs whose faces are masked and whose metadata are gone.",
        "description_ko": "얼굴을 가리고 메타데이터를 지운 사진.",
    },
}


def offer(steward: Portal, slug: str, originals: Originals) -> None:
    """Create a dataset and its first version, upload the originals and start."""
    facts = {name: value for name, value in DATASETS[slug].items() if name != "profile"}
    steward.post("datasets", slug=slug, profile=DATASETS[slug]["profile"], **facts)
    steward.post(f"datasets/{slug}/versions")
    steward.put_file(
        f"datasets/{slug}/versions/1/originals",
        originals.archive,
        content_type="application/zip",
    )
    steward.post(f"datasets/{slug}/versions/1/ingest")


def wait_until_clean(steward: Portal, slug: str) -> dict[str, Any]:
    """Wait until a version is de-identified and return its intake's counts."""

    def look() -> dict[str, Any] | None:
        version = steward.get(f"datasets/{slug}/versions/1")
        if version["state"] == "draft":
            raise StepFailed(f"{slug}: {version['reason']}")
        return version if version["state"] == "de_identified" else None

    until(look, seconds=600, what=f"the de-identification of {slug}")
    counts: dict[str, Any] = steward.get(f"datasets/{slug}/versions/1/originals")["counts"]
    return counts


def draw(officer: Portal, slug: str) -> None:
    """Draw the sample of a version; its pictures are rendered while others are looked at."""
    officer.post(f"datasets/{slug}/versions/1/examination")


def examine(officer: Portal, slug: str, originals: Originals) -> dict[str, Any]:
    """Look at each file of the sample, mark what was missed, and sign.

    Where it is known what was burned into a picture, the officer looks at that very place of the
    picture after masking; a place that still shows contrast is marked.
    """
    path = f"datasets/{slug}/versions/1/examination"

    def ready() -> list[dict[str, Any]] | None:
        items = list(officer.pages(path))
        return items if all(item["ready"] for item in items) else None

    items = until(ready, seconds=300, what=f"the pictures of {slug}")
    burned = _burned(originals)
    rows = {row["target"]: row for row in officer.pages(f"datasets/{slug}/versions/1/report")}
    found: Counter[str] = Counter()
    for item in items:
        boxes = burned.get(rows[item["target"]]["source"], [])
        missed = []
        if boxes and not item["unseen"]:
            picture = officer.call("GET", f"{path}/{item['id']}/after.png").content
            missed = [box for box in boxes if _shows_something(picture, box)]
        finding = "missed" if missed else "clean"
        found[finding] += 1
        officer.post(f"{path}/{item['id']}/finding", finding=finding, boxes=missed)
    signed: dict[str, Any] = officer.post(
        f"datasets/{slug}/versions/1/sign", statement="Examined as drawn."
    )
    return signed | {"found": dict(found)}


def _burned(originals: Originals) -> dict[str, list[dict[str, int]]]:
    """Return the boxes burned into each original, by its SHA-256."""
    boxes: dict[str, list[dict[str, int]]] = {}
    for value in originals.planted:
        if value.box is not None:
            x, y, width, height = value.box
            boxes.setdefault(originals.digests[value.file], []).append(
                {"x": x, "y": y, "width": width, "height": height}
            )
    return boxes


def _shows_something(picture: bytes, box: dict[str, int]) -> bool:
    """Whether a place of a picture is anything but one flat colour."""
    with Image.open(io.BytesIO(picture)) as image:
        pixels = np.asarray(image.convert("L")).astype(int)
    part = pixels[box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]]
    return bool(part.size) and int(part.max() - part.min()) > 8


def draw_again(officer: Portal, slug: str) -> None:
    """Draw the next round once the officer's boxes have been applied."""

    def drawn() -> bool | None:
        try:
            draw(officer, slug)
        except Conflict:
            return None
        return True

    until(drawn, seconds=120, what=f"the officer's boxes in {slug}")


def sample_at_home(steward: Portal, work: Path) -> Path:
    """Download the open sample of the phantoms and unpack it; return its folder.

    The dataset is not published yet, so its steward fetches the sample.
    """
    until(
        lambda: True if steward.get("datasets/mammography")["sample_bytes"] else None,
        seconds=120,
        what="the open sample",
    )
    archive = work / "mammography-sample.zip"
    steward.download("datasets/mammography/sample", archive)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(work / "samples")
    return work / "samples" / "mammography"


def check_catalogue(visitor: Portal) -> int:
    """Read the catalogue as a visitor; return how many datasets it holds."""
    datasets = list(visitor.pages("datasets"))
    for dataset in datasets:
        document = visitor.get(f"datasets/{dataset['slug']}/croissant")
        if document["conformsTo"] != "http://mlcommons.org/croissant/1.0":
            raise StepFailed("the metadata are no Croissant document")
    if len(datasets) != len(DATASETS):
        raise StepFailed(f"{len(datasets)} of {len(DATASETS)} datasets are in the catalogue")
    return len(datasets)
