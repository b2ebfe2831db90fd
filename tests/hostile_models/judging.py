"""The gate's own steps on files alone, in this process: the code that runs sealed, unsealed.

For our own rows only: a stranger's file is never read where the tests run. The full gate, sealed,
judges the same rows in the slow tests.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from policies.release import TensorFact
from sandbox_runner.inspection import Report, inputs, worker
from sandbox_runner.inspection.gate import Gate
from sandbox_runner.inspection.stored_samples import Search
from tests.hostile_models.job import SIZE, SLUG, Case, build


@cache
def search_of(dataset: Path) -> Search:
    """The index of one dataset's samples, made once."""
    return Search({SLUG: dataset}, SIZE)


def declared(case: Case) -> list[TensorFact]:
    """Return the tensors of the network as it is built without data."""
    state = build((case.submission / "model.py").read_text()).state_dict()
    return [
        TensorFact(name, tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in state.items()
    ]


def static_report(case: Case) -> Report:
    """Return what the gate says of the files, the network unasked.

    What it finds later is only added to this: the whole gate's verdict is no better.
    """
    gate = Gate(
        artefacts=case.output,
        submission=case.submission,
        manifest=case.manifest,
        datasets={SLUG: case.dataset},
        policy=case.rules,
        workdir=case.home / "static",
        backend="bubblewrap",
        minimum_isolation="bubblewrap",
        progress=None,
    )
    gate.workdir.mkdir()
    rooms = inputs.Inputs.prepare(
        gate.workdir,
        artefacts=case.output,
        submission=case.submission,
        datasets={},
        policy=case.rules,
    )
    try:
        gate.artefacts = rooms.artefacts
        answer = worker.read_files(
            rooms.artefacts, gate.files(rooms), case.rules.release, search_of(case.dataset)
        )
        headers, samples = gate.read(answer)
        if headers:
            gate.weigh(samples, next(iter(headers)))
            gate.fits(declared(case), next(iter(headers)))
    finally:
        rooms.remove()
    return Report(tuple(gate.findings), {}, gate.metrics, dict(rooms.digests))
