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
                yield task, *apart.work(task)
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
            [sys.executable, "-m", "deid.worker"],
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

    def work(self, task: Task) -> tuple[report.Row, Mapped]:
        message = None
        try:
            process = self.start()
            channel.send(
                cast(BinaryIO, process.stdin),
                {"source": dataclasses.asdict(task.source), "subject": task.subject},
            )
            message = channel.receive(cast(BinaryIO, process.stdout))
        except (OSError, ValueError):
            message = None
        if message is None:
            self.close()
            name = Pseudonyms(self.settings.key).name("input", task.source.name)
            lost = report.row(
                f"unread-{name}",
                "quarantined",
                kind="other",
                run=self.settings.run,
                reason="worker-crash",
            )
            return lost, {}
        head = message[0]
        if head.get("fatal") == "unwritable":
            raise output.Unwritable(head["errno"])
        if "fatal" in head:
            raise output.DiskFull
        return head["row"], head["mapped"]

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


def _in_processes(settings: Settings, tasks: Sequence[Task], workers: int) -> Iterator[_Answer]:
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    answers: queue.SimpleQueue[_Answer | BaseException | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def drive() -> None:
        process = _Process(settings)
        try:
            while not stopped.is_set():
                try:
                    task = waiting.get_nowait()
                except queue.Empty:
                    break
                answers.put((task, *process.work(task)))
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
