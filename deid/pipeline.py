"""The batch: every input is accounted for, every output is whole, a killed run goes on."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deid import intake, output, pool, report, tables
from deid.profile import Profile
from deid.quarantine import Quarantined
from deid.report import Row, Summary
from deid.vault import Crosswalk, Pseudonyms
from policies.errors import CannotRun, Invalid, _

VERSION = "2"
# A report is a file that others may write: a target that could climb out of DST is not believed.
_TARGET = re.compile(r"(?:[A-Za-z0-9_-]+/)?[A-Za-z0-9_-]+\.[a-z0-9]+|")
Progress = Callable[[int, int, Mapping[str, object]], None]


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of a batch, by the keyed digest of each input's place in it."""

    number: int
    count: int

    def has(self, name: str, pseudonyms: Pseudonyms) -> bool:
        """Whether the input of that name belongs to it."""
        digest = pseudonyms.digest("shard", name)
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1


def default_report(dst: Path) -> Path:
    """Beside DST, never under it, because what is under DST is published."""
    return dst.parent / f"{dst.name}.report.jsonl"


def run(
    src: Path,
    dst: Path,
    *,
    key: bytes,
    profile: Profile,
    workers: int = 1,
    report: Path | None = None,
    resume: bool = False,
    quarantine: Path | None = None,
    progress: Progress | None = None,
    crosswalk: Crosswalk | None = None,
    shard: Shard | None = None,
) -> Summary:
    """De-identify everything under ``src`` into ``dst`` and write the report.

    With a ``shard`` only its inputs are cleaned, and no tables: they speak of the files of all
    shards. Where the outputs and rows of all shards have been put together, a run with ``resume``
    and no shard makes the rest and leaves what a run without shards would have.

    ``progress`` is called with the number done, the number of all, and the row. With ``resume``
    the outputs of an interrupted run with the same key and profile are kept. Raises
    :class:`Invalid` for wrong places, :class:`deid.output.DiskFull` when there is no room,
    :class:`deid.output.Unwritable` when outputs cannot be stored and :class:`SourceGone` when no
    input is left to be read; a single bad input never raises.
    """
    started = _Run(src, dst, key, profile, report or default_report(dst), quarantine, crosswalk)
    started.shard = shard
    return started.run(workers=workers, resume=resume, progress=progress)


class SourceGone(CannotRun):
    """All inputs went away while they were read, as where a disk is taken away; outputs stay."""

    def __init__(self) -> None:
        super().__init__(
            _(
                "SRC is not there any more. Nothing was lost: bring it back and run the same "
                "command again with --resume."
            ),
            code="deid.source-gone",
        )


class _Run:
    def __init__(
        self,
        src: Path,
        dst: Path,
        key: bytes,
        profile: Profile,
        report_path: Path,
        quarantine: Path | None,
        crosswalk: Crosswalk | None,
    ) -> None:
        self.src, self.dst, self.key, self.profile = src, dst, key, profile
        self.report_path, self.quarantine, self.crosswalk = report_path, quarantine, crosswalk
        self.pseudonyms = Pseudonyms(key)
        # Rows of another key, profile or version say nothing about this run's outputs.
        self.fingerprint = self.pseudonyms.name("run", f"{VERSION} {profile.digest}")
        self.shard: Shard | None = None
        self.published = tables.Published()
        self.targets: set[str] = set()

    def run(self, *, workers: int, resume: bool, progress: Progress | None) -> Summary:
        began = time.monotonic()
        _check_places(self.src, self.dst, self.report_path, self.quarantine)
        sources = intake.walk(self.src)
        if not sources and self.shard is None:
            # As where a disk is not mounted: no input is no reason to remove every output.
            raise Invalid(_("There is nothing to read in this folder."), field="SRC")
        try:
            self.dst.mkdir(parents=True, exist_ok=True)
            if self.quarantine is not None:
                self.quarantine.mkdir(parents=True, exist_ok=True, mode=0o700)
                output.sweep(self.quarantine)
        except OSError as error:
            if error.errno in output.FULL:
                raise output.DiskFull from None
            raise Invalid(_("The output directory cannot be made."), field="DST") from None
        claimed = output.claim(self.dst)
        try:
            output.sweep(self.dst)
            summary = self._claimed(sources, workers, progress, resume=resume)
        finally:
            os.close(claimed)
        summary.seconds = time.monotonic() - began
        return summary

    def _claimed(
        self,
        sources: list[intake.Source],
        workers: int,
        progress: Progress | None,
        *,
        resume: bool,
    ) -> Summary:
        former: set[str] = set()
        done: dict[str, tuple[str, str]] = {}

        def kept() -> Iterator[Row]:
            for row in report.read(self.report_path):
                if _run_of(row) != self.fingerprint:
                    continue
                if row["target"]:
                    former.add(str(row["target"]))
                if not resume:
                    continue
                # A crosswalk must know every file: none is taken as read where one is written.
                if self.crosswalk is None and row["target"] and row["kind"] != "table":
                    done[str(row["source"])] = (str(row["target"]), str(row["digest"]))
                yield row

        journal = report.Journal(self.report_path, kept())
        try:
            self._inputs(sources, workers, done, journal, progress)
            for folder in (self.dst, self.quarantine):
                if folder is not None:
                    output.settle(folder)
            if sources and not any(os.path.lexists(source.path) for source in sources):
                raise SourceGone
            return self._closed(former, journal)
        finally:
            journal.close()

    def _inputs(
        self,
        sources: list[intake.Source],
        workers: int,
        done: Mapping[str, tuple[str, str]],
        journal: report.Journal,
        progress: Progress | None,
    ) -> None:
        patterns = [tables.pattern_for(source.name, self.profile.tables) for source in sources]
        subjects = self._subjects(sources, patterns)
        tasks = [
            pool.Task(index, source, subjects.get(source.name, ""))
            for index, source in enumerate(sources)
            if not patterns[index]
            and (self.shard is None or self.shard.has(source.name, self.pseudonyms))
        ]
        expected = len(sources) if self.shard is None else len(tasks)
        settings = pool.Settings(
            self.key, self.profile, self.dst, self.quarantine, self.fingerprint, done,
            self.crosswalk is not None,
        )  # fmt: skip
        for task, row, mapped in pool.rows(settings, tasks, workers):
            if row["kind"] == "resumed":
                row = {**journal.kept(str(row["source"])), "status": "unchanged"}
            if row["target"] and row["target"] in self.targets:
                row = {**row, "status": "unchanged", "reason": "duplicate"}
            if self.crosswalk is not None:
                self.crosswalk.add(mapped)
            self._account(task.index, task.source, row, journal)
            if progress is not None:
                progress(len(journal), expected, row)
        if self.shard is not None:
            return
        cleaner = tables.TableCleaner(self.pseudonyms, self.published)
        for index, source in enumerate(sources):
            if patterns[index]:
                row = self._table(cleaner, source, patterns[index])
                self._account(index, source, row, journal)
                if progress is not None:
                    progress(len(journal), expected, row)

    def _account(
        self, index: int, source: intake.Source, row: Row, journal: report.Journal
    ) -> None:
        if row["target"]:
            self.targets.add(str(row["target"]))
            if row["kind"] != "table":
                self.published.add(source.name, str(row["target"]))
        journal.add(index, row)

    def _subjects(self, sources: list[intake.Source], patterns: list[str]) -> dict[str, str]:
        """Whose each input is, where a table beside it says so."""
        found: dict[str, str] = {}
        reader = intake.Reader()
        for source, pattern in zip(sources, patterns, strict=True):
            if not pattern.endswith(".csv"):
                continue
            try:
                data = reader.text(source)
            except Quarantined:
                continue
            folder = source.name.rpartition("/")[0]
            for file, subject in tables.subjects_of(data, self.profile.tables[pattern]).items():
                name = file.replace("\\", "/").removeprefix("./")
                found[f"{folder}/{name}" if folder else name] = subject
        reader.close()
        return found

    def _table(self, cleaner: tables.TableCleaner, source: intake.Source, pattern: str) -> Row:
        began = time.monotonic()
        reader = intake.Reader()
        digest = "unread-" + self.pseudonyms.name("input", source.name)
        try:
            data = reader.text(source)
            digest = output.digest_of_bytes(data)
            kinds = self.profile.tables[pattern]
            target, cleaned = cleaner.clean(source.name, pattern, kinds, data)
            if target in self.targets:
                raise Quarantined("second-table")
            written, changed = output.write(self.dst, target, [cleaned])
            row = report.row(
                digest, "written" if changed else "unchanged", kind="table", target=target,
                digest=written, run=self.fingerprint, seconds=time.monotonic() - began,
            )  # fmt: skip
        except Quarantined as held:
            if self.quarantine is not None and not digest.startswith("unread"):
                output.write(self.quarantine, digest, [data])
            row = report.row(
                digest, "quarantined", kind="table", reason=held.reason, run=self.fingerprint
            )
        finally:
            reader.close()
        return row

    def _closed(self, former: set[str], journal: report.Journal) -> Summary:
        """Remove outputs whose inputs are gone, and write the report in the inputs' order."""
        for target in former - self.targets:
            (self.dst / target).unlink(missing_ok=True)
        foreign = 0
        for folder, _folders, files in os.walk(self.dst):
            inside = Path(folder).relative_to(self.dst).as_posix()
            for name in files:
                path = name if inside == "." else f"{inside}/{name}"
                foreign += path not in self.targets
        summary = journal.finish()
        summary.foreign = foreign
        return summary


def _run_of(row: Row) -> str:
    """The fingerprint of a row's run; empty for a row that no run of ours wrote like this."""
    complete = all(name in row for name in ("target", "digest", "kind", "reason", "boxes"))
    if not complete or not _TARGET.fullmatch(str(row["target"])):
        return ""
    return str(row.get("run", ""))


def _check_places(src: Path, dst: Path, report_path: Path, quarantine: Path | None) -> None:
    """Nothing that identifies may come to lie under DST, and nothing of SRC may be overwritten."""
    source, target = src.resolve(), dst.resolve()
    if not src.exists():
        raise Invalid(_("There is no such folder, zip or file."), field="SRC")
    if target == source or target.is_relative_to(source) or source.is_relative_to(target):
        raise Invalid(_("SRC and DST must not lie in each other."), field="DST")
    if dst.exists() and not dst.is_dir():
        raise Invalid(_("DST must be a folder."), field="DST")
    for field, path in (("--report", report_path), ("--quarantine", quarantine)):
        if path is not None:
            check_beside(field, path, src, dst)


def check_beside(field: str, path: Path, src: Path, dst: Path) -> None:
    """Refuse a place under DST, which is published, or under SRC, which is only read."""
    source, target, place = src.resolve(), dst.resolve(), path.resolve()
    if place.is_relative_to(target):
        raise Invalid(_("This must not lie under DST, which is published."), field=field)
    if place == source or place.is_relative_to(source):
        raise Invalid(_("This must not lie under SRC, which is only read."), field=field)
