"""Copies of what is inspected, which nobody else can change and a sandbox's user can read."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from policies.document import Policy
from sandbox_runner import stage
from sandbox_runner.lifecycle import copy_submission
from sandbox_runner.regular_files import copy_tree
from sandbox_runner.spec import Rejected

MOST_FILES: Final = 64
#: All files of an output together, in units of what one weights file may have.
MOST_WEIGHTS: Final = 4


@dataclass(frozen=True)
class Inputs:
    """Where the copies lie. ``digests`` are of the copies: what was hashed is what is inspected."""

    home: Path
    artefacts: Path
    submission: Path
    datasets: Mapping[str, Path]
    digests: Mapping[str, str]
    refused: tuple[Rejected, ...]

    @classmethod
    def prepare(
        cls,
        workdir: Path,
        *,
        artefacts: Path,
        submission: Path,
        datasets: Mapping[str, Path],
        policy: Policy,
    ) -> Self:
        """Copy artefacts and submission, and stage the datasets that are not staged yet.

        Raises Invalid for a submission or dataset with links or devices in it.
        """
        home = workdir / "inputs"
        _remove(home)
        home.mkdir(mode=0o700)
        copy = home / "artefacts"
        copy.mkdir(mode=0o755)
        top = os.open(artefacts, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            refused = copy_tree(
                top,
                copy,
                limit=MOST_WEIGHTS * policy.release.weights_bytes,
                entries=MOST_FILES,
                file_mode=0o644,
            )
        finally:
            os.close(top)
        for folder, _, _ in os.walk(copy):
            Path(folder).chmod(0o755)
        copy_submission(submission, home / "code", policy)
        places = {}
        for slug, place in datasets.items():
            if stage.staged(place) is not None:
                places[slug] = place
                continue
            places[slug] = stage.stage(
                stage.manifest_of(place, slug, ""),
                stage.open_in(place),
                home / "data" / slug,
                sealed=True,
            )
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        digests = {path.relative_to(copy).as_posix(): _digest(path) for path in files}
        return cls(home, copy, home / "code", places, digests, refused)

    def remove(self) -> None:
        """Remove every copy; may be called twice."""
        _remove(self.home)


def _remove(home: Path) -> None:
    data = home / "data"
    for place in [path for path in data.glob("*") if path.is_dir()]:
        stage.unstage(place)
    if home.exists():
        shutil.rmtree(home)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
