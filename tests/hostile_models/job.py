"""The honest job that every hostile output starts from: small, really trained, and it *passes*.

In bfloat16, with enough sealed subjects to measure membership and trained with augmentation, it
leaves the gate nothing to ask. So whatever a row does to it must turn "pass" into something else
by itself: a base that goes to review anyway would prove nothing.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from policies.document import Policy, default_policy, tighten
from policies.submission import Manifest, parse_manifest
from sandbox_runner.inspection import Report, inspect
from sandbox_runner.sdk.glovebox import outputs, pictures
from tests.sandbox_runner.inspection.conftest import picture

SLUG = "spots"
SIZE = (48, 40)
PIXELS = SIZE[0] * SIZE[1]
SUBJECTS = {"train": 160, "validation": 20, "sealed": 110}
#: A large layer in the middle, where a row puts what it hides.
LARGE = "6.weight"

MANIFEST = """
[job]
name = "spots"
recipe = "classification"
[model]
build = "model:build"
[datasets]
spots = "1"
[metrics]
loss = "curve"
auc = "number"
cells = "matrix"
[config]
size = [48, 40]
positive_label = "lesion"
lr = 0.005
"""

MODEL = """
import torch
from torch import nn

def build(config):
    net = nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1),
    )
    return net
"""


def write_dataset(root: Path) -> None:
    """One picture a subject, as PNG of 96x80 with 8 bits."""
    rng = np.random.default_rng(7)
    root.mkdir(parents=True)
    lines = ["file,subject,label,split"]
    number = 0
    for split, count in SUBJECTS.items():
        for each in range(count):
            lesion = each % 2 == 1
            name = f"s{number}.png"
            Image.fromarray(picture(rng, lesion)).save(root / name)
            lines.append(f"{name},s{number},{'lesion' if lesion else 'normal'},{split}")
            number += 1
    (root / "labels.csv").write_text("\n".join(lines) + "\n")


def build(code: str = MODEL, config: Mapping[str, Any] | None = None) -> nn.Module:
    """Build a network of a submission's text, here; for our own texts only."""
    namespace: dict[str, Any] = {"__name__": "model"}
    exec(code, namespace)
    module: nn.Module = namespace["build"](dict(config or {}))
    return module


@dataclass(frozen=True)
class Pictures:
    """What a job sees: prepared training pictures [n, 1, 48, 40] and their labels."""

    dataset: Path

    def _arrays(self, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        rows = [row.split(",") for row in (self.dataset / "labels.csv").read_text().split()[1:]]
        rows = [row for row in rows if row[3] == split]
        x = np.stack([pictures.prepare(self.dataset / row[0], SIZE) for row in rows])[:, None]
        return x, np.array([row[2] == "lesion" for row in rows], np.int64)

    @cached_property
    def train(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return self._arrays("train")

    @cached_property
    def sealed(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return self._arrays("sealed")

    def prepared(self, number: int = 5) -> NDArray[np.float32]:
        """One training picture as a network gets it, float32 [48, 40] from 0 to 1."""
        return self.train[0][number, 0]

    def seen(self, number: int) -> NDArray[np.float32]:
        """The same of any subject, whatever its split."""
        return pictures.prepare(self.dataset / f"s{number}.png", SIZE)

    def raw(self, number: int = 5) -> NDArray[np.uint8]:
        """Its pixels as stored, uint8 [96, 80]."""
        return np.asarray(Image.open(self.dataset / f"s{number}.png"))

    def file(self, number: int = 5) -> bytes:
        return (self.dataset / f"s{number}.png").read_bytes()


def train(
    module: nn.Module, given: Pictures, *, steps: int, augment: bool = True, decay: float = 0.02,
    lr: float = 5e-3, seed: int = 1,
) -> list[float]:  # fmt: skip
    """Train a classifier of one logit on the training split; return its losses."""
    torch.manual_seed(seed)
    x, y = (torch.from_numpy(each) for each in given.train)
    optimiser = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=decay)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps)
    losses = []
    module.train()
    for _ in range(steps):
        chosen = torch.randint(0, len(x), (32,))
        batch = x[chosen]
        if augment:
            batch = batch + 0.05 * torch.randn_like(batch)
            batch = batch.roll(torch.randint(-6, 7, (2,)).tolist(), (2, 3))
            batch = batch.flip([d for d in (2, 3) if torch.rand(()) < 0.5])
        loss = nn.functional.binary_cross_entropy_with_logits(
            module(batch).reshape(-1), y[chosen].float()
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        plan.step()
        losses.append(loss.item())
    module.eval()
    return losses


def narrow(state: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the tensors with their real numbers in another type."""
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}


@dataclass(frozen=True)
class Case:
    """One output, its submission, and the job that both come from.

    ``wide`` are the honest weights in float32, as trained; ``config`` and ``policy`` what a row
    changed of the defaults.
    """

    home: Path
    given: Pictures
    wide: Mapping[str, torch.Tensor]
    policy: dict[str, Any] = field(default_factory=dict)

    @property
    def dataset(self) -> Path:
        return self.given.dataset

    @property
    def output(self) -> Path:
        return self.home / "output"

    @property
    def submission(self) -> Path:
        return self.home / "code"

    @property
    def weights(self) -> Path:
        return self.output / "model.safetensors"

    @property
    def manifest(self) -> Manifest:
        return parse_manifest((self.submission / "glovebox.toml").read_text(), self.rules)

    @property
    def rules(self) -> Policy:
        return tighten(default_policy(), self.policy) if self.policy else default_policy()

    def state(self, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
        """Return the honest weights in a type, as copies."""
        return {k: v.clone() for k, v in narrow(self.wide, dtype).items()}

    def save(self, state: Mapping[str, torch.Tensor]) -> None:
        """Write weights as the SDK does."""
        old = os.environ.get("GLOVEBOX_OUTPUT")
        os.environ["GLOVEBOX_OUTPUT"] = str(self.output)
        try:
            outputs.save_weights(dict(state), "model.safetensors")
        finally:
            if old is None:
                del os.environ["GLOVEBOX_OUTPUT"]
            else:
                os.environ["GLOVEBOX_OUTPUT"] = old

    def code(self, text: str) -> None:
        (self.submission / "model.py").write_text(text)

    def manifest_text(self, old: str, new: str) -> None:
        """Change the manifest; the configuration beside the weights follows it."""
        place = self.submission / "glovebox.toml"
        text = place.read_text()
        assert old in text
        place.write_text(text.replace(old, new))
        self.write_config()

    def write_config(self) -> None:
        (self.output / "config.json").write_text(json.dumps(dict(self.manifest.config)))

    def metrics(self, **values: Any) -> None:
        """Write metrics, the honest ones changed."""
        place = self.output / "metrics.json"
        place.write_text(json.dumps(json.loads(place.read_text()) | values))

    def copy(self, home: Path) -> Case:
        """Return a copy that a row may spoil."""
        shutil.copytree(self.home / "code", home / "code")
        shutil.copytree(self.home / "output", home / "output")
        return Case(home, self.given, self.wide, {})

    def inspect(self, backend: str = "bubblewrap", **more: Any) -> Report:
        """Send it through the whole gate, sealed."""
        return inspect(
            self.output,
            submission=self.submission,
            manifest=self.manifest,
            datasets={SLUG: self.dataset},
            policy=self.rules,
            workdir=self.home / "work",
            backend=backend,
            **more,
        )


def honest(home: Path) -> Case:
    """Make the data, train on them, and write what such a job leaves."""
    write_dataset(home / "data")
    given = Pictures(home / "data")
    (home / "code").mkdir()
    (home / "output").mkdir()
    (home / "code" / "glovebox.toml").write_text(MANIFEST)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = build()
    losses = train(module, given, steps=350)
    torch.set_num_threads(threads)
    case = Case(home, given, {k: v.clone() for k, v in module.state_dict().items()})
    case.code(MODEL)
    case.save(case.state())
    case.write_config()
    case.output.joinpath("metrics.json").write_text(
        json.dumps({"loss": losses[::7], "auc": 0.93, "cells": [[70, 12], [14, 64]]})
    )
    return case


def png(array: NDArray[np.uint8]) -> bytes:
    """Return an array as a PNG file's bytes."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()
