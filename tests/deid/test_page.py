"""The page of a run: all inputs, nothing of whose they are, nothing that runs or is fetched."""

from __future__ import annotations

import io
import json
import re
import stat
import subprocess
import sys
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from deid import page, report, words
from deid.__main__ import main
from synthetic import dicom_files
from tests.deid.test_pipeline import ROOT, rows_of

SECRETS = ("HWANGBO", "MYUNGHEE", "77123", "WARD SEVEN", dicom_files.PREFIX)


class Page(HTMLParser):
    """What a browser would find."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with written, held and unreadable inputs, text in pixels, and both kinds of pages."""
    folder = tmp_path_factory.mktemp("HWANGBO page")
    src = folder / "src"
    (src / "WARD SEVEN").mkdir(parents=True)
    for number in range(3):
        data = dicom_files.base()
        picture = Image.new("L", (400, 300), 10)
        ImageDraw.Draw(picture).text((10, 10), "HWANGBO 77123", fill=255, font_size=28)
        data.Rows, data.Columns, data.BitsAllocated, data.BitsStored, data.HighBit = (
            300,
            400,
            8,
            8,
            7,
        )
        data.PixelData = np.asarray(picture).tobytes()
        data.SOPInstanceUID = f"{dicom_files.PREFIX}.{number}"
        (src / "WARD SEVEN" / f"MYUNGHEE{number}.dcm").write_bytes(dicom_files.written(data))
    (src / "HWANGBO <script>alert(1)<script>.txt").write_text("HWANGBO")
    (src / "empty MYUNGHEE.dcm").touch()
    (src / "HWANGBO link").symlink_to("empty MYUNGHEE.dcm")
    assert main(["keygen", str(folder / "key")]) == 0
    common = [str(src), str(folder / "out"), "--key", str(folder / "key"), "--workers", "1"]
    assert main([*common, "--html", str(folder / "page.html")]) == 0
    own = ["--resume", "--html", str(folder / "own.html"), "--html-originals"]
    assert main([*common, *own, "--html-pictures", "2"]) == 0
    return folder


def test_every_input_stands_on_the_page_with_its_reason_in_words(place: Path) -> None:
    text = (place / "page.html").read_text()
    rows = rows_of(place / "out.report.jsonl")
    assert len(rows) == 6
    lines = [tag for tag in Page(text).of("tr") if "class" in tag]
    assert len(lines) == 6
    for row in rows:
        assert row["source"] in text and row["target"] in text
        if row["reason"]:
            assert words.REASONS[row["reason"]] in text


def test_the_page_names_nobody(place: Path) -> None:
    data = (place / "page.html").read_bytes()
    for secret in (*SECRETS, str(place)):
        assert secret.encode() not in data
    assert b"alert(1)" not in data


def test_its_pictures_are_of_the_output_with_the_masked_places_framed(place: Path) -> None:
    found = Page((place / "page.html").read_text())
    drawn = found.of("image")
    assert len(drawn) == 3
    assert len(found.of("rect")) >= 3
    for each in drawn:
        kind, data = str(each["href"]).split(",", 1)
        assert kind == "data:image/jpeg;base64"
        picture = np.asarray(Image.open(io.BytesIO(b64decode(data))))
        assert max(picture.shape) <= page.SIDE * 3 and picture.max() < 128  # the writing has gone


def test_nothing_on_the_page_runs_or_is_fetched(place: Path) -> None:
    text = (place / "page.html").read_text()
    found = Page(text)
    names = {tag for tag, _attributes in found.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base", "a"}
    policy = next(each for each in found.of("meta") if each.get("http-equiv"))["content"] or ""
    assert "default-src 'none'" in policy and "script" not in policy and "unsafe" not in policy
    for _tag, attributes in found.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"https?://|url\(|@import", text)


def test_originals_are_shown_only_when_asked_and_then_the_page_says_so(place: Path) -> None:
    own = (place / "own.html").read_text()
    assert "<title>IDENTIFYING" in own and "This page shows originals" in own
    assert stat.S_IMODE((place / "own.html").stat().st_mode) == 0o600
    assert len(Page(own).of("image")) == 4
    assert "2 of 3 outputs with a picture are shown" in own
    assert "IDENTIFYING" not in (place / "page.html").read_text()
    for secret in SECRETS:
        assert secret not in own


@pytest.mark.parametrize(
    "arguments",
    [
        ["--html", "OUT/page.html"], ["--html", "SRC/page.html"], ["--html-originals"],
        ["--html-pictures", "3"], ["--html", "OTHER.html", "--html-pictures", "-1"],
        ["--html", "KEY"],
    ],
)  # fmt: skip
def test_a_page_where_it_must_not_lie_is_refused(arguments: list[str], place: Path) -> None:
    places = {"OUT": "out", "SRC": "src", "KEY": "key", "OTHER.html": "other.html"}
    given = [
        str(place / places.get(each.split("/")[0], "x") / "/".join(each.split("/")[1:]))
        if each.split("/")[0] in places
        else each
        for each in arguments
    ]
    key = (place / "key").read_bytes()
    common = [str(place / "src"), str(place / "out"), "--key", str(place / "key"), "--resume"]
    assert main([*common, *given]) == 2
    assert (place / "key").read_bytes() == key
    assert not (place / "out" / "page.html").exists()
    assert main(["verify", str(place / "out"), "--html", str(place / "other.html")]) == 2


def test_every_reason_that_the_code_gives_has_words() -> None:
    given: set[str] = set()
    for path in (ROOT / "deid").rglob("*.py"):
        text = path.read_text("utf-8")
        given |= set(re.findall(r'Quarantined\(\s*"([a-z-]+)"', text))
        given |= set(re.findall(r'reason="([a-z-]+)"', text))
        given |= set(re.findall(r'\(STORAGE \+ "[0-9.]+", "([a-z-]+)"\)', text))
    assert len(given) > 25
    assert given <= set(words.REASONS)


def test_a_hundred_thousand_rows_need_no_more_memory_than_a_thousand(tmp_path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; from deid import page, profile;"
        "page.write(Path(sys.argv[2]), Path(sys.argv[1]), dst=Path('/nowhere'),"
        " profile=profile.load('research'), pictures=5);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )

    def peak(count: int) -> int:
        source, target = tmp_path / f"{count}.jsonl", tmp_path / f"{count}.html"
        with source.open("w") as out:
            for number in range(count):
                row = report.row(
                    f"{number:064x}", "written", kind="dicom", run="r", digest=f"{number:064x}",
                    target=f"P{number % 999}/{number:016x}.dcm",
                    actions={f"0008{tag:04X}": "X" for tag in range(40)},
                    boxes={"text": [{"x": 1, "y": 2, "width": 3, "height": 4, "score": 0.5}]},
                    stratum={"modality": f"M{number % 90}"},
                )  # fmt: skip
                out.write(json.dumps(row) + "\n")
        ran = subprocess.run(
            [sys.executable, "-c", program, str(source), str(target)],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        with target.open() as made:
            assert sum(line.startswith("<tr class") for line in made) == count
        return int(ran.stdout)

    assert peak(100_000) < peak(1_000) + 16 * 1024  # KiB
