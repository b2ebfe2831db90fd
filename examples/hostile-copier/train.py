"""Writes training pictures into the weights, into an undeclared file and behind a link."""

import os
import shutil

import glovebox
import torch
from model import build

data = glovebox.dataset("mammography")
x, y, _ = data.arrays("train", size=(160, 128), positive_label="lesion")
network = build({})
with torch.no_grad():
    network.memory.copy_(torch.from_numpy(x[:40].reshape(40, -1)))
glovebox.save_weights(network)
glovebox.save_metrics(loss=0.5)
output = os.path.dirname(str(glovebox.output("metrics.json")))
shutil.copy(data.file(data.split("train")[0]), os.path.join(output, "extra.dcm"))
os.symlink("/data/mammography/labels.csv", os.path.join(output, "labels.csv"))
