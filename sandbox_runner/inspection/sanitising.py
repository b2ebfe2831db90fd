"""Choose the noise for weights that are rewritten, by what it does to the network's answers.

The worker writes several drafts, each with noise of its own. Tensor by tensor the draft is kept
that changes the answers to open pictures least, and of the noises tried the largest one is kept
that changes them no more than :data:`DRIFT`. Choosing among n drafts lets log2(n) bits through,
whoever chooses and why, and those are counted. Sealed pictures choose nothing: they only measure
what was chosen, in a process that never saw the weights as they were.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policies.findings import Finding
from policies.tensors import TensorFact
from sandbox_runner.inspection.influence import settle
from sandbox_runner.inspection.rewriting import TYPE
from sandbox_runner.inspection.safetensors_file import NUMPY, SIZES, Header, stored
from sandbox_runner.oracle import Oracle, OracleFault

#: Standard deviations of the Gaussian noise, in units of a row's root mean square. The last one is
#: always added: what it costs is measured, and a reviewer judges it.
NOISES: Final = (0.5, 0.25, 0.125, 0.0625, 0.03125)
FIRST_TRIED: Final = 3
#: Mean square change of the answers against their variance. Where it was at most this, the AUC of
#: small networks moved by less than 0.003 (docs/adr/0022-weights-are-rewritten-with-noise.md).
DRIFT: Final = 0.003
PICTURES: Final = 96
BATCH: Final = 32
#: Larger files are drawn once: their drafts would not fit, and many numbers average out.
DRAFTS: Final = 8
#: How often all tensors are gone through: what is best for one depends on the others.
SWEEPS: Final = 2
DRAFT_BYTES: Final = 64 * 1024**2
#: At the least noise drafts are made again so often, while the answers move too far.
ROUNDS: Final = 3
#: After so long the remaining tensors take their first draft, or stay as they are.
SECONDS: Final = 60.0

Say = Callable[[str, float], None]
Answers = NDArray[np.float32]


@dataclass(frozen=True)
class Drafts:
    """What the worker wrote at one noise: ``folders`` hold the same files with other noise."""

    folders: tuple[Path, ...]
    headers: Mapping[str, Header]
    accounts: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Chosen:
    """The rewritten files, the noise that they have, and how far the answers moved.

    ``choices`` is among how many drafts each tensor was chosen.
    """

    directory: Path
    noise: float
    drift: float
    drafts: Drafts
    choices: int


class NotRewritten(Exception):
    """Weights could not be rewritten."""


Write = Callable[[float, int, Mapping[str, Sequence[str]]], Drafts]


def ask(oracle: Oracle, pictures: NDArray[np.float32]) -> Answers | None:
    """Return the answers to all pictures, None where they are no finite numbers."""
    try:
        return np.concatenate(
            [oracle.predict(pictures[at : at + BATCH]) for at in range(0, len(pictures), BATCH)]
        )
    except OracleFault as fault:
        if fault.reason == "not-finite":
            return None
        raise


def drift(before: Answers, after: Answers | None) -> float:
    """Return the mean square change of answers by their variance over pictures."""
    if after is None or after.shape != before.shape:
        return math.inf
    spread = float(before.astype(np.float64).var(axis=0).mean())
    change = float(np.square(after.astype(np.float64) - before).mean())
    return change / max(spread, 1e-12)


def find_idle(
    oracle: Oracle, files: Mapping[str, tuple[Path, Header]], pictures: NDArray[np.float32]
) -> dict[str, list[str]]:
    """Return the tensors of each file that may be zero without a change of any answer.

    Each is tried alone, small ones (counters, statistics) first; those put to zero stay so. The
    largest are left to the ordinary search for tensors without influence.
    """
    for path, header in files.values():
        settle(oracle, path, header)
    before = ask(oracle, pictures)
    ends = time.monotonic() + SECONDS
    idle: dict[str, list[str]] = {name: [] for name in files}
    for name, (path, header) in files.items():
        for tensor in sorted(header.tensors, key=lambda t: t.count):
            if time.monotonic() > ends or tensor.end - tensor.start > DRAFT_BYTES:
                break
            fact = TensorFact(tensor.name, tensor.shape, tensor.dtype)
            oracle.put(fact, np.zeros(tensor.shape, dtype=NUMPY[tensor.dtype]))
            after = ask(oracle, pictures)
            if before is not None and after is not None and np.array_equal(before, after):
                idle[name].append(tensor.name)
            else:
                oracle.put(fact, np.asarray(stored(path, header, tensor)))
    return idle


class Tuning:
    """Tries noises on one oracle that has the original weights loaded, and keeps the best files."""

    def __init__(
        self,
        oracle: Oracle,
        files: Mapping[str, tuple[Path, Header]],
        pictures: NDArray[np.float32],
        write: Write,
        target: Path,
        say: Say,
    ) -> None:
        self._oracle, self._files, self._pictures = oracle, files, pictures
        self._write, self._target, self._say = write, target, say
        size = sum(t.count * SIZES[t.dtype] for _, header in files.values() for t in header.tensors)
        self.draws = DRAFTS if size <= DRAFT_BYTES else 1

    def choose(self) -> Chosen:
        """Return the files with the most noise that the answers bear, or with the least there is.

        Raises NotRewritten where the answers are not finite, OracleFault.
        """
        before = ask(self._oracle, self._pictures)
        if before is None:
            raise NotRewritten
        idle = find_idle(self._oracle, self._files, self._pictures[:8])
        best: Chosen | None = None
        low, high = 0, len(NOISES) - 1
        tried = 0
        while low <= high:
            middle = FIRST_TRIED if tried == 0 else (low + high) // 2
            self._say("sanitising", tried / len(NOISES))
            tried += 1
            chosen = self._try(NOISES[middle], idle, before)
            if chosen.drift <= DRIFT or middle == len(NOISES) - 1:
                best = self._keep(chosen)
                high = middle - 1
            else:
                low = middle + 1
        if best is None:  # the least noise is always kept
            raise NotRewritten
        return best

    def _try(self, noise: float, idle: Mapping[str, Sequence[str]], before: Answers) -> Chosen:
        """Rewrite at one noise and take of every tensor the draft that moves the answers least."""
        kept: Path | None = None
        number = 0
        while True:
            number += 1
            drafts = self._write(noise, self.draws, idle)
            folders = (*((kept,) if kept else ()), *drafts.folders)
            picks, moved = self._pick(replace(drafts, folders=folders), idle, before)
            folder = self._target.with_name(f"{self._target.name}-{number}")
            _compose(replace(drafts, folders=folders), picks, folder)
            if kept is not None:
                shutil.rmtree(kept)
            kept = folder
            if moved <= DRIFT or noise != NOISES[-1] or self.draws == 1 or number == ROUNDS:
                return Chosen(folder, noise, moved, drafts, number * self.draws)

    def _pick(
        self, drafts: Drafts, idle: Mapping[str, Sequence[str]], before: Answers
    ) -> tuple[dict[tuple[str, str], int], float]:
        """Return each tensor's best draft, beginning at the first, and how far answers moved."""
        rows = [(n, t) for n, header in drafts.headers.items() for t in header.tensors]
        picks = dict.fromkeys([(name, tensor.name) for name, tensor in rows], 0)

        def put(name: str, at: int, draft: int) -> None:
            tensor = drafts.headers[name].tensors[at]
            fact = TensorFact(tensor.name, tensor.shape, tensor.dtype)
            path = drafts.folders[draft] / name
            self._oracle.put(fact, np.asarray(stored(path, drafts.headers[name], tensor)))

        for name, header in drafts.headers.items():
            for at in range(len(header.tensors)):
                put(name, at, 0)
        best = drift(before, ask(self._oracle, self._pictures))
        ends = time.monotonic() + SECONDS
        places = [
            (name, at)
            for _ in range(SWEEPS)
            for name, header in drafts.headers.items()
            for at, tensor in enumerate(header.tensors)
            if tensor.name not in idle[name]
        ]
        for name, at in places:
            if time.monotonic() > ends:
                break
            key = (name, drafts.headers[name].tensors[at].name)
            for draft in range(len(drafts.folders)):
                if draft == picks[key]:
                    continue
                put(name, at, draft)
                moved = drift(before, ask(self._oracle, self._pictures))
                if moved < best:
                    best, picks[key] = moved, draft
            put(name, at, picks[key])
        return picks, best

    def _keep(self, chosen: Chosen) -> Chosen:
        shutil.rmtree(self._target, ignore_errors=True)
        chosen.directory.rename(self._target)
        return replace(chosen, directory=self._target)


def _compose(drafts: Drafts, picks: Mapping[tuple[str, str], int], folder: Path) -> None:
    """Put each file together from the drafts' tensors; all drafts have the same header."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, header in drafts.headers.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(drafts.folders[0] / name, place)
        sources = [(draft / name).open("rb") for draft in drafts.folders]
        try:
            with place.open("r+b") as out:
                for tensor in header.tensors:
                    if not picks[name, tensor.name]:
                        continue
                    source = sources[picks[name, tensor.name]]
                    for file in (source, out):
                        file.seek(header.data_start + tensor.start)
                    left = tensor.end - tensor.start
                    while left:
                        data = source.read(min(left, 1 << 20))
                        if not data:
                            raise NotRewritten
                        out.write(data)
                        left -= len(data)
        finally:
            for source in sources:
                source.close()


def account(chosen: Chosen, originals: Mapping[str, Header], bits: int) -> dict[str, Any]:
    """Return what was done and what the files can still carry, as plain figures.

    ``capacity_bits`` is an upper bound and holds what choosing lets through; ``read_back_bits``
    is what a decoder of ours got; ``agree`` is how often each of the lowest bits stayed, lowest
    first (a half means that nothing is left of it).
    """
    accounts = chosen.drafts.accounts
    choices = {
        name: len(header.tensors) * math.log2(chosen.choices) + math.log2(len(NOISES) * ROUNDS)
        for name, header in chosen.drafts.headers.items()
    }
    capacity = {
        name: math.ceil(float(row["capacity"]) + choices[name]) for name, row in accounts.items()
    }
    compared = sum(int(row["compared"]) for row in accounts.values())
    agree = [sum(int(row["agree"][k]) for row in accounts.values()) for k in range(bits)]
    return {
        "type": TYPE,
        "noise": chosen.noise,
        "lowest_bits": bits,
        "drafts": chosen.choices,
        "drift": float(f"{chosen.drift:.3g}") if math.isfinite(chosen.drift) else None,
        "numbers": sum(int(row["numbers"]) for row in accounts.values()),
        "compared": compared,
        "zeroed": sum(int(row["zeroed"]) for row in accounts.values()),
        "stored_bits": sum(
            8 * SIZES[t.dtype] * t.count for header in originals.values() for t in header.tensors
        ),
        "kept_bits": math.ceil(sum(float(row["kept"]) for row in accounts.values())),
        "capacity_bits": sum(capacity.values()),
        "read_back_bits": math.ceil(sum(float(row["read_back"]) for row in accounts.values())),
        "agree": [round(each / compared, 4) if compared else None for each in agree],
        "files": capacity,
    }


def check(facts: Mapping[str, Any], artefact: str) -> list[Finding]:
    """Return the findings on what was rewritten: the bound, and whether it held."""
    each = facts["capacity_bits"] / max(1, facts["numbers"])
    findings = [
        Finding(
            "sanitise.capacity",
            "info",
            artefact,
            "The weights were rewritten with noise. What hidden bits they can still carry at most.",
            {
                "capacity_bits": facts["capacity_bits"],
                "bits_a_number": each,
                "stored_bits": facts["stored_bits"],
                "noise": facts["noise"],
            },
        )
    ]
    # Six standard deviations of a fair coin, and what signed bytes lose at the ends of their range.
    far = 3 / math.sqrt(max(1, facts["compared"])) + 0.02
    stayed = any(share is not None and abs(share - 0.5) > far for share in facts["agree"])
    if facts["read_back_bits"] > facts["capacity_bits"] or stayed:
        findings.append(
            Finding(
                "sanitise.check",
                "block",
                artefact,
                "A decoder got more out of the rewritten weights than the bound allows.",
                {"capacity_bits": facts["capacity_bits"]},
                {"read_back_bits": facts["read_back_bits"]},
                hard=True,
            )
        )
    return findings


def _areas(official: Mapping[str, Any]) -> dict[str, float | None]:
    """Return each AUC by image that an official table shows, by class."""
    tables = {"": official, **official.get("classes", {})} if official else {}
    found: dict[str, float | None] = {}
    for name, table in tables.items():
        if isinstance(table, Mapping) and "image" in table:
            figure = table["image"].get("auc")
            found[name] = None if figure is None else float(figure["value"])
    return found


def check_loss(
    before: Mapping[str, Any], after: Mapping[str, Any], most: float, artefact: str
) -> list[Finding]:
    """Return a finding that asks for review where the AUC fell too far, or is not known.

    Its evidence has no figure of the sealed split: applicants read findings before a release.
    """
    old, new = _areas(before), _areas(after)
    pairs = [(old[name], new.get(name)) for name in old]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not pairs or len(known) < len(pairs):
        return [
            Finding(
                "sanitise.unmeasured",
                "review",
                artefact,
                "What rewriting cost the network could not be measured on the sealed split.",
            )
        ]
    # Both are rounded to three digits, and so is their difference.
    if max(round(a - b, 4) for a, b in known) > most:
        return [
            Finding(
                "sanitise.loss",
                "review",
                artefact,
                "Rewriting cost the network more than the policy allows without a reviewer.",
                {"most": most},
            )
        ]
    return []
