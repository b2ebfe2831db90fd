"""Hand inputs to workers: in this process for one, in processes of their own for several."""

from __future__ import annotations

import dataclasses
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from deid import channel, output, report
from deid.decoding import child_environment
from deid.intake import Source
from deid.profile import Profile
from deid.spill import LARGE
from deid.vault import Pseudonyms
from deid.worker import FileWorker

PORTION, PORTION_BYTES = 16, 512 << 10
Mapped = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Settings:
    """What every worker of a run needs."""

    key: bytes
    profile: Profile
    dst: Path
    quarantine: Path | None
    run: str
    done: Mapping[str, tuple[str, str]]
    keep_map: bool


@dataclass(frozen=True)
class Task:
    """One input with the subject that the labels name for it, if any."""

    index: int
    source: Source
    subject: str


def rows(settings: Settings, tasks: Sequence[Task], workers: int
         ) -> Iterator[tuple[Task, report.Row, Mapped]]:  # fmt: skip
    """The row of each task as it is finished. Raises :class:`deid.output.DiskFull`."""
    if workers <= 1 or len(tasks) <= 1:
        yield from _here(settings, tasks)
    else:
        yield from _in_processes(settings, tasks, min(workers, len(tasks)))


def _here(settings: Settings, tasks: Sequence[Task]) -> Iterator[tuple[Task, report.Row, Mapped]]:
    worker = FileWorker(
        key=settings.key,
        profile=settings.profile,
        dst=settings.dst,
        quarantine=settings.quarantine,
        run=settings.run,
        done=settings.done,
        keep_map=settings.keep_map,
    )
    apart = _Process(settings)
    try:
        for task in tasks:
            if task.source.size > LARGE:
                # Its file is mapped; see deid.intake.Reader.read.
                yield from apart.work([task])
            else:
                yield task, worker.process(task.source, task.subject), worker.mapped
    finally:
        apart.close()
        worker.close()


class _Process:
    """One worker process; when it dies, the input it was on is held back."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        if self.process is not None and self.process.poll() is None:
            return self.process
        settings = self.settings
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deid.worker_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            close_fds=True,
        )
        channel.send(
            cast(BinaryIO, self.process.stdin),
            {
                "profile": settings.profile.document,
                "dst": str(settings.dst.absolute()),
                "quarantine": str(settings.quarantine.absolute()) if settings.quarantine else "",
                "run": settings.run,
                "keep_map": settings.keep_map,
            },
            settings.key,
            json.dumps([[source, *rest] for source, rest in settings.done.items()]).encode(),
        )
        return self.process

    def work(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, report.Row, Mapped]]:
        """The rows of some tasks. Where the worker dies of one, they are done one by one."""
        message = None
        try:
            process = self.start()
            asked = [
                {"source": dataclasses.asdict(task.source), "subject": task.subject}
                for task in tasks
            ]
            channel.send(cast(BinaryIO, process.stdin), {"tasks": asked})
            message = channel.receive(cast(BinaryIO, process.stdout))
        except (OSError, ValueError):
            message = None
        if message is None:
            self.close()
            if len(tasks) > 1:
                for task in tasks:
                    yield from self.work([task])
                return
            (task,) = tasks
            name = Pseudonyms(self.settings.key).name("input", task.source.name)
            lost = report.row(
                f"unread-{name}",
                "quarantined",
                kind="other",
                run=self.settings.run,
                reason="worker-crash",
            )
            yield task, lost, {}
            return
        head = message[0]
        if head.get("fatal") == "unwritable":
            raise output.Unwritable(head["errno"])
        if "fatal" in head:
            raise output.DiskFull
        for task, (row, mapped) in zip(tasks, head["rows"], strict=True):
            yield task, row, mapped

    def close(self) -> None:
        if self.process is not None:
            # Closing its input lets a worker end its decoder; a stuck one is ended.
            for stream in (self.process.stdin, self.process.stdout):
                try:
                    cast(BinaryIO, stream).close()
                except OSError:
                    continue
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


_Answer = tuple[Task, report.Row, Mapped]


def _portions(tasks: Sequence[Task], workers: int) -> Iterator[list[Task]]:
    """Small inputs go together, because asking costs as much as cleaning one.

    Few enough that at the end no worker waits long for another.
    """
    most = max(1, min(PORTION, len(tasks) // (workers * 16)))
    portion: list[Task] = []
    size = 0
    for task in tasks:
        if portion and (len(portion) >= most or size + task.source.size > PORTION_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(task)
        size += task.source.size
    if portion:
        yield portion


def _in_processes(settings: Settings, tasks: Sequence[Task], workers: int) -> Iterator[_Answer]:
    waiting: queue.SimpleQueue[list[Task]] = queue.SimpleQueue()
    for portion in _portions(tasks, workers):
        waiting.put(portion)
    answers: queue.SimpleQueue[_Answer | BaseException | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def drive() -> None:
        process = _Process(settings)
        try:
            while not stopped.is_set():
                try:
                    portion = waiting.get_nowait()
                except queue.Empty:
                    break
                for answer in process.work(portion):
                    answers.put(answer)
        except BaseException as error:  # handed to the caller's thread, which raises it
            answers.put(error)
        finally:
            process.close()
            answers.put(None)

    threads = [threading.Thread(target=drive, daemon=True) for _worker in range(workers)]
    for thread in threads:
        thread.start()
    running = workers
    try:
        while running:
            answer = answers.get()
            if answer is None:
                running -= 1
            elif isinstance(answer, BaseException):
                raise answer
            else:
                yield answer
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
