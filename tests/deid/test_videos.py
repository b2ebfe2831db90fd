"""A cleaned video is its frames: masked in every one of them, upright, at their times."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from deid import contact_sheet, stills, video_reading
from deid.intake import Source
from deid.photo_policy import PhotoPolicy
from deid.pixels.interface import Box
from deid.profile import Profile, from_document
from deid.video import clean_video
from deid.video_container import is_clean_video
from deid.video_reading import VideoRefused
from deid.video_tracking import plan
from deid.worker import FileWorker
from synthetic import videos
from synthetic.photos import package_photo

STREET = np.ascontiguousarray(package_photo("coffee.png")[:240, :320])
PATCH = np.ascontiguousarray(package_photo("chelsea.png")[100:140, 200:232])


class Patches:
    """Finds the places where ``PATCH`` stands exactly, as a detector finds faces."""

    def __init__(self, misses: tuple[int, ...] = ()) -> None:
        self.looks = 0
        self.misses = misses
        self.places: list[tuple[int, int]] = []

    def detect(self, image: np.ndarray) -> list[Box]:
        self.looks += 1
        if self.looks - 1 in self.misses:
            return []
        found = []
        rows, columns = PATCH.shape[:2]
        for y in range(0, image.shape[0] - rows + 1):
            for x in np.flatnonzero(image[y, :, 0] == PATCH[0, 0, 0]):
                part = image[y : y + rows, x : x + columns]
                if part.shape == PATCH.shape and (np.abs(part.astype(int) - PATCH) < 3).all():
                    found.append(Box("face", int(x), y, columns, rows))
        return found


def with_patch(place: tuple[int, int] | None, ground: np.ndarray = STREET) -> np.ndarray:
    frame = ground.copy()
    if place is not None:
        x, y = place
        frame[y : y + PATCH.shape[0], x : x + PATCH.shape[1]] = PATCH
    return frame


def uncovered(place: tuple[int, int], boxes: list[Box], shape: tuple[int, ...]) -> float:
    """Which part of the patch no box covers."""
    mask = np.zeros(shape[:2], dtype=bool)
    for box in boxes:
        mask[box.y : box.bottom, box.x : box.right] = True
    x, y = place
    return 1 - float(mask[y : y + PATCH.shape[0], x : x + PATCH.shape[1]].mean())


def film(frames: list[np.ndarray], **options: object) -> bytes:
    rows, columns = frames[0].shape[:2]
    jpegs = [videos.jpeg(each) for each in frames]
    return videos.mp4([videos.video_track(jpegs, (columns, rows), **options)])


def cleaned(data: bytes, *detectors: object, policy: PhotoPolicy | None = None):
    parts: list[bytes] = []
    result = clean_video(data, parts.append, detectors=detectors, policy=policy)
    return result, b"".join(parts)


def frames_of(data: bytes) -> list[video_reading.Frame]:
    return list(video_reading.frames(data))


PATHS: dict[str, Callable[[int], tuple[int, int] | None]] = {
    "still": lambda _t: (100, 80),
    "slow": lambda t: (40 + 2 * t, 90),
    "fast": lambda t: (10 + 7 * t, 150 - 3 * t),
    "jumps": lambda t: ((20, 20), (220, 120), (120, 60))[t % 3],
    "one frame only": lambda t: (150, 100) if t == 13 else None,
    "three frames between two looks": lambda t: (150, 100) if t in (16, 17, 18) else None,
    "the last frame": lambda t: (150, 100) if t == 29 else None,
    "to and fro": lambda t: (100 + int(30 * np.sin(t)), 90),
    "comes in from the side": lambda t: (min(288, 288 - 4 * t), 90),
}


@pytest.mark.parametrize("name", PATHS)
def test_what_a_detector_would_find_is_covered_in_every_frame(name: str) -> None:
    path = PATHS[name]
    frames = [with_patch(path(t)) for t in range(30)]
    eye = Patches()
    planned = plan(frames, eye.detect, 5)
    for t, boxes in enumerate(planned.boxes):
        if (place := path(t)) is not None:
            assert uncovered(place, boxes, STREET.shape) == 0, f"frame {t}"
    if name == "still":
        assert planned.examined <= 8  # not every frame is looked at where nothing happens


@pytest.mark.parametrize("name", ["still", "slow", "fast"])
def test_a_detector_that_overlooks_somebody_once_leaves_no_frame_uncovered(name: str) -> None:
    path = PATHS[name]
    frames = [with_patch(path(t)) for t in range(30)]
    for missed in range(1, 5):
        planned = plan(frames, Patches(misses=(missed,)).detect, 5)
        worst = max(
            uncovered(path(t), boxes, STREET.shape) for t, boxes in enumerate(planned.boxes)
        )
        assert worst < 0.02, f"look {missed}"


def test_a_moving_camera_carries_the_boxes_along() -> None:
    large = np.ascontiguousarray(package_photo("coffee.png"))
    where = (260, 150)
    whole = with_patch(where, large)
    eye = Patches()
    frames = [np.ascontiguousarray(whole[40:280, 3 * t : 320 + 3 * t]) for t in range(30)]
    planned = plan(frames, eye.detect, 5)
    for t, boxes in enumerate(planned.boxes):
        assert uncovered((where[0] - 3 * t, where[1] - 40), boxes, frames[0].shape) == 0


def test_little_more_is_masked_than_was_found() -> None:
    path = PATHS["slow"]
    frames = [with_patch(path(t)) for t in range(30)]
    planned = plan(frames, Patches().detect, 5)
    area = PATCH.shape[0] * PATCH.shape[1]
    shares = []
    for boxes in planned.boxes:
        mask = np.zeros(STREET.shape[:2], dtype=bool)
        for box in boxes:
            mask[box.y : box.bottom, box.x : box.right] = True
        shares.append(mask.sum() / area)
    print(f"masked: {np.mean(shares):.2f} of the patch's area, at most {max(shares):.2f}")
    assert np.mean(shares) < 3


def test_a_noisy_picture_at_rest_is_not_examined_frame_after_frame() -> None:
    rng = np.random.default_rng(3)
    frames = [
        np.clip(STREET + rng.normal(0, 4, STREET.shape), 0, 255).astype(np.uint8)
        for _number in range(20)
    ]
    assert plan(frames, lambda _picture: [], 5).examined <= 6


@pytest.mark.parametrize("contrast", [40, 80, 160])
def test_a_word_of_one_frame_is_looked_at_in_that_frame(contrast: int) -> None:
    """Letters of 14 pixels over a moving ground, in a frame that is nobody's turn."""
    font = ImageFont.load_default(14)
    ground = np.full((400, 640, 3), 90, np.uint8)
    frames = []
    for t in range(14):
        image = Image.fromarray(ground)
        if t == 7:
            level = 90 + contrast
            ImageDraw.Draw(image).text((120, 90), "HWANGBO", font=font, fill=(level,) * 3)
        frames.append(np.asarray(image))

    def letters(picture: np.ndarray) -> list[Box]:
        rows, columns = np.nonzero(picture[:, :, 0] > 90)
        if not rows.size:
            return []
        x, y = int(columns.min()), int(rows.min())
        return [Box("text", x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1)]

    planned = plan(frames, letters, 6)
    (box,) = letters(frames[7])
    assert any(
        each.x <= box.x and each.y <= box.y and each.right >= box.right
        and each.bottom >= box.bottom for each in planned.boxes[7]
    )  # fmt: skip
    assert planned.examined <= 4
    assert planned.looks >= 1


def test_only_the_frames_are_left_and_they_are_shown_at_their_times() -> None:
    frames = [with_patch((100 + t, 80)) for t in range(6)]
    times = [40, 120, 40, 40, 200, 40]
    data = film(frames, milliseconds=times)
    result, output = cleaned(data, Patches())
    assert is_clean_video(output)
    again = frames_of(output)
    assert len(again) == result.frames == 6
    assert [round(1000 * each.seconds) for each in again] == [0, 40, 160, 200, 240, 440]
    assert again[0].pixels.shape == frames[0].shape
    assert result.actions["metadata"] == "removed"


def test_pixels_outside_the_boxes_stay_near_to_what_was_decoded() -> None:
    data = film([with_patch((40 + 3 * t, 80)) for t in range(8)])
    _result, output = cleaned(data)
    errors = [
        np.mean((one.pixels.astype(float) - other.pixels.astype(float)) ** 2)
        for one, other in zip(frames_of(data), frames_of(output), strict=True)
    ]
    figure = 10 * np.log10(255**2 / max(errors))
    print(f"video written again: at least {figure:.1f} dB a frame")
    assert figure > 40


def test_masked_places_are_dark_in_every_frame() -> None:
    data = film([with_patch((40 + 3 * t, 80)) for t in range(20)])

    class Fixed:
        def detect(self, _image: np.ndarray) -> list[Box]:
            return [Box("text", 10, 10, 60, 40), Box("face", 200, 100, 50, 60)]

    result, output = cleaned(data, Fixed(), policy=PhotoPolicy(faces=False, plates=False))
    for frame in frames_of(output):
        assert frame.pixels[18:42, 18:62].max() < 32
        assert frame.pixels[100:160, 200:250].max() > 100
    assert "20 frames" in result.actions["text"]
    assert "face" not in result.actions


def test_a_turned_film_is_turned_before_anything_is_looked_for() -> None:
    seen = []

    class Eye:
        def detect(self, image: np.ndarray) -> list[Box]:
            seen.append(image.shape)
            return []

    _result, output = cleaned(film([STREET] * 3, matrix=videos.QUARTER_RIGHT), Eye())
    assert seen[0] == (320, 240, 3)
    first = frames_of(output)[0].pixels
    assert first.shape == (320, 240, 3)
    assert np.abs(first.astype(int) - np.rot90(STREET, -1)).mean() < 6


@pytest.mark.parametrize("kind", ["MP4", "AVI", "Matroska", "H.264"])
def test_each_container_and_coding_is_read(kind: str) -> None:
    frames = [np.full((48, 64, 3), 60 + 30 * t, np.uint8) for t in range(4)]
    jpegs = [videos.jpeg(each) for each in frames]
    data = {
        "MP4": lambda: film(frames),
        "AVI": lambda: videos.avi(jpegs, (64, 48)),
        "Matroska": lambda: videos.matroska(jpegs, (64, 48)),
        "H.264": lambda: videos.mp4(
            [videos.h264_track([np.ascontiguousarray(each[:, :, 0]) for each in frames])]
        ),
    }[kind]()
    _result, output = cleaned(data)
    found = frames_of(output)
    assert len(found) == 4
    assert found[3].pixels.mean() > found[0].pixels.mean() + 60


def test_a_video_always_goes_to_a_person_and_plates_are_named_where_they_matter() -> None:
    data = film([STREET])
    plates, _output = cleaned(data)
    assert plates.needs_review == "plates"
    assert "person" in plates.actions["plate"]
    without, _output = cleaned(data, policy=PhotoPolicy(plates=False))
    assert without.needs_review == "video"


def test_the_same_video_gives_the_same_bytes() -> None:
    data = film([with_patch((40 + 3 * t, 80)) for t in range(5)])
    assert cleaned(data, Patches())[1] == cleaned(data, Patches())[1]


def test_the_check_of_the_container_sees_whatever_is_too_much() -> None:
    _result, clean = cleaned(film([STREET] * 3))
    assert is_clean_video(clean)
    comment = clean.index(b"\xff\xd8") + 2
    for dirty in (
        clean + b"x",
        clean + videos.box(b"free", b"HWANGBO"),
        clean.replace(b"isommp41", b"isomHWAN"),
        clean.replace(b"vide" + bytes(12), b"vide" + b"HWANGBOKIM12", 1),
        clean[: clean.index(b"moov") - 4]
        + clean[clean.index(b"moov") - 4 :].replace(struct.pack(">HH", 0x55C4, 0), b"HANK", 1),
        clean[:comment] + b"\xff\xfe\0\6HANK" + clean[comment:],
        film([STREET] * 3),
        clean[:-1],
        b"",
    ):
        assert not is_clean_video(dirty)


def _patched(data: bytes, kind: bytes, at: int, value: int) -> bytes:
    place = data.index(kind) + 4 + at
    return data[:place] + struct.pack(">L", value) + data[place + 4 :]


def _huge_sides(data: bytes) -> bytes:
    place = data.index(b"jpeg") + 4 + 24
    return data[:place] + struct.pack(">HH", 60000, 60000) + data[place + 4 :]


FILM = film([STREET] * 4)
HOSTILE: dict[str, Callable[[], bytes]] = {
    "cut in the middle": lambda: FILM[: len(FILM) // 2],
    "without its last byte": lambda: FILM[:-1],
    "cut AVI": lambda: videos.avi([videos.jpeg(STREET)] * 3, (320, 240))[:-5000],
    "cut Matroska": lambda: videos.matroska([videos.jpeg(STREET)] * 3, (320, 240))[:-5000],
    "a thousand million frames": lambda: _patched(FILM, b"stsz", 8, 1_000_000_000),
    "one size for a thousand million frames": lambda: _patched(
        _patched(FILM, b"stsz", 4, 1), b"stsz", 8, 1_000_000_000
    ),
    "times of four thousand million frames": lambda: _patched(FILM, b"stts", 8, 0xFFFFFFFF),
    "places outside": lambda: _patched(FILM, b"stco", 8, 0x7FFFFFFF),
    "no frames": lambda: _patched(FILM, b"stsz", 8, 0),
    "a head alone": lambda: videos.box(b"ftyp", b"isom", bytes(4)),
    "a box longer than numbers": lambda: b"\0\0\0\1moov" + b"\xff" * 8 + FILM,
    "a box of no length": lambda: bytes(3) + b"\4moov" + FILM,
    "a box in itself": lambda: videos.box(b"ftyp", b"isom") + videos.box(b"moov", b"") * 3,
    "noise": lambda: videos.box(b"ftyp", b"isom") + bytes(range(256)) * 400,
    "a playlist": lambda: b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n/etc/hostname\n",
    "a list of files": lambda: b"ffconcat version 1.0\nfile /etc/hostname\n",
    "only sound": lambda: videos.mp4([videos.Track(
        b"soun", videos.box(b"sowt", bytes(6), b"\0\1", bytes(8),
                            struct.pack(">HHHHL", 1, 16, 0, 0, 8000 << 16)),
        [bytes(800)], [100], videos.full(b"smhd", bytes(4)))]),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_read_whole_is_held_and_nothing_is_written(
    name: str, worker: FileWorker, tmp_path: Path
) -> None:
    (tmp_path / "film.mp4").write_bytes(HOSTILE[name]())
    row = worker.process(Source(str(tmp_path / "film.mp4"), "", "film.mp4", 1), "")
    assert (row["status"], row["target"]) == ("quarantined", "")
    assert row["reason"] in {
        "video-format", "video-too-large", "truncated", "decoder-crash", "too-large", "not-dicom",
        "cannot-decode",
    }  # fmt: skip
    assert [path for path in worker.dst.rglob("*") if path.is_file()] == []


def test_after_a_hostile_video_the_next_one_is_cleaned(worker: FileWorker, tmp_path: Path) -> None:
    for name in ("one size for a thousand million frames", "noise"):
        (tmp_path / "bad.mp4").write_bytes(HOSTILE[name]())
        worker.process(Source(str(tmp_path / "bad.mp4"), "", "bad.mp4", 1), "")
    (tmp_path / "photo.jpg").write_bytes(FILM)
    row = worker.process(Source(str(tmp_path / "photo.jpg"), "", "photo.jpg", 1), "")
    # Its name says something else than its bytes; the bytes decide.
    assert (row["status"], row["kind"]) == ("written", "video")
    assert row["target"].endswith(".mp4")
    (worker.dst / row["target"]).unlink()


def test_a_frame_that_is_to_stand_for_weeks_stands_for_a_minute() -> None:
    _result, output = cleaned(_patched(FILM, b"stts", 12, 0x7FFFFFFF))
    assert frames_of(output)[1].seconds == 60


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, profile: Profile):
    document = {**profile.document, "photos": {"text": False, "faces": False}}
    made = FileWorker(
        key=bytes(range(32)), profile=from_document(document),
        dst=tmp_path_factory.mktemp("dst"), quarantine=None, run="", done={},
    )  # fmt: skip
    yield made
    made.close()


def test_frames_larger_or_more_than_allowed_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_reading, "MAXIMUM_FRAMES", 3)
    with pytest.raises(VideoRefused, match="cut it into parts"):
        cleaned(FILM)
    monkeypatch.setattr(video_reading, "MAXIMUM_FRAMES", 10)
    monkeypatch.setattr(video_reading, "MAXIMUM_PIXELS", 320 * 240 - 1)
    with pytest.raises(VideoRefused) as error:
        cleaned(FILM)
    assert error.value.reason == "video-too-large"


def test_the_officer_sees_frames_and_what_is_marked_is_masked_in_all() -> None:
    frames = [np.full((48, 64, 3), 60 + 5 * t, np.uint8) for t in range(20)]
    _result, clean = cleaned(film(frames))
    sheet = contact_sheet.draw(stills.shown(clean))
    assert sheet.shape == (144, 192, 3)
    parts: list[bytes] = []
    # Marked in the middle cell.
    assert stills.masked(clean, [[64 + 20, 48 + 10, 30, 30]], parts.append) == b""
    again = b"".join(parts)
    assert is_clean_video(again)
    for frame in frames_of(again):
        assert frame.pixels[18:32, 28:42].max() < 32
        assert frame.pixels[:8].min() > 40


def test_a_decoder_that_writes_something_else_is_not_believed(
    worker: FileWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken_over(_head, _body, sink):
        sink(FILM)
        return {"frames": 4, "boxes": [], "actions": {}, "review": ""}, b""

    monkeypatch.setattr(worker.decoder, "ask", taken_over)
    (tmp_path / "film.mp4").write_bytes(FILM)
    row = worker.process(Source(str(tmp_path / "film.mp4"), "", "film.mp4", 1), "")
    assert (row["status"], row["reason"], row["target"]) == ("quarantined", "not-clean", "")
    assert [path for path in worker.dst.rglob("*") if path.is_file()] == []
