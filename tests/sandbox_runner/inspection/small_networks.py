"""Three small networks of different families, really trained to tell phantoms with a mass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import nn

from sandbox_runner.inspection import scores
from synthetic.phantom import draw_anatomy, draw_phantom

SHAPE = (128, 104)


@cache
def phantoms(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures float32 [n, 1, 64, 52] in [0, 1], every other with two masses, and their labels."""
    rng = np.random.default_rng(seed)
    pixels = np.stack(
        [
            draw_phantom(
                rng, draw_anatomy(rng), laterality="L", view="CC", lesions=2 * (n % 2), shape=SHAPE
            ).pixels
            for n in range(count)
        ]
    )
    halved = nn.functional.avg_pool2d(torch.from_numpy(pixels.astype(np.float32)[:, None]), 2)
    return halved / 3600, torch.arange(count) % 2


def cnn() -> nn.Module:
    """Convolutions with batch normalisation."""
    layers: list[nn.Module] = []
    for inside, outside in ((1, 16), (16, 32), (32, 48)):
        layers += [nn.Conv2d(inside, outside, 3, 2, 1), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(48, 1))


class Block(nn.Module):
    """Two convolutions beside a way past them."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(inside, outside, 3, 2, 1, bias=False)
        self.norm_one = nn.BatchNorm2d(outside)
        self.two = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm_two = nn.BatchNorm2d(outside)
        self.past = nn.Conv2d(inside, outside, 1, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return half as many rows and columns."""
        inner = torch.relu(self.norm_one(self.one(x)))
        return torch.relu(self.norm_two(self.two(inner)) + self.past(x))


def resnet() -> nn.Module:
    """Residual blocks."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Block(16, 24),
        Block(24, 32),
        Block(32, 48),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 1),
    )


class Patches(nn.Module):
    """A transformer over patches of 4 by 4 convolved pixels."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, width, 3, 2, 1), nn.ReLU()
        )
        self.patch = nn.Conv2d(width, width, 2, 2)
        self.place = nn.Parameter(torch.zeros(1, 8 * 6, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return one logit a picture."""
        tokens = self.patch(self.stem(x)).flatten(2).transpose(1, 2) + self.place
        said: torch.Tensor = self.head(self.norm(self.layers(tokens)).amax(dim=1))
        return said


FAMILIES = {"CNN": cnn, "ResNet": resnet, "transformer": Patches}


@dataclass
class Trained:
    """A trained network and the pictures that it has not seen."""

    network: nn.Module
    pixels: torch.Tensor
    labels: torch.Tensor

    def area(self, state: dict[str, torch.Tensor] | None = None) -> float:
        """Return the AUC on the unseen pictures, with other weights if given."""
        if state is not None:
            self.network.load_state_dict({k: v.float() for k, v in state.items()})
        self.network.eval()
        with torch.no_grad():
            said = torch.cat([self.network(part) for part in self.pixels.split(100)])
        return scores.auc(said.reshape(-1).double().numpy(), self.labels.numpy())


def train(family: str, *, epochs: int = 10, train: int = 1200, test: int = 1000) -> Trained:
    """Train one of FAMILIES."""
    torch.manual_seed(0)
    pixels, labels = phantoms(train, 1)
    network = FAMILIES[family]()
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-3)
    steps = epochs * -(-train // 32)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in range(epochs):
        network.train()
        for chosen in torch.randperm(train).split(32):
            batch = pixels[chosen]
            if torch.rand(()) < 0.5:
                batch = batch.flip(2)
            loss = nn.functional.binary_cross_entropy_with_logits(
                network(batch).reshape(-1), labels[chosen].float()
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            plan.step()
    return Trained(network, *phantoms(test, 2))
