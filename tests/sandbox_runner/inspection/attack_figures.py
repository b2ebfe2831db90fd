"""What each attack says of networks that remember and of those that do not: a Markdown table.

usage: python -m tests.sandbox_runner.inspection.attack_figures [SEEDS]

Every network is trained anew for each seed. "Flagged" is review or block.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from policies.document import default_policy
from policies.findings import Finding
from sandbox_runner.inspection.attacks import plan, transpose
from sandbox_runner.inspection.attacks.population import Population
from sandbox_runner.inspection.attacks.task import Task
from sandbox_runner.inspection.safetensors_file import read_header

from .attacked_networks import (
    LATENT,
    PAIRS,
    SIZE,
    Local,
    implicit_generator,
    people,
    stored_instances,
    transposed,
    variational_generator,
    who_is_it,
)

POLICY = default_policy()
RULES = (
    "membership.auc",
    "membership.rate",
    "memorisation.generated",
    "memorisation.settled",
    "memorisation.inverted",
    "memorisation.instances",
    "memorisation.transpose",
)


def attacked(network: Local, crowd: Population, task: Task) -> list[Finding]:
    """Return the findings of every attack, as the gate runs them, the sandbox aside."""
    state = {name: value.contiguous() for name, value in network.module.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file(state, path)
        header = read_header(path, POLICY.release)
        found = plan.run(
            lambda: nullcontext(network), crowd, {"w": (path, header)}, task, POLICY, "w"
        )
        picked = transpose.chosen(crowd)
        reached = transpose.search(path, header, crowd.pixels[picked], 24.0)
    rows = [{"tensors": each.tensors, "shares": each.shares.tolist()} for each in reached]
    made = np.stack([each.made for each in reached]) if reached else np.zeros(0, np.float32)
    return [*found, *transpose.check(rows, crowd, picked, made, POLICY.attacks, "w")]


Case = tuple[str, str, bool, Callable[[], tuple[Local, Population]], Task]


def cases(seed: int) -> Iterator[Case]:
    """Return name, rule that should find it, whether it remembers, the training, and the task."""
    classify = Task("classification", SIZE)
    generate = Task("generation", SIZE, latent=LATENT)
    for name, pair in PAIRS.items():
        task = Task(pair.task, SIZE)
        yield name, "membership.auc", True, lambda p=pair: (p.overfit(seed), people()), task
        yield name, "membership.auc", False, lambda p=pair: (p.regularised(seed), people()), task
    both = (True, False)
    for name, make, rule, task in (
        ("implicit generator", implicit_generator, "memorisation.generated", generate),
        ("variational generator", variational_generator, "memorisation.generated", generate),
        ("stored features", stored_instances, "memorisation.instances", classify),
        ("transposed perceptron", transposed, "memorisation.transpose", classify),
    ):
        for remembers in both:
            yield (
                name,
                rule,
                remembers,
                lambda m=make, r=remembers: (m(r, seed), people()),
                task,
            )
    for remembers in both:
        yield (
            "who is it",
            "memorisation.inverted",
            remembers,
            lambda r=remembers: who_is_it(r, seed),
            classify,
        )


def main(argv: Sequence[str]) -> None:
    """Train, attack, and print."""
    seeds = int(argv[0]) if argv else 3
    torch.set_num_threads(1)
    false: dict[str, list[str]] = defaultdict(list)
    found: dict[str, list[str]] = defaultdict(list)
    lines = []
    for seed in range(1, seeds + 1):
        for name, rule, remembers, train, task in cases(seed):
            network, crowd = train()
            severities = {each.rule: each.severity for each in attacked(network, crowd, task)}
            if remembers:
                found[rule].append(severities[rule])
            else:
                for other in RULES:
                    if other in severities:
                        false[other].append(severities[other])
            flagged = [r for r in severities if severities[r] != "info" and r in RULES]
            side = "remembers" if remembers else "does not"
            line = f"{seed} {name} {side}: {', '.join(flagged) or 'nothing'}"
            print(line, file=sys.stderr, flush=True)
            lines.append(line)
    print("| check | benign flagged | of which blocked | hostile flagged | of which blocked |")
    print("|---|---|---|---|---|")
    for rule in RULES:
        cells = []
        for side in (false[rule], found[rule]):
            flagged = sum(each != "info" for each in side)
            cells += [f"{flagged} of {len(side)}" if side else "-",
                      str(side.count("block")) if side else "-"]  # fmt: skip
        print(f"| `{rule}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
