"""A small published version with real encrypted files, and submissions for it."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping

import numpy as np
from PIL import Image

from portal import blobs
from portal.access.models import Grant
from portal.catalog.contents import dataset_manifest, ensure_version_key
from portal.catalog.models import DatasetVersion, StoredFile
from portal.jobs import actions
from portal.jobs.models import Job
from tests.portal.cast import Cast

SIDE = 16
SPLITS = ("train", "train", "train", "validation", "sealed", "sealed")


def picture(seed: int, lesion: bool) -> bytes:
    """Return a grey PNG; a lesion is a bright square."""
    pixels = np.random.default_rng(seed).integers(0, 60, (SIDE, SIDE), dtype=np.uint8)
    if lesion:
        pixels[4:10, 4:10] = 220
    out = io.BytesIO()
    Image.fromarray(pixels, "L").save(out, "PNG")
    return out.getvalue()


def files(subjects: int = 36) -> dict[str, tuple[bytes, str]]:
    """Return the files of a published dataset with their splits."""
    rows = ["file,subject,label,split"]
    found: dict[str, tuple[bytes, str]] = {}
    for number in range(subjects):
        name, split = f"s{number:03d}/1.png", SPLITS[number % len(SPLITS)]
        lesion = (number // len(SPLITS)) % 2 == 0
        found[name] = (picture(number, lesion), split)
        rows.append(f"{name},s{number:03d},{'lesion' if lesion else 'normal'},{split}")
    found["labels.csv"] = ("\n".join(rows).encode() + b"\n", "")
    found["dataset.toml"] = (b'kind = "photos"\ndescription = "squares"\n', "")
    return found


def fill(version: DatasetVersion, content: Mapping[str, tuple[bytes, str]] | None = None) -> None:
    """Store files in a version as ingest does."""
    key = ensure_version_key(version)
    rows = []
    for path, (data, split) in (content or files()).items():
        name = blobs.object_name(key, version.pk, path)
        stored = blobs.put(io.BytesIO(data), key=key, name=name)
        rows.append(
            StoredFile(
                version=version,
                path=path,
                split=split,
                object_name=stored.name,
                sha256=hashlib.sha256(data).hexdigest(),
                bytes=len(data),
            )
        )
    StoredFile.objects.bulk_create(rows)
    version.manifest_sha256 = dataset_manifest(version).digest()
    version.save()


MANIFEST = """
[job]
name = "quick"
entrypoint = "train.py"
[datasets]
mammography = "1"
[resources]
cpus = 1
memory = "1Gi"
time = "60s"
output = "16Mi"
[metrics]
rows = {{ kind = "number", min = 0, max = 1000, digits = 3 }}
loss = {{ kind = "number", min = 0, max = 10, digits = 3 }}
{more}
"""

QUICK = """
import csv, json, pathlib, glovebox
rows = list(csv.DictReader(open("/data/mammography/labels.csv")))
print("read", len(rows), "rows", {row["split"] for row in rows})
glovebox.log(1, loss=0.5)
glovebox.save_metrics(rows=len(rows), loss=0.25)
"""

SLEEPS = """
import time, glovebox
glovebox.log(1, loss=0.5)
print("asleep", flush=True)
time.sleep(50)
"""


def archive(members: Mapping[str, str | bytes]) -> io.BytesIO:
    """Return a zip of the members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    out.seek(0)
    return out


def submission(code: str = QUICK, more: str = "", **others: str) -> io.BytesIO:
    """Return a zipped submission of one program."""
    manifest = MANIFEST.format(more=more)
    return archive({"glovebox.toml": manifest, "train.py": code, **others})


MODEL = """
import torch

def build(config):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveMaxPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(4, 1),
    )
"""

TRAIN = """
import glovebox, torch
from model import build
torch.set_num_threads(1)
config = glovebox.config()
x, y, _ = glovebox.dataset("mammography").arrays("train", size=config["size"])
net = build(config)
x, y = torch.tensor(x), torch.tensor(y, dtype=torch.float32)
optimiser = torch.optim.Adam(net.parameters(), lr=0.05)
for step in range(60):
    optimiser.zero_grad()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(net(x)[:, 0], y)
    loss.backward()
    optimiser.step()
    glovebox.log(step, loss=float(loss))
glovebox.save_weights(net)
glovebox.save_metrics(rows=len(y), loss=float(loss))
"""


def training() -> io.BytesIO:
    """Return a zipped submission that trains a small network with PyTorch."""
    more = """
[model]
build = "model:build"
[config]
size = [16, 16]
task = "classification"
positive_label = "lesion"
output = "logit"
"""
    return submission(TRAIN, more, **{"model.py": MODEL})


def submitted(cast: Cast, grant: Grant | None = None, code: str = QUICK, more: str = "") -> Job:
    """Hand a submission in; a grant and the version's files are made if need be."""
    if not StoredFile.objects.filter(version=cast.version).exists():
        fill(cast.version)
    grant = grant or cast.granted()
    return actions.submit(by=cast.applicant, grant=grant, stream=submission(code, more))
