"""The process that holds the submission's network, inside a sandbox of its own.

Runs as ``python network.py`` with the submission in ``/code``. It gets frames on standard input
and answers on standard output. It sees no labels, no scores and no subjects. The submission shares
this process, so the other end (sandbox_runner/oracle.py) believes no frame: whatever is said here
is only numbers.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from oracle_frames import serve

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {value: key for key, value in TYPES.items()}


def tensor_of(dtype: str, shape: list[int], data: bytearray | memoryview) -> torch.Tensor:
    """Return a tensor from stored bytes."""
    if not len(data):
        return torch.zeros(shape, dtype=TYPES[dtype])
    return torch.frombuffer(bytearray(data), dtype=TYPES[dtype]).reshape(shape)


class Network:
    """The one network of this process."""

    module: torch.nn.Module

    def build(self, head: dict[str, Any]) -> dict[str, Any]:
        """Build the network from the submission's function; describe its tensors."""
        torch.manual_seed(0)
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        sys.path.insert(0, "/code")
        name, _, function = head["build"].partition(":")
        self.module = getattr(importlib.import_module(name), function)(head["config"])
        self.module.eval()
        state = self.module.state_dict()
        facts = [[key, NAMES[value.dtype], list(value.shape)] for key, value in state.items()]
        return {"tensors": facts}

    def load(self, head: dict[str, Any], body: bytearray) -> dict[str, Any]:
        """Put the tensors of one file in their places; the other end has compared the names."""
        view = memoryview(body)
        state = {
            name: tensor_of(dtype, shape, view[start:end])
            for name, dtype, shape, start, end in head["tensors"]
        }
        self.module.load_state_dict(state, strict=False)
        self.module.eval()
        return {}

    def put(self, head: dict[str, Any], body: bytearray) -> dict[str, Any]:
        """Replace the values of one tensor, or of some of its rows or columns."""
        target = self.module.state_dict()[head["name"]]
        if head.get("part") is not None:
            target = target.narrow(*head["part"])
        target.copy_(tensor_of(head["dtype"], head["shape"], body))
        return {}

    def predict(self, head: dict[str, Any], body: bytearray) -> tuple[dict[str, Any], bytes]:
        """Answer a batch."""
        batch = torch.frombuffer(body, dtype=torch.float32).reshape(head["shape"])
        with torch.no_grad():
            out = self.module(batch)
        array = out.detach().cpu().to(torch.float32).contiguous().numpy()
        return {"shape": list(array.shape)}, np.ascontiguousarray(array).tobytes()

    def gradient(self, head: dict[str, Any], body: bytearray) -> tuple[dict[str, Any], bytes]:
        """Answer how the weighted sum of the outputs changes with the batch."""
        numbers = torch.frombuffer(body, dtype=torch.float32)
        size = math.prod(head["shape"])
        batch = numbers[:size].reshape(head["shape"]).clone().requires_grad_(True)
        weights = numbers[size:].reshape(len(batch), head["outputs"])
        with torch.enable_grad():
            out = self.module(batch).reshape(len(batch), -1)
            (found,) = torch.autograd.grad((out * weights).sum(), batch)
        return {}, found.to(torch.float32).contiguous().numpy().tobytes()

    def widths(self, head: dict[str, Any], body: bytearray) -> tuple[dict[str, Any], bytes]:
        """Answer how many layers give how many numbers a picture."""
        found: dict[int, int] = {}

        def count(out: torch.Tensor) -> None:
            width = out.numel() // len(out)
            found[width] = found.get(width, 0) + 1

        self._each_layer(head, body, count)
        return {"widths": sorted(found.items())[: head["most"]]}, b""

    def features(self, head: dict[str, Any], body: bytearray) -> tuple[dict[str, Any], bytes]:
        """Answer what some of the layers of one width answer."""
        size, first = head["shape"][0] * head["width"], head["first"]
        found: list[bytes] = []
        met = 0

        def keep(out: torch.Tensor) -> None:
            nonlocal met
            if out.numel() == size:
                met += 1
                if first < met <= first + head["most"]:
                    found.append(out.detach().to(torch.float32).contiguous().numpy().tobytes())

        self._each_layer(head, body, keep)
        return {"layers": len(found)}, b"".join(found)

    def _each_layer(
        self, head: dict[str, Any], body: bytearray, take: Callable[[torch.Tensor], None]
    ) -> None:
        """Hand over what every module answers to a batch, in their order."""
        batch = torch.frombuffer(body, dtype=torch.float32).reshape(head["shape"])

        def look(_module: Any, _given: Any, out: Any) -> None:
            # Recurrent layers answer with their state beside.
            for each in out if isinstance(out, tuple | list) else (out,):
                if isinstance(each, torch.Tensor) and each.dim() > 1 and len(each) == len(batch):
                    take(each)

        hooks = [module.register_forward_hook(look) for module in self.module.modules()]
        try:
            self.module(batch)
        finally:
            for hook in hooks:
                hook.remove()


def main() -> None:
    """Answer what is asked of the network."""
    network = Network()

    def answers(head: dict[str, Any], body: bytearray) -> tuple[dict[str, Any], bytes]:
        with torch.no_grad():
            if head["do"] == "build":
                return network.build(head), b""
            if head["do"] == "load":
                return network.load(head, body), b""
            if head["do"] == "put":
                return network.put(head, body), b""
            if head["do"] == "gradient":
                return network.gradient(head, body)
            if head["do"] == "widths":
                return network.widths(head, body)
            if head["do"] == "features":
                return network.features(head, body)
            return network.predict(head, body)

    serve(answers)


if __name__ == "__main__":
    main()
