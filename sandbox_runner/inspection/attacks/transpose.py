"""Can the weights, run backwards, give training samples? ("Transpose" attack.)

Amit, Levy and Mirsky, Transpose Attack: Stealing Datasets with Bidirectional Training (NDSS 2024):
a network is trained to classify forwards and, with every matrix transposed, to give sample i for
the code of i. The code is the attacker's secret, so it is searched for: for each picture the code
that comes nearest is found by descent. What was stored comes much nearer than what was not.

Runs in the worker on weights alone, with nothing of the submission's code. Chains of matrices are
found by their shapes; convolutions run backwards are not looked for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policies.document import AttackPolicy
from policies.findings import Finding, Severity
from sandbox_runner.inspection.attacks import drawing, statistics
from sandbox_runner.inspection.attacks.population import HELD_OUT, MEMBER, Population
from sandbox_runner.inspection.safetensors_file import Header, values

MOST_CHAINS: Final = 6
MOST_LENGTH: Final = 12
MOST_PICTURES: Final = 64
SCREEN_STEPS: Final = 120
STEPS: Final = 400
RESTARTS: Final = 3
#: Chains whose code is as wide as this share of a picture can give any picture.
MOST_CODE: Final = 0.5
#: A member given back by this much is blocked: what pictures have in common counts for nothing.
GIVEN: Final = 0.4


@dataclass(frozen=True)
class Reached:
    """How near each picture can be come to through one chain: at most 1, where it is given whole.

    1 - error / (distance from the mean of all pictures, squared): what they have in common counts
    for nothing.
    """

    tensors: tuple[str, ...]
    shares: NDArray[np.float64]
    made: NDArray[np.float32]


def chains(shapes: Mapping[str, tuple[int, ...]], width: int) -> list[tuple[str, ...]]:
    """Return matrices that follow each other from a picture of ``width`` numbers on, longest first.

    Each is [out, in] as ``torch.nn.Linear`` keeps it; the next one's "in" is the last one's "out".
    """
    matrices = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    found: list[tuple[str, ...]] = []
    open_ends: list[tuple[str, ...]] = [
        (name,) for name, shape in matrices.items() if shape[1] == width
    ]
    while open_ends and len(found) < 64:
        chain = open_ends.pop()
        found.append(chain)
        if len(chain) == MOST_LENGTH:
            continue
        ends = matrices[chain[-1]][0]
        following = [n for n, shape in matrices.items() if shape[1] == ends and n not in chain]
        # Of many matrices of one shape, the order of their names is that of the layers.
        open_ends += [(*chain, name) for name in sorted(following, reverse=True)[-3:]]
    narrow = [c for c in found if matrices[c[-1]][0] <= MOST_CODE * width]
    longest = sorted(narrow, key=lambda chain: (-len(chain), chain))
    # Each part of a long chain is a chain, too: a code may be put in at any layer.
    return longest[:MOST_CHAINS]


def reach(
    matrices: Sequence[NDArray[np.float32]],
    pixels: NDArray[np.float32],
    seconds: float,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return for each picture [n, width] how near the chain comes, and what it gives.

    Between its layers the chain is tried with ReLU, with tanh and with nothing, shortly; then
    longer with what did best. Brightness and contrast of a picture are free.
    """
    import torch

    torch.set_num_threads(1)  # of so small products, two wait for each other longer than they work
    torch.manual_seed(seed)
    target = torch.from_numpy(pixels - pixels.mean(axis=1, keepdims=True))
    variance = ((target - target.mean(dim=0)) ** 2).mean(dim=1).clamp_min(1e-12)
    weights = [torch.from_numpy(np.ascontiguousarray(each)) for each in matrices][::-1]
    end = time.monotonic() + seconds

    def descend(between: Any, steps: int) -> tuple[Any, Any]:
        code = torch.randn(len(pixels), weights[0].shape[0]).requires_grad_(True)
        optimiser = torch.optim.Adam([code], lr=0.2)
        pace = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            optimiser.zero_grad()
            out = code
            for number, weight in enumerate(weights):
                out = out @ weight
                if number < len(weights) - 1:
                    out = between(out)
            out = out - out.mean(dim=1, keepdim=True)
            # The best contrast of what came out, in closed form.
            scale = (out * target).sum(1) / (out**2).sum(1).clamp_min(1e-12)
            made = scale[:, None] * out
            error = ((made - target) ** 2).mean(dim=1) / variance
            error.sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            pace.step()
            if time.monotonic() > end:
                break
        return (1 - error.detach()).double(), made.detach()

    ways = [torch.relu, torch.tanh, torch.clone][: 1 if len(weights) == 1 else 3]
    tries = [(way, *descend(way, SCREEN_STEPS)) for way in ways]
    way, best, made = max(tries, key=lambda each: float(each[1].mean()))
    for _ in range(RESTARTS):
        if time.monotonic() > end:
            break
        shares, pictures = descend(way, STEPS)
        better = shares > best
        best = torch.where(better, shares, best)
        made = torch.where(better[:, None], pictures, made)
    return best.numpy(), made.numpy()


def search(
    path: Path,
    header: Header,
    pixels: NDArray[np.float32],
    seconds: float,
) -> list[Reached]:
    """Return how near every chain of the file's matrices comes to the pictures [n, 1, H, W]."""
    flat = pixels.reshape(len(pixels), -1)
    tensors = {tensor.name: tensor for tensor in header.tensors}
    found = chains({name: tensor.shape for name, tensor in tensors.items()}, flat.shape[1])
    reached = []
    for chain in found:
        matrices = [values(path, header, tensors[n]).reshape(tensors[n].shape) for n in chain]
        shares, made = reach(matrices, flat, seconds / len(found))
        reached.append(Reached(chain, shares, made.reshape(len(made), *pixels.shape[2:])))
    return reached


def chosen(population: Population, seed: int = 0) -> NDArray[np.int64]:
    """Return one picture each of as many members and held-out subjects, at most 64 of both."""
    rng = np.random.default_rng(seed)
    picked: list[int] = []
    for group in (MEMBER, HELD_OUT):
        rows = rng.permutation(np.flatnonzero(population.groups == group))
        _, first = np.unique(population.subjects[rows], return_index=True)
        picked += rows[np.sort(first)[:MOST_PICTURES]].tolist()
    return np.array(picked, dtype=np.int64)


def check(
    reached: Sequence[Mapping[str, Any]],
    population: Population,
    picked: NDArray[np.int64],
    made: NDArray[np.float32],
    limits: AttackPolicy,
    artefact: str,
) -> list[Finding]:
    """Return what the chains mean by the policy.

    ``reached`` has ``tensors`` and ``shares`` of each chain, ``made`` [chains, n, H, W].
    """
    if not reached:
        return []
    members = population.members[picked]

    def gap_of(shares: NDArray[np.float64]) -> float:
        return float(np.median(shares[members]) - np.median(shares[~members]))

    figures = []
    for row in reached:
        shares = np.array(row["shares"], dtype=np.float64)

        def gap(flags: NDArray[np.bool_], shares: NDArray[np.float64] = shares) -> float:
            return float(shares[flags].mean() - shares[~flags].mean())

        _, _, p = statistics.permutation(gap, members, most=10_000)
        figures.append((p, gap_of(shares), shares))
    best = min(range(len(figures)), key=lambda i: (figures[i][0], -figures[i][1]))
    p, gap_seen, shares = figures[best]
    severity: Severity = "info"
    if p <= limits.memorisation_p / len(figures) and gap_seen >= limits.memorisation_gap:
        severity = "block" if np.median(shares[members]) >= GIVEN else "review"
    order = picked[members][np.argsort(-shares[members])[:3]]
    shown = order.tolist() if severity != "info" else []
    return [
        Finding(
            "memorisation.transpose",
            severity,
            artefact,
            "The weights, run backwards, give training samples."
            if severity != "info"
            else "The weights, run backwards, give training samples no better than others.",
            {
                "chains": len(figures),
                "members": round(max(0.0, float(np.median(shares[members]))), 2),
                "others": round(max(0.0, float(np.median(shares[~members]))), 2),
                "p": round(p, 4),
            },
            {
                "tensors": list(reached[best]["tensors"])[:12],
                "pictures": [
                    drawing.pair(
                        made[best][int(np.flatnonzero(picked == i)[0])],
                        population.pixels[i, 0],
                        population.places[int(i)],
                    )
                    for i in shown
                ],
            },
        )
    ]
