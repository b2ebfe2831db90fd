"""No secret of a photograph or a video survives; each is first shown to be in its file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deid import stills
from deid.intake import Source
from deid.layers import layers
from deid.profile import from_document
from deid.worker import FileWorker
from synthetic import canaries, canaries_in_photos, canaries_in_structure, canaries_in_videos
from synthetic.secret_places import Place

PLACES = [*canaries_in_photos.PLACES, *canaries_in_videos.PLACES]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, profile) -> Iterator[FileWorker]:
    # What detectors see in pixels has tests of its own.
    document = {**profile.document, "photos": {"text": False, "faces": False}}
    dst = tmp_path_factory.mktemp("dst")
    made = FileWorker(
        key=bytes(range(32)), profile=from_document(document), dst=dst, quarantine=None, run="",
        done={},
    )  # fmt: skip
    yield made
    made.close()


def everything(data: bytes) -> Iterator[bytes]:
    """The bytes of a file, what is packed in them, the ends of its rows, and decoded samples."""
    for _place, content in layers(data):
        yield content
    for start in range(16):
        yield data[start::16]
    try:
        with Image.open(io.BytesIO(data)) as image:
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                samples = np.asarray(image)
                yield samples.tobytes()
                if samples.ndim == 3:
                    yield np.ascontiguousarray(samples[:, :, :3]).tobytes()
    except OSError:
        return


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_a_secret_does_not_survive(place: Place, worker: FileWorker, tmp_path: Path) -> None:
    data = place.file()
    assert any(place.secret in each for each in everything(data)), "the builder must plant it"
    (tmp_path / "file").write_bytes(data)
    source = Source(str(tmp_path / "file"), "", "file", len(data))
    row = worker.process(source, "")
    if row["status"] == "quarantined" and place.may_hold:
        assert row["reason"] == "heic"
        assert not row["target"]
        return
    assert (row["status"], row["reason"]) == ("written", "")
    output = (worker.dst / row["target"]).read_bytes()
    secrets = (place.secret, place.secret.lower(), place.secret.decode().encode("utf-16-le"))
    for each in everything(output):
        assert not any(secret in each for secret in secrets)
    for picture in stills.some(output, 99):
        assert not any(secret in picture.tobytes() for secret in secrets)
    # An ordinary picture of the same size comes out: nothing was thrown away with the secret.
    assert stills.how_many(output) >= 1
    said = str(row)
    assert place.secret.decode() not in said


def test_what_an_edit_list_cuts_away_is_not_shown(worker: FileWorker, tmp_path: Path) -> None:
    place = next(each for each in PLACES if each.name == "mp4 frames before the cut")
    (tmp_path / "file").write_bytes(place.file())
    row = worker.process(Source(str(tmp_path / "file"), "", "file", 1), "")
    levels = [round(float(each.mean())) for each in stills.some(
        (worker.dst / row["target"]).read_bytes(), 99
    )]  # fmt: skip
    assert levels == [60, 100, 140]


def test_there_are_many_places_with_secrets_of_their_own() -> None:
    own = {place.secret for place in PLACES}
    assert len(own) == len(PLACES)
    assert len({place.name for place in PLACES}) == len(PLACES)
    assert canaries_in_structure.PLACES is canaries.PLACES
    in_dicom = {secret for place in canaries.PLACES for secret in place.secrets}
    print(
        f"{len(PLACES)} places and as many values in photographs ({len(canaries_in_photos.PLACES)})"
        f" and videos ({len(canaries_in_videos.PLACES)}); {len(canaries.PLACES)} places of DICOM"
        f" with {len(in_dicom)} distinct values"
    )
    assert len(own) >= 150
