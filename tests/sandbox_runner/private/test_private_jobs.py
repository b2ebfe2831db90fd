"""Private jobs in the real sandbox: our trainer alone meets the data, and ours is the record."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from policies.document import default_policy, deploy
from policies.errors import Invalid
from policies.findings import Finding
from policies.submission import parse_manifest
from sandbox_runner import lifecycle
from sandbox_runner.inspection import Report, inspect
from sandbox_runner.lifecycle import limits_of, run_job
from sandbox_runner.private import training
from sandbox_runner.private.graph import Graph
from sandbox_runner.rehearse import rehearse
from sandbox_runner.spec import JobSpec, Outcome
from tests.sandbox_runner.inspection.conftest import write_dataset

pytestmark = [pytest.mark.sandbox, pytest.mark.usefixtures("bubblewrap")]

POLICY = default_policy()
MANIFEST = """
[job]
name = "private"
recipe = "private"
[model]
build = "model:build"
[datasets]
spots = "1"
[resources]
memory = "2Gi"
time = "5m"
output = "64Mi"
processes = 64
[private]
epsilon = 2.0
steps = 6
rate = 0.2
learning_rate = 0.1
[config]
size = [48, 40]
positive_label = "lesion"
"""
MODEL = """
import torch
from torch import nn
def build(config):
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=4), nn.GroupNorm(2, 4), nn.ReLU(),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 1),
    )
"""
# What a submission might try: it has a process of its own and nothing in it. It looks for data,
# writes an account and weights of its own, and fixes every generator that it can reach.
HOSTILE = (
    """
import json, os, pathlib, random, sys
import numpy, torch
assert not os.path.exists("/data") or not os.listdir("/data"), "data beside the submission"
assert not os.path.exists("/opt/glovebox/sandbox_runner")
for name in ("private.json", "model.safetensors"):
    pathlib.Path("/output", name).write_text(json.dumps({"epsilon": 0.001, "delta": 1e-9}))
os.urandom = lambda count: bytes(count)
torch.manual_seed(0); numpy.random.seed(0); random.seed(0)
torch.save = torch.nn.Module.forward = None
import glovebox
"""
    + MODEL
)
CLAIMS = """
import glovebox, json, pathlib
account = {"epsilon": 0.1, "delta": 1e-6, "noise": 9.0, "rate": 0.1, "steps": 1, "clip": 1.0,
           "subjects": 45, "accountant": "RDP (Opacus 1.6.0)", "unit": "subject"}
for name in ("private.json", "trained.json", "outcome.json"):
    pathlib.Path("/output", name).write_text(json.dumps(account | {"privacy": account}))
glovebox.output("model.safetensors").write_bytes(b"weights")
"""


@pytest.fixture(scope="module")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 90 subjects, half of them for training."""
    place = tmp_path_factory.mktemp("private") / "spots"
    write_dataset(place)
    return place


def job(folder: Path, spots: Path, manifest: str = MANIFEST, **files: str) -> JobSpec:
    home = folder / "submission"
    home.mkdir(parents=True)
    files = {"model": MODEL} | files
    for name, text in files.items():
        (home / f"{name}.py").write_text(text, encoding="utf-8")
    (home / "glovebox.toml").write_text(manifest, encoding="utf-8")
    parsed = parse_manifest(manifest, POLICY)
    return JobSpec(
        id=f"job-{uuid.uuid4().hex[:12]}",
        submission=home,
        manifest=parsed,
        datasets={"spots": spots},
        output=folder / "artefacts",
        limits=limits_of(parsed.resources, POLICY),
        backend="bubblewrap",
    )


def test_a_private_job_leaves_weights_and_the_runner_a_record(tmp_path: Path, spots: Path) -> None:
    spec, work = job(tmp_path, spots, model=HOSTILE), tmp_path / "work"
    lifecycle.prepare(spec, POLICY, work)
    result = lifecycle.train(spec, POLICY, work)
    assert (result.state, result.reason) == ("finished", "exit"), (work / "log").read_text()
    record = lifecycle.read_record(work, spec.manifest)
    assert record is not None
    # Asked again, nothing runs again: another run would be another draw of the same data.
    assert lifecycle.train(spec, POLICY, work) == result
    assert lifecycle.read_record(work, spec.manifest) == record

    outcome = run_job(spec, POLICY, work)

    assert outcome.privacy == record
    assert {each.path: each.sha256 for each in outcome.artefacts} == {
        "config.json": outcome.artefacts[1].sha256,
        **record["weights"],
    }
    assert outcome.rejected == ()
    assert 1.9 < record["epsilon"] <= 2.0
    assert (record["delta"], record["subjects"], record["steps"]) == (0.001, 45, 6)
    assert record["trainer"] == training.trainer_digest()
    # Nothing is said of the data: not in the log, and no file of the trainer's stays.
    assert (work / "log").read_text() == ""
    assert {path.name for path in work.iterdir()} == {"log", "outcome.json"}
    weights = load_file(spec.output / "model.safetensors")
    assert {name: tuple(value.shape) for name, value in weights.items()} == {
        "0.weight": (4, 1, 5, 5), "0.bias": (4,), "1.weight": (4,), "1.bias": (4,),
        "5.weight": (1, 4), "5.bias": (1,),
    }  # fmt: skip


@pytest.mark.slow
def test_the_noise_is_another_each_time_whatever_a_submission_seeds(
    tmp_path: Path, spots: Path
) -> None:
    one, two = (job(tmp_path / name, spots, model=HOSTILE) for name in ("one", "two"))
    for spec in (one, two):
        outcome = run_job(spec, POLICY, spec.output.parent / "work")
        assert outcome.state == "finished"
    first, second = (load_file(spec.output / "model.safetensors") for spec in (one, two))
    for name, value in first.items():
        assert torch.isfinite(value).all()
        assert not torch.isclose(value, second[name]).any(), name


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (MODEL.replace("nn.GroupNorm(2, 4)", "nn.BatchNorm2d(4)"), "1 is a BatchNorm2d"),
        pytest.param(
            MODEL.replace("nn.Linear(4, 1)", "nn.Linear(5, 1)"),
            "[config] size",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_network_that_cannot_be_trained_so_is_refused_by_name(
    tmp_path: Path, spots: Path, model: str, words: str
) -> None:
    outcome = run_job(job(tmp_path, spots, model=model), POLICY, tmp_path / "work")
    assert (outcome.state, outcome.reason) == ("refused", "manifest")
    assert words in outcome.detail
    assert outcome.privacy is None


def test_a_build_that_fails_says_where(tmp_path: Path, spots: Path) -> None:
    model = "def build(config):\n    return 1 / 0\n"
    outcome = run_job(job(tmp_path, spots, model=model), POLICY, tmp_path / "work")
    assert (outcome.state, outcome.reason) == ("failed", "exit")
    assert outcome.fault is not None
    assert (outcome.fault.type, outcome.fault.file, outcome.fault.line) == (
        "ZeroDivisionError",
        "model.py",
        2,
    )


def test_what_an_ordinary_job_claims_is_no_record(tmp_path: Path, spots: Path) -> None:
    manifest = MANIFEST.split("[private]")[0].replace('recipe = "private"', 'entrypoint = "t.py"')
    spec = job(tmp_path, spots, manifest=manifest, t=CLAIMS)
    outcome = run_job(spec, POLICY, tmp_path / "work")
    assert outcome.state == "finished"
    assert outcome.privacy is None
    assert {each.path for each in outcome.rejected} == {
        "private.json", "trained.json", "outcome.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("word", "field"),
    [
        ("budget", "private.epsilon"),
        ("delta", "private.delta"),
        ("nobody", "datasets"),
        ("shape", "model.build"),
    ],
)
def test_a_refusal_of_the_trainers_names_its_field(tmp_path: Path, word: str, field: str) -> None:
    (tmp_path / training.ACCOUNT).write_text(json.dumps({"refused": word}))
    manifest = parse_manifest(MANIFEST, POLICY)
    with pytest.raises(Invalid) as caught:
        training.read_account(tmp_path, manifest, Graph({}, (), 1, frozenset()))
    assert caught.value.field == field


@pytest.mark.parametrize("account", ["", "[]", "{}", '{"refused": "me"}', '{"epsilon": 1}'])
def test_without_an_account_there_is_no_record(tmp_path: Path, account: str) -> None:
    (tmp_path / training.ACCOUNT).write_text(account)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(training.NoAccount):
        training.read_account(
            tmp_path, parse_manifest(MANIFEST, POLICY), Graph({}, (), 1, frozenset())
        )


@pytest.mark.slow
def test_a_rehearsal_does_the_same_without_walls(tmp_path: Path, spots: Path) -> None:
    sample = tmp_path / "sample"
    shutil.copytree(spots, sample)
    (sample / "dataset.toml").write_text('kind = "photos"\nsample = true\n')
    spec = job(tmp_path, sample)
    (tmp_path / "work").mkdir()
    where = (spec.output, spec.limits, POLICY, tmp_path / "work")
    outcome = rehearse(spec.submission, spec.manifest, spec.datasets, *where)
    assert outcome.state == "finished"
    assert outcome.privacy is not None
    assert {each.path for each in outcome.artefacts} == {"model.safetensors", "config.json"}
    model = MODEL.replace("nn.GroupNorm(2, 4)", "nn.BatchNorm2d(4)")
    spec = job(tmp_path / "other", sample, model=model)
    (tmp_path / "other" / "work").mkdir()
    with pytest.raises(Invalid, match="1 is a BatchNorm2d"):
        rehearse(
            spec.submission, spec.manifest, spec.datasets, spec.output, spec.limits, POLICY,
            tmp_path / "other" / "work",
        )  # fmt: skip


def found(report: Report, rule: str) -> Finding:
    [only] = [each for each in report.findings if each.rule == rule]
    return only


def examined(
    spec: JobSpec, spots: Path, folder: Path, privacy: object, lighter_epsilon: float = 0.0
) -> Report:
    return inspect(
        spec.output,
        submission=spec.submission,
        manifest=spec.manifest,
        datasets={"spots": spots},
        policy=deploy(POLICY, {"lighter_epsilon": lighter_epsilon}),
        workdir=folder,
        backend="bubblewrap",
        privacy=privacy,  # type: ignore[arg-type]
    )


OVERFIT = """
[job]
name = "overfit"
recipe = "classification"
[model]
build = "model:build"
[datasets]
spots = "1"
[config]
size = [48, 40]
positive_label = "lesion"
epochs = 120
batch_size = 16
lr = 0.002
weight_decay = 0.0
flip = false
"""
WIDE = """
from torch import nn
def build(config):
    return nn.Sequential(nn.Flatten(), nn.Linear(48 * 40, 64), nn.ReLU(), nn.Linear(64, 1))
"""


@pytest.mark.slow
def test_the_advantage_of_a_membership_attack_falls(tmp_path: Path, spots: Path) -> None:
    """One network and one training set, overfit and private: both attacked as every network is."""
    plain = job(tmp_path / "plain", spots, manifest=OVERFIT, model=WIDE)
    subprocess.run(
        [sys.executable, "sandbox_runner/recipes/classification.py"],
        env=os.environ
        | {
            "PYTHONPATH": "sandbox_runner/sdk",
            "GLOVEBOX_DATA": str(spots.parent),
            "GLOVEBOX_CODE": str(plain.submission),
            "GLOVEBOX_OUTPUT": str(plain.output),
            "OMP_NUM_THREADS": "1",
        },
        cwd=Path(training.__file__).parents[2],
        check=True,
        capture_output=True,
    )
    asked = MANIFEST.replace("steps = 6", "steps = 60")
    private = job(tmp_path / "private", spots, manifest=asked, model=WIDE)
    outcome = run_job(private, POLICY, tmp_path / "private" / "work")
    assert outcome.state == "finished"

    open_, closed = (
        examined(spec, spots, tmp_path / name, outcome.privacy, lighter_epsilon=8.0)
        for spec, name in ((plain, "open"), (private, "closed"))
    )

    # The private job's record lies beside: it is not the other's.
    assert found(open_, "privacy.epsilon").evidence == {"epsilon": "not guaranteed"}
    told = found(closed, "privacy.epsilon").evidence
    assert (told["epsilon"], told["delta"], told["unit"]) == (2.0, 0.001, "subject")
    before = found(open_, "membership.auc").evidence
    # What was measured on the training itself does not leave beside private weights.
    assert found(closed, "membership.auc").evidence == {}
    after = found(closed, "membership.auc").internal["figures"]
    assert before["auc_low"] > 0.7
    assert after["auc_high"] < before["auc_low"]
    assert found(open_, "membership.auc").severity in ("review", "block")
    assert found(open_, "membership.unmeasured").severity == "review"
    # The machine's owner lets so small an epsilon make the review lighter.
    assert found(closed, "membership.unmeasured").severity == "info"
    assert found(closed, "tensors.precision").severity == "info"


@pytest.mark.slow
def test_the_command_line_takes_the_record_from_the_outcome_alone(
    tmp_path: Path, spots: Path
) -> None:
    """``sandbox run --json`` prints the record; ``inspect --outcome`` takes that and no other."""
    glovebox = [sys.executable, str(Path(training.__file__).parents[2] / "glovebox_cli.py")]
    spec = job(tmp_path, spots)
    data = ["--data", f"spots={spots}", "--backend", "bubblewrap", "--json"]
    run = subprocess.run(
        [*glovebox, "sandbox", "run", spec.submission, *data, "--output", spec.output],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    (tmp_path / "outcome.json").write_text(run.stdout)
    # A file in the output, as a submission could leave one, is no outcome.
    forged = tmp_path / "forged"
    forged.mkdir()
    for name in ("model.safetensors", "config.json"):
        (forged / name).write_bytes((spec.output / name).read_bytes())

    def epsilon(*more: object) -> object:
        done = subprocess.run(
            [*glovebox, "inspect", forged, "--submission", spec.submission, *data, *more],
            capture_output=True, text=True,
        )  # fmt: skip
        rows = json.loads(done.stdout)["findings"]
        return next(row["evidence"]["epsilon"] for row in rows if row["rule"] == "privacy.epsilon")

    assert epsilon("--outcome", tmp_path / "outcome.json") == pytest.approx(2.0, abs=0.1)
    assert epsilon() == "not guaranteed"


def test_the_outcome_keeps_the_record(tmp_path: Path) -> None:
    record = {"epsilon": 1.0}
    outcome = Outcome("finished", "exit", 0, 1.0, 1.0, 1, "bubblewrap", privacy=record)
    assert outcome.as_mapping()["privacy"] == record
    (tmp_path / "outcome.json").write_text(json.dumps(outcome.as_mapping()))
    assert lifecycle.read_outcome(tmp_path) == outcome
    assert dataclasses.replace(outcome, privacy=None).as_mapping()["privacy"] is None
