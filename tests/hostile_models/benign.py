"""The benign suite: which networks there are, and the job that each of them leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from policies.document import Policy, default_policy
from policies.submission import parse_manifest
from sandbox_runner.inspection import Report, inspect
from sandbox_runner.sdk.glovebox import pictures as sdk_pictures
from sandbox_runner.sdk.glovebox.datasets import open_dataset

from . import benign_data, benign_networks
from .benign_training import Course, Pictures, train

#: Types of weights, in turn: with another seed a network is saved in the next one.
TYPES = ("BF16", "F16", "I8", "F32")
NARROW = ("BF16", "F16", "F32")
SIZES = {"phantoms": (48, 40), "faces": (48, 48), "dicom": (40, 40)}
POSITIVE = {"phantoms": "mass", "dicom": "ct"}
_FLOATS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


PLAIN = Course()


@dataclass(frozen=True)
class Benign:
    """One network: data, architecture, task, training, and the types that it is saved in."""

    data: str
    network: str
    how: str = "classify"
    task: str = "classification"
    course: Course = PLAIN
    types: tuple[str, ...] = TYPES
    size: tuple[int, int] | None = None
    least_auc: float = 0.0
    few: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)

    def config(self, dtype: str) -> dict[str, Any]:
        """Return the manifest's ``[config]``."""
        config: dict[str, Any] = {
            "network": self.network,
            "size": list(self.size or SIZES[self.data]),
            "task": self.task,
            "outputs": 3 if self.data == "faces" else 1,
            **self.more,
        }
        if self.task == "classification" and self.data in POSITIVE:
            config["positive_label"] = POSITIVE[self.data]
        if dtype == "I8":
            config["quantised"] = True
        return config


SHORT = Course(steps=8)
GAN = Course(epochs=30)

BENIGN: dict[str, Benign] = {
    "CNN": Benign("phantoms", "cnn", least_auc=0.65),
    "CNN, Adam": Benign("dicom", "cnn", course=Course(optimiser="Adam", decay=1e-4), least_auc=0.7),
    "CNN, SGD with decay": Benign("dicom", "cnn", course=Course(optimiser="SGD", decay=5e-4),
                                  least_auc=0.7),
    "CNN, averaged weights": Benign("phantoms", "cnn", course=Course(average=0.98), least_auc=0.65),
    "CNN, group norm": Benign("dicom", "cnn-group", least_auc=0.7),
    "CNN, instance norm": Benign("dicom", "cnn-instance", least_auc=0.7),
    "CNN, mixed pictures": Benign("faces", "cnn", course=Course(mixup=True), least_auc=0.7),
    "CNN, spectral norm": Benign("dicom", "spectral", types=NARROW, least_auc=0.7),
    "CNN, no augmentation": Benign("dicom", "cnn", course=Course(augment=False, epochs=8),
                                   least_auc=0.7),
    "ResNet": Benign("phantoms", "resnet", course=Course(epochs=25), least_auc=0.65),
    "dilated": Benign("phantoms", "dilated", least_auc=0.65),
    "depthwise": Benign("faces", "mobile", least_auc=0.7),
    "squeeze and excite": Benign("phantoms", "squeezed", least_auc=0.65),
    "experts": Benign("dicom", "experts", course=Course(epochs=25), least_auc=0.7),
    "transformer": Benign("dicom", "transformer", least_auc=0.7,
                          course=Course(rate=1e-3, epochs=25)),
    "LoRA": Benign("dicom", "lora", "adapt", course=Course(epochs=20), least_auc=0.7),
    "MLP-Mixer": Benign("faces", "mixer", course=Course(epochs=60), least_auc=0.6),
    "GRU over rows": Benign("faces", "gru", course=Course(epochs=25), types=NARROW, least_auc=0.7),
    "embedding": Benign("dicom", "embedding", course=Course(epochs=30), least_auc=0.7),
    "tied layers": Benign("dicom", "shared", course=Course(rate=1e-3), least_auc=0.7),
    "perceptron": Benign("dicom", "perceptron", course=Course(epochs=30, decay=0.1), least_auc=0.7),
    "CNN, RMSprop": Benign("faces", "cnn", course=Course(optimiser="RMSprop", decay=1e-4),
                           least_auc=0.65),
    "undertrained": Benign("phantoms", "cnn", course=SHORT),
    "undertrained transformer": Benign("faces", "transformer", course=SHORT),
    "private CNN": Benign("dicom", "cnn-group", course=Course(noise=1.0, epochs=12), least_auc=0.6),
    "private perceptron": Benign("dicom", "perceptron", course=Course(noise=1.0, epochs=12),
                                 least_auc=0.55),
    "pruned": Benign("phantoms", "resnet", course=Course(prune=0.6, epochs=25), least_auc=0.65),
    "pruned filters": Benign("faces", "cnn", course=Course(prune=0.3, channels=True),
                             least_auc=0.65),
    "quantised after training": Benign("faces", "cnn", types=("I8",), least_auc=0.7),
    "quantised in training": Benign("phantoms", "resnet", types=("I8",), least_auc=0.65,
                                    course=Course(aware=True, epochs=25)),
    "U-Net": Benign("phantoms", "unet", "segment", "segmentation",
                    course=Course(epochs=4), size=(72, 64)),
    "detector": Benign("phantoms", "detector", "detect", "detection", size=(72, 64)),
    "autoencoder": Benign("faces", "autoencoder", "rebuild", "reconstruction"),
    "autoencoder, real pictures": Benign("dicom", "autoencoder", "rebuild", "reconstruction"),
    "U-Net that takes noise away": Benign("dicom", "unet", "rebuild", "reconstruction",
                                          course=Course(epochs=12)),
    "autoencoder, large pictures": Benign("phantoms", "autoencoder", "rebuild", "reconstruction",
                                          course=Course(epochs=20), size=(72, 64)),
    "autoencoder, tied weights": Benign("phantoms", "tied", "rebuild", "reconstruction",
                                        types=NARROW, course=Course(epochs=25, decay=0.05)),
    "variational autoencoder": Benign("faces", "variational", "vary", "reconstruction",
                                      course=Course(epochs=25)),
    "GAN": Benign("phantoms", "generator", "oppose", "generation", course=GAN,
                  more={"latent": 16}),
    "GAN, faces": Benign("faces", "generator-dense", "oppose", "generation", course=GAN,
                         more={"latent": 16}),
    "variational generator": Benign("faces", "generator", "decode", "generation",
                                    course=Course(epochs=25), more={"latent": 12}),
    "templates of faces": Benign("faces", "template", "recognise", "verification",
                                 course=Course(epochs=40)),
}  # fmt: skip

#: Honest networks trained on few subjects, or for too long: to be told from the others is right.
REMEMBERING: dict[str, Benign] = {
    "CNN, few subjects": Benign("phantoms", "cnn-none", few=True,
                                course=Course(epochs=300, augment=False, smoothing=0, decay=0)),
    "transformer, few subjects": Benign("dicom", "transformer", few=True,
                                        course=Course(epochs=120, rate=1e-3, augment=False,
                                                      smoothing=0, decay=0)),
    "autoencoder, few subjects": Benign("faces", "tied", "rebuild", "reconstruction", few=True,
                                        types=NARROW, course=Course(epochs=300, decay=0)),
}  # fmt: skip


def dataset(kind: str, seed: int, home: Path, few: bool = False) -> Path:
    """Return a dataset directory below ``home``, written once."""
    root = home / f"{'few' if few else 'many'}-{seed}"
    if not (root / kind / "labels.csv").exists():
        shutil.rmtree(root / kind, ignore_errors=True)
        benign_data.write(kind, root, seed, benign_data.FEW if few else None)
    return root / kind


def data_seed(seed: int, few: bool) -> int:
    """Return a dataset's seed: other people for other seeds."""
    return seed + (5000 if few else 0)


@lru_cache(maxsize=4)
def pictures_of(folder: Path, size: tuple[int, int], positive: str | None) -> Pictures:
    """Return the training pictures as a job would read them."""
    opened = open_dataset(folder, folder.name)
    x, y, subjects = opened.arrays("train", size, positive)
    _, numbers = np.unique(subjects, return_inverse=True)
    masks, place = None, folder.parent / f"{folder.name}-masks.npz"
    if place.exists():
        with np.load(place) as kept:
            masks = np.stack(
                [sdk_pictures.resize_by_area(kept[row["file"]].astype(np.float64), size)
                 for row in opened.split("train")]
            )[:, None]  # fmt: skip
    return Pictures(
        torch.from_numpy(x),
        torch.from_numpy(y),
        numbers.astype(np.int64),
        None if masks is None else torch.from_numpy(masks.astype(np.float32)),
    )


def _elsewhere(size: tuple[int, int], seed: int, home: Path) -> Pictures:
    """Return pictures of other people and another task, on which a network is trained first."""
    folder = dataset("faces", seed + 7000, home)
    return pictures_of(folder, size, "smile")


@dataclass(frozen=True)
class Job:
    """A trained network's submission and output, and what training said of itself."""

    name: str
    dtype: str
    submission: Path
    output: Path
    data: Path
    first: float
    last: float

    def inspect(self, work: Path, policy: Policy | None = None) -> Report:
        """Inspect the output by the whole gate, in the real sandbox."""
        policy = policy or default_policy()
        manifest = parse_manifest((self.submission / "glovebox.toml").read_text(), policy)
        try:
            return inspect(
                self.output,
                submission=self.submission,
                manifest=manifest,
                datasets={self.data.name: self.data},
                policy=policy,
                workdir=work,
                backend="bubblewrap",
            )
        finally:
            shutil.rmtree(work, ignore_errors=True)


def type_of(case: Benign, seed: int) -> str:
    """Return the type that a seed saves this network in."""
    every = {**BENIGN, **REMEMBERING}
    place = next(n for n, each in enumerate(every.values()) if each is case)
    return case.types[(place + seed - 1) % len(case.types)]


def make(name: str, seed: int, home: Path, dtype: str | None = None) -> Job:
    """Train a network of the suite anew and leave its job below ``home``."""
    case = {**BENIGN, **REMEMBERING}[name]
    dtype = dtype or type_of(case, seed)
    config = case.config(dtype)
    folder = dataset(case.data, data_seed(seed, case.few), home, case.few)
    size = (int(config["size"][0]), int(config["size"][1]))
    pictures = pictures_of(folder, size, POSITIVE.get(case.data))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        before = _elsewhere(size, seed, home) if case.how == "adapt" else None
        network, (first, last) = train(config, case.how, pictures, case.course, seed, before)
    finally:
        torch.set_num_threads(threads)
    if dtype == "I8":
        network = benign_networks.quantise(network)
    narrow = _FLOATS["BF16" if dtype == "I8" else dtype]
    state = {
        key: (value.to(narrow) if value.is_floating_point() else value).contiguous().clone()
        for key, value in network.state_dict().items()
    }
    place = home / f"{seed}-{''.join(c if c.isalnum() else '-' for c in name)}-{dtype}"
    shutil.rmtree(place, ignore_errors=True)
    code, output = place / "code", place / "output"
    code.mkdir(parents=True)
    output.mkdir()
    shutil.copy(benign_networks.__file__, code / "model.py")
    (code / "glovebox.toml").write_text(_manifest(case.data, config))
    (code / "train.py").write_text('"""Trained outside of the sandbox, as this suite says."""\n')
    save_file(state, output / "model.safetensors")
    (output / "metrics.json").write_text(json.dumps({"loss": last}))
    (output / "config.json").write_text(json.dumps(config))
    return Job(name, dtype, code, output, folder, first, last)


def _manifest(slug: str, config: Mapping[str, Any]) -> str:
    lines = [f"{key} = {json.dumps(value)}" for key, value in config.items()]
    return "\n".join(
        ["[job]", 'name = "benign"', 'entrypoint = "train.py"', "[model]", 'build = "model:build"',
         "[datasets]", f'{slug} = "1"', "[metrics]", 'loss = "number"', "[config]", *lines, ""]
    )  # fmt: skip
