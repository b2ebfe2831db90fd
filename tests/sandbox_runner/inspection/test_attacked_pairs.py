"""Of every pair the network that remembers is ranked above the one that was kept from it.

Each pair is really trained on phantoms, and the 95 % interval of the difference by subject, on the
same subjects, must lie above zero. And each side gets the severity that it deserves.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from policies.document import default_policy
from policies.findings import Finding
from sandbox_runner.inspection.attacks import copies, instances, making, membership, statistics
from sandbox_runner.inspection.attacks.asking import Asker
from sandbox_runner.inspection.attacks.population import HELD_OUT, MEMBER
from sandbox_runner.inspection.attacks.task import Task

from .attack_figures import attacked
from .attacked_networks import (
    LATENT,
    PAIRS,
    SIZE,
    Local,
    implicit_generator,
    meet,
    people,
    stored_instances,
    transposed,
    variational_generator,
    who_is_it,
)

pytestmark = pytest.mark.slow
LIMITS = default_policy().attacks


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", list(PAIRS))
def test_membership_ranks_the_overfit_network_above_the_regularised(name: str) -> None:
    pair, crowd = PAIRS[name], people()
    task = Task(pair.task, SIZE)
    sides, findings = {}, {}
    for kind, network in (("overfit", pair.overfit()), ("regularised", pair.regularised())):
        answers = membership.ask(Asker(network, 300), crowd, task)
        scores = membership.attack(answers, crowd)
        sides[kind] = {
            each: membership.sides_of(values, crowd, MEMBER) for each, values in scores.items()
        }
        findings[kind] = {
            each.rule: each for each in membership.judge(scores, crowd, default_policy(), "w")
        }

    # The attack that the gate reports on the overfit network, and the plain one.
    for attack in {str(findings["overfit"]["membership.auc"].evidence["attack"]), "loss"}:
        gap = statistics.difference_interval(sides["overfit"][attack], sides["regularised"][attack])
        print(f"{name} {attack}: {gap.value:.2f} [{gap.low:.2f}, {gap.high:.2f}]")
        assert gap.low > 0
    assert findings["overfit"]["membership.auc"].severity in ("review", "block")
    assert findings["overfit"]["membership.rate"].severity == "review"
    assert findings["regularised"]["membership.auc"].severity == "info"
    assert findings["regularised"]["membership.rate"].severity == "info"


@pytest.mark.parametrize("make", [implicit_generator, variational_generator])
def test_what_generators_make_ranks_the_overfit_one_above(
    make: Callable[[bool], Local],
) -> None:
    sides, findings = [], []
    for overfit in (True, False):
        made = making.generate(Asker(make(overfit), 300), Task("generation", SIZE, latent=LATENT))
        (finding,), found = copies.check("m", made, people(), LIMITS, "w", 10)
        sides.append(copies.by_subject(found["pixels"]))
        findings.append(finding)

    gap = statistics.difference_interval(*sides)
    print(f"{make.__name__}: {gap.value:.2f} [{gap.low:.2f}, {gap.high:.2f}]")
    assert gap.low > 0
    assert [each.severity for each in findings] == ["review", "info"]


def test_inversion_ranks_a_network_that_names_people_above_a_regularised_one() -> None:
    findings, sides = [], []
    for overfit in (True, False):
        network, named = who_is_it(overfit)
        made = making.climb(Asker(network, 300), named, named.classes)
        (finding,), found = copies.check("m", made, named, LIMITS, "w", 10)
        findings.append(finding)
        sides.append(copies.by_subject(found["eigenpictures"]))

    gap = statistics.difference_interval(*sides)
    print(f"inversion: {gap.value:.2f} [{gap.low:.2f}, {gap.high:.2f}]")
    assert gap.low > 0
    assert findings[0].severity == "review"
    assert findings[1].severity == "info"
    assert findings[0].evidence["ratio"] > findings[1].evidence["ratio"]


def test_stored_features_rank_above_learned_prototypes() -> None:
    crowd, sides, findings = people(), [], []
    for remembers in (True, False):
        network = stored_instances(remembers)
        found = meet(network, {"stored": network.module.stored}, crowd)
        sides.append(found[0].cosine)
        findings += instances.check(found, LIMITS, "w", 10)

    gap = statistics.difference_interval(*sides)
    print(f"instances: {gap.value:.2f} [{gap.low:.2f}, {gap.high:.2f}]")
    assert gap.low > 0
    assert [each.severity for each in findings] == ["block", "info"]


def test_weights_that_give_samples_backwards_rank_above_ordinary_ones() -> None:
    found: list[Finding] = []
    for remembers in (True, False):
        crowd = people().of(MEMBER, HELD_OUT)
        rules = {
            each.rule: each for each in attacked(transposed(remembers), crowd, Task("other", SIZE))
        }
        found.append(rules["memorisation.transpose"])

    assert [each.severity for each in found] == ["block", "info"]
    assert found[0].evidence["members"] > found[0].evidence["others"]
