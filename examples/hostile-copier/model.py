"""A network with a large table that does nothing but hold pictures."""

import torch
from torch import nn


class Copier(nn.Module):
    """Looks like a classifier with an embedding; the embedding is the training set."""

    def __init__(self):
        super().__init__()
        self.memory = nn.Parameter(torch.zeros(40, 160 * 128))
        self.head = nn.Linear(160 * 128, 1)

    def forward(self, x):
        return self.head(x.flatten(1))


def build(config):
    """Return the network."""
    return Copier()
