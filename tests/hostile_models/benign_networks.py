"""The benign networks. A copy of this file is the model.py of each submission.

``build({"network": NAME, "size": [H, W], ...})`` takes pictures [n, 1, H, W]; generators take
[n, latent]. With ``quantised = true`` matrices and filters are whole numbers of 8 bits with a scale
a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Tensor = torch.Tensor


def _conv(
    inside: int, outside: int, stride: int = 1, norm: str = "batch", **more: Any
) -> nn.Module:
    norms: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: nn.BatchNorm2d(outside),
        "group": lambda: nn.GroupNorm(4, outside),
        "instance": lambda: nn.InstanceNorm2d(outside, affine=True),
        "none": nn.Identity,
    }
    options = {"padding": 1} | more
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, bias=norm != "batch", **options),
        norms[norm](),
        nn.ReLU(),
    )


def _cnn(outputs: int, norm: str = "batch", drop: float = 0.2) -> nn.Module:
    return nn.Sequential(
        _conv(1, 16, 2, norm), _conv(16, 32, 2, norm), _conv(32, 48, 2, norm),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(drop), nn.Linear(48, outputs),
    )  # fmt: skip


class Residual(nn.Module):
    """Two convolutions beside a way past them."""

    def __init__(self, inside: int, outside: int, norm: str) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            _conv(inside, outside, 2, norm), nn.Conv2d(outside, outside, 3, 1, 1)
        )
        self.past = nn.Conv2d(inside, outside, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.inner(x) + self.past(x))


def _resnet(outputs: int, norm: str) -> nn.Module:
    return nn.Sequential(
        _conv(1, 16, 2, norm), Residual(16, 24, norm), Residual(24, 48, norm),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(48, outputs),
    )  # fmt: skip


def _dilated(outputs: int) -> nn.Module:
    return nn.Sequential(
        _conv(1, 16, 2), _conv(16, 24, padding=2, dilation=2), _conv(24, 24, padding=4, dilation=4),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(24, outputs),
    )  # fmt: skip


def _mobile(outputs: int) -> nn.Module:
    def separable(inside: int, outside: int, stride: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(inside, inside, 3, stride, 1, groups=inside, bias=False),
            nn.BatchNorm2d(inside), nn.ReLU6(),
            nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU6(),
        )  # fmt: skip

    return nn.Sequential(
        _conv(1, 24, 2), separable(24, 48, 1), separable(48, 64, 2), separable(64, 96, 1),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(96, outputs),
    )  # fmt: skip


class Squeeze(nn.Module):
    """Channels weighted by what the whole picture has."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(width, width // 4), nn.SiLU(), nn.Linear(width // 4, width), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean(dim=(2, 3)))[:, :, None, None]


def _squeezed(outputs: int) -> nn.Module:
    return nn.Sequential(
        _conv(1, 16, 2), _conv(16, 32, 2), Squeeze(32), _conv(32, 48, 2), Squeeze(48),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(48, outputs),
    )  # fmt: skip


class Lora(nn.Module):
    """A fixed matrix and a change of low rank beside it (Hu et al., ICLR 2022)."""

    def __init__(self, inside: int, outside: int, rank: int = 4) -> None:
        super().__init__()
        self.base = nn.Linear(inside, outside)
        self.down = nn.Parameter(torch.randn(rank, inside) / inside**0.5)
        self.up = nn.Parameter(torch.zeros(outside, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + functional.linear(functional.linear(x, self.down), self.up)


class Attention(nn.Module):
    """Layer norm, attention of four heads, a perceptron."""

    def __init__(self, width: int, drop: float = 0.1, linear: Any = nn.Linear) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.into, self.out = linear(width, 3 * width), linear(width, width)
        self.inner = nn.Sequential(
            linear(width, 2 * width), nn.GELU(), nn.Dropout(drop), linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        count, long, width = x.shape
        parts = self.into(self.first(x)).reshape(count, long, 3, 4, width // 4)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.out(mixed.transpose(1, 2).reshape(count, long, width))
        return x + self.inner(self.second(x))


class Patches(nn.Module):
    """A transformer over patches of convolved pixels."""

    def __init__(self, size: tuple[int, int], outputs: int, linear: Any = nn.Linear) -> None:
        super().__init__()
        width = 48
        self.stem = nn.Sequential(_conv(1, 16, 2, "none"), _conv(16, 32, 2, "none"))
        self.patch = nn.Conv2d(32, width, 2, 2)
        places = -(-size[0] // 4) // 2 * (-(-size[1] // 4) // 2)
        self.place = nn.Parameter(torch.randn(1, places, width) * 0.02)
        self.layers = nn.Sequential(*(Attention(width, linear=linear) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(self.stem(x)).flatten(2).transpose(1, 2) + self.place
        said: Tensor = self.head(self.norm(self.layers(tokens)).amax(dim=1))
        return said


class Rows(nn.Module):
    """A recurrent network that reads a picture row by row."""

    def __init__(self, size: tuple[int, int], outputs: int) -> None:
        super().__init__()
        self.stem = _conv(1, 12, 2)
        self.gru = nn.GRU(12 * -(-size[1] // 2), 48, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(96, outputs))

    def forward(self, x: Tensor) -> Tensor:
        lines = self.stem(x).permute(0, 2, 1, 3).flatten(2)
        said: Tensor = self.head(self.gru(lines)[0].amax(dim=1))
        return said


class Tokens(nn.Module):
    """Pixels as words: their brightness is looked up in a table, then attention."""

    def __init__(self, size: tuple[int, int], outputs: int, words: int = 64) -> None:
        super().__init__()
        self.words = words
        self.table = nn.Embedding(words, 32)
        self.mix = nn.Sequential(nn.Conv2d(32, 32, 3, 2, 1), nn.GELU(), nn.Conv2d(32, 48, 3, 2, 1))
        self.layer, self.head = Attention(48), nn.Linear(48, outputs)

    def forward(self, x: Tensor) -> Tensor:
        small = functional.avg_pool2d(x[:, 0], 2)
        words = (small.clamp(0, 1) * (self.words - 1)).round().long()
        tokens = self.mix(self.table(words).permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        said: Tensor = self.head(self.layer(tokens).amax(dim=1))
        return said


class Mixer(nn.Module):
    """Perceptrons over places and over channels in turn (Tolstikhin et al., NeurIPS 2021)."""

    def __init__(self, size: tuple[int, int], outputs: int) -> None:
        super().__init__()
        places, width = (size[0] // 6) * (size[1] // 6), 48
        self.patch = nn.Conv2d(1, width, 6, 6)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.over = nn.Sequential(nn.Linear(places, 64), nn.GELU(), nn.Linear(64, places))
        self.inside = nn.Sequential(nn.Linear(width, 96), nn.GELU(), nn.Linear(96, width))
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.over(self.norms[0](tokens).transpose(1, 2)).transpose(1, 2)
        tokens = tokens + self.inside(self.norms[1](tokens))
        said: Tensor = self.head(tokens.mean(dim=1))
        return said


def _perceptron(size: tuple[int, int], outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(size[0] // 2 * (size[1] // 2), 96), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(96, outputs),
    )  # fmt: skip


class Experts(nn.Module):
    """Three small networks and one that weighs them."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(_cnn(outputs, drop=0.3) for _ in range(3))
        self.gate = nn.Sequential(
            _conv(1, 8, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        share = self.gate(x).softmax(dim=1)
        return (torch.stack([each(x) for each in self.experts], 2) * share[:, None]).sum(2)


class Unet(nn.Module):
    """Two steps down, two up, with the finer ones beside; a mask, or the picture, of its size."""

    def __init__(self, norm: str = "batch") -> None:
        super().__init__()
        self.one, self.two, self.low = _conv(1, 8, 1, norm), _conv(8, 16, 1, norm), _conv(16, 24)
        self.up_two, self.up_one = _conv(40, 16, 1, norm), _conv(24, 8, 1, norm)
        self.last = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        two = self.two(functional.max_pool2d(one, 2))
        low = functional.interpolate(self.low(functional.max_pool2d(two, 2)), size=two.shape[2:])
        two = functional.interpolate(self.up_two(torch.cat([low, two], 1)), size=one.shape[2:])
        said: Tensor = self.last(self.up_one(torch.cat([two, one], 1)))
        return said


def _detector() -> nn.Module:
    """For each cell of 8x8 pixels: whether a mass is in it, and where and how large."""
    return nn.Sequential(
        _conv(1, 16, 2), _conv(16, 32, 2), _conv(32, 48, 2), _conv(48, 48), nn.Conv2d(48, 4, 1)
    )


def _autoencoder(code: int) -> nn.Module:
    return nn.Sequential(
        _conv(1, 16, 2), _conv(16, 24, 2), nn.Conv2d(24, code, 3, 2, 1), nn.Tanh(),
        nn.Upsample(scale_factor=2), _conv(code, 24), nn.Upsample(scale_factor=2), _conv(24, 16),
        nn.Upsample(scale_factor=2), nn.Conv2d(16, 1, 3, 1, 1),
    )  # fmt: skip


class Tied(nn.Module):
    """A denoising autoencoder whose second half is its first one, transposed."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.first, self.second = nn.Linear(size[0] * size[1], 96), nn.Linear(96, 16)
        self.back = nn.Parameter(torch.zeros(96))
        self.bias = nn.Parameter(torch.zeros(size[0] * size[1]))

    def forward(self, x: Tensor) -> Tensor:
        code = self.second(torch.relu(self.first(x.flatten(1))))
        out = torch.relu(functional.linear(code, self.second.weight.t(), self.back))
        return functional.linear(out, self.first.weight.t(), self.bias).reshape(-1, 1, *self.size)


class Shared(nn.Module):
    """Two attention layers that are one, so that their tensors stand in the file twice."""

    def __init__(self, size: tuple[int, int], outputs: int) -> None:
        super().__init__()
        self.patch, width = nn.Conv2d(1, 48, 6, 6), 48
        self.layers = nn.ModuleList([Attention(width), Attention(width)])
        self.layers[1].inner = self.layers[0].inner
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens)
        said: Tensor = self.head(tokens.amax(dim=1))
        return said


class Variational(nn.Module):
    """A variational autoencoder; when it is not trained it gives the mean."""

    def __init__(self, size: tuple[int, int], code: int = 12) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            _conv(1, 16, 2), _conv(16, 24, 2), nn.Flatten(),
            nn.Linear(24 * (size[0] // 4) * (size[1] // 4), 2 * code),
        )  # fmt: skip
        self.decoder = _generator(size, code)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the picture, and the mean and the spread (its logarithm) of the code."""
        mean, spread = self.encoder(x).chunk(2, dim=1)
        noise = torch.randn_like(mean) * (0.5 * spread).exp() if self.training else 0.0
        return self.decoder(mean + noise), mean, spread

    def forward(self, x: Tensor) -> Tensor:
        return self.both(x)[0]


def _generator(size: tuple[int, int], latent: int, dense: bool = False) -> nn.Module:
    """Numbers in, a picture out; sides are multiples of four."""
    down, across = size[0] // 4, size[1] // 4
    if dense:
        return nn.Sequential(
            nn.Linear(latent, 96), nn.LeakyReLU(0.2), nn.Linear(96, 192), nn.LeakyReLU(0.2),
            nn.Linear(192, size[0] * size[1]), nn.Sigmoid(), nn.Unflatten(1, (1, *size)),
        )  # fmt: skip
    return nn.Sequential(
        nn.Linear(latent, 32 * down * across), nn.ReLU(), nn.Unflatten(1, (32, down, across)),
        nn.Upsample(scale_factor=2), _conv(32, 24), nn.Upsample(scale_factor=2), _conv(24, 16),
        nn.Conv2d(16, 1, 3, 1, 1), nn.Sigmoid(),
    )  # fmt: skip


def _template() -> nn.Module:
    """A template of 32 numbers of unit length a face."""

    class Unit(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.normalize(x, dim=1)

    return nn.Sequential(
        _conv(1, 24, 2), _conv(24, 32, 2), _conv(32, 48, 2), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(48 * 9, 32), Unit(),
    )  # fmt: skip


def _spectral(outputs: int) -> nn.Module:
    network = _cnn(outputs, "none")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.utils.parametrizations.spectral_norm(module)
    return network


class Whole(nn.Module):
    """A matrix or filters as whole numbers of 8 bits, with a scale a row."""

    def __init__(self, module: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        weight = module.weight.detach()
        self.register_buffer("weight", torch.zeros(weight.shape, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(len(weight), *([1] * (weight.ndim - 1))))
        self.bias = module.bias
        self.take(weight)
        self.options = (
            (module.stride, module.padding, module.dilation, module.groups)
            if isinstance(module, nn.Conv2d)
            else None
        )

    def take(self, weight: Tensor) -> None:
        """Round a matrix to the nearest whole numbers."""
        most = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
        self.scale.copy_(most.clamp_min(1e-12) / 127)
        self.weight.copy_((weight / self.scale).round().clamp(-127, 127))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.float() * self.scale
        if self.options is None:
            return functional.linear(x, weight, self.bias)
        return functional.conv2d(x, weight, self.bias, *self.options)


def quantise(module: nn.Module) -> nn.Module:
    """Put whole numbers in the place of every matrix and filter that stands by itself."""
    for name, child in module.named_children():
        if type(child) in (nn.Linear, nn.Conv2d) and not hasattr(child, "parametrizations"):
            setattr(module, name, Whole(child))
        else:
            quantise(child)
    return module


def plain(config: Mapping[str, Any]) -> nn.Module:
    """Build a network with real numbers."""
    size, outputs = (config["size"][0], config["size"][1]), int(config.get("outputs", 1))
    latent = int(config.get("latent", 16))
    made: dict[str, Callable[[], nn.Module]] = {
        "cnn": lambda: _cnn(outputs),
        "cnn-group": lambda: _cnn(outputs, "group"),
        "cnn-instance": lambda: _cnn(outputs, "instance"),
        "cnn-none": lambda: _cnn(outputs, "none"),
        "resnet": lambda: _resnet(outputs, "batch"),
        "dilated": lambda: _dilated(outputs),
        "mobile": lambda: _mobile(outputs),
        "squeezed": lambda: _squeezed(outputs),
        "transformer": lambda: Patches(size, outputs),
        "lora": lambda: Patches(size, outputs, Lora),
        "gru": lambda: Rows(size, outputs),
        "embedding": lambda: Tokens(size, outputs),
        "mixer": lambda: Mixer(size, outputs),
        "perceptron": lambda: _perceptron(size, outputs),
        "experts": lambda: Experts(outputs),
        "shared": lambda: Shared(size, outputs),
        "spectral": lambda: _spectral(outputs),
        "unet": Unet,
        "detector": _detector,
        "autoencoder": lambda: _autoencoder(8),
        "tied": lambda: Tied(size),
        "variational": lambda: Variational(size),
        "generator": lambda: _generator(size, latent),
        "generator-dense": lambda: _generator(size, latent, dense=True),
        "template": _template,
    }
    return made[config["network"]]()


def build(config: Mapping[str, Any]) -> nn.Module:
    """Build the network that a configuration names."""
    network = plain(config)
    return quantise(network) if config.get("quantised") else network
