"""Honest networks as ONNX files, written by the SDK as a job would write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sandbox_runner.sdk import glovebox

SIZE = (24, 20)


class Residual(nn.Module):
    """A block with a way around it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.normal = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(torch.relu(self.normal(self.first(x)))))


class Resnet(nn.Sequential):
    """Two residual blocks, global averaging."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 12, 3, stride=2, padding=1), Residual(12), nn.MaxPool2d(2), Residual(12),
            nn.GroupNorm(3, 12), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 2),
        )  # fmt: skip


class Unet(nn.Module):
    """Down and up again with a skip, by interpolation and by transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 8, 3, padding=1)
        self.deep = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.end = nn.Conv2d(24, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = torch.nn.functional.leaky_relu(self.down(x))
        deep = torch.nn.functional.silu(self.deep(first))
        wide = torch.nn.functional.interpolate(deep, scale_factor=2.0, mode="bilinear")
        joined = torch.cat([first, self.up(deep), wide[:, :8]], dim=1)
        return torch.sigmoid(self.end(joined))


class Transformer(nn.Module):
    """Patches, a learned place for each, attention, a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.places = nn.Parameter(torch.randn(1, 31, 16))
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.patches(x).flatten(2).transpose(1, 2)
        seen = torch.cat([self.token.expand(x.shape[0], -1, -1), seen], dim=1) + self.places
        return self.head(self.layers(seen)[:, 0])


def cnn() -> nn.Module:
    """Convolutions and normalising layers."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.Hardswish(),
        nn.AvgPool2d(2), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(16, 1),
    )  # fmt: skip


def perceptron() -> nn.Module:
    """Layers of everything to everything."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(SIZE[0] * SIZE[1], 32), nn.LayerNorm(32), nn.Tanh(),
        nn.Linear(32, 16), nn.ELU(), nn.Linear(16, 2), nn.Softmax(dim=1),
    )  # fmt: skip


NETWORKS = {
    "cnn": cnn,
    "resnet": Resnet,
    "unet": Unet,
    "transformer": Transformer,
    "perceptron": perceptron,
}


def network(name: str) -> Any:
    """Return a network whose statistics are those of some pictures, in evaluation mode."""
    torch.manual_seed(5)
    module = NETWORKS[name]().train()
    with torch.no_grad():
        module(torch.randn(8, 1, *SIZE))
    return module.eval()


class Half(nn.Module):
    """A network that computes in 16 bits, as it may have been trained."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.inner = module.half()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.half()).float()


def save(
    module: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: str | None = None
) -> Path:
    """Write a network as a job does."""
    monkeypatch.setenv("GLOVEBOX_OUTPUT", str(folder))
    return glovebox.save_onnx(module, torch.zeros(1, 1, *SIZE), "model.onnx", dtype=dtype)
