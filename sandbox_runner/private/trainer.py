"""The trusted trainer: DP-SGD by subject over a closed graph. Runs sealed, without the submission.

Runs as ``python -m sandbox_runner.private.trainer``; one JSON request on standard input. Each step
draws every subject by itself with the same chance (Poisson). A drawn subject's gradient is that of
the mean loss of its pictures, computed in a pass that sees this subject alone, and cut to the
clipping norm as a whole: no layer could mix subjects, and one subject moves the sum by at most that
norm. Gaussian noise is added to the sum, which then is divided by how many are *expected*.

What leaves is the weights of the last step. Nothing is measured on the training data, nothing is
printed of it, and nothing that a subject's data does ends the training or adds a step to it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.accountants import RDPAccountant
from torch.nn import functional

from policies.document import release_policy
from policies.errors import Invalid
from policies.privacy import PrivateTraining, delta_for, rounded_up
from sandbox_runner.inspection.safetensors_file import read_header
from sandbox_runner.private import accounting
from sandbox_runner.private import graph as graphs
from sandbox_runner.private.network import ClosedNetwork
from sandbox_runner.private.noise import Draws
from sandbox_runner.private.subjects import NoSubject, Subject, read_subjects
from sandbox_runner.sdk.glovebox import outputs

#: What is written beside the weights, for the runner alone.
ACCOUNT: Final = "private.json"
#: The clipped norm stays below the clipping norm also after rounding.
BELOW: Final = 1.0 - 1e-9

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Refused(Exception):
    """The training cannot be done as asked; ``code`` is a word of ours (training.py)."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Plan:
    """What was settled before the first step."""

    delta: float
    noise: float
    steps: int


def settle(asked: PrivateTraining, subjects: int, policy_delta: float) -> Plan:
    """Return noise and steps that fit into the budget. Raises :class:`Refused`."""
    try:
        delta = delta_for(asked.delta, subjects, policy_delta)
    except Invalid as error:
        raise Refused(error.code.removeprefix("private.")) from None
    noise = asked.noise or accounting.noise_for(asked, delta)
    if noise is None:
        raise Refused("budget")
    steps = accounting.steps_for(asked, noise, delta)
    if not steps:
        raise Refused("budget")
    return Plan(delta, noise, steps)


def loss_of(config: Mapping[str, Any], width: int, weight: float) -> Loss:
    """Return the mean loss of one subject's answers, for the task of ``[config]``."""

    def reconstruction(
        answers: torch.Tensor, pictures: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        return functional.mse_loss(answers.reshape(pictures.shape), pictures)

    def one_logit(
        answers: torch.Tensor, pictures: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(
            answers.reshape(len(targets)),
            targets.to(answers.dtype),
            pos_weight=torch.tensor(weight),
        )

    def classes(
        answers: torch.Tensor, pictures: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        weights = torch.tensor([1.0, weight]) if width == 2 else None
        return functional.cross_entropy(answers.reshape(len(targets), -1), targets, weights)

    if config.get("task", "classification") == "reconstruction":
        return reconstruction
    return one_logit if width == 1 else classes


def width_of(network: ClosedNetwork, size: tuple[int, int], task: str) -> int:
    """Return how many numbers the network gives a picture, asked with made-up ones.

    Raises :class:`Refused` where it does not take pictures of that size, one or several.
    """
    widths: set[int] = set()
    for count in (1, 2, 3):
        try:
            with torch.no_grad():
                answer = network(torch.zeros(count, 1, *size))
        except Exception:
            raise Refused("shape") from None
        if answer.shape[0] != count:
            raise Refused("shape")
        widths.add(answer.numel() // count)
    if len(widths) != 1 or (task == "reconstruction" and widths != {size[0] * size[1]}):
        raise Refused("shape")
    return widths.pop()


class Training:
    """One private training of ``network`` on ``subjects``."""

    def __init__(
        self,
        network: ClosedNetwork,
        subjects: Sequence[Subject],
        asked: PrivateTraining,
        loss: Loss,
        draws: Draws,
    ) -> None:
        self.network, self.subjects, self.asked = network, subjects, asked
        self.loss, self.draws = loss, draws
        self.trained = [value for value in network.named.values() if value.requires_grad]
        self.size = sum(value.numel() for value in self.trained)
        if asked.optimizer == "adam":
            self.optimizer: torch.optim.Optimizer = torch.optim.Adam(
                self.trained, lr=asked.learning_rate
            )
        else:
            self.optimizer = torch.optim.SGD(
                self.trained, lr=asked.learning_rate, momentum=asked.momentum
            )

    def clipped(self, subject: Subject) -> NDArray[np.float64]:
        """Return one subject's gradient, float64 of all numbers in a row, of at most norm ``clip``.

        A pass that fails, or gives what is no number, counts as nothing: it must not end the
        training, nor show in it.
        """
        chosen = self.draws.some(len(subject.targets), self.asked.pictures)
        nothing = np.zeros(self.size)
        if not len(chosen):
            return nothing
        pictures = torch.from_numpy(subject.pictures[chosen])
        targets = torch.from_numpy(subject.targets[chosen])
        try:
            loss = self.loss(self.network(pictures), pictures, targets)
            found = torch.autograd.grad(loss, self.trained, allow_unused=True)
        except (RuntimeError, IndexError, ValueError):
            return nothing
        row = np.concatenate(
            [
                np.zeros(value.numel()) if part is None else part.reshape(-1).double().numpy()
                for value, part in zip(self.trained, found, strict=True)
            ]
        )
        norm = float(np.linalg.norm(row))
        if not np.isfinite(norm):
            return nothing
        return row * (BELOW * min(1.0, self.asked.clip / norm)) if norm > 0 else nothing

    def total(self, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the sum of the clipped gradients of these subjects."""
        total = np.zeros(self.size)
        for index in chosen:
            total += self.clipped(self.subjects[index])
        return total

    def step(self, noise: float) -> None:
        """Do one step with this noise multiplier."""
        total = self.total(self.draws.drawn(len(self.subjects), self.asked.rate))
        total += self.draws.normal(self.size) * (noise * self.asked.clip)
        mean = torch.from_numpy(total / (self.asked.rate * len(self.subjects)))
        start = 0
        for value in self.trained:
            part = mean[start : start + value.numel()]
            value.grad = part.reshape(value.shape).to(value.dtype)
            start += value.numel()
        self.optimizer.step()

    def run(self, plan: Plan) -> float:
        """Do the steps that fit into the budget; return epsilon as the accountant adds it up."""
        account = RDPAccountant()
        self.network.train()
        for _step in range(plan.steps):
            account.step(noise_multiplier=plan.noise, sample_rate=self.asked.rate)
            self.step(plan.noise)
        return accounting.spent(account, plan.delta)


def train(request: Mapping[str, Any], place: Path, datasets: Mapping[str, Path]) -> dict[str, Any]:
    """Train as asked and write the weights; return the account."""
    policy = release_policy(request["policy"])
    asked, config = PrivateTraining(**request["private"]), request["config"]
    size = (int(config["size"][0]), int(config["size"][1]))
    graph = graphs.read(place, policy)
    try:
        network = ClosedNetwork(graph)
    except (RuntimeError, TypeError, ValueError):
        # Each argument is in its range; that some do not go together only torch says.
        raise Refused("shape") from None
    initial = place / graphs.INITIAL
    network.load(initial, read_header(initial, policy))
    task = config.get("task", "classification")
    width = width_of(network, size, task)
    positive = config.get("positive_label")
    if task == "classification" and positive is not None and width > 2:
        raise Refused("width")
    try:
        subjects = read_subjects(
            datasets,
            size,
            positive,
            classes=task == "classification",
            shards=Path(request["shards"]) if request["shards"] else None,
        )
    except NoSubject:
        raise Refused("nobody") from None
    plan = settle(asked, len(subjects), float(request["delta"]))
    draws = Draws()
    torch.manual_seed(draws.seed())
    loss = loss_of(config, width, asked.positive_weight)
    epsilon = Training(network, subjects, asked, loss, draws).run(plan)
    outputs.save_weights({name: value.detach() for name, value in network.named.items()},
                         request["weights"])  # fmt: skip
    # The manifest's own words: they are the same for any data.
    text = json.dumps(config, indent=1, sort_keys=True) + "\n"
    outputs.output(request["config_name"]).write_text(text, encoding="utf-8")
    return {
        "epsilon": max(rounded_up(epsilon), 0.001),
        "delta": plan.delta,
        "noise": plan.noise,
        "rate": asked.rate,
        "steps": plan.steps,
        "clip": asked.clip,
        "subjects": len(subjects),
        "accountant": accounting.ACCOUNTANT,
    }


def main() -> None:
    """Do what is asked; a refusal is an answer too, and says one word."""
    torch.set_flush_denormal(True)  # numbers that slow a processor down would show in the time
    request = json.loads(sys.stdin.buffer.read())
    # One subject's pass is small: threads would wait for each other longer than they work.
    torch.set_num_threads(1)
    datasets = {slug: Path(path) for slug, path in request["datasets"].items()}
    try:
        said = train(request, Path(request["graph"]), datasets)
    except Refused as refused:
        said = {"refused": refused.code}
    outputs.output(ACCOUNT).write_text(json.dumps(said, allow_nan=False), encoding="utf-8")


if __name__ == "__main__":
    main()
