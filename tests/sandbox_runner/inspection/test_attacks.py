"""Each attack on small networks whose memory is known: stored, copied, or not there."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from policies.document import default_policy, tighten
from policies.findings import verdict
from policies.submission import parse_manifest
from sandbox_runner.inspection.attacks import (
    copies,
    instances,
    making,
    membership,
    plan,
    task,
    transpose,
)
from sandbox_runner.inspection.attacks.asking import Asker, OutOfTime
from sandbox_runner.inspection.attacks.population import HELD_OUT, MEMBER, OPEN, Population
from sandbox_runner.inspection.attacks.task import Task
from sandbox_runner.oracle import OracleFault

from .attacked_networks import Local, meet, written

POLICY = default_policy()
SIZE = (12, 10)
CLASSIFY = Task("classification", SIZE)


def crowd(members: int = 40, others: int = 110, opened: int = 0, seed: int = 0) -> Population:
    rng = np.random.default_rng(seed)
    count = members + opened + others
    coarse = rng.random((2 * count, 1, 4, 5), dtype=np.float32)
    pixels = coarse.repeat(3, axis=2).repeat(2, axis=3)
    groups = np.array([MEMBER] * members + [OPEN] * opened + [HELD_OUT] * others).repeat(2)
    return Population(
        pixels,
        rng.integers(0, 2, 2 * count),
        np.arange(count).repeat(2),
        groups,
        [f"crowd/{n}.png" for n in range(2 * count)],
        2,
        None,
        (members, opened, others),
    )


class Answering(nn.Module):
    """Answers from a table: pictures that it knows are told as their label, others by noise."""

    def __init__(self, people: Population, known: np.ndarray, sure: float) -> None:
        super().__init__()
        self.rows = torch.from_numpy(people.pixels[known]).flatten(1)
        self.labels = torch.from_numpy(people.targets[known] * 2.0 - 1.0).float()
        self.sure = sure

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        near, which = torch.cdist(x.flatten(1), self.rows).min(dim=1)
        weight = torch.exp(-((near / 0.5) ** 2)) * self.sure
        noise = torch.sin(x.flatten(1).sum(dim=1) * 50)
        return (noise + weight * self.labels[which])[:, None]


def judged(people: Population, module: nn.Module, policy=POLICY) -> list:  # type: ignore[no-untyped-def]
    answers = membership.ask(Asker(Local(module), 60), people, CLASSIFY)
    return membership.judge(membership.attack(answers, people), people, policy, "w")


def test_who_remembers_everybody_is_blocked_and_shown_to_reviewers_only() -> None:
    people = crowd()
    found = judged(people, Answering(people, people.members, 8.0))

    by_rule = {each.rule: each for each in found}
    assert by_rule["membership.auc"].severity == "block"
    assert not by_rule["membership.auc"].hard
    assert by_rule["membership.rate"].severity == "review"
    assert by_rule["membership.rate"].evidence["rate"] == 0.1
    internal = by_rule["membership.auc"].internal
    assert internal["pictures"][0]["png"]
    assert internal["most_exposed"][0]["sample"].startswith("crowd/")
    assert "crowd/" not in str([each.public() for each in found])
    assert "png" not in str([each.public() for each in found])


def test_who_remembers_nobody_is_not() -> None:
    people = crowd()
    nobody = Answering(people, np.arange(len(people.pixels)) < 0 + 1, 0.0)

    assert verdict(judged(people, nobody)) == "pass"


def test_who_remembers_a_few_stands_out_where_few_others_do() -> None:
    people = crowd(members=60)
    known = people.members & (people.subjects < 30)
    found = {each.rule: each for each in judged(people, Answering(people, known, 12.0))}

    assert found["membership.rate"].severity == "review"
    assert found["membership.rate"].evidence["found_low"] > 0.3


def test_who_is_worse_on_its_training_than_on_others_is_told() -> None:
    """Negated answers hide nothing: no training makes a network surer of what it never saw."""
    people = crowd()
    module = Answering(people, people.members, 8.0)
    module.labels.mul_(-1)
    found = {each.rule: each for each in judged(people, module)}

    assert found["membership.auc"].severity != "info"


def test_of_few_held_out_subjects_it_is_said_how_many_are_needed() -> None:
    people = crowd(others=40)
    nobody = Answering(people, np.arange(len(people.pixels)) < 1, 0.0)
    found = {each.rule: each for each in judged(people, nobody)}

    assert found["membership.unmeasured"].severity == "review"
    assert found["membership.unmeasured"].evidence["needs"] == 100
    # Small cells are not public, not even as a count.
    few = judged(crowd(others=9), Answering(people, people.members, 1.0))
    assert [each.rule for each in few] == ["membership.few"]
    assert few[0].severity == "review"
    assert few[0].evidence == {"needs": 10}


def test_a_job_that_trained_on_validation_is_told() -> None:
    people = crowd(members=40, opened=30)
    known = people.groups != HELD_OUT
    rules = [each.rule for each in judged(people, Answering(people, known, 8.0))]
    assert "membership.validation" in rules
    rules = [each.rule for each in judged(people, Answering(people, people.members, 8.0))]
    assert "membership.validation" not in rules


def test_a_dataset_may_ask_for_more() -> None:
    people = crowd(members=60)
    module = Answering(people, people.members & (people.subjects < 30), 1.0)
    strict = tighten(POLICY, {"attacks": {"membership_review_auc": 0.5,
                                          "membership_block_auc": 0.5}})  # fmt: skip

    def severity(policy) -> str:  # type: ignore[no-untyped-def]
        found = {each.rule: each for each in judged(people, module, policy)}
        return str(found["membership.auc"].severity)

    assert severity(POLICY) != "block"
    assert severity(strict) == "block"


def test_answers_of_another_width_are_no_answers() -> None:
    people = crowd()
    with pytest.raises(OracleFault) as caught:
        judged(people, nn.Sequential(nn.Flatten(), nn.Linear(120, 5)))
    assert caught.value.reason == "shape"


def test_probabilities_are_understood() -> None:
    people = crowd()
    module = nn.Sequential(Answering(people, people.members, 8.0), nn.Sigmoid())
    answers = membership.ask(Asker(Local(module), 60), people, replace(CLASSIFY, threshold=0.5))
    plain = membership.ask(Asker(Local(module[0]), 60), people, CLASSIFY)

    assert np.corrcoef(answers.fits, plain.fits)[0, 1] > 0.99


def test_classes_that_only_members_have_do_not_tell_them_apart_by_themselves() -> None:
    people = replace(crowd(), classes=40)
    named = replace(people, targets=np.where(people.members, people.subjects, -1))
    torch.manual_seed(0)
    untrained = nn.Sequential(nn.Flatten(), nn.Linear(120, 40))

    found = {each.rule: each for each in judged(named, untrained)}

    assert found["membership.auc"].severity == "info"


def test_members_and_others_are_asked_in_the_same_batches() -> None:
    people = crowd()
    seen: list[set[int]] = []

    class Watching(Local):
        def predict(self, batch: np.ndarray, outputs: int = 4096) -> np.ndarray:
            known = [np.abs(people.pixels - each).sum(axis=(1, 2, 3)).argmin() for each in batch]
            seen.append({int(people.groups[place]) for place in known})
            return super().predict(batch, outputs)

    membership.ask(Asker(Watching(Answering(people, people.members, 1.0)), 60), people, CLASSIFY)

    assert sum(each == {MEMBER, HELD_OUT} for each in seen) > 0.9 * len(seen)


def test_what_is_not_finished_goes_to_review() -> None:
    people = crowd()
    with pytest.raises(OutOfTime):
        membership.ask(Asker(Local(nn.Flatten()), -1.0), people, CLASSIFY)
    hasty = replace(POLICY, attacks=replace(POLICY.attacks, seconds=0))
    network = Local(Answering(people, people.members, 8.0))
    found = plan.run(lambda: nullcontext(network), people, {}, CLASSIFY, hasty, "w")
    assert verdict(found) == "review"
    assert "memorisation.inverted.unfinished" in [each.rule for each in found]


def test_a_slow_network_is_asked_about_fewer_whole_subjects() -> None:
    people = crowd(members=300, others=200)

    class Slow(Local):
        def predict(self, batch: np.ndarray, outputs: int = 4096) -> np.ndarray:
            time.sleep(0.02)
            return super().predict(batch, outputs)

    fewer = plan.within(Asker(Slow(nn.Flatten()), 1.5), people, 5)

    assert 100 < len(fewer.pixels) < len(people.pixels)
    assert (np.bincount(fewer.subjects)[np.unique(fewer.subjects)] == 2).all()
    for group in (MEMBER, HELD_OUT):
        assert len(np.unique(fewer.subjects[fewer.groups == group])) >= 50
    assert plan.within(Asker(Slow(nn.Flatten()), 600), people, 5) is people


def test_a_fault_in_one_attack_is_a_finding_and_the_others_go_on() -> None:
    people = crowd()

    class Shy(Local):
        def predict(self, batch: np.ndarray, outputs: int = 4096) -> np.ndarray:
            raise OracleFault("forward")

    found = plan.run(lambda: nullcontext(Shy(nn.Flatten())), people, {}, CLASSIFY, POLICY, "w")
    rules = {each.rule: each.severity for each in found}
    assert rules["membership.fault"] == "review"
    assert rules["memorisation.inverted.fault"] == "review"


@pytest.mark.parametrize("reason", ["ended", "timeout", "protocol"])
def test_a_crash_in_one_attack_hides_nothing_from_the_others(reason: str) -> None:
    people, module, started = crowd(), Table(), []

    class Fragile(Local):
        """Dies when it is asked about many pictures, and answers about its layers."""

        def predict(self, batch: np.ndarray, outputs: int = 4096) -> np.ndarray:
            if self.asked > 5:
                raise OracleFault(reason)
            self.asked += 1
            return super().predict(batch, outputs)

        def gradient(self, batch: np.ndarray, weights: np.ndarray) -> np.ndarray:
            raise OracleFault(reason)

        def layers(self, batch: np.ndarray) -> list[np.ndarray]:
            self.asked = 0
            return super().layers(batch)

    def start() -> nullcontext[Local]:
        network = Fragile(module)
        network.asked = 0
        started.append(network)
        return nullcontext(network)

    with torch.no_grad():
        kept = module.first(torch.from_numpy(people.pixels[people.members]))
    with written({"stored": kept}) as weights:
        found = plan.run(start, people, weights, CLASSIFY, POLICY, "w")
    rules = [(each.rule, each.severity, each.evidence.get("asked")) for each in found]
    expected = "block" if reason == "protocol" else "review"
    assert ("network.fault", expected, "membership") in rules
    assert ("network.fault", expected, "memorisation.inverted") in rules
    # Nobody waits for ever for a network that does not answer.
    last = ("memorisation.instances", "block", None)
    silent = ("memorisation.instances.unfinished", "review", None)
    assert (silent if reason == "timeout" else last) in rules
    assert len(started) == (2 if reason == "timeout" else 3)


class Corners(nn.Module):
    """A generator that gives sample i where the i-th number alone is large, noise elsewhere."""

    def __init__(self, rows: torch.Tensor, share: float) -> None:
        super().__init__()
        self.rows, self.share = rows, share
        torch.manual_seed(0)
        self.mix = torch.randn(rows.shape[0], rows[0].numel())

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        picked = z.abs().argmax(dim=1)
        corner = (z.abs() > 0).sum(dim=1) == 1
        made = 0.5 + 0.2 * (z @ self.mix) / self.rows.shape[0] ** 0.5
        kept = self.rows[picked].flatten(1)
        return torch.where(corner[:, None], self.share * kept + (1 - self.share) * made, made)


def test_a_generator_that_hides_samples_behind_rare_numbers_is_blocked_with_pairs() -> None:
    people = crowd()
    rows = torch.from_numpy(people.of(MEMBER).pixels[:32, 0])
    made = making.generate(
        Asker(Local(Corners(rows, 1.0)), 60), Task("generation", SIZE, latent=32)
    )
    (found,), _ = copies.check("memorisation.generated", made, people, POLICY.attacks, "w", 10)

    assert found.severity == "block"
    assert found.evidence["copies"] > 0.1
    shown = found.internal["pictures"]
    assert shown[0]["title"].startswith("crowd/")
    assert "crowd/" not in str(found.public())


def test_a_generator_that_copies_nobody_passes() -> None:
    people = crowd()
    rows = torch.from_numpy(people.of(MEMBER).pixels[:32, 0])
    made = making.generate(
        Asker(Local(Corners(rows, 0.0)), 60), Task("generation", SIZE, latent=32)
    )
    (found,), _ = copies.check("memorisation.generated", made, people, POLICY.attacks, "w", 10)
    assert found.severity == "info"


def test_more_members_than_others_are_no_sign_of_memory() -> None:
    """The nearest of many is nearer than the nearest of few; that alone must say nothing."""
    people = crowd(members=200, others=20, seed=3)
    made = crowd(members=100, others=0, seed=9).pixels[:, 0]
    (found,), by_space = copies.check("m", made, people, POLICY.attacks, "w", 10)
    assert found.severity == "info"
    assert 0.9 < by_space["pixels"].ratio < 1.1


class Table(nn.Module):
    """Features, and rows of features that it may have kept."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(120, 24), nn.ReLU())
        self.stored = nn.Parameter(torch.randn(80, 24))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cdist(self.first(x), self.stored).min(dim=1).values[:, None]


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_features_of_members_as_rows_of_the_weights_are_blocked(scale: float) -> None:
    people = crowd()
    module = Table()
    with torch.no_grad():
        kept = module.first(torch.from_numpy(people.pixels[people.members]))
    found = meet(Local(module), {"stored": kept * scale}, people)
    (finding,) = instances.check(found, POLICY.attacks, "w", 10)

    assert finding.severity == "block"
    assert finding.evidence["met"] == 1.0
    found = meet(Local(module), {"stored": module.stored}, people)
    (plain,) = instances.check(found, POLICY.attacks, "w", 10)
    assert plain.severity == "info"


def hidden(kept: torch.Tensor, way: str) -> dict[str, torch.Tensor]:
    """Features as they may lie in a file so that they are not seen at once."""
    count, width = kept.shape
    noise = torch.randn(5000, width)
    if way == "among more rows than a classifier has":
        return {"stored": torch.cat([noise, kept])}
    if way == "behind a large table":
        return {"a": torch.randn(2**21, 17), "stored": kept}
    if way == "as columns":
        return {"stored": kept.T.contiguous()}
    if way == "as a convolution's kernels":
        return {"stored": kept.reshape(count, width, 1, 1)}
    if way == "in a box of three sides":
        return {"stored": kept.reshape(2, count // 2, width)}
    if way == "in one line":
        return {"stored": kept.reshape(-1)}
    if way == "too large for squares":
        return {"stored": kept * 1e30}
    if way == "in half precision":
        return {"stored": kept.to(torch.bfloat16)}
    return {f"t{n}": torch.randn(40, width) for n in range(60)} | {"stored": kept}


@pytest.mark.parametrize(
    "way",
    [
        "among more rows than a classifier has", "behind a large table", "as columns",
        "as a convolution's kernels", "in a box of three sides", "in one line",
        "too large for squares", "in half precision", "among many tables",
    ],
)  # fmt: skip
def test_features_are_met_wherever_they_lie(way: str) -> None:
    people, module = crowd(), Table()
    with torch.no_grad():
        kept = module.first(torch.from_numpy(people.pixels[people.members]))
    (finding,) = instances.check(
        meet(Local(module), hidden(kept, way), people), POLICY.attacks, "w", 10
    )
    assert (finding.severity, finding.evidence["met"]) == ("block", 1.0)


class Normed(nn.Module):
    """A layer whose module of weights answers with as many rows as there are in a batch."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Linear(24, 32)
        self.inner = nn.Sequential(
            nn.Flatten(), nn.Linear(120, 24), nn.utils.parametrizations.spectral_norm(layer)
        )
        self.last = nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.inner(x))


def test_weights_that_a_module_gives_are_no_layer_that_comes_and_goes() -> None:
    people = crowd(members=40, others=25)  # not a multiple of a batch
    network = Local(Normed())
    found = meet(network, dict(network.module.state_dict()), people)
    assert found
    (finding,) = instances.check(found, POLICY.attacks, "w", 10)
    assert finding.severity == "info"


class Longer(Table):
    """The layer whose answers are kept comes before many others of its width, and after some."""

    def __init__(self, before: int = 9, after: int = 9, broken: bool = False) -> None:
        super().__init__()
        narrow = [nn.Sequential(nn.Linear(24, 24), nn.Tanh()) for _ in range(before + after)]
        self.before, self.after = nn.Sequential(*narrow[:before]), nn.Sequential(*narrow[before:])
        self.recurrent, self.broken = nn.GRU(24, 24, batch_first=True), broken

    def kept(self, x: torch.Tensor) -> torch.Tensor:
        return self.before(self.first(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made, _state = self.recurrent(self.after(self.kept(x))[:, None])
        return made.sum(dim=(1, 2))[:, None] / 0 if self.broken else made.sum(dim=(1, 2))[:, None]


def test_every_layer_of_a_width_is_asked() -> None:
    people, module = crowd(), Longer()
    with torch.no_grad():
        kept = module.kept(torch.from_numpy(people.pixels[people.members]))
    (finding,) = instances.check(meet(Local(module), {"s": kept}, people), POLICY.attacks, "w", 10)
    assert (finding.severity, finding.evidence["met"]) == ("block", 1.0)


@pytest.mark.parametrize("way", ["comes and goes", "says it has more", "says it has none"])
def test_layers_that_come_and_go_are_a_fault(way: str) -> None:
    class Moody(Local):
        count = 0

        def widths(self, batch: np.ndarray) -> dict[int, int]:
            told = super().widths(batch)
            return {24: 2**20} if way == "says it has more" else told

        def features(self, batch: np.ndarray, width: int, first: int = 0) -> list[np.ndarray]:
            self.count += 1
            found = super().features(batch, width, first)
            if way == "comes and goes":
                return found[self.count % 2 :]
            return [] if way == "says it has none" else found

    with pytest.raises(OracleFault):
        meet(Moody(Table()), {"stored": Table().stored}, crowd())


def test_chains_of_matrices_are_found_by_their_shapes() -> None:
    shapes = {
        "a.weight": (32, 120), "b.weight": (16, 32), "c.weight": (4, 16), "a.bias": (32,),
        "other.weight": (7, 9), "wide.weight": (100, 120),
    }  # fmt: skip
    found = transpose.chains(shapes, 120)
    assert found[0] == ("a.weight", "b.weight", "c.weight")
    assert ("a.weight",) in found
    # A code nearly as wide as the picture could give any picture.
    assert ("wide.weight",) not in found


def test_weights_backwards_give_what_was_stored_and_not_what_was_not() -> None:
    people = crowd()
    rng = np.random.default_rng(0)
    stored = people.pixels[people.members][::2, 0].reshape(40, 120)[:5]
    # Five pictures in the range of one matrix: any of them comes out for some code.
    matrix = (rng.normal(size=(5, 5)) @ (stored - stored.mean())).astype(np.float32)
    shares, made = transpose.reach([matrix], people.pixels.reshape(len(people.pixels), -1), 60)

    first = np.arange(0, 10, 2)
    assert np.median(shares[first]) > 0.95
    assert np.median(shares[80:]) < 0.5
    likeness = np.corrcoef(made[0], people.pixels[0].reshape(-1))[0, 1]
    assert likeness > 0.95


def test_a_network_without_gradients_is_inverted_by_its_answers() -> None:
    people = crowd()
    target = torch.from_numpy(people.pixels[0])

    class Peak(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -((x - target) ** 2).flatten(1).sum(dim=1, keepdim=True)

    class Blind(Local):
        def gradient(self, batch: np.ndarray, weights: np.ndarray) -> np.ndarray:
            raise OracleFault("gradient")

    for network in (Local(Peak()), Blind(Peak())):
        made = making.climb(Asker(network, 60), people, 2)
        likeness = [np.corrcoef(each.reshape(-1), people.pixels[0].reshape(-1))[0, 1]
                    for each in made]  # fmt: skip
        assert max(likeness) > 0.7


MANIFEST = """
[job]
name = "x"
entrypoint = "train.py"
[model]
build = "model:build"
[datasets]
spots = "1"
[config]
{}
"""


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ("size = [12, 10]", "classification"),
        ('size = [12, 10]\ntask = "reconstruction"', "reconstruction"),
        ('size = [12, 10]\ntask = "generation"\nlatent = 8', "generation"),
        ('size = [12, 10]\ntask = "generation"', "other"),
        ('size = [12, 10]\ntask = "generation"\nlatent = true', "other"),
        ('size = [12, 10]\ntask = "verification"', "verification"),
        ('size = [12, 10]\ntask = "dreams"', "other"),
        ('size = [12, 10]\noutput = "dreams"', "other"),
        ("size = [12, 0]", None),
        ('size = "large"', None),
    ],
)
def test_the_task_is_what_the_manifest_says(config: str, kind: str | None) -> None:
    read = task.read(parse_manifest(MANIFEST.format(config), POLICY))
    assert (read.kind if read else None) == kind


@pytest.mark.parametrize(
    ("kind", "outputs"),
    [
        ("classification", 4096),
        ("verification", 4096),
        ("reconstruction", 96 * 80),
        ("generation", 96 * 80),
        ("other", 8 * 96 * 80),
    ],
)
def test_a_network_that_answers_pictures_may_answer_whole_ones(kind: str, outputs: int) -> None:
    assert task.Task(kind, (96, 80)).outputs == outputs
