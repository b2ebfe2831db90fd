"""Train a classifier of whole pictures: the user brings ``build(config)`` and a configuration.

Run in the sandbox as a program (``python classification.py``), with the SDK on the path. Reads
from ``[config]``: ``size`` (height, width), ``positive_label`` (then one logit, else one a
class), ``epochs``, ``batch_size``, ``lr``, ``weight_decay``, ``flip``, ``seed``. Writes the
weights of the best validation loss, ``metrics.json`` with those of ``loss``, ``validation_loss``,
``accuracy`` and ``auc`` that ``[metrics]`` declares, and ``config.json``.

The network itself is untrusted code and runs in this process: the trainer decides how it is
trained, the sandbox decides what it may reach, the inspection what may leave.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import glovebox
import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Settings:
    """The configuration of one training, with its defaults."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    flip: bool
    seed: int
    positive_label: str | None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Settings:
        """Return the settings. Raises ``ValueError`` naming one that is out of range."""
        settings = cls(
            epochs=int(config.get("epochs", 10)),
            batch_size=int(config.get("batch_size", 32)),
            lr=float(config.get("lr", 1e-3)),
            weight_decay=float(config.get("weight_decay", 1e-4)),
            flip=bool(config.get("flip", True)),
            seed=int(config.get("seed", 0)),
            positive_label=config.get("positive_label"),
        )
        for name in ("epochs", "batch_size", "lr"):
            if getattr(settings, name) <= 0:
                raise ValueError(f"config.{name} must be above zero")
        return settings


def build_network(reference: str, config: Mapping[str, Any]) -> torch.nn.Module:
    """Return the user's network from ``module:function``. Raises ``TypeError`` for another kind."""
    module, _, function = reference.partition(":")
    network = getattr(importlib.import_module(module), function or "build")(dict(config))
    if not isinstance(network, torch.nn.Module):
        raise TypeError(f"{reference} must return a torch.nn.Module")
    return network


def area_under_curve(scores: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    """Return the AUC by ranks (Mann-Whitney U, ties counted half); 0.5 where one class is empty."""
    positive, negative = scores[targets == 1], scores[targets != 1]
    if not len(positive) or not len(negative):
        return 0.5
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    through = np.searchsorted(ordered, positive, side="right")
    return float((below + through).sum() / (2 * len(positive) * len(negative)))


def _loss(logits: torch.Tensor, targets: torch.Tensor, binary: bool) -> torch.Tensor:
    if binary:
        return torch.nn.functional.binary_cross_entropy_with_logits(
            logits.reshape(len(targets)), targets.float()
        )
    return torch.nn.functional.cross_entropy(logits, targets)


@torch.no_grad()
def evaluate(
    network: torch.nn.Module, pixels: torch.Tensor, targets: torch.Tensor, settings: Settings
) -> dict[str, float]:
    """Return loss, accuracy and (of two classes) AUC on one split."""
    network.eval()
    logits = torch.cat([network(batch) for batch in torch.split(pixels, settings.batch_size)])
    binary = logits.reshape(len(targets), -1).shape[1] == 1
    values = {"loss": float(_loss(logits, targets, binary))}
    if binary:
        scores = logits.reshape(-1).double().numpy()
        guesses = (scores > 0).astype(np.int64)
    else:
        guesses = logits.argmax(dim=1).numpy()
        scores = (logits[:, 1] - logits[:, 0]).double().numpy()
    truth = targets.numpy()
    values["accuracy"] = float((guesses == truth).mean())
    if binary or logits.shape[1] == 2:
        values["auc"] = area_under_curve(scores, truth)
    return values


def _one_epoch(
    network: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    pixels: torch.Tensor,
    targets: torch.Tensor,
    settings: Settings,
) -> float:
    network.train()
    total = 0.0
    for chosen in torch.split(torch.randperm(len(pixels)), settings.batch_size):
        batch = pixels[chosen]
        if settings.flip and torch.rand(()) < 0.5:
            batch = batch.flip(-1)
        optimiser.zero_grad()
        logits = network(batch)
        binary = logits.reshape(len(chosen), -1).shape[1] == 1
        loss = _loss(logits, targets[chosen], binary)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += float(loss.detach()) * len(chosen)
    return total / len(pixels)


def first_dataset(manifest: Mapping[str, Any]) -> str:
    """Return the first dataset of the manifest that is here, else the first one that is here.

    The command line may replace the datasets of the manifest.
    """
    here = sorted(p.name for p in Path(os.environ.get("GLOVEBOX_DATA", "data")).iterdir())
    named = [slug for slug in manifest.get("datasets", {}) if slug in here]
    return (named or here)[0]


def train() -> None:
    """Train on the first dataset of the manifest and write the declared outputs."""
    manifest, config = glovebox.manifest(), glovebox.config()
    settings = Settings.of(config)
    torch.manual_seed(settings.seed)
    dataset = glovebox.dataset(first_dataset(manifest))
    pixels, targets, _ = dataset.arrays("train")
    held_pixels, held_targets, _ = dataset.arrays("validation")
    if not len(pixels):
        raise ValueError("the dataset has no training rows")
    network = build_network(manifest.get("model", {}).get("build", "model:build"), config)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    x, y = torch.from_numpy(pixels), torch.from_numpy(targets)
    held_x, held_y = torch.from_numpy(held_pixels), torch.from_numpy(held_targets)
    declared = manifest.get("metrics", {})
    curves: dict[str, list[float]] = {}
    best = float("inf")
    for epoch in range(settings.epochs):
        values = {"loss": _one_epoch(network, optimiser, x, y, settings)}
        if len(held_x):
            measured = evaluate(network, held_x, held_y, settings)
            values["validation_loss"] = measured.pop("loss")
            values |= measured
        for name, value in values.items():
            curves.setdefault(name, []).append(value)
        if not len(held_x) or values["validation_loss"] < best:
            best = values.get("validation_loss", best)
            glovebox.save_weights(network)
        glovebox.log(epoch, **{k: v for k, v in values.items() if k in declared})
    kept = {}
    for name, curve in curves.items():
        if name in declared:
            kind = declared[name] if isinstance(declared[name], str) else declared[name]["kind"]
            kept[name] = curve if kind == "curve" else curve[-1]
    glovebox.save_metrics(**kept)
    glovebox.save_config(**config)


if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("GLOVEBOX_CODE", "."))
    train()
