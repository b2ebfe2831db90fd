"""Score released weights on a directory: ``python -m demo.score SUBMISSION WEIGHTS DATA``.

What somebody who downloaded a model does with it: their own network, the weights, their own data.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file


def main(submission: Path, weights: Path, data: Path) -> None:
    """Print the AUC over the rows of the split "sealed" of the directory's labels, as JSON."""
    sdk = Path(__file__).resolve().parent.parent / "sandbox_runner" / "sdk"
    sys.path[:0] = [str(submission), str(sdk)]
    import tomllib

    from glovebox.datasets import open_dataset
    from model import build

    config = tomllib.loads((submission / "glovebox.toml").read_text())["config"]
    network = build(config)
    network.load_state_dict(load_file(weights))
    network.eval()
    dataset = open_dataset(data, "mammography")
    x, label, _subjects = dataset.arrays(
        "sealed", size=tuple(config["size"]), positive_label=config["positive_label"]
    )
    with torch.no_grad():
        score = network(torch.from_numpy(x)).squeeze(1).numpy()
    wins = (score[label == 1][:, None] > score[label == 0][None, :]).mean()
    print(json.dumps({"auc": float(wins), "pictures": int(label.size)}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
