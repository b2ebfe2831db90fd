"""What to run, on what, within which limits, and what came of it.

Plain frozen values: every backend takes the same :class:`SandboxSpec` and answers with the same
:class:`SandboxResult`; a job is a :class:`JobSpec` and ends as an :class:`Outcome`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from policies.submission import Manifest

KiB: Final = 1024
MiB: Final = 1024 * KiB
GiB: Final = 1024 * MiB

#: What a state may be for (architecture, "the command line is the contract").
REASONS: Final[Mapping[str, tuple[str, ...]]] = {
    "finished": ("exit",),
    "failed": ("exit", "memory", "processes", "output-limit", "data", "image"),
    "stopped": ("timeout", "cancelled", "lapsed", "evicted", "node-lost"),
    "refused": ("manifest", "isolation", "resources"),
}

#: Called with (step, {declared metric name: number}) for every valid progress line.
Progress = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Limits:
    """What a sandbox may use. Bytes are bytes, seconds are seconds of the wall clock.

    What lies in ``/output``, ``/tmp`` and ``/dev/shm`` is memory, and counts towards
    ``memory_bytes`` as well as towards its own limit.
    """

    cpus: float = 2
    memory_bytes: int = 4 * GiB
    processes: int = 256
    wall_seconds: float = 1800
    output_bytes: int = 2 * GiB
    output_inodes: int = 20_000
    tmp_bytes: int = 1 * GiB
    shm_bytes: int = 1 * GiB
    open_files: int = 4096
    log_bytes: int = 8 * MiB
    gpus: int = 0
    #: Between the graceful signal and the end of the whole tree.
    grace_seconds: float = 5


@dataclass(frozen=True)
class Mount:
    """A file or directory of this machine, shown at ``target``; read-only unless ``writable``.

    A writable mount is lent to the sandbox's user while it runs and taken back afterwards; the
    runner stops the sandbox when the disk under it has lost more than ``output_bytes``.
    """

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True)
class SandboxSpec:
    """One sealed process tree.

    ``argv[0]`` is looked up inside (``python`` is the image's interpreter). ``stdin`` is given to
    the process and closed: secrets travel there, never in ``argv`` or ``env``. After the end the
    regular files of ``/output`` are copied into ``output`` (an existing or new directory of ours);
    links, devices and whatever else was left there are not. ``metrics`` are the names that may
    pass through ``progress``. ``code`` are the submission's files with their number of lines: a
    fault is reported only for one of them. ``log`` receives standard error, and standard output
    unless it is a pipe of :meth:`RunningSandbox.stdout`, at most ``limits.log_bytes``; it is a file
    to be made, or one that is open already (in memory, where no disk may see it) and stays open.
    """

    id: str
    argv: tuple[str, ...]
    limits: Limits = field(default_factory=Limits)
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    image: str = "pytorch-cpu"
    workdir: str = "/tmp"  # noqa: S108 - inside the sandbox
    output: Path | None = None
    stdin: bytes | None = None
    progress: Progress | None = None
    metrics: frozenset[str] = frozenset()
    code: Mapping[str, int] = field(default_factory=dict)
    log: Path | IO[bytes] | None = None
    extra_fds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Fault:
    """What the applicant learns of an exception: nothing that the submission could have written.

    ``type`` is a built-in exception's name or ``other``; ``file`` is a file of the submission and
    ``line`` a line that exists in it, or empty and 0.
    """

    type: str
    file: str
    line: int


@dataclass(frozen=True)
class SandboxResult:
    """How a sandbox ended; ``state`` and ``reason`` are words of :data:`REASONS`."""

    state: str
    reason: str
    exit_code: int | None
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    backend: str
    backend_version: str
    fault: Fault | None = None
    #: The share of the looks at it at which a process of it waited for a disk; None: not looked.
    data_wait: float | None = None
    #: Left in /output and not copied, with why.
    left_behind: tuple[Rejected, ...] = ()


@dataclass(frozen=True)
class JobSpec:
    """One run of a submission. ``output`` receives the artefacts, under their declared names."""

    id: str
    submission: Path
    manifest: Manifest
    datasets: Mapping[str, Path]
    output: Path
    limits: Limits
    backend: str = "auto"
    minimum_isolation: str = "bubblewrap"
    #: The plain files of an earlier job's checkpoint, seen read-only as /checkpoint.
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Artefact:
    """A file that a job left and that was collected; ``path`` is its declared name."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Rejected:
    """Something a job left that was not collected, and why."""

    path: str
    why: str


@dataclass(frozen=True)
class Outcome:
    """What came of a job, for the machine's operator; the applicant gets a projection of it."""

    state: str
    reason: str
    exit_code: int | None
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    backend: str
    artefacts: tuple[Artefact, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    backend_version: str = ""
    fault: Fault | None = None
    #: How much of what it asked for it used: cpu, memory, data_wait, each from 0 to 1.
    utilisation: Mapping[str, float] = field(default_factory=dict)
    #: For the operator, where the words above need an explanation; safe to show.
    detail: str = ""
    #: The runner's record of a private training (policies/privacy.py), with the weights' digests.
    privacy: Mapping[str, Any] | None = None

    def as_mapping(self) -> dict[str, Any]:
        """Return the JSON document of ``glovebox sandbox run --json``."""
        return {
            "state": self.state,
            "reason": self.reason,
            "exit_code": self.exit_code,
            "wall_seconds": self.wall_seconds,
            "cpu_seconds": self.cpu_seconds,
            "peak_memory_bytes": self.peak_memory_bytes,
            "backend": self.backend,
            "backend_version": self.backend_version,
            "fault": vars(self.fault) if self.fault else None,
            "utilisation": dict(self.utilisation),
            "detail": self.detail,
            "privacy": dict(self.privacy) if self.privacy else None,
            "artefacts": [vars(artefact) for artefact in self.artefacts],
            "rejected": [vars(rejected) for rejected in self.rejected],
        }


@dataclass(frozen=True)
class ManifestEntry:
    """A file of a dataset version: relative path, SHA-256 of its plain bytes, whose it is."""

    path: str
    sha256: str
    bytes: int
    subject: str = ""
    split: str = ""


@dataclass(frozen=True)
class DatasetManifest:
    """The immutable list of a dataset version's files."""

    slug: str
    version: str
    entries: tuple[ManifestEntry, ...]

    def digest(self) -> str:
        """Return the SHA-256, as hex, of the canonical JSON of this manifest."""
        rows = sorted((vars(entry) for entry in self.entries), key=lambda row: row["path"])
        document = {"slug": self.slug, "version": self.version, "entries": rows}
        plain = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(plain.encode()).hexdigest()
