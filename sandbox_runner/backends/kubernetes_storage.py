"""The two claims that a cluster's sandboxes share with the runner: staging in, outbox out.

A pod mounts sub-paths of them and never a path of a node. What already lies under the staging
root (a dataset staged once for many jobs) is mounted where it is; anything else is lent as a copy.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from policies.errors import Invalid
from sandbox_runner.backends.kubernetes_manifests import job_name
from sandbox_runner.backends.kubernetes_settings import ClusterSettings
from sandbox_runner.regular_files import copy_tree
from sandbox_runner.spec import Limits, Mount, Rejected, SandboxSpec

#: Under the staging root: copies that belong to one job.
LENT: Final = "lent"


def lend(spec: SandboxSpec, settings: ClusterSettings) -> SandboxSpec:
    """Return the spec with every source under the staging root, copying where it is not.

    Called again for the same spec it gives the same paths, so that a Job can be taken up again.
    Raises Invalid for a source that holds a device, a FIFO or a socket.
    """
    root = settings.staging_root.resolve()
    mounts = []
    for number, mount in enumerate(spec.mounts):
        source = mount.source.resolve(strict=True)
        inside = source.is_relative_to(root) and source != root
        if not (inside and _is_readable(source)):
            place = settings.staging_root / LENT / job_name(spec.id) / str(number)
            if not place.exists():
                _copy(source, place)
            source = place
        else:
            source = settings.staging_root / source.relative_to(root)
        mounts.append(Mount(source, mount.target, mount.writable))
    return replace(spec, mounts=tuple(mounts))


def _is_readable(source: Path) -> bool:
    """Return whether the sandbox's user, who is not the runner's, could read all of a tree."""
    for path in (source, *(_below(source) if source.is_dir() else ())):
        mode = path.lstat().st_mode
        needed = 0o005 if stat.S_ISDIR(mode) else 0o004
        if not stat.S_ISLNK(mode) and mode & needed != needed:
            return False
    return True


def _copy(source: Path, place: Path) -> None:
    """Copy what is lent, links as links, readable to the sandbox's user; whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    for directory in (place.parent, place.parent.parent):
        directory.chmod(0o755)
    draft = place.with_name(f".{place.name}")
    take_away(draft)
    if source.is_dir():
        for path in (source, *_below(source)):
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
                raise Invalid("Only files, directories and links can be given to a sandbox.")
        shutil.copytree(source, draft, symlinks=True)
    else:
        shutil.copy2(source, draft)
    for path in (draft, *(_below(draft) if draft.is_dir() else ())):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    draft.rename(place)


def _below(directory: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(directory):
        for name in (*folders, *files):
            yield Path(folder) / name


def outbox(spec_id: str, settings: ClusterSettings) -> Path:
    """Return the directory, made if need be, into which this job's carrier copies."""
    place = settings.outbox_root / job_name(spec_id)
    place.mkdir(parents=True, exist_ok=True)
    # The carrier is another user; nobody but it and the runner mounts this directory.
    place.chmod(0o777)
    return place


def bring(spec: SandboxSpec, target: Path, settings: ClusterSettings) -> tuple[Rejected, ...]:
    """Copy what the carrier brought into ``target``, once more by the doors' rules."""
    limits: Limits = spec.limits
    target.mkdir(parents=True, exist_ok=True)
    source = outbox(spec.id, settings)
    top = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return copy_tree(top, target, limit=int(limits.output_bytes), entries=limits.output_inodes)
    finally:
        os.close(top)


def take_away(place: Path) -> None:
    """Remove a tree, or nothing if there is none; links are removed, never followed."""
    with contextlib.suppress(FileNotFoundError):
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink()


def forget(spec_id: str, settings: ClusterSettings) -> None:
    """Remove a job's outbox and what was lent to it."""
    take_away(settings.outbox_root / job_name(spec_id))
    take_away(settings.staging_root / LENT / job_name(spec_id))


def sweep(jobs: frozenset[str], settings: ClusterSettings) -> int:
    """Remove directories of Jobs that are no longer there; return how many.

    A directory younger than ``keep_seconds`` may belong to a Job about to be made.
    """
    removed = 0
    for top in (settings.outbox_root, settings.staging_root / LENT):
        for place in top.iterdir() if top.is_dir() else ():
            old = time.time() - place.lstat().st_mtime > settings.keep_seconds
            if place.name.startswith("gb-") and place.name not in jobs and old:
                take_away(place)
                removed += 1
    return removed
