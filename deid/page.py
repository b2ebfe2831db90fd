"""A run's report as one page: no script, nothing from elsewhere, written row by row.

The page names inputs as the report does, by digest. Its pictures are of what lies in DST; with
the originals beside them the page identifies, and says so.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path

from deid import intake, output, report, words
from deid.decoding import Decoder
from deid.profile import OPTION_CODES, Profile
from deid.quarantine import Quarantined
from deid.report import STATUSES, Row
from deid.spill import Buffer

PICTURES = 60
SIDE = 400  # pixels of a small picture
ROWS_A_PART = 1000
# As many answers as a list of boxes to tick can hold; the rest share one.
MOST = 40
ELSE = "everything else"
STATUS_WORDS: Mapping[str, str] = {
    "written": "written",
    "unchanged": "there before",
    "quarantined": "held back",
    "failed": "failed",
}


@dataclass
class _Counts:
    """What the head of the page says, of all rows."""

    inputs: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    kind_status: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    reviews: Counter[str] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    files_with_pictures: int = 0

    def add(self, row: Row) -> None:
        self.inputs += 1
        self.statuses[str(row["status"])] += 1
        self.kinds[kind_of(row)] += 1
        self.kind_status[kind_of(row), str(row["status"])] += 1
        if row["reason"]:
            self.reasons[str(row["reason"])] += 1
        if row.get("review"):
            self.reviews[str(row["review"])] += 1
        for kind, boxes in row["boxes"].items():
            self.boxes[str(kind)] += len(boxes)
        self.actions.update(each for each in row["actions"].values() if each in words.ACTIONS)
        self.files_with_pictures += _has_picture(row)


@dataclass(frozen=True)
class _Facet:
    """One list of answers to show or hide rows by; each answer has a class of its own."""

    title: str
    letter: str
    answers: Mapping[str, tuple[str, str, int]]  # answer: class, words, rows

    def class_of(self, answer: str) -> str:
        known = self.answers.get(answer) or self.answers.get(ELSE)
        return known[0] if known else ""


def kind_of(row: Row) -> str:
    """What a row is listed under: its modality, or the kind of file."""
    return str(row["stratum"].get("modality") or row["kind"])


def _has_picture(row: Row) -> bool:
    return (
        bool(row["target"])
        and row["kind"] in ("dicom", "photo", "video")
        and row["reason"] != "duplicate"
    )


def write(
    path: Path,
    report_path: Path,
    *,
    dst: Path,
    profile: Profile,
    pictures: int = PICTURES,
    originals: Path | None = None,
) -> int:
    """Write the page of a finished report; return how many pictures it has.

    With ``originals`` each picture has the original beside it. Needs memory for the pictures that
    are shown and not for the rows. Raises :class:`deid.output.DiskFull`.
    """
    counts = _Counts()
    # Who has to be looked at comes first, then what was masked, then any; by digest, not by order.
    chosen: list[tuple[tuple[bool, bool, str], Row]] = []

    def ranked() -> Iterator[tuple[tuple[bool, bool, str], Row]]:
        for row in report.read(report_path):
            counts.add(row)
            if _has_picture(row):
                yield (not row.get("review"), not row["boxes"], str(row["digest"])), row

    candidates = ranked()
    chosen = heapq.nsmallest(pictures, candidates, key=lambda each: each[0])
    for _rest in candidates:  # for no pictures nothing was read, and nothing counted
        continue
    rows = [row for _rank, row in chosen]
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = 0
    with output.draft(path, mode=0o600 if originals else 0o644) as out:
        for text in _head(counts, profile, identifies=originals is not None):
            out.write(text.encode())
        shown = _figures(rows, dst, originals)
        films = any(row["kind"] == "video" for row in rows)
        head = _pictures_head(len(rows), counts.files_with_pictures, films=films)
        out.write(head.encode())
        for text in shown:
            drawn += 1
            out.write(text.encode())
        out.write(b"</div>\n" if rows else b"")
        for text in _table(report_path, _facets(counts)):
            out.write(text.encode())
        out.write(b"</main>\n</html>\n")
    return drawn


def _head(counts: _Counts, profile: Profile, *, identifies: bool) -> Iterator[str]:
    facets = _facets(counts)
    hidden = "".join(
        f"body:has(#{name}:not(:checked)) tr.{name}{{display:none}}\n"
        for facet in facets
        for name, _words, _rows in facet.answers.values()
    )
    style = resources.files("deid").joinpath("page.css").read_text("utf-8") + hidden
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    title = "De-identification report"
    if identifies:
        title = f"IDENTIFYING: {title} with originals"
    yield (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n<body>\n<main>\n<h1>{title}</h1>\n"
    )
    if identifies:
        yield (
            '<p class="warning" role="alert">This page shows originals. Keep it like the originals '
            "themselves: do not send it, and delete it when it has been read.</p>\n"
        )
    options = ", ".join(
        meaning.removesuffix(" Option")
        for option, (_code, meaning) in OPTION_CODES.items()
        if profile.has(option)
    )
    yield (
        f'<p class="soft">Profile <code>{escape(profile.name)}</code>: PS3.15 Basic Profile'
        f"{' with ' + escape(options) if options else ''}. Inputs are named by the SHA-256 of "
        "their content; the names of files and folders are not in this page.</p>\n"
    )
    yield '<ul class="figures">\n' + _figure(counts.inputs, "inputs")
    for status in STATUSES:
        yield _figure(counts.statuses[status], STATUS_WORDS[status])
    if counts.reviews:
        yield _figure(counts.reviews.total(), "for a person to look at")
    yield "</ul>\n"
    yield '<div class="columns">\n'
    yield from _by_kind(counts)
    yield _counted("Why inputs were not written", counts.reasons)
    reviews = Counter({words.review(name): n for name, n in counts.reviews.items()})
    yield _counted("Why a person has to look", reviews)
    acts = Counter({words.ACTIONS.get(name, name): n for name, n in counts.actions.items()})
    yield _counted("What was done to attributes", acts)
    boxes = Counter({words.BOXES.get(name, name): n for name, n in counts.boxes.items()})
    yield _counted("Places masked in pixels", boxes)
    yield "</div>\n"


def _figure(number: int, text: str) -> str:
    return f"<li><strong>{number:,}</strong>{text}</li>\n"


def _by_kind(counts: _Counts) -> Iterator[str]:
    if not counts.inputs:
        return
    used = [status for status in STATUSES if counts.statuses[status]]
    yield '<section><h2>By modality</h2>\n<table class="counts">\n<tr><th scope="col">modality</th>'
    yield "".join(f'<th scope="col">{STATUS_WORDS[each]}</th>' for each in used)
    yield '<th scope="col">all</th></tr>\n'
    shown = counts.kinds.most_common(MOST)
    for kind, all_of_it in shown:
        cells = "".join(f"<td>{counts.kind_status[kind, each]:,}</td>" for each in used)
        yield f'<tr><th scope="row">{escape(kind)}</th>{cells}<td>{all_of_it:,}</td></tr>\n'
    if len(counts.kinds) > MOST:
        rest = counts.inputs - sum(number for _kind, number in shown)
        blank = "<td></td>" * len(used)
        yield f'<tr><th scope="row">{ELSE}</th>{blank}<td>{rest:,}</td></tr>\n'
    yield "</table></section>\n"


def _counted(title: str, counter: Counter[str]) -> str:
    if not counter:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(words.reason(name))}</th><td>{number:,}</td></tr>\n'
        for name, number in counter.most_common(MOST)
    )
    return f'<section><h2>{title}</h2>\n<table class="counts">\n{rows}</table></section>\n'


def _facets(counts: _Counts) -> list[_Facet]:
    reasons = Counter(counts.reasons)
    return [
        _facet("Status", "s", counts.statuses, STATUS_WORDS),
        _facet("Modality", "m", counts.kinds, {}),
        _facet("Reason", "r", reasons, words.REASONS),
    ]


def _facet(title: str, letter: str, counter: Counter[str], said: Mapping[str, str]) -> _Facet:
    common = counter.most_common(MOST)
    answers = {
        name: (f"{letter}{number}", said.get(name, name.replace("-", " ")), rows)
        for number, (name, rows) in enumerate(common)
    }
    rest = counter.total() - sum(rows for _name, rows in common)
    if rest:
        answers[ELSE] = (f"{letter}{len(common)}", ELSE, rest)
    return _Facet(title, letter, answers)


def _pictures_head(chosen: int, possible: int, *, films: bool) -> str:
    if not chosen:
        return ""
    which = (
        "All outputs with a picture are shown."
        if chosen == possible
        else f"{chosen:,} of {possible:,} outputs with a picture are shown: first those that a "
        "person has to look at, then those in which something was masked, then others."
    )
    if films:
        which += " Of a film a sheet of up to nine of its frames is shown."
    return (
        f'<h2>Pictures</h2>\n<p class="soft">{which} They show what was written, small, with the '
        "masked places framed: text orange, faces blue, plates violet. They are as confidential as "
        'the output itself.</p>\n<div class="pictures">\n'
    )


def _figures(rows: list[Row], dst: Path, originals: Path | None) -> Iterator[str]:
    decoder = Decoder()
    try:
        before = _before(rows, originals, decoder) if originals is not None else {}
        for row in rows:
            yield _figure_of(row, dst, decoder, before.get(str(row["source"])))
    finally:
        decoder.close()


def _before(rows: list[Row], originals: Path, decoder: Decoder) -> dict[str, str]:
    """Small pictures of the originals, by digest: what cannot be drawn says why."""
    wanted = {str(row["source"]): row for row in rows}
    found: dict[str, str] = {}
    reader = intake.Reader()
    try:
        for source in intake.walk(originals):
            if len(found) == len(wanted):
                break
            try:
                data = reader.read(source)
            except Quarantined:
                continue
            digest = output.digest_of_bytes(data)
            if digest in wanted and digest not in found:
                found[digest] = _drawn(data, decoder, wanted[digest], "original")
    finally:
        reader.close()
    return {digest: found.get(digest, "<p>the original is gone</p>") for digest in wanted}


def _figure_of(row: Row, dst: Path, decoder: Decoder, before: str | None) -> str:
    try:
        after = _drawn((dst / str(row["target"])).read_bytes(), decoder, row, "output")
    except OSError:
        after = f"<p>{words.reason('missing')}</p>"
    masked = ", ".join(
        f"{words.BOXES.get(kind, kind)} {len(boxes)}" for kind, boxes in row["boxes"].items()
    )
    masked = f"masked: {masked}" if masked else "nothing masked"
    review = f"<br>{escape(words.review(str(row['review'])))}" if row.get("review") else ""
    return (
        f"<figure{' class=two' if before else ''}><div class=sides>{before or ''}{after}</div>"
        f"<figcaption>{escape(kind_of(row))}, {masked}{review}<br>"
        f"<code>{escape(str(row['target']))}</code></figcaption></figure>\n"
    )


def _drawn(data: Buffer, decoder: Decoder, row: Row, what: str) -> str:
    try:
        size, picture = decoder.ask({"operation": "picture", "largest": SIDE, "small": True}, data)
        width, height = int(size["width"]), int(size["height"])
    except (Quarantined, KeyError, ValueError) as error:
        return f"<p>{escape(words.reason(getattr(error, 'reason', 'cannot-decode')))}</p>"
    boxes = "".join(
        f'<rect class="box {kind}" x="{int(box["x"])}" y="{int(box["y"])}" '
        f'width="{int(box["width"])}" height="{int(box["height"])}"/>'
        for kind in words.BOXES
        for box in row["boxes"].get(kind, ())
    )
    encoded = base64.b64encode(picture).decode()
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{what}">'
        f'<image width="{width}" height="{height}" href="data:image/jpeg;base64,{encoded}"/>'
        f"{boxes}</svg>"
    )


def _table(report_path: Path, facets: list[_Facet]) -> Iterator[str]:
    yield '<h2>Every input</h2>\n<section class="rows">\n'
    for facet in facets:
        if len(facet.answers) > 1 or (facet.letter == "r" and facet.answers):
            yield f"<fieldset><legend>{facet.title}</legend>\n"
            for name, said, number in facet.answers.values():
                yield (
                    f'<label><input type="checkbox" id="{name}" checked> {escape(said)} '
                    f'<span class="soft">{number:,}</span></label>\n'
                )
            yield "</fieldset>\n"
    rows = report.read(report_path)
    while part := list(itertools.islice(rows, ROWS_A_PART)):
        yield '<div class="part"><table>\n<thead><tr>'
        for title in ("input", "status", "modality", "what was done", "output"):
            yield f'<th scope="col">{title}</th>'
        yield "</tr></thead>\n<tbody>\n"
        for row in part:
            yield _line(row, facets)
        yield "</tbody></table></div>\n"
    yield "</section>\n"


def _line(row: Row, facets: list[_Facet]) -> str:
    answers = (str(row["status"]), kind_of(row), str(row["reason"]))
    names = " ".join(
        facet.class_of(answer) for facet, answer in zip(facets, answers, strict=True) if answer
    )
    status = str(row["status"]) if row["status"] in STATUSES else "failed"
    source = str(row["source"])
    return (
        f'<tr class="{names}"><td><code title="{escape(source)}">{escape(source[:16])}</code></td>'
        f'<td class="{status}">{STATUS_WORDS[status]}</td><td>{escape(kind_of(row))}</td>'
        f"<td>{escape(_done(row))}</td><td><code>{escape(str(row['target']))}</code></td></tr>\n"
    )


def _done(row: Row) -> str:
    """What became of one input, in a line of plain words."""
    said = []
    if row["reason"]:
        said.append(words.reason(str(row["reason"])))
    acts = Counter(each for each in row["actions"].values() if each in words.ACTIONS)
    changed = acts.total() - acts["X"] - acts["K"]
    if acts["X"] or changed:
        said.append(f"attributes: {acts['X']} removed, {changed} changed")
    said += [
        f"{words.BOXES.get(kind, kind)} masked: {len(boxes)}"
        for kind, boxes in row["boxes"].items()
    ]
    if row.get("review"):
        said.append(f"for a person to look at: {words.review(str(row['review']))}")
    return "; ".join(said)
