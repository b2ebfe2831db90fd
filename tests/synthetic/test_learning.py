"""The phantoms are a task: a small network learns to tell lesions, on patients it never saw."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest

from synthetic.mammography import write_phantoms


@pytest.mark.slow
def test_a_small_network_tells_lesions_apart_at_160_by_128(tmp_path: Path):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.set_num_threads(1)
    torch.manual_seed(0)
    write_phantoms(tmp_path / "set", patients=120, seed=2, identifiers=False)
    with (tmp_path / "set" / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    pictures = [pydicom.dcmread(tmp_path / "set" / row["file"]).pixel_array for row in rows]
    small = [each.reshape(160, 2, 128, 2).mean((1, 3)) for each in pictures]
    images = torch.tensor(np.stack(small)[:, None] / 4095, dtype=torch.float32)
    lesion = np.array([row["label"] == "lesion" for row in rows])
    split = np.array([row["split"] for row in rows])
    layers: list[nn.Module] = []
    for before, after in ((1, 8), (8, 16), (16, 32)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    network = nn.Sequential(
        *layers, nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, 1),
    )  # fmt: skip
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-3)
    loss_of = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(4.0))
    target = torch.tensor(lesion, dtype=torch.float32)
    train = np.flatnonzero(split == "train")
    rng = np.random.default_rng(0)
    for _epoch in range(8):
        for batch in np.array_split(rng.permutation(train), len(train) // 16):
            picture = images[batch]
            for axis in (2, 3):
                picture = picture.flip(axis) if rng.random() < 0.5 else picture
            loss = loss_of(network(picture)[:, 0], target[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    network.eval()
    sealed = np.flatnonzero(split == "sealed")
    with torch.no_grad():
        scores = network(images[sealed])[:, 0].numpy()
    with_lesion, without = scores[lesion[sealed]], scores[~lesion[sealed]]
    assert (with_lesion[:, None] > without).mean() > 0.85
