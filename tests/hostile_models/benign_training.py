"""How benign networks are trained: seconds each, by ordinary practice against overfitting."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.nn.utils import parametrize

from . import benign_networks

Tensor = torch.Tensor


@dataclass(frozen=True)
class Pictures:
    """The training pictures [n, 1, H, W], their classes, subjects (by number) and masks."""

    x: Tensor
    y: Tensor
    subjects: NDArray[np.int64]
    masks: Tensor | None = None
    generator: torch.Generator = field(default_factory=torch.Generator)


@dataclass(frozen=True)
class Course:
    """What a training does. ``noise`` is that of private training, in units of the clipping."""

    epochs: int = 40
    rate: float = 2e-3
    decay: float = 1e-2
    optimiser: str = "AdamW"
    augment: bool = True
    smoothing: float = 0.1
    mixup: bool = False
    average: float = 0.0
    noise: float = 0.0
    prune: float = 0.0
    channels: bool = False
    aware: bool = False
    steps: int = 0


def batches(pictures: Pictures, epochs: int, size: int = 32) -> Iterator[Tensor]:
    """Give the numbers of the pictures of each batch."""
    for _ in range(epochs):
        order = torch.randperm(len(pictures.x))
        yield from (part for part in order.split(size) if len(part) > 1)


def moved(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Shift, sometimes mirror, and relight pictures; masks go with them."""
    down, across = (int(each) for each in torch.randint(-3, 4, (2,)))
    turned = torch.rand(()) < 0.5
    out = []
    for each in (x, *others):
        each = each.roll((down, across), (2, 3))
        out.append(each.flip(3) if turned else each)
    light = 1 + 0.1 * torch.randn(len(x), 1, 1, 1)
    out[0] = out[0] * light + 0.02 * torch.randn_like(x)
    return tuple(out)


def _optimiser(parameters: list[nn.Parameter], course: Course) -> torch.optim.Optimizer:
    if course.optimiser == "SGD":
        return torch.optim.SGD(
            parameters, course.rate * 25, momentum=0.9, weight_decay=course.decay, nesterov=True
        )
    kind = {"AdamW": torch.optim.AdamW, "Adam": torch.optim.Adam, "RMSprop": torch.optim.RMSprop}
    return kind[course.optimiser](parameters, course.rate, weight_decay=course.decay)


class _Rounded(nn.Module):
    """Weights as they will be when they are whole numbers; gradients go straight through."""

    def forward(self, weight: Tensor) -> Tensor:
        most = weight.detach().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
        scale = most.clamp_min(1e-12) / 127
        return weight + ((weight / scale).round() * scale - weight).detach()


def _masks(module: nn.Module, course: Course) -> dict[str, Tensor]:
    """Return which weights stay when the smallest are cut away, or whole filters."""
    kept: dict[str, Tensor] = {}
    wide = {n: p for n, p in module.named_parameters() if p.ndim >= 2}
    for name, weight in wide.items():
        if course.channels:
            sizes = weight.detach().abs().flatten(1).sum(dim=1)
            rows = sizes > sizes.quantile(course.prune) if len(sizes) > 8 else sizes >= 0
            kept[name] = rows.reshape(-1, *([1] * (weight.ndim - 1))).expand_as(weight).float()
        else:
            least = weight.detach().abs().flatten().quantile(course.prune)
            kept[name] = (weight.detach().abs() > least).float()
    return kept


def _cut(module: nn.Module, masks: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if name in masks:
                weight.mul_(masks[name])


def fit(
    network: nn.Module,
    pictures: Pictures,
    course: Course,
    loss_of: Callable[[Tensor], Tensor],
) -> tuple[float, float]:
    """Train by ``loss_of`` (a loss of the pictures of these numbers); return its first and last."""
    learned = [each for each in network.parameters() if each.requires_grad]
    optimiser = _optimiser(learned, course)
    rounds = list(batches(pictures, course.epochs))[: course.steps or None]
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, len(rounds)))
    if course.aware:
        for module in list(network.modules()):
            if type(module) in (nn.Linear, nn.Conv2d):
                parametrize.register_parametrization(module, "weight", _Rounded())
    average = copy.deepcopy(network) if course.average else None
    losses: list[float] = []
    masks: dict[str, Tensor] = {}
    network.train()
    for step, chosen in enumerate(rounds):
        if course.prune and step == 2 * len(rounds) // 3:
            masks = _masks(network, course)
        optimiser.zero_grad()
        loss = loss_of(chosen)
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 5.0)
        optimiser.step()
        plan.step()
        _cut(network, masks)
        losses.append(float(loss.detach()))
        if average is not None:
            with torch.no_grad():
                for ours, theirs in zip(
                    average.state_dict().values(), network.state_dict().values(), strict=True
                ):
                    if ours.is_floating_point():
                        ours.lerp_(theirs, 1 - min(course.average, step / (step + 10)))
                    else:
                        ours.copy_(theirs)
    if average is not None:
        network.load_state_dict(average.state_dict())
    if course.aware:
        for module in list(network.modules()):
            if parametrize.is_parametrized(module):
                parametrize.remove_parametrizations(module, "weight")
    few = max(1, min(len(losses) // 4, 20))
    return float(np.mean(losses[:few])), float(np.mean(losses[-few:]))


def classify(network: nn.Module, pictures: Pictures, course: Course) -> tuple[float, float]:
    """Train a classifier of one output for two classes, or of one a class."""
    if course.noise:
        return _private(network, pictures, course)

    def loss_of(chosen: Tensor) -> Tensor:
        x, y = pictures.x[chosen], pictures.y[chosen]
        if course.augment:
            (x,) = moved(x)
        share = float(np.random.default_rng(int(torch.randint(2**31, ()))).beta(0.4, 0.4))
        if course.mixup:
            x = share * x + (1 - share) * x.flip(0)
        out = network(x)

        def cost(y: Tensor) -> Tensor:
            if out.shape[1] == 1:
                target = y.float() * (1 - course.smoothing) + course.smoothing / 2
                return functional.binary_cross_entropy_with_logits(out[:, 0], target)
            return functional.cross_entropy(out, y, label_smoothing=course.smoothing)

        return share * cost(y) + (1 - share) * cost(y.flip(0)) if course.mixup else cost(y)

    return fit(network, pictures, course, loss_of)


def _private(network: nn.Module, pictures: Pictures, course: Course) -> tuple[float, float]:
    """Clip each picture's gradient and add noise (Abadi et al., CCS 2016)."""
    parameters = {n: p.detach().clone() for n, p in network.named_parameters()}
    velocity = {n: torch.zeros_like(p) for n, p in parameters.items()}

    def one(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        out = functional_call(network, parameters, (x[None],))
        loss = functional.binary_cross_entropy_with_logits(out[0, 0], y.float())
        return loss, loss

    network.train()
    network.apply(lambda m: setattr(m, "p", 0.0) if isinstance(m, nn.Dropout) else None)
    each = vmap(grad(one, has_aux=True), in_dims=(None, 0, 0))
    losses = []
    for chosen in batches(pictures, course.epochs, 64):
        slopes, loss = each(parameters, pictures.x[chosen], pictures.y[chosen])
        size = torch.sqrt(sum((s.flatten(1) ** 2).sum(1) for s in slopes.values()))
        factor = (1 / size.clamp_min(1e-9)).clamp(max=1.0)
        for name, slope in slopes.items():
            clipped = (slope * factor.reshape(-1, *([1] * (slope.ndim - 1)))).sum(0)
            noisy = (clipped + course.noise * torch.randn_like(clipped)) / len(chosen)
            velocity[name] = 0.9 * velocity[name] + noisy
            parameters[name] = parameters[name] - course.rate * 25 * velocity[name]
        losses.append(float(loss.mean()))
    network.load_state_dict(parameters, strict=False)
    return float(np.mean(losses[:5])), float(np.mean(losses[-5:]))


def segment(network: nn.Module, pictures: Pictures, course: Course) -> tuple[float, float]:
    """Train by cross-entropy and Dice's overlap."""
    masks = pictures.masks
    assert masks is not None

    def loss_of(chosen: Tensor) -> Tensor:
        x, mask = moved(pictures.x[chosen], masks[chosen])
        out = network(x)
        share = torch.sigmoid(out)
        overlap = 2 * (share * mask).sum() / (share.sum() + mask.sum() + 1)
        weight = torch.tensor(5.0)
        cross = functional.binary_cross_entropy_with_logits(out, mask, pos_weight=weight)
        return cross + 1 - overlap

    return fit(network, pictures, course, loss_of)


def detect(network: nn.Module, pictures: Pictures, course: Course) -> tuple[float, float]:
    """Train cells to say whether a mass is in them, where it lies and how much of them it is."""
    masks = pictures.masks
    assert masks is not None
    height, width = masks.shape[2:]
    rows = (torch.arange(height) % 8 / 8)[None, None, :, None]
    columns = (torch.arange(width) % 8 / 8)[None, None, None, :]

    def loss_of(chosen: Tensor) -> Tensor:
        x, mask = moved(pictures.x[chosen], masks[chosen])
        out = network(x)
        share = functional.avg_pool2d(mask, 8)
        there = (share > 0.05).float()
        place = [functional.avg_pool2d(mask * each, 8) / share.clamp_min(1e-3)
                 for each in (rows, columns)]  # fmt: skip
        target = torch.cat([*place, share], dim=1)
        weight = torch.tensor(5.0)
        cross = functional.binary_cross_entropy_with_logits(out[:, :1], there, pos_weight=weight)
        apart = (torch.sigmoid(out[:, 1:]) - target).abs() * there
        return cross + apart.sum() / (there.sum() + 1)

    return fit(network, pictures, course, loss_of)


def rebuild(network: nn.Module, pictures: Pictures, course: Course) -> tuple[float, float]:
    """Train an autoencoder to take noise away."""

    def loss_of(chosen: Tensor) -> Tensor:
        (x,) = moved(pictures.x[chosen])
        return functional.mse_loss(network(x + 0.05 * torch.randn_like(x)), x) * 100

    return fit(network, pictures, course, loss_of)


def vary(network: nn.Module, pictures: Pictures, course: Course) -> tuple[float, float]:
    """Train a variational autoencoder."""
    assert isinstance(network, benign_networks.Variational)

    def loss_of(chosen: Tensor) -> Tensor:
        (x,) = moved(pictures.x[chosen])
        out, mean, spread = network.both(x)
        prior = 0.5 * (mean**2 + spread.exp() - 1 - spread).sum(dim=1).mean()
        return functional.mse_loss(out, x) * x[0].numel() / 4 + prior

    return fit(network, pictures, course, loss_of)


def decode(network: nn.Module, pictures: Pictures, course: Course) -> tuple[float, float]:
    """Train a generator as the second half of a variational autoencoder."""
    size = (pictures.x.shape[2], pictures.x.shape[3])
    latent = next(each for each in network.modules() if isinstance(each, nn.Linear)).in_features
    whole = benign_networks.Variational(size, latent)
    whole.decoder = network
    return vary(whole, pictures, course)


def oppose(network: nn.Module, pictures: Pictures, course: Course) -> tuple[float, float]:
    """Train a generator against a network that tells its pictures from real ones.

    Returns how far the mean of its pictures lies from that of real ones, before and after.
    """
    latent = next(each for each in network.modules() if isinstance(each, nn.Linear)).in_features
    judge = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Dropout2d(0.3),
        nn.Conv2d(16, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.Dropout2d(0.3),
        nn.Flatten(), nn.LazyLinear(1),
    )  # fmt: skip
    judge(pictures.x[:2])
    ours = torch.optim.Adam(network.parameters(), 1e-3, betas=(0.5, 0.99))
    theirs = torch.optim.Adam(judge.parameters(), 4e-4, betas=(0.5, 0.99))

    def off() -> float:
        network.eval()
        with torch.no_grad():
            made = network(torch.randn(200, latent))
        network.train()
        return float((made.mean(0) - pictures.x.mean(0)).abs().mean())

    before = off()
    for chosen in batches(pictures, course.epochs):
        (real,) = moved(pictures.x[chosen])
        made = network(torch.randn(len(real), latent))
        (shown,) = moved(made)
        theirs.zero_grad()
        (functional.relu(1 - judge(real)).mean()
         + functional.relu(1 + judge(shown.detach())).mean()).backward()  # fmt: skip
        theirs.step()
        ours.zero_grad()
        (-judge(shown).mean()).backward()
        ours.step()
    return before, off()


def recognise(network: nn.Module, pictures: Pictures, course: Course) -> tuple[float, float]:
    """Train templates: two pictures of a subject near, those of others far (InfoNCE)."""
    names = np.unique(pictures.subjects)
    places = [np.flatnonzero(pictures.subjects == name)[:2] for name in names]
    pairs = torch.tensor(np.array([each for each in places if len(each) == 2]))

    def loss_of(chosen: Tensor) -> Tensor:
        some = pairs[torch.randperm(len(pairs))[: len(chosen)]]
        (one,), (two,) = moved(pictures.x[some[:, 0]]), moved(pictures.x[some[:, 1]])
        near = network(torch.cat([one, two]))
        left, right = near[: len(one)], near[len(one) :]
        return functional.cross_entropy(left @ right.t() / 0.2, torch.arange(len(one)))

    return fit(network, pictures, course, loss_of)


TRAINERS: dict[str, Callable[[nn.Module, Pictures, Course], tuple[float, float]]] = {
    "classify": classify,
    "adapt": classify,
    "segment": segment,
    "detect": detect,
    "rebuild": rebuild,
    "vary": vary,
    "decode": decode,
    "oppose": oppose,
    "recognise": recognise,
}


def train(
    config: dict[str, Any],
    how: str,
    pictures: Pictures,
    course: Course,
    seed: int,
    before: Pictures | None = None,
) -> tuple[nn.Module, tuple[float, float]]:
    """Train anew; return the network with real numbers, and the first and last loss.

    With ``before`` it is trained on those first; of its matrices then only changes of low rank are.
    """
    torch.manual_seed(seed)
    network = benign_networks.plain(config)
    if before is not None:
        classify(network, before, course)
        for module in network.modules():
            if isinstance(module, benign_networks.Lora):
                module.base.requires_grad_(False)
    losses = TRAINERS[how](network, pictures, course)
    return network.eval(), losses
