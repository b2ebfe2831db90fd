"""The trusted evaluation: ours holds the labels, the network only answers shuffled pictures.

Convention, in the submission's ``[config]``: ``task = "classification"`` (the only one so far,
and the default), ``size = [height, width]`` as for the SDK's ``arrays()``, ``positive_label`` (the
label that a high output means; else classes by number), ``output = "logit"`` (default; above 0 is
positive) or ``"probability"`` (above 0.5). A network gives one number a picture, or one a class.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policies.document import Policy
from policies.findings import Finding
from policies.submission import Manifest
from sandbox_runner.inspection import scores
from sandbox_runner.oracle import Oracle, OracleFault

BATCH: Final = 32
ASKED_AGAIN: Final = 64
MOST_SIDE: Final = 2048
#: Answers to one picture may differ by rounding when its batch differs, not by more: as a share of
#: how far answers to different pictures are apart, and of the answer itself.
SAME: Final = 1e-3
ROUNDING: Final = 1e-5
#: Where answers are so much larger than they are apart, rounding hides what they say.
FAR_OFF: Final = 300


@dataclass(frozen=True)
class Settings:
    """What the manifest says of its task."""

    size: tuple[int, int]
    positive_label: str | None
    threshold: float


@dataclass(frozen=True)
class Sealed:
    """The sealed pictures as the network gets them, and what it does not get.

    ``classes`` is how many classes a training job could see, 2 where ``positive_label`` is set.
    """

    pixels: NDArray[np.float32]
    targets: NDArray[np.int64]
    subjects: NDArray[np.int64]
    classes: int


def read_settings(manifest: Manifest) -> Settings | None:
    """Return the settings of ``[config]``, or None where they do not name a task that is known."""
    config = manifest.config
    size, label = config.get("size"), config.get("positive_label")
    if config.get("task", "classification") != "classification":
        return None
    if (
        not isinstance(size, list | tuple)
        or len(size) != 2
        or not all(type(side) is int and 1 <= side <= MOST_SIDE for side in size)
    ):
        return None
    if label is not None and not isinstance(label, str):
        return None
    output = config.get("output", "logit")
    if output not in ("logit", "probability"):
        return None
    return Settings((size[0], size[1]), label, 0.5 if output == "probability" else 0.0)


def read_sealed(answer: Mapping[str, Any], folder: Path) -> Sealed:
    """Return what the worker prepared, and remove its file.

    Raises ``ValueError`` if its parts do not fit.
    """
    place = folder / "pixels.npy"
    pixels = np.load(place, allow_pickle=False)
    place.unlink()
    targets = np.array(answer["targets"], dtype=np.int64)
    subjects = np.array(answer["subjects"], dtype=np.int64)
    if pixels.dtype != np.float32 or pixels.ndim != 4:
        raise ValueError("not pictures")
    classes = int(answer["classes"])
    if not len(pixels) == len(targets) == len(subjects):
        raise ValueError("not as many labels as pictures")
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        raise ValueError("a label of no class")
    return Sealed(pixels, targets, subjects, classes)


def ask_shuffled(
    oracle: Oracle,
    pixels: NDArray[np.float32],
    progress: Callable[[float], None] | None = None,
) -> NDArray[np.float32]:
    """Return the network's answers, float32 [n, k], asked in an order that it cannot know."""
    order = np.random.default_rng(secrets.randbits(128)).permutation(len(pixels))
    answers: NDArray[np.float32] | None = None
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        given = oracle.predict(pixels[chosen])
        if answers is None:
            answers = np.zeros((len(pixels), given.shape[1]), np.float32)
        if given.shape[1] != answers.shape[1]:
            raise OracleFault("shape")
        answers[chosen] = given
        if progress is not None:
            progress((start + len(chosen)) / len(order))
    if answers is None:
        raise ValueError("no pictures")
    return answers


def check_steady(
    oracle: Oracle, pixels: NDArray[np.float32], answers: NDArray[np.float32]
) -> list[Finding]:
    """Ask some pictures again, in other company: a network that remembers answers differently."""
    rng = np.random.default_rng(secrets.randbits(128))
    again = rng.permutation(len(pixels))[:ASKED_AGAIN]
    second = ask_shuffled(oracle, pixels[again])
    if second.shape[1] != answers.shape[1]:
        raise OracleFault("shape")
    difference = apart(answers[again], second, spread_of(answers), ROUNDING / SAME)
    found = []
    if not difference <= SAME:
        found.append(
            Finding(
                "evaluation.unsteady",
                "review",
                "",
                "The network answers the same picture differently when asked again.",
                {"difference": difference},
            )
        )
    if float(np.abs(answers).max()) > FAR_OFF * spread_of(answers):
        found.append(
            Finding(
                "evaluation.scale",
                "review",
                "",
                "Answers are far larger than they differ from picture to picture, so that it "
                "cannot be told whether the network always answers alike.",
                {"most": FAR_OFF},
            )
        )
    return found


def spread_of(answers: NDArray[Any]) -> float:
    """Return how far answers to different pictures ordinarily are apart.

    The median of pictures, around the median answer: neither a few huge answers nor a large number
    that stands in all of them changes it, and both are the network's to choose.
    """
    wide = answers.astype(np.float64)
    return float(np.median(np.abs(wide - np.median(wide, axis=0)).max(axis=1)))


def apart(one: NDArray[Any], other: NDArray[Any], spread: float, rounding: float) -> float:
    """Return the largest difference of two answers to one picture, as a share of ``spread``.

    What ``rounding`` times the answer itself is, counts as spread too.
    """
    if one.shape != other.shape:
        return float("inf")
    size = np.abs(one.astype(np.float64)).max(axis=1)
    difference = np.abs(one.astype(np.float64) - other).max(axis=1)
    return float((difference / (spread + rounding * size + 1e-9)).max())


def official(
    sealed: Sealed, answers: NDArray[np.float32], settings: Settings, policy: Policy
) -> dict[str, Any]:
    """Return the official metrics; figures of too few subjects are None.

    Raises :class:`OracleFault` ("shape") if the answers are not one number a picture or a class.
    A number more would be a figure more that the network chooses while it sees sealed pictures:
    data in the specificity of a class that nobody has.
    """
    wide = answers.astype(np.float64)
    binary = sealed.classes <= 2
    if wide.shape[1] not in ((1, 2) if binary else (sealed.classes,)):
        raise OracleFault("shape")
    subjects = len(np.unique(sealed.subjects))
    least = policy.release.cell_threshold
    result: dict[str, Any] = {
        "task": "classification",
        "split": "sealed",
        "images": len(wide) if subjects >= least else None,
        "subjects": subjects if subjects >= least else None,
        "interval": "95 % bootstrap by subject",
    }
    # More decimals than this would tell single subjects of a small split apart.
    digits = min(policy.release.digits, 3)
    if binary:
        if wide.shape[1] == 1:
            values, threshold = wide[:, 0], settings.threshold
        else:
            values, threshold = wide[:, 1] - wide[:, 0], 0.0
        return result | scores.table(
            values,
            sealed.targets,
            sealed.subjects,
            threshold=threshold,
            cell_threshold=least,
            digits=digits,
        )
    each = {}
    for number in range(wide.shape[1]):
        others = np.delete(wide, number, axis=1).max(axis=1)
        each[str(number)] = scores.table(
            wide[:, number] - others,
            (sealed.targets == number).astype(np.int64),
            sealed.subjects,
            threshold=0.0,
            cell_threshold=least,
            digits=digits,
        )
    return result | {"classes": each}
