"""The network is an oracle: it gets pictures, gives bounded numbers, and can do nothing else."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from policies.document import default_policy
from policies.submission import parse_manifest
from sandbox_runner.backends import choose
from sandbox_runner.inspection.safetensors_file import read_header
from sandbox_runner.oracle import Oracle, OracleFault, _read_facts
from sandbox_runner.sdk.glovebox import outputs

pytestmark = pytest.mark.sandbox

MANIFEST = """
[job]
name = "x"
entrypoint = "train.py"
[model]
build = "model:build"
[datasets]
spots = "1"
[config]
width = 3
"""

HONEST = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Linear(width * 4, 2)
    def forward(self, x):
        return self.body(x.flatten(1))
def build(config):
    return Net(config["width"])
"""

BATCH = np.arange(24, dtype=np.float32).reshape(2, 1, 4, 3)


def open_oracle(
    folder: Path, code: str, *, weights: Path | None = None, **options: float
) -> Oracle:
    folder.mkdir(exist_ok=True)
    (folder / "model.py").write_text(code)
    policy = default_policy()
    files = [(weights, read_header(weights, policy.release))] if weights else []
    return Oracle(
        folder,
        parse_manifest(MANIFEST, policy),
        files,
        choose("bubblewrap", "bubblewrap"),
        log=folder.parent / "log",
        **options,
    )


def forward(body: str) -> str:
    return HONEST.replace("        return self.body(x.flatten(1))\n", body)


def test_it_describes_loads_and_answers_as_torch_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOVEBOX_OUTPUT", str(tmp_path / "out"))
    layer = torch.nn.Linear(12, 2)
    weights = outputs.save_weights({"body.weight": layer.weight, "body.bias": layer.bias})
    with open_oracle(tmp_path / "code", HONEST, weights=weights) as oracle:
        facts = {fact.name: (fact.shape, fact.dtype) for fact in oracle.describe()}
        assert facts == {"body.weight": ((2, 12), "F32"), "body.bias": ((2,), "F32")}
        oracle.load()
        expected = layer(torch.from_numpy(BATCH).flatten(1)).detach().numpy()
        assert np.allclose(oracle.predict(BATCH), expected, atol=1e-5)
        fact = next(fact for fact in oracle.describe() if fact.name == "body.bias")
        oracle.put(fact, np.array([100.0, 100.0]))
        assert oracle.predict(BATCH).min() > 50


FAULTS = {
    "a crash in build": ("def build(config):\n    raise ValueError\n", "build"),
    "an exit in build": ("import os\ndef build(config):\n    os._exit(0)\n", "ended"),
    "no module": ("def build(config):\n    return 3\n", "build"),
    "a crash in forward": (forward("        raise KeyError('patient 7')\n"), "forward"),
    "an exit in forward": (forward("        import os; os._exit(0)\n"), "ended"),
    "a death by signal": (
        forward("        import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n"),
        "ended",
    ),
    "NaN": (forward("        return x.flatten(1)[:, :1] * float('nan')\n"), "not-finite"),
    "infinity": (forward("        return x.flatten(1)[:, :1] + float('inf')\n"), "not-finite"),
    "one answer for all": (forward("        return torch.zeros(1, 1)\n"), "shape"),
    "no batch at all": (forward("        return torch.tensor(1.0)\n"), "shape"),
    "more numbers than may be": (forward("        return torch.zeros(len(x), 9999)\n"), "shape"),
    "text": (forward("        return 'patient 7'\n"), "forward"),
    "an endless forward": (forward("        while True: pass\n"), "timeout"),
    "a long sleep": (forward("        import time; time.sleep(600)\n"), "timeout"),
}


QUICK = ("a crash in build", "an exit in forward", "NaN", "one answer for all", "a long sleep")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAULTS],
)
def test_a_network_that_misbehaves_is_a_fault_with_a_word_of_ours(
    tmp_path: Path, name: str
) -> None:
    code, reason = FAULTS[name]
    options = {"call_seconds": 6.0} if reason == "timeout" else {}
    with (
        pytest.raises(OracleFault) as caught,
        open_oracle(tmp_path / "code", code, **options) as oracle,
    ):
        oracle.predict(BATCH)
    assert caught.value.reason == reason
    assert "patient" not in str(caught.value)


def test_it_answers_a_runner_with_many_descriptors(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in (resource.RLIM_INFINITY,) and hard < 2048:
        pytest.skip("this process may not open so many")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with open_oracle(tmp_path / "code", HONEST) as oracle:
            assert oracle.predict(BATCH).shape == (2, 2)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_prints_do_not_reach_the_conversation(tmp_path: Path) -> None:
    code = forward(
        "        import os, sys\n"
        "        print('{\"shape\": [2, 2]}', flush=True)\n"
        "        os.write(1, b'\\x10\\0\\0\\0' * 99)\n"
        "        sys.stdout.buffer.write(b'forged'); sys.stdout.flush()\n"
        "        assert sys.stdin.read() == ''\n"
        "        return self.body(x.flatten(1))\n"
    )
    with open_oracle(tmp_path / "code", code) as oracle:
        assert oracle.predict(BATCH).shape == (2, 2)


def test_a_forged_frame_is_only_an_answer_or_a_fault(tmp_path: Path) -> None:
    # The network finds our pipe and writes on it: it can spoil its own answers, nothing more.
    code = forward(
        "        import oracle_frames, json, struct\n"
        "        text = json.dumps({'verdict': 'pass', 'shape': [9, 9], 'bytes': 324}).encode()\n"
        "        oracle_frames.ANSWERS.write(struct.pack('<I', len(text)) + text + bytes(324))\n"
        "        oracle_frames.ANSWERS.flush()\n"
        "        return self.body(x.flatten(1))\n"
    )
    with open_oracle(tmp_path / "code", code) as oracle, pytest.raises(OracleFault):
        oracle.predict(BATCH)


def test_a_frame_of_four_gigabytes_is_not_awaited(tmp_path: Path) -> None:
    code = forward(
        "        import oracle_frames\n"
        "        oracle_frames.ANSWERS.write(b'\\xff' * 64); oracle_frames.ANSWERS.flush()\n"
        "        return self.body(x.flatten(1))\n"
    )
    with open_oracle(tmp_path / "code", code) as oracle:
        with pytest.raises(OracleFault) as caught:
            oracle.predict(BATCH)
        assert caught.value.reason == "protocol"


@pytest.mark.parametrize(
    "shape", [[10**4000], [2] * 200_000, [-1], [2.0], [True], ["9"], {"0": 1}, None]
)
def test_a_tensor_of_no_possible_size_is_not_believed(shape: object) -> None:
    with pytest.raises(OracleFault) as caught:
        _read_facts([["x", "F32", shape]])
    assert caught.value.reason == "protocol"


def test_it_sees_no_data_no_network_and_no_writable_code(tmp_path: Path) -> None:
    code = forward(
        "        import os, socket\n"
        "        seen = 0\n"
        "        seen += os.path.isdir('/data') and len(os.listdir('/data'))\n"
        "        seen += any(os.path.exists(p) for p in ('/artefacts', '/home', '/root'))\n"
        "        try:\n"
        "            open('/code/x', 'w'); seen += 10\n"
        "        except OSError: pass\n"
        "        try:\n"
        "            socket.create_connection(('1.1.1.1', 53), 1); seen += 100\n"
        "        except OSError: pass\n"
        "        return torch.full((len(x), 1), float(seen))\n"
    )
    with open_oracle(tmp_path / "code", code) as oracle:
        assert oracle.predict(BATCH).tolist() == [[0.0], [0.0]]


def test_the_gradient_is_that_of_the_outputs_times_the_weights(tmp_path: Path) -> None:
    weights = np.array([[1.0, 0.0], [0.5, -2.0]], np.float32)
    with open_oracle(tmp_path / "code", HONEST) as oracle:
        found = oracle.gradient(BATCH, weights)
        step = 1e-2 * np.ones_like(BATCH)
        ahead, behind = oracle.predict(BATCH + step), oracle.predict(BATCH - step)
    assert found.shape == BATCH.shape
    slope = ((ahead - behind) * weights).sum(axis=1) / 2e-2
    assert np.allclose(found.sum(axis=(1, 2, 3)), slope, rtol=1e-2)


def test_features_are_the_answers_of_layers_of_one_width(tmp_path: Path) -> None:
    code = HONEST.replace(
        "self.body = nn.Linear(width * 4, 2)",
        "self.body = nn.Sequential(nn.Linear(width * 4, 5), nn.ReLU(), nn.Linear(5, 2))",
    )
    with open_oracle(tmp_path / "code", code) as oracle:
        five, two, none = (oracle.features(BATCH, width) for width in (5, 2, 7))
        assert np.allclose(two[-1], oracle.predict(BATCH))
        last = oracle.features(BATCH, 2, first=2)
        told = oracle.widths(BATCH)
    assert told == {2: 3, 5: 2}
    assert len(last) == 1
    assert np.array_equal(last[0], two[2])
    assert [each.shape for each in five] == [(2, 5), (2, 5)]
    assert np.array_equal(np.maximum(five[0], 0), five[1])
    assert len(two) == 3  # the last layer, what holds it, and the network
    assert none == []


@pytest.mark.parametrize(
    ("body", "ask", "reason"),
    [
        ("return self.body(x.detach().flatten(1))", "gradient", "gradient"),
        ("return self.body(x.flatten(1)) * torch.tensor(float('inf'))", "gradient", "not-finite"),
        ("import os; os._exit(1)", "gradient", "ended"),
        ("raise ValueError", "features", "features"),
        ("raise ValueError", "widths", "widths"),
        (
            "import oracle_frames\n"
            "        import json, struct\n"
            "        t = json.dumps({'widths': [[5, -1]], 'bytes': 0}).encode()\n"
            "        oracle_frames.ANSWERS.write(struct.pack('<I', len(t)) + t)\n"
            "        oracle_frames.ANSWERS.flush(); return x",
            "widths",
            "shape",
        ),
        (
            "import oracle_frames\n"
            "        import json, struct\n"
            "        t = json.dumps({'layers': 10**6, 'bytes': 8}).encode()\n"
            "        oracle_frames.ANSWERS.write(struct.pack('<I', len(t)) + t + bytes(8))\n"
            "        oracle_frames.ANSWERS.flush(); return x",
            "features",
            "shape",
        ),
        (
            "import oracle_frames, json, struct\n"
            "        t = json.dumps({'bytes': 10**9}).encode()\n"
            "        oracle_frames.ANSWERS.write(struct.pack('<I', len(t)) + t)\n"
            "        oracle_frames.ANSWERS.flush(); return x",
            "gradient",
            "shape",
        ),
    ],
)
def test_a_forged_gradient_or_layer_is_a_fault_and_bounded(
    tmp_path: Path, body: str, ask: str, reason: str
) -> None:
    code = HONEST.replace("return self.body(x.flatten(1))", body)
    with open_oracle(tmp_path / "code", code) as oracle, pytest.raises(OracleFault) as caught:
        if ask == "gradient":
            oracle.gradient(BATCH, np.ones((2, 2), np.float32))
        elif ask == "widths":
            oracle.widths(BATCH)
        else:
            oracle.features(BATCH, 2)
    assert caught.value.reason == reason


def test_a_network_that_makes_pictures_is_given_numbers_and_may_answer_more(
    tmp_path: Path,
) -> None:
    code = HONEST.replace("nn.Linear(width * 4, 2)", "nn.Linear(width * 4, 5000)")
    with open_oracle(tmp_path / "code", code) as oracle:
        latents = BATCH.reshape(2, 12)
        assert oracle.predict(latents, outputs=5000).shape == (2, 5000)
        with pytest.raises(OracleFault) as caught:
            oracle.predict(latents)
    assert caught.value.reason == "shape"
