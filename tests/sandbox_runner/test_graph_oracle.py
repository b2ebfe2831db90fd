"""A graph in a sealed process answers as onnxruntime does, and its tensors can be replaced."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policies.document import default_policy
from policies.tensors import TensorFact
from sandbox_runner.backends import choose
from sandbox_runner.graph_oracle import GraphOracle
from sandbox_runner.inspection import agreement, influence
from sandbox_runner.inspection.onnx_file import read_model
from sandbox_runner.inspection.safetensors_file import stored, values
from sandbox_runner.oracle import OracleFault
from tests.sandbox_runner.inspection.onnx_models import SIZE, Half, network, save

pytestmark = pytest.mark.sandbox

POLICY = default_policy().release
PICTURES = np.random.default_rng(2).random((6, 1, *SIZE), dtype=np.float32)


def open_graph(path: Path) -> GraphOracle:
    backend = choose("bubblewrap", "bubblewrap")
    return GraphOracle(path, POLICY, backend, "pytorch-cpu", log=path.parent / "log")


def answers(module: Any, pictures: np.ndarray = PICTURES) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(pictures)).reshape(len(pictures), -1).numpy()


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_it_answers_before_and_after_its_tensors_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str | None
) -> None:
    module = network("resnet")
    if dtype:
        module = module.bfloat16().float()
    path = save(module, tmp_path, monkeypatch, dtype)
    header = read_model(path, POLICY).header
    tensors = {tensor.name: tensor for tensor in header.tensors}
    name = "1.first.weight"
    fact = TensorFact(name, tensors[name].shape, tensors[name].dtype)
    own = np.array(stored(path, header, tensors[name]))
    with open_graph(path) as graph:
        assert {fact.name for fact in graph.describe()} == set(tensors)
        first = graph.predict(PICTURES)
        assert np.allclose(first, answers(module), atol=1e-5)
        graph.put(fact, np.zeros_like(own))
        with torch.no_grad():
            kept = module[1].first.weight.clone()
            module[1].first.weight.zero_()
            assert np.allclose(graph.predict(PICTURES), answers(module), atol=1e-5)
            module[1].first.weight.copy_(kept)
            module[1].first.weight[:, 2:4] = 0
        graph.put(fact, own)
        graph.put(fact, np.zeros_like(own[:, 2:4]), (1, 2, 2))
        assert np.allclose(graph.predict(PICTURES), answers(module), atol=1e-5)
        graph.put(fact, own)
        assert np.allclose(graph.predict(PICTURES), first, atol=1e-5)
        assert np.allclose(values(path, header, tensors[name]), kept.numpy())


@pytest.mark.parametrize("name", ["transformer", "resnet"])
def test_a_network_that_computes_in_16_bits_is_run_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every rearrangement onnxruntime 1.31 ends its process on the first one."""
    module = Half(network(name))
    with open_graph(save(module, tmp_path, monkeypatch)) as graph:
        assert agreement.difference(answers(module), graph.predict(PICTURES)) < 0.01


def test_numbers_of_16_bits_may_be_put_into_those_of_32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = network("perceptron")
    path = save(module, tmp_path, monkeypatch)
    codes = module[1].weight.detach().bfloat16()
    with open_graph(path) as graph:
        fact = TensorFact("1.weight", tuple(codes.shape), "BF16")
        graph.put(fact, codes.view(torch.int16).numpy().view(np.uint16))
        with torch.no_grad():
            module[1].weight.copy_(codes)
        assert np.allclose(graph.predict(PICTURES), answers(module), atol=1e-5)


class Idle(torch.nn.Module):
    """A network with a layer beside it whose answers round away."""

    def __init__(self) -> None:
        super().__init__()
        self.live = network("cnn")
        self.idle = torch.nn.Linear(SIZE[0] * SIZE[1], 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.live(x) + 1e-30 * self.idle(x.flatten(1)).sum(1, keepdim=True)


def test_a_tensor_without_influence_is_found_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its tensors replaceable, a graph adds up in another order than the file as it is."""
    path = save(Idle(), tmp_path, monkeypatch)
    header = read_model(path, POLICY).header
    with open_graph(path) as graph:
        graph.predict(PICTURES)
        found = influence.check(graph, path, header, set(), PICTURES, "model.onnx")
    dead = next(each for each in found if each.rule == "tensors.dead")
    assert dead.internal["names"] == ["idle.weight"]


def test_other_pictures_and_questions_are_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_graph(save(network("cnn"), tmp_path, monkeypatch)) as graph:
        with pytest.raises(OracleFault) as caught:
            graph.predict(PICTURES[:, :, 1:])
        assert caught.value.reason == "forward"
        with pytest.raises(OracleFault):
            graph.gradient(PICTURES, np.ones((6, 1), np.float32))
        assert graph.predict(PICTURES).shape == (6, 1)


class Arrays:
    """Answers by a function, as an oracle does."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def predict(self, batch: np.ndarray) -> np.ndarray:
        found = np.asarray(self._function(batch), dtype=np.float32)
        if not np.isfinite(found).all():
            raise OracleFault("not-finite")
        return found


def mean(pictures: np.ndarray) -> np.ndarray:
    return pictures.mean(axis=(2, 3))


@pytest.mark.parametrize(
    ("other", "rule"),
    [
        (lambda x: mean(x), ""),
        (lambda x: mean(x) * (1 + 1e-5), ""),
        (lambda x: mean(x) * 1.01, "network.differs"),
        (
            lambda x: np.clip(mean(x), 0, 1),
            "network.differs",
        ),  # another answer to strange ones only
        (lambda x: mean(x)[:, [0, 0]], "network.differs"),
        (lambda x: np.where(mean(x) < 0, np.nan, mean(x)), "network.differs"),
        (lambda x: mean(x) * np.nan, "network.graph"),
    ],
)
def test_two_that_answer_differently_do_not_agree(other: Any, rule: str) -> None:
    found = agreement.check(
        Arrays(mean), Arrays(other), PICTURES, half=False, artefact="model.onnx"
    )
    assert [each.rule for each in found.findings] == ([rule] if rule else [])
    assert all(each.hard for each in found.findings)
    assert (found.answers is None) == bool(rule)
    if not rule:
        assert np.array_equal(found.answers, mean(PICTURES))


def two(x: np.ndarray) -> np.ndarray:
    """Answer one number a class, and little apart."""
    sure = np.clip(10 * (mean(x) - 0.5), -1, 1)
    return np.concatenate([sure, -sure], axis=1)


def some(x: np.ndarray) -> np.ndarray:
    """Return a third of the pictures, as a network may choose them."""
    return np.array([[zlib.crc32(picture.tobytes()) % 3 == 0] for picture in x])


@pytest.mark.parametrize(
    "hidden",
    [
        # Answers so large that beside them any difference is small.
        lambda x, answers: np.where(some(x), 1e9, answers),
        # A number in all answers that cancels out where they are compared with one another.
        lambda x, answers: answers + 3000,
    ],
    ids=["a few huge ones", "all far off"],
)
def test_large_answers_do_not_hide_that_two_answer_differently(hidden: Any) -> None:
    (found,) = agreement.check(
        Arrays(lambda x: hidden(x, two(x))),
        Arrays(lambda x: hidden(x, -two(x))),
        PICTURES,
        half=False,
        artefact="model.onnx",
    ).findings
    assert (found.rule, found.hard) == ("network.differs", True)


def test_a_network_that_does_not_answer_leaves_no_graph() -> None:
    def silent(x: np.ndarray) -> np.ndarray:
        raise OracleFault("forward")

    for asked in (silent, lambda x: mean(x) * np.nan):
        (found,) = agreement.check(
            Arrays(asked), Arrays(mean), PICTURES, half=False, artefact="model.onnx"
        ).findings
        assert found.rule == "network.unasked"
        assert found.hard


def test_two_that_fail_alike_on_strange_pictures_agree() -> None:
    def root(x: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.sqrt(mean(x))

    found = agreement.check(Arrays(root), Arrays(root), PICTURES, half=False, artefact="model.onnx")
    assert found.findings == []
