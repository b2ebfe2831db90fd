"""Steps 5 to 9: a submission is rehearsed, run, inspected, reviewed, released and verified."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from demo.narration import StepFailed, until
from demo.originals import pack_submission
from demo.people import Person
from policies.errors import Conflict, Denied, Invalid, UserError

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
ENDED = ("finished", "failed", "stopped", "refused")
TARGETS = {"sensitivity": 0.80, "specificity": 0.80, "auc": 0.85}


def command(*arguments: str | Path, accept: tuple[int, ...] = (0,)) -> str:
    """Run the ``glovebox`` command as a person would and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "glovebox_cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in accept:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise StepFailed(f"glovebox {arguments[0]} ended with {done.returncode}: {''.join(last)}")
    return done.stdout


def rehearse(sample: Path, work: Path) -> dict[str, Any]:
    """Run the submission at home on the open sample."""
    printed = command(
        "rehearse",
        EXAMPLES / "lesion-cnn",
        "--data",
        f"mammography={sample}",
        "--output",
        work / "rehearsal",
        "--json",
    )
    outcome: dict[str, Any] = json.loads(printed)
    if outcome["state"] != "finished":
        raise StepFailed(f"the rehearsal is {outcome['state']}: {outcome['reason']}")
    return outcome


def submit(person: Person, grant: int, name: str, work: Path) -> dict[str, Any]:
    """Upload a submission's zip; return the submission and its job."""
    archive = pack_submission(EXAMPLES / name, work / f"{name}.zip")
    answer: dict[str, Any] = person.portal.post_file(
        "submissions", archive, content_type="application/zip", grant=grant
    )
    return answer


def submit_wrong(person: Person, grant: int, work: Path) -> tuple[str, str]:
    """Upload a submission with a wrong manifest; return the field and the sentence."""
    archive = work / "wrong.zip"
    manifest = (EXAMPLES / "lesion-cnn" / "glovebox.toml").read_text()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("glovebox.toml", manifest.replace('memory = "3Gi"', 'memory = "900Gi"'))
        for name in ("train.py", "model.py"):
            packed.write(EXAMPLES / "lesion-cnn" / name, name)
    try:
        person.portal.post_file("submissions", archive, content_type="application/zip", grant=grant)
    except Invalid as error:
        return error.field, str(error)
    raise StepFailed("a manifest over the policy's limits was taken")


def wait_for(person: Person, job: int, *, seconds: float = 1200) -> dict[str, Any]:
    """Wait until a job has ended and return it; a machine busy with other things takes its time."""

    def look() -> dict[str, Any] | None:
        row: dict[str, Any] = person.portal.get(f"jobs/{job}")
        return row if row["state"] in ENDED else None

    return until(look, seconds=seconds, what=f"job {job}")


def official(report: dict[str, Any]) -> str:
    """Return the official figures of the pictures with their intervals, as one line."""
    parts = []
    for name in ("auc", "sensitivity", "specificity"):
        figure = report["official"]["image"][name]
        if figure is None:
            parts.append(f"{name} suppressed (too few subjects)")
        else:
            low, high = figure["low"], figure["high"]
            parts.append(f"{name} {figure['value']:.3f} ({low:.3f} to {high:.3f})")
    return ", ".join(parts)


def review(reviewers: list[Person], release: int) -> str:
    """Let both reviewers read and approve, each blind to the other's vote."""
    state = ""
    for place, reviewer in enumerate(reviewers):
        shown = reviewer.portal.get(f"releases/{release}")
        if shown["voting"]["votes"]:
            raise StepFailed("a reviewer saw the other's vote before giving one")
        reviewer.portal.get(f"jobs/{shown['job']}/inspection/internal")
        reviewer.portal.get(f"jobs/{shown['job']}/log")
        reviewer.portal.get(f"jobs/{shown['job']}/curves")
        after = reviewer.portal.post(
            f"releases/{release}/votes",
            choice="approve",
            bound_to=shown["voting"]["bound_to"],
            looked_at=[line["name"] for line in shown["checklist"]],
            comment=f"Findings read, reviewer {place + 1}.",
        )
        state = after["state"]
    return state


def fetch_bundle(person: Person, other: Person, release: int, work: Path) -> tuple[Path, int]:
    """Download a bundle by a personal link; count the refusals of its misuse."""

    def ready() -> dict[str, Any] | None:
        facts: dict[str, Any] = person.portal.get(f"releases/{release}")
        return facts if facts["bundle"]["ready"] and facts["state"] == "released" else None

    facts = until(ready, seconds=120, what="the bundle")
    link = person.portal.post(f"releases/{release}/link")
    target = work / "bundle.zip"
    refused = 0
    try:
        other.portal.download(f"downloads/{link['token']}", work / "stolen.zip")
    except UserError:
        refused += 1
    digest = person.portal.download(f"downloads/{link['token']}", target)
    if digest != facts["bundle"]["sha256"]:
        raise StepFailed("the downloaded bundle is another than the signed one")
    try:
        person.portal.download(f"downloads/{link['token']}", work / "twice.zip")
    except UserError:
        refused += 1
    if refused != 2:
        raise StepFailed("a link worked for another person, or twice")
    return target, refused


def check_weights(bundle: Path, data: Path, work: Path) -> dict[str, float]:
    """Load the released weights with plain PyTorch and return their AUC on ``data``'s sealed rows.

    Runs in a process of its own: the network's code is the submitter's.
    """
    folder = work / "bundle"
    with zipfile.ZipFile(bundle) as packed:
        packed.extractall(folder)
    weights = next(folder.rglob("model.safetensors"))
    done = subprocess.run(
        [sys.executable, "-m", "demo.score", EXAMPLES / "lesion-cnn", weights, data],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StepFailed("the released weights do not load")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def propose_blocked(person: Person, job: int) -> str:
    """Try to propose a job whose inspection blocks; return the sentence."""
    try:
        person.portal.post("releases", job=job)
    except (Denied, Conflict, Invalid) as error:
        return str(error)
    raise StepFailed("a blocked job could be proposed for release")
