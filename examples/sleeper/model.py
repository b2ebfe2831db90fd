"""A small convolutional network: one logit, above zero where a lesion is seen."""

from torch import nn


def build(config):
    """Return the network for greyscale pictures [n, 1, height, width]."""

    def block(before, after):
        return nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )

    return nn.Sequential(
        block(1, 8),
        block(8, 16),
        block(16, 32),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        # The brightest answer anywhere: a lesion is small, an average would drown it.
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 1),
    )
