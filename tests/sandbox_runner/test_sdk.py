"""What a submission may rely on: datasets, prepared arrays, progress and what it saves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SDK = Path(__file__).parents[2] / "sandbox_runner" / "sdk"
sys.path.insert(0, str(SDK))

import glovebox  # noqa: E402
from glovebox import pictures  # noqa: E402


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("data", "code", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"GLOVEBOX_{name.upper()}", str(tmp_path / name))
    monkeypatch.delenv("GLOVEBOX_PROGRESS_FD", raising=False)
    (tmp_path / "code" / "glovebox.toml").write_text(
        '[config]\nsize = [8, 6]\npositive_label = "lesion"\n'
    )
    return tmp_path


def write_dataset(home: Path) -> None:
    root = home / "data" / "shapes"
    root.mkdir()
    lines = ["file,subject,label,split"]
    for index, (label, split) in enumerate(
        [("normal", "train"), ("lesion", "train"), ("lesion", "validation")]
    ):
        picture = np.full((16, 12), 51 * index, dtype=np.uint8)
        Image.fromarray(picture).save(root / f"{index}.png")
        lines.append(f"{index}.png,s{index},{label},{split}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")


def test_import_needs_nothing_but_numpy() -> None:
    code = (
        "import sys; import glovebox; "
        "print([m for m in ('torch', 'pydicom', 'PIL', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(SDK)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_arrays_follow_the_configuration(home: Path) -> None:
    write_dataset(home)
    x, y, subjects = glovebox.dataset("shapes").arrays("train")
    assert x.shape == (2, 1, 8, 6)
    assert x.dtype == np.float32
    assert y.tolist() == [0, 1]
    assert subjects == ["s0", "s1"]
    assert np.allclose(x[1], 51 / 255)


def test_classes_are_numbered_without_a_positive_label(home: Path) -> None:
    write_dataset(home)
    (home / "code" / "glovebox.toml").unlink()
    from glovebox import outputs

    outputs._read_manifest.cache_clear()
    dataset = glovebox.dataset("shapes")
    assert dataset.classes == ("lesion", "normal")
    assert dataset.arrays("train", size=(8, 6))[1].tolist() == [1, 0]
    with pytest.raises(ValueError, match="size"):
        dataset.arrays("train")


def test_a_directory_without_labels_is_all_training_data(home: Path) -> None:
    folder = home / "data" / "plain" / "one"
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "a.png")
    rows = glovebox.dataset("plain").split("train")
    assert [(row["file"], row["subject"]) for row in rows] == [("one/a.png", "one")]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b"])
def test_a_row_cannot_point_outside(home: Path, name: str) -> None:
    write_dataset(home)
    dataset = glovebox.dataset("shapes")
    with pytest.raises(ValueError, match="outside"):
        dataset.file({"file": name})
    with pytest.raises(ValueError, match="plain relative"):
        glovebox.output(name)


def test_resizing_keeps_the_mean_in_both_directions() -> None:
    picture = np.random.default_rng(0).random((30, 20))
    for size in ((10, 5), (7, 9), (64, 41)):
        assert np.isclose(pictures.resize_by_area(picture, size).mean(), picture.mean())


def test_dicom_is_scaled_by_its_stored_bits_and_monochrome1_inverted(tmp_path: Path) -> None:
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    for photometric, expected in (("MONOCHROME2", 0.25), ("MONOCHROME1", 0.75)):
        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
        dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
        dataset.Rows = dataset.Columns = 4
        dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PhotometricInterpretation = photometric
        dataset.PixelData = np.full((4, 4), 1024, np.uint16).tobytes()
        path = tmp_path / f"{photometric}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        assert np.allclose(pictures.prepare(path, (2, 2)), expected, atol=1e-3)


def test_progress_is_one_line_of_numbers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setenv("GLOVEBOX_PROGRESS_FD", str(writer))
    glovebox.log(3, loss=np.float32(0.5))
    os.close(writer)
    with os.fdopen(reader) as stream:
        assert json.loads(stream.read()) == {"step": 3, "metrics": {"loss": 0.5}}
    with pytest.raises(ValueError, match="finite"):
        glovebox.log(4, loss=float("nan"))


def test_saved_weights_are_read_by_the_reference_library(home: Path) -> None:
    import torch
    from safetensors.torch import load_file

    network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3))
    network[0].weight.data = network[0].weight.data.to(torch.bfloat16)
    path = glovebox.save_weights(network)
    assert path == home / "output" / "model.safetensors"
    loaded = load_file(path)
    assert loaded.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value)


def test_metrics_are_numbers_only(home: Path) -> None:
    path = glovebox.save_metrics(loss=np.float64(0.5), curve=np.arange(3))
    assert json.loads(path.read_text()) == {"loss": 0.5, "curve": [0, 1, 2]}
    with pytest.raises(ValueError, match="Out of range"):
        glovebox.save_metrics(loss=float("nan"))
    with pytest.raises(TypeError):
        glovebox.save_metrics(loss=object())


def test_a_data_loader_takes_the_samples_with_workers(home: Path) -> None:
    import torch

    write_dataset(home)
    samples = glovebox.dataset("shapes").samples("train")
    loader = torch.utils.data.DataLoader(samples, batch_size=2, num_workers=1)
    (pictures_, targets) = next(iter(loader))
    assert pictures_.shape == (2, 1, 8, 6)
    assert targets.tolist() == [0, 1]
    x, y, _ = glovebox.dataset("shapes").arrays("train")
    assert np.array_equal(pictures_.numpy(), x)
    assert [target for _, target in samples] == y.tolist()
    assert len(samples[1:]) == 1


def test_splits_and_lengths_are_those_of_the_labels(home: Path) -> None:
    write_dataset(home)
    dataset = glovebox.dataset("shapes")
    assert len(dataset) == 3
    assert dataset.splits == {"train": 2, "validation": 1}
    assert dataset.split("sealed") == ()


def test_an_unknown_label_and_an_unknown_dataset_are_named(home: Path) -> None:
    write_dataset(home)
    dataset = glovebox.dataset("shapes")
    with pytest.raises(ValueError, match=r"9\.png: its label 'cyst' is none of lesion, normal"):
        dataset.target({"file": "9.png", "label": "cyst"})
    with pytest.raises(FileNotFoundError, match="there is: shapes"):
        glovebox.dataset("shape")
