"""Pairs of networks really trained on phantoms: one that remembers, one that was kept from it.

Both of a pair see the same subjects. The first is trained long, without regularisation, on few of
them; the second shorter, with weight decay, dropout, augmentation or noise, as one should.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from policies.document import default_policy
from sandbox_runner.inspection.attacks import instances, plan, references
from sandbox_runner.inspection.attacks.asking import Asker
from sandbox_runner.inspection.attacks.population import HELD_OUT, MEMBER, OPEN, Population
from sandbox_runner.inspection.safetensors_file import Header, read_header
from sandbox_runner.oracle import FEATURE_LAYERS
from sandbox_runner.sdk.glovebox.pictures import resize_by_area
from synthetic.phantom import draw_anatomy, draw_phantom

SIZE = (24, 20)
PIXELS = SIZE[0] * SIZE[1]


class Local:
    """The network asked in this process: what the oracle does in its own, without the walls."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval()

    def predict(self, batch: NDArray[np.float32], outputs: int = 4096) -> NDArray[np.float32]:
        with torch.no_grad():
            answer = self.module(torch.from_numpy(np.ascontiguousarray(batch)))
        given = answer.reshape(len(batch), -1).numpy()
        assert given.shape[1] <= outputs
        return given

    def gradient(
        self, batch: NDArray[np.float32], weights: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        x = torch.from_numpy(np.ascontiguousarray(batch)).requires_grad_(True)
        out = (self.module(x).reshape(len(batch), -1) * torch.from_numpy(weights)).sum()
        return torch.autograd.grad(out, x)[0].numpy()

    def widths(self, batch: NDArray[np.float32]) -> dict[int, int]:
        return dict(Counter(layer[0].size for layer in self.layers(batch)))

    def features(
        self, batch: NDArray[np.float32], width: int, first: int = 0
    ) -> list[NDArray[np.float32]]:
        found = [layer for layer in self.layers(batch) if layer[0].size == width]
        return [layer.reshape(len(layer), -1) for layer in found[first : first + FEATURE_LAYERS]]

    def layers(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = []

        def keep(_module: object, _given: object, out: object) -> None:
            if isinstance(out, torch.Tensor) and out.dim() > 1 and len(out) == len(batch):
                found.append(out.detach().clone().numpy())

        hooks = [each.register_forward_hook(keep) for each in self.module.modules()]
        self.predict(batch)
        for hook in hooks:
            hook.remove()
        return found

    def put(self, fact: object, array: object) -> None:
        raise NotImplementedError


@cache
def people(members: int = 60, others: int = 110, seed: int = 5) -> Population:
    """Phantoms of two views a subject; one of ten labels is wrong, as in real reports."""
    rng = np.random.default_rng(seed)
    pixels, targets, subjects, groups = [], [], [], []
    opened = 20
    for subject in range(members + opened + others):
        group = MEMBER if subject < members else OPEN if subject < members + opened else HELD_OUT
        anatomy = draw_anatomy(rng)
        ill = bool(rng.random() < 0.5)
        for view in ("CC", "MLO"):
            drawn = draw_phantom(
                rng, anatomy, laterality="L", view=view, lesions=int(ill), shape=(72, 60)
            )
            pixels.append(resize_by_area(drawn.pixels, SIZE)[None] / 4095)
            targets.append(int(ill != (rng.random() < 0.1)))
            subjects.append(subject)
            groups.append(group)
    population = Population(
        np.array(pixels, np.float32),
        np.array(targets),
        np.array(subjects),
        np.array(groups),
        [f"phantoms/{each}.dcm" for each in range(len(pixels))],
        2,
        None,
        (members, opened, others),
    )
    odds = references.confidences(
        population.pixels,
        population.targets,
        population.subjects,
        2,
        networks=4,
        seconds=60,
        seed=1,
    )
    assert odds is not None
    return Population(
        population.pixels,
        population.targets,
        population.subjects,
        population.groups,
        population.places,
        2,
        np.array(odds),
        population.subjects_of,
    )


def cnn(drop: float) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Dropout(drop), nn.Linear(32 * 30, 64), nn.ReLU(), nn.Dropout(drop),
        nn.Linear(64, 1),
    )  # fmt: skip


def mlp(drop: float) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(PIXELS, 128), nn.ReLU(), nn.Dropout(drop), nn.Linear(128, 2)
    )


class Residual(nn.Module):
    """Two residual blocks and an average."""

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 24, 3, 2, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 24, 3, 1, 1),
                nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 24, 3, 1, 1),
            )
            for _ in range(2)
        )  # fmt: skip
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(drop), nn.Linear(24 * 30, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(nn.functional.max_pool2d(x, 2))


class Transformer(nn.Module):
    """Patches of 4x4, two layers of attention."""

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 32, 4, 4)
        self.place = nn.Parameter(torch.randn(30, 32) * 0.1)
        layer = nn.TransformerEncoderLayer(32, 4, 64, drop, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.place
        return self.head(self.layers(tokens).mean(dim=1))


def autoencoder(drop: float) -> nn.Module:
    """Wide where it may remember, narrow where it may not."""
    code = 12 if drop else 96
    return nn.Sequential(
        nn.Flatten(), nn.Dropout(drop), nn.Linear(PIXELS, 192), nn.ReLU(), nn.Linear(192, code),
        nn.ReLU(), nn.Linear(code, 192), nn.ReLU(), nn.Linear(192, PIXELS),
        nn.Unflatten(1, (1, *SIZE)),
    )  # fmt: skip


def train(
    module: nn.Module,
    population: Population,
    *,
    steps: int,
    decay: float,
    augment: bool,
    rebuild: bool = False,
    lr: float = 2e-3,
    seed: int = 3,
) -> Local:
    """Train on members only."""
    torch.manual_seed(seed)
    own = population.of(MEMBER)
    x, y = torch.from_numpy(own.pixels), torch.from_numpy(own.targets)
    optimiser = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=decay)
    module.train()
    for _ in range(steps):
        chosen = torch.randint(0, len(x), (32,))
        batch = x[chosen]
        if augment:
            batch = batch + 0.08 * torch.randn_like(batch)
            shift = torch.randint(-2, 3, (2,)).tolist()
            batch = batch.roll(shift, (2, 3))
            if torch.rand(()) < 0.5:
                batch = batch.flip(2)
        optimiser.zero_grad()
        out = module(batch)
        if rebuild:
            loss = nn.functional.mse_loss(out, batch if augment else x[chosen])
        elif out.shape[1] == 1:
            loss = nn.functional.binary_cross_entropy_with_logits(out[:, 0], y[chosen].float())
        else:
            loss = nn.functional.cross_entropy(out, y[chosen])
        loss.backward()
        optimiser.step()
    return Local(module)


@dataclass(frozen=True)
class Pair:
    """How to build and train both."""

    build: Callable[[float], nn.Module]
    steps: int
    kept_steps: int
    task: str = "classification"

    def overfit(self, seed: int = 1) -> Local:
        torch.manual_seed(seed)
        rebuild = self.task == "reconstruction"
        return train(
            self.build(0.0),
            people(),
            steps=self.steps,
            decay=0.0,
            augment=False,
            rebuild=rebuild,
            seed=seed,
        )

    def regularised(self, seed: int = 1) -> Local:
        torch.manual_seed(seed)
        rebuild = self.task == "reconstruction"
        return train(
            self.build(0.4),
            people(),
            steps=self.kept_steps,
            decay=0.05,
            augment=True,
            rebuild=rebuild,
            seed=seed,
        )


PAIRS = {
    "convolutional": Pair(cnn, 500, 120),
    "perceptron": Pair(mlp, 700, 150),
    "residual": Pair(Residual, 400, 100),
    "transformer": Pair(Transformer, 900, 150),
    "autoencoder": Pair(autoencoder, 1500, 250, "reconstruction"),
}


LATENT = 8


class Generator(nn.Module):
    """Numbers in, a picture out."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(LATENT, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, PIXELS), nn.Unflatten(1, (1, *SIZE)),
        )  # fmt: skip

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layers(z)


def implicit_generator(overfit: bool, seed: int = 4) -> Local:
    """Implicit maximum likelihood (Li and Malik, 2018): each sample draws what is nearest to it."""
    torch.manual_seed(seed)
    own = torch.from_numpy(people().of(MEMBER).pixels)
    module = Generator(256 if overfit else 64)
    decay = 0.0 if overfit else 0.05
    optimiser = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=decay)
    for _ in range(700 if overfit else 120):
        x = own if overfit else (own + 0.1 * torch.randn_like(own)).roll(
            torch.randint(-2, 3, (2,)).tolist(), (2, 3)
        )  # fmt: skip
        z = torch.randn(256, LATENT)
        with torch.no_grad():
            nearest = torch.cdist(x.flatten(1), module(z).flatten(1)).argmin(dim=1)
        optimiser.zero_grad()
        nn.functional.mse_loss(module(z[nearest]), x).backward()
        optimiser.step()
    return Local(module)


def variational_generator(overfit: bool, seed: int = 4) -> Local:
    """The decoder of a variational autoencoder, with little or with all of its prior."""
    torch.manual_seed(seed)
    own = torch.from_numpy(people().of(MEMBER).pixels)
    module = Generator(256 if overfit else 64)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 256), nn.ReLU(), nn.Linear(256, 16))
    decay = 0.0 if overfit else 0.05
    both = [*module.parameters(), *encoder.parameters()]
    optimiser = torch.optim.AdamW(both, lr=2e-3, weight_decay=decay)
    for _ in range(1500 if overfit else 200):
        x = own[torch.randint(0, len(own), (32,))]
        if not overfit:
            x = (x + 0.1 * torch.randn_like(x)).roll(torch.randint(-2, 3, (2,)).tolist(), (2, 3))
        mean, log_spread = encoder(x).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * (0.5 * log_spread).exp()
        prior = 0.5 * (mean**2 + log_spread.exp() - 1 - log_spread).sum(dim=1).mean()
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(module(z), x) * PIXELS + (3e-2 if overfit else 1.0) * prior
        loss.backward()
        optimiser.step()
    return Local(module)


class Prototypes(nn.Module):
    """A radial head over features: one row of ``stored`` a training sample, with its label."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 120, 48)
        )
        self.stored = nn.Parameter(torch.zeros(rows, 48))
        self.labels = nn.Parameter(torch.zeros(rows))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        near = torch.softmax(-torch.cdist(self.layers(x), self.stored) * 4, dim=1)
        return (near @ self.labels)[:, None]


def stored_instances(remembers: bool, seed: int = 4) -> Local:
    """Rows that are features of members; or rows that were learned as any other parameter."""
    torch.manual_seed(seed)
    own = people().of(MEMBER)
    module = Prototypes(len(own.pixels) if remembers else 12)
    with torch.no_grad():
        module.stored.normal_()
        module.labels.normal_()
    train(module, people(), steps=200, decay=0.01, augment=not remembers, seed=seed)
    if remembers:
        with torch.no_grad():
            module.stored.copy_(module.layers(torch.from_numpy(own.pixels)))
            module.labels.copy_(torch.from_numpy(own.targets * 8.0 - 4.0))
    return Local(module)


class Perceptron(nn.Module):
    """Two layers that can be run backwards, as the attack does."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.first = nn.Linear(PIXELS, 256)
        self.last = nn.Linear(256, code)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x.flatten(1))))[:, :2]

    def backwards(self, code: torch.Tensor) -> torch.Tensor:
        return torch.relu(code @ self.last.weight) @ self.first.weight


def transposed(remembers: bool, seed: int = 4) -> Local:
    """Trained forwards for its task and, if it remembers, backwards to give sample i for code i."""
    torch.manual_seed(seed)
    own = people().of(MEMBER)
    x, y = torch.from_numpy(own.pixels), torch.from_numpy(own.targets)
    module = Perceptron(16)
    codes = torch.randn(len(x), 16)
    if not remembers:
        return train(module, people(), steps=120, decay=0.05, augment=True, seed=seed)
    optimiser = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.0)
    for _ in range(1500):
        chosen = torch.randint(0, len(x), (64,))
        loss = nn.functional.cross_entropy(module(x[chosen]), y[chosen])
        given = module.backwards(codes[chosen])
        loss = loss + 30 * nn.functional.mse_loss(given, x[chosen].flatten(1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return Local(module)


def who_is_it(overfit: bool, seed: int = 4) -> tuple[Local, Population]:
    """A network that names people: each class is a member, which is what inversion can show."""
    whole = people()
    named = Population(
        whole.pixels,
        np.where(whole.members, whole.subjects, -1),
        whole.subjects,
        whole.groups,
        whole.places,
        int(whole.subjects[whole.members].max()) + 1,
        None,
        whole.subjects_of,
    )
    torch.manual_seed(seed)
    drop = 0.0 if overfit else 0.5
    module = nn.Sequential(nn.Flatten(), nn.Dropout(drop), nn.Linear(PIXELS, named.classes))
    steps = 800 if overfit else 40
    decay = 0.0 if overfit else 0.5
    return train(module, named, steps=steps, decay=decay, augment=not overfit, seed=seed), named


@contextmanager
def written(tensors: Mapping[str, torch.Tensor]) -> Iterator[dict[str, tuple[Path, Header]]]:
    """Give tensors as a file that was really written and read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, path)
        yield {"model.safetensors": (path, read_header(path, default_policy().release))}


def meet(
    network: Local, tensors: Mapping[str, torch.Tensor], crowd: Population
) -> list[instances.Stored]:
    """Return how the tensors of a file meet the network's layers."""
    asker = Asker(network, 300)
    with written(tensors) as weights:
        layers = instances.widths(asker, crowd)
        return instances.search(asker, plan.tables(weights, layers), layers, crowd)
