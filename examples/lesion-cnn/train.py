"""Train on the split "train", choose the epoch on "validation"; the rest is never seen here."""

import glovebox
import numpy as np
import torch
from model import build
from torch import nn


def auc(scores, truth):
    """Return the area under the ROC curve (Mann-Whitney)."""
    positive, negative = scores[truth == 1], scores[truth == 0]
    if not len(positive) or not len(negative):
        return 0.5
    wins = (positive[:, None] > negative[None, :]).mean()
    return float(wins + 0.5 * (positive[:, None] == negative[None, :]).mean())


config = glovebox.config()
torch.manual_seed(config["seed"])
order = np.random.default_rng(config["seed"])
data = glovebox.dataset("mammography")
size = tuple(config["size"])
positive = config["positive_label"]
x, y, _ = data.arrays("train", size=size, positive_label=positive)
vx, vy, _ = data.arrays("validation", size=size, positive_label=positive)
x, vx = torch.from_numpy(x), torch.from_numpy(vx)
y = torch.from_numpy(y.astype(np.float32))

network = build(config)
weight = torch.tensor(float((y == 0).sum() / max(1, (y == 1).sum())))
loss_of = nn.BCEWithLogitsLoss(pos_weight=weight)
optimizer = torch.optim.AdamW(network.parameters(), lr=config["lr"], weight_decay=1e-4)
schedule = torch.optim.lr_scheduler.OneCycleLR(
    optimizer,
    max_lr=config["lr"] * 3,
    epochs=config["epochs"],
    steps_per_epoch=-(-len(x) // config["batch_size"]),
)

validation_truth = torch.from_numpy(vy.astype(np.float32))
losses, aucs, least, kept, best = [], [], float("inf"), None, 0.0
for epoch in range(config["epochs"]):
    network.train()
    total = 0.0
    for part in np.array_split(order.permutation(len(x)), -(-len(x) // config["batch_size"])):
        batch = x[part]
        if order.random() < 0.5:
            batch = batch.flip(3)
        if order.random() < 0.5:
            batch = batch.flip(2)
        optimizer.zero_grad()
        loss = loss_of(network(batch).squeeze(1), y[part])
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item() * len(part)
    network.eval()
    with torch.no_grad():
        scores = torch.cat([network(part) for part in vx.split(64)]).squeeze(1)
    validation_loss = loss_of(scores, validation_truth).item()
    losses.append(total / len(x))
    aucs.append(auc(scores.numpy(), vy))
    glovebox.log(epoch + 1, loss=losses[-1], validation_auc=aucs[-1])
    if validation_loss <= least:
        least, best = validation_loss, aucs[-1]
        kept = {name: value.clone() for name, value in network.state_dict().items()}

network.load_state_dict(kept)
glovebox.save_weights(network)
glovebox.save_metrics(loss=losses, validation_auc=aucs, auc=best)
glovebox.save_config(**config)
