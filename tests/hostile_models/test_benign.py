"""The whole gate leaves networks alone that were honestly trained, whatever their kind and type.

Each is trained anew and inspected in the real sandbox. docs/release-gate.md says what ordinary
review is and has the figures of more trainings (benign_figures.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from policies.document import default_policy, tighten
from sandbox_runner.inspection import Report

from .benign import BENIGN, REMEMBERING, Job, make
from .benign_figures import more_than_ordinary, official_auc, really_trained

pytestmark = pytest.mark.sandbox

SEED = 1
#: A classifier and a generator; the rest takes long.
QUICK = ("CNN, no augmentation", "GAN, faces")
#: What must have been asked of a network of each task: a fault or a gap would look benign, too.
ASKED = {
    "classification": {"membership.auc", "memorisation.inverted", "memorisation.instances"},
    "reconstruction": {"membership.auc", "memorisation.settled", "memorisation.instances"},
    "generation": {"memorisation.generated"},
    "verification": {"memorisation.instances"},
    "segmentation": {"memorisation.instances"},
    "detection": {"memorisation.instances"},
}

Inspected = Callable[[str], tuple[Job, Report]]


@pytest.fixture(scope="module")
def inspected(tmp_path_factory: pytest.TempPathFactory) -> Inspected:
    """Train and inspect a network of the suite, once."""
    home: Path = tmp_path_factory.mktemp("benign")

    @cache
    def once(name: str) -> tuple[Job, Report]:
        job = make(name, SEED, home)
        return job, job.inspect(home / "work")

    return once


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in BENIGN]
)
def test_an_honestly_trained_network_is_not_blocked(name: str, inspected: Inspected) -> None:
    job, report = inspected(name)
    assert [f.rule for f in report.findings if f.severity == "block"] == []
    rules = {found.rule for found in report.findings}
    assert rules >= ASKED[BENIGN[name].task]
    assert not {"network.fault", "attacks.none"} & rules
    assert not {rule for rule in rules if rule.endswith((".fault", ".unfinished"))}
    loss = (job.first, job.last)
    assert really_trained(BENIGN[name], official_auc(report), loss), (official_auc(report), loss)


@pytest.mark.slow
def test_few_of_smaller_types_need_more_than_ordinary_review(inspected: Inspected) -> None:
    needed = {
        name: more_than_ordinary(report)
        for name in BENIGN
        for job, report in [inspected(name)]
        if job.dtype != "F32"
    }
    assert len(needed) >= 30
    told = {name: rules for name, rules in needed.items() if rules}
    assert len(told) <= 0.15 * len(needed), told


@pytest.mark.slow
@pytest.mark.parametrize("name", REMEMBERING)
def test_a_network_that_remembers_few_subjects_is_told(name: str, inspected: Inspected) -> None:
    """Nobody meant harm, and still its training can be read off it: that is what review is for."""
    _, report = inspected(name)
    assert "membership.auc" in more_than_ordinary(report)


def test_the_suite_is_broad() -> None:
    assert len(BENIGN) >= 30
    assert {each.data for each in BENIGN.values()} == {"phantoms", "faces", "dicom"}
    assert {each.task for each in BENIGN.values()} == set(ASKED)
    assert {kind for each in BENIGN.values() for kind in each.types} == {"F32", "F16", "BF16", "I8"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GAN, faces", "U-Net"])
def test_weights_of_every_task_can_be_rewritten(name: str, tmp_path: Path) -> None:
    """A policy may ask for it; what answers pictures, or takes numbers, must not be shut out."""
    policy = tighten(default_policy(), {"release": {"sanitise": True}})
    report = make(name, SEED, tmp_path).inspect(tmp_path / "work", policy)
    assert [f.rule for f in report.findings if f.severity == "block"] == []
    assert report.sanitised is not None
    assert report.sanitising["read_back_bits"] < report.sanitising["capacity_bits"]
