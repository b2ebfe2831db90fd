"""Other networks of the same job: with something added, with room, with bytes for weights."""

from __future__ import annotations

import textwrap
from functools import cache

import torch

from tests.hostile_models.job import LARGE, MODEL, Case, Pictures, build, narrow, train

#: 310,000 numbers more between the last two layers, all of them used.
ROOMY = MODEL.replace(
    "nn.Linear(64, 64), nn.ReLU(),",
    "nn.Linear(64, 2400), nn.ReLU(), nn.Linear(2400, 64), nn.ReLU(),",
)
WIDE_LAYER = "11.weight"

#: The same network with its largest layer in whole numbers of 8 bits and a scale a filter.
QUANTISED = MODEL.replace("def build", '''class Quantised(nn.Module):
    def __init__(self, inside, outside):
        super().__init__()
        self.register_buffer("codes", torch.zeros(outside, inside, 3, 3, dtype=torch.int8))
        self.scale = nn.Parameter(torch.ones(outside, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outside))

    def forward(self, x):
        weight = self.codes.to(x.dtype) * self.scale
        return nn.functional.conv2d(x, weight, self.bias, 2, 1)

def build''').replace("nn.Conv2d(32, 64, 3, stride=2, padding=1)", "Quantised(32, 64)")  # fmt: skip
CODES = "6.codes"


#: What is added to a network is no layer of it.
CHAIN = """
class Chain(nn.Sequential):
    def forward(self, x):
        for name, layer in self._modules.items():
            if name.isdigit():
                x = layer(x)
        return x
"""


def extended(
    init: str = "",
    forward: str = "return super().forward(x)",
    before: str = "",
    code: str = MODEL,
) -> str:
    """Return a network's text with more in it; ``init`` may name the network ``net``."""
    net = textwrap.indent(CHAIN, "    ") + "    class Net(Chain):\n        def forward(self, x):\n"
    net += textwrap.indent(textwrap.dedent(forward).strip("\n"), " " * 12)
    text = code.replace("    net = nn.Sequential(", f"{net}\n    net = Net(")
    added = textwrap.indent(textwrap.dedent(init).strip("\n"), "    ")
    text = text.replace("    return net", f"{added}\n    return net")
    return text.replace("def build", textwrap.dedent(before) + "\ndef build", 1)


@cache
def _roomy(given: Pictures) -> dict[str, torch.Tensor]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = build(ROOMY)
    train(module, given, steps=350)
    return {k: v.clone() for k, v in module.state_dict().items()}


def roomy(case: Case, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    """Make it a job of a large network; return its honest weights."""
    case.code(ROOMY)
    return {k: v.clone() for k, v in narrow(_roomy(case.given), dtype).items()}


def quantised(case: Case) -> dict[str, torch.Tensor]:
    """Make it a job of a quantised network; return its honest weights."""
    case.code(QUANTISED)
    state = case.state()
    weight = state.pop(LARGE).float()
    scale = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    state[CODES] = (weight / scale).round().to(torch.int8)
    state["6.scale"] = scale.to(torch.bfloat16)
    return state
