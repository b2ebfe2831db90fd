"""Whether an ONNX model computes what the declared network computes with the same weights.

Both are asked in sealed processes of their own, each in an order of its own: pictures that the task
has, and strange ones. What was found of one then holds for the other, and nothing can hide in the
graph but in what it answers to pictures that nobody asks about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.findings import Finding
from sandbox_runner.inspection import evaluation, influence
from sandbox_runner.oracle import Oracle, OracleFault

#: Largest difference as a share of how far answers to different pictures are apart, and of the
#: answer itself: rounding in 32 bits, and in 16.
NEAR: Final = (1e-3, 1e-4)
NEAR_IN_HALF: Final = (0.05, 5e-3)
#: Of the pictures of the task so many are made strange, in three ways each.
STRANGE: Final = 16
#: Without pictures of the task, so many are made of noise.
MADE: Final = 32

Pictures = NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """The findings, and the network's own answers to the pictures, in their order."""

    findings: list[Finding] = field(default_factory=list)
    answers: Pictures | None = None


def check(
    network: Oracle,
    graph: Oracle,
    pictures: Pictures,
    *,
    half: bool,
    artefact: str,
    progress: Callable[[float], None] | None = None,
) -> Agreement:
    """Ask both about ``pictures`` and strange ones made of them; ``half`` is of the graph's types.

    Where either does not answer, that is the finding: a graph that was not compared does not leave.
    """
    near = NEAR_IN_HALF if half else NEAR
    most = near[0]
    strange = np.split(influence.strange(pictures[:STRANGE]), 3)
    try:
        ours = evaluation.ask_shuffled(network, pictures, progress)
        rarer = [_asked(network, each) for each in strange]
    except OracleFault as fault:
        return Agreement([_unasked(artefact, fault.reason)])
    try:
        theirs = evaluation.ask_shuffled(graph, pictures)
        answered = [_asked(graph, each) for each in strange]
    except OracleFault as fault:
        return Agreement([not_run(artefact, fault.reason)])
    far = difference(ours, theirs, near)
    for first, second in zip(rarer, answered, strict=True):
        if (first is None) != (second is None):
            far = max(far, np.inf)
        elif first is not None and second is not None:
            far = max(far, difference(first, second, near))
    if not far <= most:
        return Agreement(
            [
                Finding(
                    "network.differs",
                    "block",
                    artefact,
                    "The graph does not answer as the declared network does with the same weights.",
                    {"most": most},
                    {"difference": far if np.isfinite(far) else "not a number"},
                    hard=True,
                )
            ]
        )
    return Agreement([], ours)


def not_run(artefact: str, reason: str) -> Finding:
    """Return the finding on a graph that does not run; ``reason`` is an oracle's."""
    return Finding(
        "network.graph",
        "block",
        artefact,
        "onnxruntime does not run the graph on pictures of [config] size, any number of them.",
        {"reason": reason},
        hard=True,
    )


def _unasked(artefact: str, reason: str) -> Finding:
    return Finding(
        "network.unasked",
        "block",
        artefact,
        "The network does not answer, so that nobody knows whether the graph is the network's.",
        {"reason": reason},
        hard=True,
    )


def _asked(oracle: Oracle, pictures: Pictures) -> Pictures | None:
    """Return answers in an order of its own, None where they are no finite numbers."""
    try:
        return evaluation.ask_shuffled(oracle, pictures)
    except OracleFault as fault:
        if fault.reason == "not-finite":
            return None
        raise


def difference(ours: Pictures, theirs: Pictures, near: tuple[float, float] = NEAR) -> float:
    """Return the largest difference as a share of how far answers of the first are apart."""
    share, rounding = near
    return evaluation.apart(ours, theirs, evaluation.spread_of(ours), rounding / share)
