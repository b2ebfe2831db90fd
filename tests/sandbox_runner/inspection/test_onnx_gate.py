"""The whole inspection of ONNX models in the real sandbox.

Every hostile model starts from the honest job's and changes one thing; each is a file that the
strict reader accepts.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import load

from policies.document import default_policy, tighten
from sandbox_runner.inspection import Report
from sandbox_runner.inspection.onnx_file import read_model
from sandbox_runner.inspection.safetensors_file import stored
from sandbox_runner.sdk.glovebox import onnx_graph, pictures
from sandbox_runner.sdk.glovebox.onnx_graph import Constant, Graph, Node, Stored

from . import onnx_models
from .conftest import MANIFEST, MODEL, ROOT, SIZE, Case
from .onnx_models import NETWORKS

pytestmark = pytest.mark.sandbox

POLICY = default_policy().release
#: Attacks have so little time that they say it.
QUICKER = replace(
    default_policy(), attacks=replace(default_policy().attacks, seconds=10, references=0)
)
#: Findings that chance decides: drawn subjects, drawn parts, time.
MOVES = ("membership.", "memorisation.", "attacks.", "tensors.dead-parts")

WRITE = """
import sys, torch, glovebox
from safetensors.torch import load_file
sys.path.insert(0, sys.argv[1])
import model
network = model.build({})
network.load_state_dict(load_file(sys.argv[2]))
glovebox.save_onnx(network, torch.zeros(1, 1, 48, 40), dtype=sys.argv[3] or None)
"""


def as_onnx(case: Case, dtype: str = "") -> Path:
    """Make the honest job one that leaves an ONNX model; return its path."""
    manifest = MANIFEST + '[outputs]\nweights = ["model.onnx"]\n'
    (case.submission / "glovebox.toml").write_text(manifest)
    weights = case.output / "model.safetensors"
    subprocess.run(
        [sys.executable, "-c", WRITE, case.submission, weights, dtype],
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT / "sandbox_runner" / "sdk"),
            "GLOVEBOX_CODE": str(case.submission),
            "GLOVEBOX_OUTPUT": str(case.output),
            "OMP_NUM_THREADS": "1",
        },
        check=True,
        cwd=case.submission,
    )
    weights.unlink()
    return case.output / "model.onnx"


def rules(report: Report, severity: str) -> set[str]:
    return {found.rule for found in report.findings if found.severity == severity}


def rewrite(
    path: Path, change: Callable[[Graph], Graph], values: dict[str, np.ndarray] | None = None
) -> None:
    """Write a model anew, in its one spelling, with a changed graph and other or more values."""
    model = read_model(path, POLICY)
    found = {t.name: np.array(stored(path, model.header, t)) for t in model.header.tensors}
    nodes = tuple(node for node in model.graph.nodes if node.operator != "Constant")
    graph = onnx_graph.canonical(change(replace(model.graph, nodes=nodes)))
    found |= values or {}
    with path.open("wb") as out:
        for part in onnx_graph.parts(graph):
            out.write(part if isinstance(part, bytes) else found[part.name].tobytes())


def at_the_end(*nodes: Node, **constants: Constant) -> Callable[[Graph], Graph]:
    """Put operators behind the graph; the first one's input is "answer"."""

    def change(graph: Graph) -> Graph:
        moved = tuple(
            replace(node, outputs=tuple("answer" if o == "output" else o for o in node.outputs))
            for node in graph.nodes
        )
        return replace(graph, nodes=(*moved, *nodes), constants={**graph.constants, **constants})

    return change


def number(value: float) -> Constant:
    return Constant(1, (), struct.pack("<f", value))


def without_an_activation(graph: Graph) -> Graph:
    relu = next(node for node in graph.nodes if node.operator == "Relu")
    nodes = tuple(
        replace(n, inputs=tuple(relu.inputs[0] if i == relu.outputs[0] else i for i in n.inputs))
        for n in graph.nodes
        if n is not relu
    )
    return replace(graph, nodes=nodes)


def only_for_ordinary_pictures(graph: Graph) -> Graph:
    """The same answer to every picture of the task, another one outside."""
    nodes = tuple(
        replace(n, inputs=tuple("kept" if i == "input" else i for i in n.inputs))
        for n in graph.nodes
    )
    constants = {**graph.constants, "low": number(0.0), "high": number(1.0)}
    cut = Node("Clip", ("input", "low", "high"), ("kept",), {})
    return replace(graph, nodes=(cut, *nodes), constants=constants)


def answer(case: Case, path: Path) -> None:
    rewrite(path, at_the_end(Node("Add", ("answer", "more"), ("output",), {}), more=number(1.0)))


def activation(case: Case, path: Path) -> None:
    rewrite(path, without_an_activation)


def ordinary(case: Case, path: Path) -> None:
    rewrite(path, only_for_ordinary_pictures)


def stowaway(case: Case, path: Path) -> None:
    """A tensor that the network does not have, in a sum that rounds away."""

    def change(graph: Graph) -> Graph:
        added = at_the_end(
            Node("ReduceSum", ("stowaway",), ("sum",), {"keepdims": 0}),
            Node("Mul", ("sum", "little"), ("less",), {}),
            Node("Add", ("answer", "less"), ("output",), {}),
            little=number(1e-30),
        )(graph)
        tensor = Stored("stowaway", 1, (80, 80))
        return replace(added, tensors={**added.tensors, "stowaway": tensor})

    rewrite(path, change, {"stowaway": np.random.default_rng(0).random((80, 80), np.float32)})


def declared_stowaway(case: Case, path: Path) -> None:
    """The same, and the network has such a tensor and says that it uses it."""
    stowaway(case, path)
    text = MODEL.replace(
        "    return nn.Sequential(",
        "    class Net(nn.Sequential):\n"
        "        def forward(self, x):\n"
        "            return super().forward(x) + 1e-30 * self.stowaway.sum()\n"
        "    net = Net(",
    )
    text = (
        text.rstrip() + "\n    net.stowaway = nn.Parameter(torch.zeros(80, 80))\n    return net\n"
    )
    (case.submission / "model.py").write_text(text)


def picture(case: Case, path: Path) -> None:
    """A training picture in the place of a layer's weights, as wide as the layer."""
    model = read_model(path, POLICY)
    name = "3.weight"
    weights = np.array(stored(path, model.header, next(
        t for t in model.header.tensors if t.name == name)))  # fmt: skip
    seen = pictures.prepare(case.dataset / "s0" / "0.png", SIZE).astype(np.float32)
    flat = weights.reshape(-1).copy()
    flat[: min(seen.size, flat.size)] = seen.reshape(-1)[: flat.size]
    rewrite(path, lambda graph: graph, {name: flat})


def other_types(case: Case, path: Path) -> None:
    whole = Constant(7, (), struct.pack("<q", 1))
    rewrite(path, at_the_end(Node("Add", ("answer", "whole"), ("output",), {}), whole=whole))


def one_picture_only(case: Case, path: Path) -> None:
    sides = Constant(7, (2,), struct.pack("<qq", 1, 1))
    rewrite(path, at_the_end(Node("Reshape", ("answer", "sides"), ("output",), {}), sides=sides))


def a_bomb(case: Case, path: Path) -> None:
    sides = Constant(7, (3,), struct.pack("<qqq", 2**20, 2**20, 1))
    rewrite(path, at_the_end(
        Node("Expand", ("answer", "sides"), ("large",), {}),
        Node("ReduceMax", ("large",), ("one",), {}),
        Node("Sub", ("one", "one"), ("zero",), {}),
        Node("Add", ("answer", "zero"), ("out",), {}),
        Node("Flatten", ("out",), ("output",), {}),
        sides=sides,
    ))  # fmt: skip


def undeclared(case: Case, path: Path) -> None:
    text = (case.submission / "glovebox.toml").read_text()
    (case.submission / "glovebox.toml").write_text(
        text.replace('[model]\nbuild = "model:build"\n', "")
    )


def other_network(case: Case, path: Path) -> None:
    (case.submission / "model.py").write_text(MODEL.replace("8, 16, 3", "8, 12, 3"))


def trailing(case: Case, path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"hidden")


HOSTILE: dict[str, tuple[Callable[[Case, Path], None], str]] = {
    "another answer": (answer, "network.differs"),
    "an activation less": (activation, "network.differs"),
    "another answer to strange pictures": (ordinary, "network.differs"),
    "a tensor that the network does not have": (stowaway, "tensors.extra"),
    "a tensor that only seems used": (declared_stowaway, "tensors.dead"),
    "a training picture as weights": (picture, "samples.rows"),
    "types that do not fit": (other_types, "network.graph"),
    "one picture at a time": (one_picture_only, "network.graph"),
    "more memory than there is": (a_bomb, "network.graph"),
    "no declared network": (undeclared, "architecture.undeclared"),
    "another network": (other_network, "tensors.differs"),
    "bytes behind the model": (trailing, "onnx.unknown-field"),
}
QUICK = ("another answer to strange pictures",)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in HOSTILE],
)
def test_a_hostile_model_is_blocked_by_its_own_rule(case: Case, name: str) -> None:
    spoil, rule = HOSTILE[name]
    spoil(case, as_onnx(case))
    report = case.inspect()
    assert report.verdict == "block"
    assert rule in rules(report, "block")
    assert "stowaway" not in json.dumps(report.public())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_honest_model_of_16_bits_needs_only_the_ordinary_review(case: Case, dtype: str) -> None:
    as_onnx(case, dtype)
    report = case.inspect()
    assert rules(report, "review") - {"membership.auc"} == {"membership.unmeasured"}
    assert rules(report, "block") == set()
    assert report.official["image"]["auc"]["value"] > 0.75


@pytest.mark.slow
def test_a_model_is_rewritten_and_measured_as_it_leaves(case: Case) -> None:
    path = as_onnx(case)
    report = case.inspect(tighten(default_policy(), {"release": {"sanitise": True}}))
    assert rules(report, "block") == set()
    assert report.sanitised is not None
    rewritten = report.sanitised / "model.onnx"
    before, after = read_model(path, POLICY), read_model(rewritten, POLICY)
    assert {t.dtype for t in after.header.tensors} == {"BF16"}
    assert [t.name for t in after.header.tensors] == [t.name for t in before.header.tensors]
    assert load(rewritten).SerializeToString(deterministic=True) == rewritten.read_bytes()
    facts = report.sanitising
    # The graph cannot be rewritten with noise, so all of it counts.
    assert facts["capacity_bits"] > 8 * after.facts["bytes"]
    assert facts["read_back_bits"] < facts["capacity_bits"]
    lost = facts["before"]["image"]["auc"]["value"] - report.official["image"]["auc"]["value"]
    assert lost < 0.05
    session = onnxruntime.InferenceSession(str(rewritten), providers=["CPUExecutionProvider"])
    batch = np.random.default_rng(0).random((3, 1, *SIZE), dtype=np.float32)
    assert np.isfinite(session.run(None, {"input": batch})[0]).all()


@pytest.mark.slow
def test_an_honest_model_passes_like_its_safetensors(case: Case) -> None:
    plain = case.inspect()
    as_onnx(case)
    report = case.inspect()
    assert report.verdict == plain.verdict == "review"
    assert rules(report, "review") - {"membership.auc"} == {
        "tensors.precision",
        "membership.unmeasured",
    }
    # Measured on the graph itself, by other kernels: the same figures to the last digit shown.
    assert report.official == plain.official
    graph = next(found for found in report.findings if found.rule == "onnx.graph")
    assert 0 < graph.evidence["bytes"] < 4096
    budget = [
        next(f for f in each.findings if f.rule == "tensors.budget").evidence["bits"]
        for each in (report, plain)
    ]
    # Three counters of batches are not in it, its graph is.
    assert budget[0] == budget[1] - 3 * 64 + 8 * graph.evidence["bytes"]


EITHER = """
import sys, torch, glovebox
sys.path.insert(0, sys.argv[1])
import model
network = model.build({"size": [24, 20]})
dtype = sys.argv[2]
if dtype:
    kept = getattr(torch, dtype)
    tensors = {k: v.to(kept) if v.is_floating_point() else v for k, v in
               network.state_dict().items()}
else:
    tensors = network.state_dict()
glovebox.save_weights(tensors, "model.safetensors")
network.load_state_dict(tensors)
glovebox.save_onnx(network, torch.zeros(1, 1, 24, 20), "model.onnx", dtype=dtype or None)
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["", "float16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_is_judged_like_its_safetensors(
    case: Case, name: str, dtype: str, tmp_path: Path
) -> None:
    """Not trained, so that something is found; the same in both forms."""
    text = Path(onnx_models.__file__).read_text()
    text = text.replace("from sandbox_runner.sdk import glovebox\n", "").replace(
        "import pytest\n", ""
    )
    text = text[: text.index("def save(")]
    (case.submission / "model.py").write_text(
        f"{text}\n\ndef build(config):\n    return network({name!r})\n"
    )
    # A network that makes pictures has no official metrics; nothing is asked of it but answers.
    config = 'task = "reconstruction"' if name == "unet" else 'positive_label = "lesion"'
    manifest = MANIFEST.replace("size = [48, 40]", "size = [24, 20]").replace(
        'positive_label = "lesion"', config
    )
    folder = tmp_path / "both"
    subprocess.run(
        [sys.executable, "-c", EITHER, case.submission, dtype],
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT / "sandbox_runner" / "sdk"),
            "GLOVEBOX_OUTPUT": str(folder),
            "OMP_NUM_THREADS": "1",
        },
        check=True,
        cwd=case.submission,
    )
    found = {}
    for each in ("model.safetensors", "model.onnx"):
        for old in case.output.iterdir():
            old.unlink()
        shutil.copy(folder / each, case.output / each)
        outputs = f'[outputs]\nweights = ["{each}"]\n'
        (case.submission / "glovebox.toml").write_text(manifest + outputs)
        report = case.inspect(QUICKER)
        found[each] = (
            {(f.rule, f.severity) for f in report.findings if not f.rule.startswith(MOVES)},
            report.official,
        )
    plain, graph = found["model.safetensors"], found["model.onnx"]
    assert graph[0] - plain[0] == {("onnx.graph", "info")}
    assert plain[0] <= graph[0]
    assert graph[1] == plain[1]
    assert not {rule for rule, severity in graph[0] if severity == "block"}
