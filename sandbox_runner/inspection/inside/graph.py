"""The process that runs an ONNX model, inside a sandbox of its own.

Runs as ``python graph.py`` with the model at ``/weights/model.onnx``; nothing of the submission is
here. The model is read by the strict reader once more, and onnxruntime gets no file that it did not
accept. It answers the same questions as the network's process does (network.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# Its library would tell its maker that it runs; there is nobody to tell here.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
from oracle_frames import serve

from policies.document import release_policy
from sandbox_runner.inspection import onnx_file
from sandbox_runner.inspection.safetensors_file import NUMPY, stored, widened
from sandbox_runner.sdk.glovebox import onnx_graph

MODEL = Path("/weights/model.onnx")


def session(source: str | bytes) -> onnxruntime.InferenceSession:
    """Return a session on the processor that is given, which answers the same each time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_mem_pattern = False
    # Of its rearrangements the plain ones: others crash on some networks of float16 (1.31).
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        source, sess_options=options, providers=["CPUExecutionProvider"]
    )


class GraphRun:
    """The file as it is, until a tensor is replaced: then its tensors are inputs, and ours."""

    model: onnx_file.Model
    running: onnxruntime.InferenceSession
    arrays: dict[str, np.ndarray[Any, Any]]
    given: dict[str, onnxruntime.OrtValue]
    kinds: dict[str, str]

    def build(self, head: dict[str, Any]) -> dict[str, Any]:
        """Read the model; describe its tensors."""
        self.model = onnx_file.read_model(MODEL, release_policy(head["policy"]))
        self.arrays, self.given = {}, {}
        self.kinds = {tensor.name: tensor.dtype for tensor in self.model.header.tensors}
        self.running = session(str(MODEL))
        tensors = self.model.header.tensors
        return {"tensors": [[t.name, t.dtype, list(t.shape)] for t in tensors]}

    def _open(self) -> None:
        """Make every tensor an input of the graph, so that it may be replaced."""
        if self.arrays:
            return
        text = b"".join(
            part for part in onnx_graph.parts(self.model.graph, stored=False)
            if isinstance(part, bytes)
        )  # fmt: skip
        del self.running
        for tensor in self.model.header.tensors:
            whole = np.array(stored(MODEL, self.model.header, tensor)).reshape(tensor.shape)
            self._give(tensor.name, whole)
        self.running = session(text)

    def _give(self, name: str, whole: np.ndarray[Any, Any]) -> None:
        """Hand an array to onnxruntime, which reads it in place."""
        kind = self.model.graph.tensors[name].dtype
        self.arrays[name] = whole
        if kind in (onnx_graph.TYPES["BF16"], onnx_graph.TYPES["BOOL"]):
            self.given[name] = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(whole, kind)
        else:
            self.given[name] = onnxruntime.OrtValue.ortvalue_from_numpy(whole)

    def put(self, head: dict[str, Any], body: bytearray) -> dict[str, Any]:
        """Replace the values of one tensor, or of some of its rows or columns."""
        self._open()
        given = np.frombuffer(body, dtype=NUMPY[head["dtype"]]).reshape(head["shape"])
        own = self.kinds[head["name"]]
        if own != head["dtype"]:
            if own == "BF16":
                raise ValueError("nothing is put into bfloat16 but bfloat16")
            given = widened(given, head["dtype"]).astype(NUMPY[own])
        whole = self.arrays[head["name"]]
        if head.get("part") is None:
            whole = np.array(given)
        else:
            axis, start, length = head["part"]
            whole[(slice(None),) * axis + (slice(start, start + length),)] = given
        self._give(head["name"], whole)
        return {}

    def predict(self, head: dict[str, Any], body: bytearray) -> tuple[dict[str, Any], bytes]:
        """Answer a batch."""
        batch = np.frombuffer(body, dtype=np.float32).reshape(head["shape"])
        if self.given:
            inputs = {"input": onnxruntime.OrtValue.ortvalue_from_numpy(batch), **self.given}
            out = self.running.run_with_ort_values(["output"], inputs)[0].numpy()
        else:
            (out,) = self.running.run(["output"], {"input": batch})
        if out.shape != (len(batch), *self.model.graph.output_shape):
            raise ValueError("not the shape that the model says")
        return {"shape": list(out.shape)}, np.ascontiguousarray(out, dtype=np.float32).tobytes()

    def answers(self, head: dict[str, Any], body: bytearray) -> tuple[dict[str, Any], bytes]:
        """Answer what is asked."""
        if head["do"] == "build":
            return self.build(head), b""
        if head["do"] == "put":
            return self.put(head, body), b""
        if head["do"] == "predict":
            return self.predict(head, body)
        raise ValueError("a graph is asked for answers only")


if __name__ == "__main__":
    serve(GraphRun().answers)
