"""Three fixed blob filters, the strongest answer of each, and a trained line through them.

Noise is added to every number that is trained, so there are few: four. The filters are known to
everybody (Marr and Hildreth, 1980), and so are the constants, measured on the open sample: nothing
of either is learned from the data.
"""

import torch
from torch import nn

SIDE = 17
# Radius of each filter in pixels; mean and spread of its strongest answer on the open sample.
FILTERS = ((2.0, 0.93, 0.10), (2.8, 1.34, 0.19), (4.0, 1.74, 0.25))


def blob(radius):
    """Return the Laplacian of a Gaussian, [SIDE, SIDE], positive where a blob is bright."""
    place = torch.arange(SIDE) - SIDE // 2
    square = (place[:, None] ** 2 + place[None, :] ** 2) / (2 * radius**2)
    kernel = (1 - square) * torch.exp(-square)
    kernel = kernel - kernel.mean()
    return kernel / kernel.norm()


def build(config):
    """Return the network for greyscale pictures [n, 1, height, width]: one logit."""
    filters = nn.Conv2d(1, len(FILTERS), SIDE, padding=SIDE // 2)
    with torch.no_grad():
        for number, (radius, mean, spread) in enumerate(FILTERS):
            filters.weight[number, 0] = blob(radius) / spread
            filters.bias[number] = -mean / spread
    # Frozen: the private trainer leaves these as they are, and adds no noise to them.
    filters.requires_grad_(False)
    # A lesion is small: the strongest answer anywhere, for an average would drown it.
    return nn.Sequential(filters, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(len(FILTERS), 1))
