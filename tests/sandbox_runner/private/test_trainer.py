"""The trainer's promises, measured: who is drawn, what one subject can do, how much noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from policies.privacy import PrivateTraining
from sandbox_runner.private import accounting, trainer
from sandbox_runner.private.noise import Draws
from sandbox_runner.private.subjects import NoSubject, Subject, read_subjects
from tests.sandbox_runner.inspection.conftest import write_dataset

SIZE = (12, 10)
ASKED = PrivateTraining(
    epsilon=8, steps=10, rate=0.5, learning_rate=1.0, momentum=0.0, clip=0.7, noise=1.3
)


class Network(nn.Module):
    """A network as the trainer builds one, with its parameters by name."""

    def __init__(self, width: int = 1, hidden: int = 16) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(
            nn.Conv2d(1, hidden, 3), nn.GroupNorm(4, hidden), nn.ReLU(), nn.AdaptiveMaxPool2d(2),
            nn.Flatten(), nn.Linear(4 * hidden, width),
        )  # fmt: skip
        self.named = dict(self.net.named_parameters())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Answer."""
        return self.net(x)


def subject(seed: int, pictures: int = 3) -> Subject:
    rng = np.random.default_rng(seed)
    return Subject(rng.random((pictures, 1, *SIZE), dtype=np.float32), rng.integers(0, 2, pictures))


def training(
    subjects: list[Subject], asked: PrivateTraining = ASKED, network: nn.Module | None = None
) -> trainer.Training:
    network = network or Network()
    loss = trainer.loss_of({}, 1, asked.positive_weight)
    return trainer.Training(network, subjects, asked, loss, Draws())  # type: ignore[arg-type]


def spoiled(kind: str) -> Subject:
    """A subject that does all it can to be seen in the sum."""
    rng = np.random.default_rng(0)
    if kind == "huge":
        return Subject(rng.normal(0, 1e6, (16, 1, *SIZE)).astype(np.float32), np.ones(16, np.int64))
    if kind == "alike":
        one = rng.random((1, 1, *SIZE), dtype=np.float32)
        return Subject(np.repeat(one, 200, axis=0), np.zeros(200, np.int64))
    if kind == "no numbers":
        return Subject(np.full((2, 1, *SIZE), np.nan, np.float32), np.zeros(2, np.int64))
    if kind == "endless":
        return Subject(np.full((2, 1, *SIZE), 3e38, np.float32), np.zeros(2, np.int64))
    if kind == "mistaken":
        return Subject(rng.random((4, 1, *SIZE), dtype=np.float32), np.full(4, 10**9))
    return Subject(np.zeros((0, 1, *SIZE), np.float32), np.zeros(0, np.int64))


@pytest.mark.parametrize(
    "kind", ["huge", "alike", "no numbers", "endless", "mistaken", "no pictures"]
)
def test_a_subject_moves_the_sum_by_at_most_the_clipping_norm(kind: str) -> None:
    others = [subject(seed) for seed in range(5)]
    with_it = training([*others, spoiled(kind)])
    everybody = np.arange(6)
    difference = with_it.total(everybody) - with_it.total(everybody[:5])
    assert np.isfinite(difference).all()
    assert np.linalg.norm(difference) <= ASKED.clip * (1 + 1e-12)
    # And exchanged for somebody else, by twice that.
    exchanged = with_it.total(everybody) - training([*others, subject(9)]).total(everybody)
    assert np.linalg.norm(exchanged) <= 2 * ASKED.clip


class Scale(nn.Module):
    """As bright as the picture, times a number."""

    def __init__(self) -> None:
        super().__init__()
        self.named = {"scale": nn.Parameter(torch.ones(1))}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Answer."""
        return x.mean(dim=(1, 2, 3)) * self.named["scale"]


def test_a_gradient_without_end_counts_as_nothing() -> None:
    run = training([subject(1)], network=Scale())
    assert run.total(np.arange(1)).any()
    run.loss = lambda answers, pictures, targets: answers.sum() * float("inf")
    assert run.total(np.arange(1)).tolist() == [0.0]


def test_what_is_clipped_is_the_subject_and_not_the_picture() -> None:
    # So many pictures of one subject that clipping each of them would let through many norms.
    wide = training([subject(1, pictures=12)], PrivateTraining(
        epsilon=8, steps=1, rate=1.0, learning_rate=1.0, clip=1e-3, pictures=64
    ))  # fmt: skip
    assert np.linalg.norm(wide.total(np.arange(1))) == pytest.approx(1e-3, rel=1e-6)


def test_a_gradient_that_is_small_enough_is_left_as_it_is() -> None:
    loose = training([subject(1)], PrivateTraining(
        epsilon=8, steps=1, rate=1.0, learning_rate=1.0, clip=1000.0
    ))  # fmt: skip
    network = Network()
    pictures, targets = (
        torch.from_numpy(each) for each in (subject(1).pictures, subject(1).targets)
    )
    loss = nn.functional.binary_cross_entropy_with_logits(
        network(pictures).reshape(-1), targets.float()
    )
    loss.backward()
    plain = np.concatenate([value.grad.reshape(-1).numpy() for value in network.named.values()])
    assert np.allclose(loose.total(np.arange(1)), plain, rtol=1e-5, atol=1e-7)


def test_noise_has_the_scale_that_is_accounted_for() -> None:
    """Subjects of whom nothing can be read: what moves the weights is the noise alone."""
    nobody = [spoiled("no pictures")] * 20
    network = Network(hidden=256)
    before = np.concatenate([v.detach().numpy().ravel() for v in network.named.values()])
    run = training(nobody, network=network)
    run.step(1.3)
    after = np.concatenate([v.detach().numpy().ravel() for v in network.named.values()])
    moved = (before - after).astype(np.float64) * ASKED.rate * len(nobody)
    assert len(moved) > 3000
    assert moved.std() == pytest.approx(1.3 * ASKED.clip, rel=0.05)
    assert abs(moved.mean()) < 4 * 1.3 * ASKED.clip / len(moved) ** 0.5


def test_normal_numbers_are_normal_and_never_twice_the_same() -> None:
    draws = Draws()
    numbers = draws.normal(200_000)
    assert numbers.std() == pytest.approx(1, rel=0.01)
    assert abs(numbers.mean()) < 0.012
    assert (numbers**4).mean() == pytest.approx(3, rel=0.05)
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.012
    # Box-Muller gives pairs: they must not be related either.
    assert abs(np.corrcoef(numbers[:100_000], numbers[100_000:])[0, 1]) < 0.015
    assert len(set(numbers.tolist())) == 200_000


def test_nobody_chooses_the_noise() -> None:
    def first() -> np.ndarray:
        # Everything by which a submission could fix a generator.
        torch.manual_seed(0)
        np.random.seed(0)
        import random

        random.seed(0)
        return Draws().normal(100)

    one, two = first(), first()
    assert not np.isclose(one, two).any()


def test_each_subject_is_drawn_by_itself() -> None:
    draws = Draws()
    counts = np.zeros(50)
    sizes = []
    for _ in range(4000):
        chosen = draws.drawn(50, 0.3)
        counts[chosen] += 1
        sizes.append(len(chosen))
    assert np.abs(counts / 4000 - 0.3).max() < 0.035
    # The number of drawn subjects varies, as Poisson sampling must: batches of one size are
    # another mechanism, with another epsilon.
    assert np.var(sizes) == pytest.approx(50 * 0.3 * 0.7, rel=0.1)
    assert len(draws.drawn(50, 1.0)) == 50


def test_epsilon_is_of_the_steps_that_were_done() -> None:
    asked = PrivateTraining(epsilon=3, steps=10_000, rate=0.3, learning_rate=0.1, noise=2.0)
    people = [subject(seed, pictures=1) for seed in range(4)]
    plan = trainer.settle(asked, 40, 0.001)
    run = training(people, asked)
    told = run.run(plan)
    assert told <= 3
    assert told == pytest.approx(accounting.epsilon_of(2.0, 0.3, plan.steps, plan.delta))
    assert accounting.epsilon_of(2.0, 0.3, plan.steps + 1, plan.delta) > 3


@pytest.mark.parametrize(
    ("asked", "subjects", "word"),
    [
        (PrivateTraining(0.001, 100_000, 1.0, 0.1), 50, "budget"),
        (PrivateTraining(0.1, 10, 1.0, 0.1, noise=0.3), 50, "budget"),
        (PrivateTraining(4, 10, 0.1, 0.1, delta=0.001), 1000, "delta"),
        (PrivateTraining(4, 10, 0.1, 0.1), 0, "subjects"),
    ],
)
def test_a_budget_that_allows_nothing_is_refused(
    asked: PrivateTraining, subjects: int, word: str
) -> None:
    with pytest.raises(trainer.Refused) as caught:
        trainer.settle(asked, subjects, 0.001)
    assert caught.value.code == word


def test_frozen_tensors_stay_and_get_no_noise() -> None:
    network = Network()
    frozen = network.net[0].weight
    frozen.requires_grad_(False)
    before = frozen.clone()
    run = training([subject(seed) for seed in range(4)], network=network)
    run.step(1.0)
    assert torch.equal(network.net[0].weight, before)
    assert not torch.equal(network.net[5].weight, Network().net[5].weight)


def edit(folder: Path, change: Callable[[str], str]) -> None:
    labels = folder / "labels.csv"
    labels.write_text(change(labels.read_text()))


def test_subjects_are_read_whole_and_broken_pictures_are_no_event(tmp_path: Path) -> None:
    write_dataset(tmp_path / "spots", subjects=12)
    whole = read_subjects({"spots": tmp_path / "spots"}, SIZE, "lesion")
    assert [len(each.targets) for each in whole] == [2] * 6
    (tmp_path / "spots" / "s0" / "0.png").write_bytes(b"no picture")
    for name in ("s0/1.png", "s1/0.png", "s1/1.png"):
        (tmp_path / "spots" / name).unlink()
    broken = read_subjects({"spots": tmp_path / "spots"}, SIZE, "lesion")
    # As many subjects as before: the divisor must not tell that some could not be read.
    assert [len(each.targets) for each in broken] == [0, 0, 2, 2, 2, 2]


def test_a_row_of_nobody_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "spots", subjects=6)
    edit(tmp_path / "spots", lambda text: text.replace(",s1,", ",,"))
    with pytest.raises(NoSubject):
        read_subjects({"spots": tmp_path / "spots"}, SIZE, "lesion")


def test_two_datasets_have_each_their_subjects(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_dataset(tmp_path / name, subjects=6)
    both = read_subjects({name: tmp_path / name for name in ("one", "two")}, SIZE, "lesion")
    assert len(both) == 6
