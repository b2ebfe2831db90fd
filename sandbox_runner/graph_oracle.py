"""An ONNX model in a sealed process of its own, asked like the network that it was made of.

Nothing of the submission runs there: what answers is what leaves, through onnxruntime. A graph of
the closed list has no state and no chance, so it cannot behave differently when it is inspected.
"""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Final

from policies.document import ReleasePolicy
from sandbox_runner.backends.interface import Backend
from sandbox_runner.oracle import INSIDE, LIMITS, Oracle
from sandbox_runner.spec import GiB, Limits, Mount, SandboxSpec

_ROOT: Final = Path(__file__).resolve().parents[1]
#: onnxruntime holds the file's values, a copy laid out for its kernels, and the file while it
#: reads it.
GRAPH_LIMITS: Final = replace(LIMITS, memory_bytes=6 * GiB)


class GraphOracle(Oracle):
    """As :class:`Oracle`, on one ``.onnx`` file that the strict reader has accepted.

    It has its weights from the file, so there is nothing to load; it gives no gradients and no
    features.
    """

    def __init__(
        self,
        model: Path,
        policy: ReleasePolicy,
        backend: Backend,
        image: str,
        limits: Limits = GRAPH_LIMITS,
        call_seconds: float = 120.0,
        log: Path | None = None,
    ) -> None:
        self._prepare(
            SandboxSpec(
                id=f"graph-{uuid.uuid4().hex[:12]}",
                argv=("python", "/opt/oracle/graph.py"),
                limits=replace(limits, gpus=0),
                mounts=(
                    Mount(_ROOT / "policies", "/opt/glovebox/policies"),
                    Mount(_ROOT / "sandbox_runner", "/opt/glovebox/sandbox_runner"),
                    Mount(INSIDE, "/opt/oracle"),
                    Mount(model, "/weights/model.onnx"),
                ),
                env={
                    "OMP_NUM_THREADS": str(max(1, int(limits.cpus))),
                    "PYTHONPATH": "/opt/glovebox",
                },
                image=image,
                log=log,
            ),
            {"policy": dataclasses.asdict(policy)},
            (),
            backend,
            call_seconds,
        )
