"""The door out: regular files of declared names, and of those only the bytes."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final

from policies.document import Policy
from policies.submission import CHECKPOINT_FOLDER, Manifest
from sandbox_runner.regular_files import NotRegular, copy_hashed, open_below, open_plain, walk
from sandbox_runner.spec import Artefact, Rejected

#: More names than this in one directory and the rest is not looked at, nor listed.
ENTRIES: Final = 10_000
LISTED: Final = 100
PARTIAL: Final = ".partial"


def collect(
    output: Path,
    target: Path,
    manifest: Manifest,
    policy: Policy,
    *,
    check: Callable[[], None] = lambda: None,
) -> tuple[tuple[Artefact, ...], tuple[Rejected, ...]]:
    """Copy a job's declared files from ``output`` into ``target``; return what was and was not.

    Only after every process of the job has ended. Nothing of ``output`` is followed, and nothing
    but content is taken: no times, modes, owners or attributes. A declared name that the job did
    not leave is removed from ``target``, so that it holds this job's artefacts only. May be
    called again. ``check`` is called between pieces of a file, and ends it all by raising.
    """
    limits = {
        "weights": policy.release.weights_bytes,
        "metrics": policy.release.metrics_bytes,
        "config": policy.release.config_bytes,
    }
    artefacts: list[Artefact] = []
    rejected: list[Rejected] = []
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    for partial in target.rglob(f".*{PARTIAL}"):
        partial.unlink()
    with contextlib.ExitStack() as opened:
        top, into = (_directory(path, opened) for path in (output, target))
        names = manifest.outputs.names
        for found in walk(top, entries=ENTRIES):
            if found.path.split("/")[0] == CHECKPOINT_FOLDER:
                continue  # stays inside; not even its names are told
            if isinstance(found, Rejected):
                rejected.append(found)
            elif found.path not in names:
                rejected.append(Rejected(found.path, "not declared in [outputs]"))
        for name, kind in names.items():
            _forget(into, name)
            try:
                source = open_plain(top, name)
            except FileNotFoundError:
                continue
            except (NotRegular, OSError) as error:
                why = str(error) if isinstance(error, NotRegular) else "cannot be opened"
            else:
                # What goes wrong on our own side, as a full disk, is no fault of the file's.
                opened.callback(os.close, source)
                try:
                    artefacts.append(_take(source, into, name, limits[kind], check))
                    continue
                except NotRegular as error:
                    why = str(error)
            if not any(each.path == name for each in rejected):
                rejected.append(Rejected(name, why))
    if len(rejected) > LISTED:
        more = Rejected("...", f"and {len(rejected) - LISTED} more")
        rejected = [*rejected[:LISTED], more]
    return tuple(artefacts), tuple(rejected)


def _directory(path: Path, opened: contextlib.ExitStack) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    opened.callback(os.close, descriptor)
    return descriptor


def _forget(into: int, name: str) -> None:
    """Remove what an earlier job left under this name; a link on the way is not followed."""
    *above, last = PurePosixPath(name).parts
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        directory = open_below(into, above)
        try:
            os.unlink(last, dir_fd=directory)
        finally:
            os.close(directory)


def _take(source: int, into: int, name: str, limit: int, check: Callable[[], None]) -> Artefact:
    length = os.fstat(source).st_size
    if length > limit:
        raise NotRegular(f"larger than the {limit} bytes that the policy lets leave")
    *above, last = PurePosixPath(name).parts
    place = open_below(into, above, make=True)
    try:
        # Renamed when whole: a killed collection leaves no half of an artefact under its name.
        partial = f".{secrets.token_hex(8)}{PARTIAL}"
        written, digest = copy_hashed(source, place, partial, limit, check=check)
        os.rename(partial, last, src_dir_fd=place, dst_dir_fd=place)
    finally:
        os.close(place)
    return Artefact(name, written, digest)
