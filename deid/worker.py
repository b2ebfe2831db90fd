"""One input after another, in a process that holds the project's key and decodes no picture."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deid import channel, output, report, video_container
from deid.decoding import Decoder
from deid.dicom.clean import DicomCleaner
from deid.dicom.header import HeaderCleaner
from deid.dicom.plan import Plan
from deid.intake import Reader, Source
from deid.photo_room import is_video, suffix_of
from deid.profile import Profile, from_document
from deid.quarantine import Quarantined
from deid.spill import Buffer
from deid.vault import KEY_BYTES, Pseudonyms
from policies.errors import CannotRun

UNSUPPORTED = (
    (b"%PDF", "document"),
    (b"\x1f\x8b", "archive"),
    (b"7z\xbc\xaf", "archive"),
    (b"Rar!", "archive"),
    (b"PK\x03\x04", "bad-zip"),
    (b"OggS", "video-format"),
    (b"FLV\x01", "video-format"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video-format"),
    (b"\0\0\x01\xba", "video-format"),
    (b"\0\0\x01\xb3", "video-format"),
)


class FileWorker:
    """Cleans inputs into DST; what it answers is a row of the report."""

    def __init__(
        self,
        *,
        key: bytes,
        profile: Profile,
        dst: Path,
        quarantine: Path | None,
        run: str,
        done: Mapping[str, tuple[str, str]],
        keep_map: bool = False,
    ) -> None:
        self.pseudonyms = Pseudonyms(key)
        self.profile = profile
        self.dst, self.quarantine, self.run, self.done = dst, quarantine, run, done
        self.decoder = Decoder()
        if profile.has("clean_pixel_data"):
            self.decoder.start()
        self.reader = Reader()
        header = HeaderCleaner(Plan(profile), self.pseudonyms, keep_map=keep_map)
        self.dicom = DicomCleaner(header, self.decoder)
        self.mapped: dict[str, dict[str, str]] = {}

    def process(self, source: Source, subject: str) -> report.Row:
        """Clean one input. Raises what :func:`deid.output.write` does; all else becomes a row."""
        began = time.monotonic()
        self.mapped = {}
        digest = ""
        data: Buffer = b""
        kind = "other"
        try:
            data = self.reader.read(source)
            digest = output.digest_of_bytes(data)
            row = self._already(digest)
            if row is None:
                kind, row = self._cleaned(data, digest, subject)
        except CannotRun:
            raise  # what cannot be stored is nothing of this input
        except Quarantined as held:
            row = self._row(digest, "quarantined", kind=kind, reason=held.reason)
        except OSError as error:  # a large value found no room beside the outputs
            if error.errno in output.FULL:
                raise output.DiskFull from None
            row = self._row(digest, "failed", kind=kind, reason="internal-OSError")
        except MemoryError:
            row = self._row(digest, "quarantined", kind=kind, reason="too-large")
        except Exception as error:  # one bad file never ends a batch; its text stays inside
            row = self._row(digest, "failed", kind=kind, reason=f"internal-{type(error).__name__}")
        if not digest:
            # An input that cannot be read has no digest; its place under the key names it.
            row["source"] = "unread-" + self.pseudonyms.name("input", source.name)
        if row["status"] in ("quarantined", "failed") and self.quarantine is not None and digest:
            output.write(self.quarantine, digest, [data])
        row["seconds"] = round(time.monotonic() - began, 4)
        return row

    def _row(self, source: str, status: str, **rest: Any) -> report.Row:
        return report.row(source, status, run=self.run, **rest)

    def _already(self, digest: str) -> report.Row | None:
        """A row for an input whose output a former run of the same kind has finished."""
        target, written = self.done.get(digest, ("", ""))
        if not target:
            return None
        path = self.dst / target
        if not path.is_file() or output.digest_of(path) != written:
            return None
        return self._row(digest, "unchanged", kind="resumed", target=target, digest=written)

    def _cleaned(self, data: Buffer, digest: str, subject: str) -> tuple[str, report.Row]:
        for signature, reason in UNSUPPORTED:
            if data[: len(signature)] == signature:
                raise Quarantined(reason)
        if suffix_of(data) and data[128:132] != b"DICM":
            return "photo", self._photo(data, digest, subject)
        if is_video(data) and data[128:132] != b"DICM":
            return "video", self._video(data, digest, subject)
        result = self.dicom.clean(data, digest)
        self.mapped = result.mapped
        target = f"{result.subject}/{self.pseudonyms.name('file', digest)}.dcm"
        return "dicom", self._write(
            digest,
            target,
            result.chunks,
            kind="dicom",
            actions=result.actions,
            boxes=_by_kind(result.boxes),
            stratum=result.stratum,
            review=result.review,
        )

    def _photo(self, data: Buffer, digest: str, subject: str) -> report.Row:
        head = {"operation": "photo", **self.profile.photos}
        answer, cleaned = self.decoder.ask(head, data)
        suffix = str(answer["suffix"])
        if suffix not in (".jpg", ".png", ".tif") or not cleaned:
            raise Quarantined("cannot-decode")
        person = self.pseudonyms.patient(subject or f"file {digest}")
        return self._write(
            digest,
            f"{person}/{self.pseudonyms.name('file', digest)}{suffix}",
            [cleaned],
            kind="photo",
            actions={str(name): str(what) for name, what in answer["actions"].items()},
            boxes=_by_kind(answer["boxes"]),
            stratum={"modality": "photo", "vendor": "", "sop_class": ""},
            review=str(answer["review"]),
        )

    def _video(self, data: Buffer, digest: str, subject: str) -> report.Row:
        head = {"operation": "video", **self.profile.photos}
        person = self.pseudonyms.patient(subject or f"file {digest}")
        target = f"{person}/{self.pseudonyms.name('file', digest)}.mp4"
        with output.Part(self.dst, target) as part:
            answer, _nothing = self.decoder.ask(head, data, sink=part.write)
            # Whoever took the decoder over may have written anything.
            if not video_container.is_clean_file(part.finish(), int(answer["frames"])):
                raise Quarantined("not-clean")
            written, changed = part.keep()
        return self._row(
            digest,
            "written" if changed else "unchanged",
            target=target,
            digest=written,
            kind="video",
            actions={str(name): str(what) for name, what in answer["actions"].items()},
            boxes=_by_kind(answer["boxes"]),
            stratum={"modality": "video", "vendor": "", "sop_class": ""},
            review=str(answer["review"]),
        )

    def _write(self, digest: str, target: str, chunks: list[Any], **rest: Any) -> report.Row:
        written, changed = output.write(self.dst, target, chunks)
        status = "written" if changed else "unchanged"
        return self._row(digest, status, target=target, digest=written, **rest)

    def close(self) -> None:
        """End the decoder and close what is open."""
        self.decoder.close()
        self.reader.close()


def _by_kind(boxes: list[list[Any]]) -> report.Boxes:
    found: report.Boxes = {}
    for kind, x, y, width, height, score in boxes:
        if kind in ("text", "face", "plate"):
            place: dict[str, int | float] = {
                "x": int(x),
                "y": int(y),
                "width": int(width),
                "height": int(height),
                "score": round(float(score), 4),
            }
            found.setdefault(kind, []).append(place)
    return found


def main() -> None:
    """Serve one parent: first the settings (the key comes here, not on a command line)."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    first = channel.receive(requests)
    if first is None:
        return
    settings, body = first
    key, done = bytes(body[:KEY_BYTES]), json.loads(bytes(body[KEY_BYTES:]))
    # What is too large for memory lies, without a name, on the disk that the outputs go to.
    tempfile.tempdir = settings["dst"]
    worker = FileWorker(
        key=key,
        profile=from_document(settings["profile"]),
        dst=Path(settings["dst"]),
        quarantine=Path(settings["quarantine"]) if settings["quarantine"] else None,
        run=settings["run"],
        done={source: (target, digest) for source, target, digest in done},
        keep_map=settings["keep_map"],
    )
    try:
        while (message := channel.receive(requests)) is not None:
            rows = []
            try:
                for task in message[0]["tasks"]:
                    row = worker.process(Source(**task["source"]), task["subject"])
                    rows.append((row, worker.mapped))
                channel.send(answers, {"rows": rows})
            except output.DiskFull:
                channel.send(answers, {"fatal": "disk-full"})
            except output.Unwritable as error:
                channel.send(answers, {"fatal": "unwritable", "errno": error.errno})
    finally:
        worker.close()
