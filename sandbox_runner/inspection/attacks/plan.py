"""Which attacks there are, what each costs, and how they are run one after the other.

Their process of the network was started for them: what it was asked for the official metrics it
has not seen, so that it cannot know held-out pictures by having met them before.
"""

from __future__ import annotations

import importlib.util
import math
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policies.document import Policy
from policies.findings import Finding
from sandbox_runner.inspection import faults
from sandbox_runner.inspection.attacks import (
    copies,
    instances,
    making,
    membership,
    population,
    transpose,
)
from sandbox_runner.inspection.attacks.asking import Asker, Network, OutOfTime
from sandbox_runner.inspection.attacks.population import HELD_OUT, MEMBER, Population
from sandbox_runner.inspection.attacks.task import Task
from sandbox_runner.inspection.safetensors_file import Header, Tensor, stored, widened
from sandbox_runner.oracle import FEATURE_LAYERS, OracleFault

#: A slow network is asked about fewer subjects, but of each group about so many.
LEAST_SUBJECTS: Final = 50
#: Of the time, what training of reference networks and what running weights backwards may take.
REFERENCE_SHARE: Final = 0.2
#: A network that did not answer in time so often is not asked again.
MOST_WAITS: Final = 2
TRANSPOSE_SHARE: Final = 0.2

Weights = Mapping[str, tuple[Path, Header]]


@dataclass(frozen=True)
class Attack:
    """One check: its name, the tasks it is for, and its share of the policy's seconds.

    Memory is bounded by ``policy.attacks.pictures`` pictures of three groups, 1 GiB at most.
    """

    name: str
    tasks: tuple[str, ...]
    share: float


EVERY: Final = ("classification", "reconstruction", "generation", "verification", "other")
ATTACKS: Final = (
    Attack("membership", ("classification", "reconstruction"), 0.5),
    Attack("memorisation.generated", ("generation",), 0.5),
    Attack("memorisation.settled", ("reconstruction",), 0.2),
    Attack("memorisation.inverted", ("classification",), 0.2),
    Attack("memorisation.instances", ("classification", "reconstruction", "verification", "other"),
           0.1),
)  # fmt: skip


def request_of(task: Task, files: Sequence[str], policy: Policy) -> dict[str, Any]:
    """Return what the worker is asked for (:func:`prepare`)."""
    limits = policy.attacks
    return {
        "files": list(files),
        "transpose_seconds": TRANSPOSE_SHARE * limits.seconds,
        "size": list(task.size),
        "positive_label": task.positive_label,
        "most": limits.pictures,
        "references": limits.references if task.kind == "classification" else 0,
        "reference_seconds": REFERENCE_SHARE * limits.seconds,
        # Which subjects are asked about, nobody can know before.
        "seed": secrets.randbits(62),
    }


def run(
    start: Callable[[], AbstractContextManager[Network]],
    people: Population,
    weights: Weights,
    task: Task,
    policy: Policy,
    artefact: str,
    progress: Callable[[float], None] | None = None,
    official: Mapping[bytes, NDArray[np.float64]] | None = None,
) -> list[Finding]:
    """Run every attack on the task and return findings.

    ``start`` gives a process of the network: where one has ended, the next attack has a new one,
    so that a crash in one hides nothing from the others. ``official`` are the answers that the
    official metrics are made of, by the pictures' digest.

    An attack that was not done in its time, or not answered, is a finding that asks for review.
    """
    wanted = [attack for attack in ATTACKS if task.kind in attack.tasks]
    findings: list[Finding] = []
    began, given = time.monotonic(), 0.0
    with ExitStack() as process:
        network: Network | None = None
        waited = 0
        for number, attack in enumerate(wanted):

            def pulse(share: float = number / len(wanted)) -> None:
                if progress is not None:
                    progress(share)

            pulse()
            # What one attack leaves of its time is the next one's.
            given += attack.share * policy.attacks.seconds
            if waited >= MOST_WAITS:
                findings.append(_unfinished(attack.name, artefact))
                continue
            try:
                network = network or process.enter_context(start())
                left = given - (time.monotonic() - began)
                asker = Asker(network, left, task.outputs, pulse)
                findings += _run(
                    attack, asker, people, weights, task, policy, artefact, official or {}
                )
            except OutOfTime:
                findings.append(_unfinished(attack.name, artefact))
            except OracleFault as fault:
                if fault.reason not in faults.GONE:
                    findings.append(_not_answered(attack.name, artefact, fault))
                    continue
                findings.append(faults.faulty(fault, artefact, attack.name))
                process.close()
                network, waited = None, waited + (fault.reason == "timeout")
                # What was waited for an answer is not taken off the next one's time.
                began = max(began, time.monotonic() - given)
    if "membership" not in [attack.name for attack in wanted]:
        findings.append(
            Finding(
                "membership.unmeasured",
                "review",
                artefact,
                "Not measurable: this task has no answer to a picture that a loss is made of.",
            )
        )
    return findings


def _not_answered(name: str, artefact: str, fault: OracleFault) -> Finding:
    return Finding(
        f"{name}.fault",
        "review",
        artefact,
        "The network did not answer this attack as it answers otherwise.",
        {"reason": fault.reason},
    )


def _unfinished(name: str, artefact: str) -> Finding:
    return Finding(
        f"{name}.unfinished",
        "review",
        artefact,
        "There was no time to finish this attack; nothing is known from it.",
    )


def _run(
    attack: Attack,
    asker: Asker,
    people: Population,
    weights: Weights,
    task: Task,
    policy: Policy,
    artefact: str,
    official: Mapping[bytes, NDArray[np.float64]],
) -> list[Finding]:
    limits, least = policy.attacks, policy.release.cell_threshold
    if attack.name == "membership":
        fewer = within(asker, people, 2 + membership.NEIGHBOURS)
        answers = membership.ask(asker, fewer, task)
        found = membership.judge(membership.attack(answers, fewer), fewer, policy, artefact)
        return [*found, *membership.check_same(answers, fewer, official, artefact)]
    if attack.name == "memorisation.instances":
        layers = instances.widths(asker, people)
        kept = tables(weights, layers)
        views = sum(1 + layers[width] // FEATURE_LAYERS for width in {t.width for t in kept})
        met = instances.search(asker, kept, layers, within(asker, people, max(1, views)))
        return instances.check(met, limits, artefact, least)
    if attack.name == "memorisation.generated":
        made = making.generate(asker, task)
    elif attack.name == "memorisation.settled":
        made = making.settle(asker, people, task)
    else:
        made = making.climb(asker, people, people.classes)
    return copies.check(attack.name, made, people, limits, artefact, least)[0]


def within(asker: Asker, people: Population, views: int) -> Population:
    """Return as much of the population as can be asked ``views`` times in the asker's time.

    Whole subjects, of each group the same share. Raises OracleFault.
    """
    each = asker.seconds_a_picture(people.pixels) * views * 1.3
    most = int(max(asker.left, 0.0) / max(each, 1e-9))
    if most >= len(people.pixels):
        return people
    rng = np.random.default_rng(secrets.randbits(64))
    share = most / len(people.pixels)
    kept: list[int] = []
    for group in (MEMBER, population.OPEN, HELD_OUT):
        names = rng.permutation(np.unique(people.subjects[people.groups == group]))
        # Fewer say nothing: rather a try that is not finished.
        kept += names[: max(LEAST_SUBJECTS, int(share * len(names)))].tolist()
    return people.of_subjects(np.array(kept))


def tables(weights: Weights, widths: Collection[int]) -> list[instances.Table]:
    """Return what of the weights may keep a sample a row: whatever has rows of these widths.

    A tensor's rows, its columns, rows of its kernels, and a line of numbers cut into rows.
    """
    found: list[instances.Table] = []
    for path, header in weights.values():
        for tensor in header.tensors:
            sides = {
                (math.prod(tensor.shape[:at]), math.prod(tensor.shape[at:]))
                for at in range(1, len(tensor.shape))
            }
            if len(tensor.shape) == 1:
                sides = {(tensor.count // w, w) for w in widths if tensor.count % w == 0}
            for rows, width in sorted(sides):
                if width in widths and rows > 1:
                    read = partial(_rows, path, header, tensor, width)
                    found.append(instances.Table(tensor.name, rows, width, read))
                if rows in widths and width > 1 and len(tensor.shape) > 1:
                    read = partial(_columns, path, header, tensor, rows)
                    found.append(instances.Table(f"{tensor.name} (columns)", width, rows, read))
    return found


def _rows(
    path: Path, header: Header, tensor: Tensor, width: int, first: int, last: int
) -> NDArray[np.float32]:
    part = stored(path, header, tensor).reshape(-1, width)[first:last]
    return np.nan_to_num(widened(part, tensor.dtype), posinf=0.0, neginf=0.0)


def _columns(
    path: Path, header: Header, tensor: Tensor, width: int, first: int, last: int
) -> NDArray[np.float32]:
    part = stored(path, header, tensor).reshape(width, -1)[:, first:last]
    return np.nan_to_num(widened(part, tensor.dtype).T, posinf=0.0, neginf=0.0)


def prepare(request: Mapping[str, Any]) -> dict[str, Any]:
    """Prepare the population, and run the weights backwards. Runs in the worker.

    ``files`` are weights that the strict reader accepts. Leaves ``pixels.npy`` and ``made.npy``.
    """
    # The worker imports this module for its tasks.
    from policies.document import release_policy
    from sandbox_runner.inspection.weights_file import read_header

    output = Path(request["output"])
    answer = population.prepare(request)
    people = population.read(answer, output)
    rows: list[dict[str, Any]] = []
    torch = importlib.util.find_spec("torch") is not None
    made: list[NDArray[np.float32]] = []
    picked = transpose.chosen(people)
    for name in request["files"] if torch and len(picked) else []:
        path = Path(request["artefacts"]) / name
        header = read_header(path, release_policy(request["policy"]))
        seconds = float(request["transpose_seconds"]) / len(request["files"])
        for reached in transpose.search(path, header, people.pixels[picked], seconds):
            rows.append({"tensors": list(reached.tensors), "shares": reached.shares.tolist()})
            made.append(reached.made)
    np.save(output / "pixels.npy", people.pixels, allow_pickle=False)
    stacked = np.stack(made) if made else np.zeros((0,), np.float32)
    np.save(output / "made.npy", stacked, allow_pickle=False)
    return answer | {"reached": rows if torch else None, "picked": picked.tolist()}


def read(
    answer: Mapping[str, Any], folder: Path, policy: Policy, artefact: str
) -> tuple[Population, list[Finding]]:
    """Return the population that the worker prepared, and what the weights gave backwards.

    Raises ``ValueError``, ``KeyError`` or ``TypeError`` if the parts do not fit.
    """
    people = population.read(answer, folder)
    place = folder / "made.npy"
    made = np.load(place, allow_pickle=False)
    place.unlink()
    rows, picked = answer["reached"], np.array(answer["picked"], dtype=np.int64)
    if rows is None:
        return people, [_unfinished("memorisation.transpose", artefact)]
    if made.dtype != np.float32 or len(made) != len(rows):
        raise ValueError("not as many pictures as chains")
    if len(picked) and not 0 <= int(picked.min()) <= int(picked.max()) < len(people.pixels):
        raise ValueError("a picture that is not there")
    if not all(len(row["shares"]) == len(picked) for row in rows):
        raise ValueError("not as many figures as pictures")
    inside = int(people.members[picked].sum())
    if not rows or min(inside, len(picked) - inside) < policy.release.cell_threshold:
        return people, []
    return people, transpose.check(rows, people, picked, made, policy.attacks, artefact)
