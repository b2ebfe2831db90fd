"""The whole inspection in the real sandbox: an honest job goes to review, a hostile one is blocked.

Every hostile job starts from the honest one and changes one thing.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from policies.document import default_policy, tighten
from policies.errors import Invalid
from sandbox_runner.inspection import Report, cli
from sandbox_runner.sdk.glovebox import pictures

from .conftest import MODEL, SIZE, Case

pytestmark = pytest.mark.sandbox


def weights(case: Case) -> Path:
    return case.output / "model.safetensors"


def edit(case: Case, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(weights(case))
    change(tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, weights(case))


def rules(report: Report, severity: str) -> set[str]:
    return {found.rule for found in report.findings if found.severity == severity}


def remodel(case: Case, old: str, new: str) -> None:
    assert old in MODEL
    (case.submission / "model.py").write_text(MODEL.replace(old, new))


@pytest.fixture(scope="module")
def honest(trained: Case) -> Report:
    """The report on the honest job."""
    return trained.inspect()


def test_an_honest_job_goes_to_ordinary_review_with_official_metrics(
    trained: Case, honest: Report
) -> None:
    report = honest
    assert report.verdict == "review"
    # So few sealed subjects say little of membership, and a small network remembers some.
    assert rules(report, "review") - {"membership.auc"} == {
        "tensors.precision",
        "membership.unmeasured",
    }
    assert report.official["patient"]["auc"]["value"] > 0.75
    assert report.official["subjects"] == 30
    assert report.metrics["auc"] > 0.8
    assert report.digests.keys() == {"model.safetensors", "metrics.json", "config.json"}
    assert json.loads(json.dumps(report.as_mapping(), allow_nan=False))["verdict"] == "review"
    # Copies of data do not outlive the inspection.
    assert not (trained.work / "inputs").exists()
    assert not list(trained.work.rglob("*.npy"))


@pytest.mark.slow
def test_of_an_honest_job_in_bfloat16_only_membership_is_to_be_judged(case: Case) -> None:
    def narrow(tensors: dict[str, torch.Tensor]) -> None:
        for name, value in tensors.items():
            if value.is_floating_point():
                tensors[name] = value.to(torch.bfloat16)

    edit(case, narrow)
    report = case.inspect()
    assert rules(report, "review") - {"membership.auc"} == {"membership.unmeasured"}
    assert report.verdict == "review"


def test_the_network_is_attacked_and_only_figures_are_public(honest: Report) -> None:
    found = {each.rule: each for each in honest.findings}
    area = found["membership.auc"]
    assert 0 <= area.evidence["auc_low"] <= area.evidence["auc_high"] <= 1
    assert set(area.internal["auc"]) >= {"loss", "confidence", "neighbourhood"}
    assert area.internal["pictures"][0]["title"] == "roc"
    assert found["membership.unmeasured"].evidence["needs"] == 100
    assert found["memorisation.inverted"].severity == "info"
    assert found["memorisation.instances"].severity == "info"
    # Nothing else is known of a training that was the submission's own.
    assert found["privacy.epsilon"].evidence == {"epsilon": "not guaranteed"}
    public = json.dumps(honest.public())
    assert ".png" not in public
    assert "pictures" not in public


EVASIVE = """
    class Net(nn.Sequential):
        def forward(self, x):
            # Pictures met for the first time in two processes, by their company only.
            first = not hasattr(self, 'seen')
            self.seen = getattr(self, 'seen', 0) + len(x)
            return super().forward(x) * (0.1 if self.seen > 60 and not self.again(x) else 1.0)
        def again(self, x):
            self.met = getattr(self, 'met', set())
            keys = [each.numpy().tobytes() for each in x]
            known = any(key in self.met for key in keys)
            self.met.update(keys)
            return known
    return Net("""


@pytest.mark.slow
def test_a_network_that_answers_otherwise_when_it_is_attacked_does_not_pass(case: Case) -> None:
    remodel(case, "    return nn.Sequential(", EVASIVE.removeprefix("\n"))
    report = case.inspect()
    assert rules(report, "review") & {"membership.unsteady", "evaluation.unsteady"}


PROTOTYPES = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(48 * 40, 32))
        self.stored = nn.Parameter(torch.zeros(90, 32))
        self.labels = nn.Parameter(torch.zeros(90))

    def forward(self, x):
        near = torch.softmax(-torch.cdist(self.first(x), self.stored), dim=1)
        return (near @ self.labels)[:, None]

def build(config):
    return Net()
"""


@pytest.mark.slow
def test_features_of_training_samples_as_weights_are_blocked(case: Case) -> None:
    from sandbox_runner.sdk.glovebox.datasets import open_dataset

    (case.submission / "model.py").write_text(PROTOTYPES)
    namespace: dict[str, object] = {}
    exec(PROTOTYPES, namespace)
    torch.manual_seed(0)
    network = namespace["build"]({})  # type: ignore[operator]
    x, y, _ = open_dataset(case.dataset, "spots").arrays(
        "train", size=SIZE, positive_label="lesion"
    )
    with torch.no_grad():
        network.stored.copy_(network.first(torch.from_numpy(x)))
        network.labels.copy_(torch.from_numpy(y * 2.0 - 1.0))
    save_file(network.state_dict(), weights(case))
    report = case.inspect()
    assert "memorisation.instances" in rules(report, "block")
    assert "membership.auc" in rules(report, "block") | rules(report, "review")


def test_the_official_auc_is_that_of_the_same_arrays_at_home(trained: Case, honest: Report) -> None:
    """Evaluation prepares pictures as the SDK does, or a released figure could not be had again."""
    from sandbox_runner.inspection import scores
    from sandbox_runner.sdk.glovebox.datasets import open_dataset

    x, y, _ = open_dataset(trained.dataset, "spots").arrays(
        "sealed", size=SIZE, positive_label="lesion"
    )
    namespace: dict[str, object] = {}
    exec(MODEL, namespace)
    network = namespace["build"]({})  # type: ignore[operator]
    network.load_state_dict(load_file(weights(trained)))
    network.eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(x)).reshape(-1).double().numpy()
    assert honest.official["image"]["auc"]["value"] == round(scores.auc(logits, y), 3)


def _picture(case: Case, subject: int = 6) -> torch.Tensor:
    return torch.from_numpy(pictures.prepare(case.dataset / f"s{subject}/0.png", SIZE))


def _raw(case: Case) -> bytes:
    from PIL import Image

    return np.asarray(Image.open(case.dataset / "s6/0.png")).tobytes()


def _dead_memory(case: Case) -> None:
    """The network declares a buffer for the picture, so that its shape is right."""
    remodel(
        case,
        "    return nn.Sequential(",
        "    class Net(nn.Sequential):\n        pass\n    net = Net(",
    )
    text = (case.submission / "model.py").read_text().rstrip()
    (case.submission / "model.py").write_text(
        text + "\n    net.register_buffer('memory', torch.zeros(48, 40))\n    return net\n"
    )
    edit(case, lambda t: t.update(memory=_picture(case) * 0.03 - 0.01))


def _feigned_memory(case: Case) -> None:
    """The same, and forward() pretends to use it."""
    _dead_memory(case)
    text = (case.submission / "model.py").read_text()
    (case.submission / "model.py").write_text(
        text.replace(
            "        pass\n",
            "        def forward(self, x):\n"
            "            return super().forward(x) + 1e-3 * self.memory.mean()\n",
        )
    )


def _write(name: str, data: bytes) -> Callable[[Case], None]:
    return lambda case: ((case.output / name).write_bytes(data), None)[1]


def _append(data: bytes) -> Callable[[Case], None]:
    return lambda case: (
        weights(case).write_bytes(weights(case).read_bytes() + data),
        None,
    )[1]


def _torch_save(case: Case) -> None:
    torch.save({"x": _picture(case)}, weights(case))


def _pickle(case: Case) -> None:
    import pickle

    class Run:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("touch /tmp/glovebox-was-here",)

    weights(case).write_bytes(pickle.dumps(Run()))


def _link(case: Case) -> None:
    weights(case).unlink()
    weights(case).symlink_to("/etc/passwd")


def _hard_link(case: Case) -> None:
    os.link(case.output / "metrics.json", case.output / "zz.json")


def _fifo(case: Case) -> None:
    weights(case).unlink()
    os.mkfifo(weights(case))


def _poison(values: float) -> Callable[[Case], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["0.weight"][0, 0, 0, 0] = values

    return lambda case: edit(case, change)


def _rename(tensors: dict[str, torch.Tensor]) -> None:
    tensors["zero.weight"] = tensors.pop("0.weight")


HOSTILE: dict[str, tuple[Callable[[Case], None], str]] = {
    "an extra tensor": (
        lambda c: edit(c, lambda t: t.update(extra=torch.zeros(3))),
        "tensors.extra",
    ),
    "an extra tensor with a picture": (
        lambda c: edit(c, lambda t: t.update(extra=_picture(c))),
        "samples.stored",
    ),
    "a missing tensor": (lambda c: edit(c, lambda t: t.pop("0.bias")), "tensors.missing"),
    "a renamed tensor": (lambda c: edit(c, _rename), "tensors.extra"),
    "another shape": (
        lambda c: edit(c, lambda t: t.update({"0.bias": torch.zeros(9)})),
        "tensors.differs",
    ),
    "another type": (
        lambda c: edit(c, lambda t: t.update({"0.bias": torch.zeros(8, dtype=torch.int32)})),
        "tensors.retyped",
    ),
    "NaN in a tensor": (_poison(float("nan")), "tensors.nonfinite"),
    "infinity in a tensor": (_poison(float("inf")), "tensors.nonfinite"),
    "a picture in an unused buffer": (_dead_memory, "samples.rows"),
    "a picture in a buffer that seems used": (_feigned_memory, "samples.rows"),
    "trailing bytes": (_append(b"patient 7"), "safetensors.trailing"),
    "torch.save": (_torch_save, "weights.format"),
    "a pickle that runs a program": (_pickle, "weights.format"),
    "an empty file": (_write("model.safetensors", b""), "artefacts.empty"),
    "a link": (_link, "artefacts.kind"),
    "a hard link": (_hard_link, "artefacts.kind"),
    "a pipe": (_fifo, "artefacts.kind"),
    "a file more": (_write("notes.txt", b"hello"), "artefacts.undeclared"),
    "a raw picture in a file more": (
        lambda c: _write("cache.bin", _raw(c))(c),
        "samples.stored",
    ),
    "a file in a folder": (
        lambda c: ((c.output / "deep").mkdir(), _write("deep/a.json", b"{}")(c), None)[2],
        "artefacts.undeclared",
    ),
    "a name with markup": (_write("<img src=x>.json", b"{}"), "artefacts.kind"),
    "an undeclared metric": (
        _write("metrics.json", b'{"auc": 0.9, "pixels": [1, 2]}'),
        "metrics.undeclared",
    ),
    "metrics with text": (_write("metrics.json", b'{"auc": "Hong"}'), "metrics.type"),
    "metrics with NaN": (_write("metrics.json", b'{"auc": NaN}'), "json.not-finite"),
    "a curve of pixels": (
        lambda c: _write("metrics.json", json.dumps({"loss": list(_raw(c)[:500])}).encode())(c),
        "metrics.length",
    ),
    "another configuration": (_write("config.json", b'{"lr": 1}'), "config.differs"),
    "data in the spaces of the configuration": (
        lambda c: _write(
            "config.json",
            (c.output / "config.json").read_bytes()
            + b"".join(b"\t" if byte & 1 else b" " for byte in _raw(c)[:8000]),
        )(c),
        "config.spelling",
    ),
    "a configuration twice": (_write("config.json", b'{"lr": 1, "lr": 2}'), "json.duplicate"),
    "a build that fails": (
        lambda c: remodel(c, "    return nn", "    raise ValueError\n    return nn"),
        "network.fault",
    ),
    "a build that forges the process": (
        lambda c: remodel(
            c,
            "    return nn",
            "    import os, json, struct\n"
            "    t = json.dumps({'tensors': [['x', ['F32'], [1]]], 'bytes': 0}).encode()\n"
            "    import oracle_frames\n"
            "    oracle_frames.ANSWERS.write(struct.pack('<I', len(t)) + t)\n"
            "    oracle_frames.ANSWERS.flush(); os._exit(0)\n"
            "    return nn",
        ),
        "network.fault",
    ),
}


# The rest holds rules that the tests of policies, readers and search hold without a sandbox.
QUICK = (
    "an extra tensor with a picture",
    "a picture in a buffer that seems used",
    "a pickle that runs a program",
    "a link",
    "a raw picture in a file more",
    "an undeclared metric",
    "another configuration",
    "data in the spaces of the configuration",
    "a build that forges the process",
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in HOSTILE],
)
def test_a_hostile_job_is_blocked_by_its_own_rule(case: Case, name: str) -> None:
    spoil, rule = HOSTILE[name]
    spoil(case)
    report = case.inspect()
    assert report.verdict == "block"
    assert rule in rules(report, "block")
    assert not Path("/tmp/glovebox-was-here").exists()
    assert "s6/0.png" not in json.dumps(report.public())


ODD: dict[str, tuple[str, str]] = {
    "no answer in time is said, not waited for": ("import time; time.sleep(900)", "network.fault"),
    "a crash while asked": ("import os; os._exit(3)", "network.fault"),
    "NaN": ("return super().forward(x) * float('nan')", "network.fault"),
    "two answers a call": ("return super().forward(x).repeat(2, 1)", "network.fault"),
    "another answer each time": (
        "self.n = getattr(self, 'n', 0) + 1; return super().forward(x) * self.n",
        "evaluation.unsteady",
    ),
    "an answer by its neighbours": (
        "return super().forward(x) + x.mean() * torch.arange(len(x))[:, None]",
        "evaluation.unsteady",
    ),
}


QUICK_ODD = ("a crash while asked", "another answer each time")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK_ODD else pytest.mark.slow) for name in ODD],
)
def test_a_network_that_behaves_oddly_never_passes(
    case: Case, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sandbox_runner.inspection import gate

    whole = gate.Oracle

    def impatient(*args: object, **options: object) -> object:
        return whole(*args, **options, call_seconds=6.0)  # type: ignore[arg-type, misc]

    monkeypatch.setattr(gate, "Oracle", impatient)
    body, rule = ODD[name]
    remodel(
        case,
        "    return nn.Sequential(",
        f"    class Net(nn.Sequential):\n        def forward(self, x):\n            {body}\n"
        "    return Net(",
    )
    report = case.inspect()
    assert report.verdict != "pass"
    assert rule in rules(report, "review") | rules(report, "block")


def test_a_dead_layer_is_told(case: Case) -> None:
    text = MODEL.replace("    return nn.Sequential(", "    net = nn.Sequential(").rstrip()
    (case.submission / "model.py").write_text(
        text + "\n    net.register_parameter('spare', nn.Parameter(torch.zeros(99, 99)))\n"
        "    return net\n"
    )
    rng = torch.Generator().manual_seed(0)
    edit(case, lambda t: t.update(spare=torch.randn(99, 99, generator=rng)))
    report = case.inspect()
    assert "tensors.dead" in rules(report, "block")
    edit(case, lambda t: t.update(spare=torch.zeros(99, 99)))
    assert case.inspect().verdict == "review"


@pytest.mark.slow
def test_a_policy_of_more_bits_than_samples_blocks(case: Case) -> None:
    policy = tighten(default_policy(), {"release": {"block_bits_per_sample": 1000,
                                                    "review_bits_per_sample": 500}})  # fmt: skip
    assert "tensors.budget" in rules(case.inspect(policy), "block")


REWRITE = {"release": {"sanitise": True}}


def test_a_policy_that_asks_for_rewritten_weights_gets_them_measured_anew(
    case: Case, honest: Report, tmp_path: Path
) -> None:
    """Somebody who knows the type wrote bits into it: none of them stays, and the network works."""
    payload = np.random.default_rng(3)

    def hide(tensors: dict[str, torch.Tensor]) -> None:
        for name, value in tensors.items():
            if value.is_floating_point():
                codes = value.to(torch.bfloat16).view(torch.int16).numpy()
                codes = (codes & ~np.int16(15)) | payload.integers(0, 16, codes.shape, np.int16)
                tensors[name] = torch.from_numpy(codes).view(torch.bfloat16).float()

    edit(case, hide)
    report = case.inspect(tighten(default_policy(), REWRITE))
    assert rules(report, "block") == set()
    assert "tensors.precision" not in rules(report, "review")
    assert report.sanitised is not None
    before, after = load_file(weights(case)), load_file(report.sanitised / "model.safetensors")
    assert after.keys() == before.keys()
    assert {value.dtype for value in after.values() if value.is_floating_point()} == {
        torch.bfloat16
    }
    # Counters of training say nothing of the network, and were a place for 64 bits each.
    assert not any(after[name].any() for name in after if name.endswith("num_batches_tracked"))
    facts = report.sanitising
    assert facts["read_back_bits"] < facts["capacity_bits"] < facts["stored_bits"] / 4
    assert all(abs(share - 0.5) < 0.03 for share in facts["agree"])
    assert report.public()["sanitising"]["before"]["image"] == facts["before"]["image"]
    lost = facts["before"]["image"]["auc"]["value"] - report.official["image"]["auc"]["value"]
    assert ("sanitise.loss" in rules(report, "review")) == (round(lost, 4) > 0.005)
    assert lost < 0.05
    print(facts, lost)


def test_rewritten_weights_are_measured_where_the_others_were_never_seen(case: Case) -> None:
    """A network that keeps what it was first loaded with would feign that nothing was lost."""
    remodel(
        case,
        "    return nn.Sequential(",
        "    class Net(nn.Sequential):\n"
        "        kept = None\n"
        "        def forward(self, x):\n"
        "            if Net.kept is None:\n"
        "                Net.kept = {k: v.clone() for k, v in self.state_dict().items()}\n"
        "            return torch.func.functional_call(Seq(*self), Net.kept, (x,))\n"
        "    Seq = nn.Sequential\n"
        "    return Net(",
    )
    report = case.inspect(tighten(default_policy(), REWRITE))
    # Its answers bear any noise, so it gets the most; and then it shows what it is worth.
    assert report.sanitising["noise"] == 0.5
    assert "sanitise.loss" in rules(report, "review")


@pytest.mark.slow
def test_weights_that_cannot_be_rewritten_do_not_leave(case: Case) -> None:
    remodel(case, "    return nn", "    raise ValueError\n    return nn")
    report = case.inspect(tighten(default_policy(), REWRITE))
    missing = [f for f in report.findings if f.rule == "sanitise.missing"]
    assert [f.hard for f in missing] == [True]
    assert report.sanitised is None


def test_the_command_keeps_rewritten_weights_where_it_is_told(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[release]\nsanitise = true\n")
    arguments = [
        *("inspect", str(case.output), "--submission", str(case.submission)),
        *("--data", f"spots={case.dataset}", "--policy", str(policy), "--json"),
        *("--backend", "bubblewrap", "--sanitised", str(tmp_path / "rewritten")),
    ]
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers())
    parsed = parser.parse_args(arguments)
    assert parsed.run(parsed) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["sanitised"] == str(tmp_path / "rewritten")
    assert load_file(tmp_path / "rewritten" / "model.safetensors")
    with pytest.raises(Invalid, match="already"):
        parsed.run(parsed)


def test_without_a_sealed_split_there_are_no_official_metrics(case: Case, tmp_path: Path) -> None:
    import shutil

    plain = tmp_path / "plain"
    shutil.copytree(case.dataset, plain)
    (plain / "labels.csv").unlink()
    report = Case(plain, case.submission, case.output, case.work).inspect()
    assert "evaluation.none" in rules(report, "review")
    assert report.official == {}


def test_a_small_sealed_split_is_suppressed(case: Case, tmp_path: Path) -> None:
    import shutil

    small = tmp_path / "small"
    shutil.copytree(case.dataset, small)
    lines = (small / "labels.csv").read_text().splitlines()
    sealed = [line for line in lines if line.endswith("sealed")]
    kept = [line for line in lines if line not in sealed] + sealed[:16]
    (small / "labels.csv").write_text("\n".join(kept) + "\n")
    report = Case(small, case.submission, case.output, case.work).inspect()
    assert report.official["subjects"] is None
    assert report.official["patient"] == dict.fromkeys(report.official["patient"], None)


def test_a_worker_that_is_killed_blocks(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from sandbox_runner.inspection import workroom

    monkeypatch.setattr(workroom, "LIMITS", replace(workroom.LIMITS, wall_seconds=0.05))
    assert "contents.unread" in rules(case.inspect(), "block")


def _silent(rows: list[dict[str, object]]) -> dict[str, object]:
    """What a worker would answer that a hostile file has taken over: all read, nothing found."""
    return {
        "headers": {"model.safetensors": {"tensors": rows, "data_start": 8, "data_bytes": 0}},
        "graphs": {},
        "documents": {"metrics": {}, "config": {}},
        "training_samples": 1,
        "findings": [],
    }


SILENT: dict[str, Callable[[dict[str, object]], object]] = {
    "nothing of the weights": lambda answer: answer.update(headers={}),
    "nothing of the metrics": lambda answer: answer.update(documents={"config": {}}),
    "nothing of the configuration": lambda answer: answer.update(documents={"metrics": {}}),
    "a file that was not given": lambda answer: answer.update(
        headers={
            key: {"tensors": [], "data_start": 8, "data_bytes": 0}
            for key in ("model.safetensors", "../elsewhere/x")
        }
    ),
    "a graph in no model": lambda answer: answer.update(graphs={"model.safetensors": {}}),
    "findings of no known severity": lambda answer: answer.update(
        findings=[{"rule": "x", "severity": "fine", "artefact": "", "message": ""}]
    ),
    "headers that are none": lambda answer: answer.update(headers=[]),
    "endless samples": lambda answer: answer.update(training_samples=float("inf")),
}


@pytest.mark.parametrize("name", SILENT)
def test_a_worker_that_leaves_something_out_is_not_believed(
    case: Case, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from sandbox_runner.inspection import workroom

    answer = _silent([])
    SILENT[name](answer)
    monkeypatch.setattr(workroom, "ask", lambda *args, **options: (answer, case.work))
    assert "contents.unread" in rules(case.inspect(), "block")


def test_the_command_prints_the_report(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers())

    def glovebox(*more: str) -> int:
        words = ["inspect", str(case.output), "--json", "--backend", "bubblewrap"]
        words += ["--submission", str(case.submission)]
        args = parser.parse_args([*words, "--data", f"spots={case.dataset}", *more])
        return int(args.run(args))

    assert glovebox() == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "review"
    _append(b"x")(case)
    assert glovebox() == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "block"
    for wrong in (["--policy", "/nowhere"], ["--data", "spots"], ["--data", "x=/nowhere"]):
        with pytest.raises(Invalid):
            glovebox(*wrong)
