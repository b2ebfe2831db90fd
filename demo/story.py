"""The main job in eleven steps, as its people do it over the portal's HTTP API."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.api import Portal
from demo import datasets, models, originals, people, processes, requests
from demo.cli import environment
from demo.narration import Narrator, StepFailed, until
from policies.errors import UserError

ADMINISTRATORS = ("administrator1@example.org", "administrator2@example.org")


@dataclass
class Scene:
    """What the steps know of each other."""

    folder: Path
    url: str
    narrator: Narrator
    environment: dict[str, str]
    pool: ThreadPoolExecutor
    cast: dict[str, people.Person] = field(default_factory=people.cast)
    originals: dict[str, originals.Originals] = field(default_factory=dict)
    sample: Path | None = None
    rehearsal: Future[dict[str, Any]] | None = None
    grant: int = 0
    job: int = 0
    release: int = 0
    hostile: dict[str, int] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    def person(self, key: str) -> people.Person:
        """Return somebody by their short name."""
        return self.cast[key]

    def three(self, key: str, count: int) -> list[people.Person]:
        """Return those who share a role: committee1, committee2, ..."""
        return [self.cast[f"{key}{place}"] for place in range(1, count + 1)]

    @property
    def work(self) -> Path:
        """The folder of what people hold at home."""
        path = self.folder / "home"
        path.mkdir(exist_ok=True)
        return path


@contextmanager
def performance(folder: Path, *, port: int, patients: int) -> Iterator[list[tuple[str, str, str]]]:
    """Perform all steps; the portal runs until the block ends. Gives the accounts.

    Raises StepFailed naming the step.
    """
    surroundings = environment(folder, port)
    url = f"http://127.0.0.1:{port}"
    with ThreadPoolExecutor(max_workers=4) as pool:
        scene = Scene(folder, url, Narrator(url), surroundings, pool)
        drawn = {
            "mammography": pool.submit(
                originals.mammography,
                scene.work / "mammography.zip",
                patients=patients,
                seed=20261121,
            ),
            "photos": pool.submit(originals.photos, scene.work / "photos.zip", seed=7),
            "test-dicom": pool.submit(originals.real_dicom, scene.work / "test-dicom.zip"),
        }
        administrators = _initialise(scene)
        with processes.portal(folder / "data", f"127.0.0.1:{port}", surroundings):
            _gather(scene, administrators)
            scene.originals = {slug: future.result() for slug, future in drawn.items()}
            for act in (
                ingest,
                examine,
                catalogue,
                request,
                submit,
                run_job,
                inspect,
                review,
                release,
                audit,
                refusals,
            ):
                act(scene)
            yield _accounts(scene, administrators)


def _initialise(scene: Scene) -> list[dict[str, Any]]:
    """Make database, keys and the first two administrators."""
    arguments = [word for email in ADMINISTRATORS for word in ("--administrator", email)]
    done = subprocess.run(
        [sys.executable, "-m", "glovebox_cli", "portal", "init", "--json", *arguments],
        env=scene.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StepFailed("0 Start: " + done.stderr.strip()[-300:])
    made: list[dict[str, Any]] = json.loads(done.stdout)["administrators"]
    return made


def _gather(scene: Scene, administrators: list[dict[str, Any]]) -> None:
    """Everybody signs up; two administrators together give the roles."""
    with scene.narrator.step(0, "Start", "/administration/") as tell:
        list(scene.pool.map(lambda person: people.join(scene.url, person), scene.cast.values()))
        first, second = (
            people.sign_in(scene.url, row["email"], row["password"], row["totp_secret"])
            for row in administrators
        )
        people.place(scene.cast, first)
        roles = people.appoint(scene.cast, first, second)
        tell(
            f"portal, workers and beat run; {len(scene.cast) + 2} accounts with one-time codes, "
            f"{roles} roles given by two administrators"
        )


def ingest(scene: Scene) -> None:
    """Step 1."""
    steward = scene.person("steward").portal
    with scene.narrator.step(1, "Ingest and de-identify", "/steward/") as tell:
        for slug in datasets.DATASETS:
            datasets.offer(steward, slug, scene.originals[slug])
        scene.sample = datasets.sample_at_home(steward, scene.work)
        scene.rehearsal = scene.pool.submit(models.rehearse, scene.sample, scene.work)
        for slug in datasets.DATASETS:
            counts = datasets.wait_until_clean(steward, slug)
            total = sum(counts.values())
            if total < scene.originals[slug].files:
                raise StepFailed(f"{slug}: {scene.originals[slug].files - total} files unaccounted")
            tell(f"{slug} {total} files, {counts.get('quarantined', 0)} quarantined")


def examine(scene: Scene) -> None:
    """Step 2."""
    officer = scene.person("officer").portal
    with scene.narrator.step(2, "Security officer", "/examinations/") as tell:
        for slug in datasets.DATASETS:
            datasets.draw(officer, slug)
        for slug in datasets.DATASETS:
            signed = datasets.examine(officer, slug, scene.originals[slug])
            if not signed["passed"]:
                # The officer's boxes are applied, a new sample is drawn, and it is signed then.
                datasets.wait_until_clean(scene.person("steward").portal, slug)
                datasets.draw_again(officer, slug)
                signed = datasets.examine(officer, slug, scene.originals[slug])
            bound = (
                "nothing left unseen"
                if signed["sampled"] == signed["population"]
                else f"rate of misses below {signed['upper_bound']:.1%}"
            )
            tell(
                f"{slug} {signed['sampled']} of {signed['population']} pictures looked at, "
                f"{bound}, signed"
            )


def catalogue(scene: Scene) -> None:
    """Step 3."""
    visitor = Portal(scene.url)
    with scene.narrator.step(3, "Catalogue", "/datasets/") as tell:
        count = datasets.check_catalogue(visitor)
        for path in ("datasets/mammography/versions/1/originals",):
            try:
                visitor.get(path)
            except UserError:
                continue
            raise StepFailed("a visitor could read what only the steward may")
        files = sum(path.is_file() for path in (scene.sample or scene.work).rglob("*"))
        tell(f"{count} datasets with Croissant metadata; open synthetic sample of {files} files")


def request(scene: Scene) -> None:
    """Step 4."""
    with scene.narrator.step(4, "Request", "/requests/") as tell:
        grant = requests.obtain(
            scene.person("applicant"), scene.three("committee", 3), "mammography", scene.work
        )
        scene.grant = grant["id"]
        tell(
            f"3 blind votes (1 external), approved; {grant['agreement']} signed; grant "
            f"{grant['id']} until {grant['ends_at'][:10]}"
        )


def submit(scene: Scene) -> None:
    """Step 5."""
    applicant = scene.person("applicant")
    with scene.narrator.step(5, "Submission", "/jobs/") as tell:
        if scene.rehearsal is not None:
            outcome = scene.rehearsal.result()
            tell(f"rehearsed at home on the sample in {outcome['wall_seconds']:.0f} s")
        name, sentence = models.submit_wrong(applicant, scene.grant, scene.work)
        tell(f"a wrong manifest is answered with {name} ({sentence})")
        answer = models.submit(applicant, scene.grant, "lesion-cnn", scene.work)
        scene.job = answer["job"]["id"]
        tell(f"lesion-cnn taken as job {scene.job}")


def run_job(scene: Scene) -> None:
    """Step 6."""
    applicant = scene.person("applicant")
    with scene.narrator.step(6, "Run", f"/jobs/{scene.job}/") as tell:
        job = models.wait_for(applicant, scene.job)
        if job["state"] != "finished":
            raise StepFailed(f"the job is {job['state']} ({job['reason']}): {job['message']}")
        ticks = applicant.portal.get(f"jobs/{scene.job}/curves")
        spent = job["budget"]["job"]
        tell(
            f"sealed, {job['seconds']} s, {len(ticks)} ticks of the curves for "
            f"{spent['spent']} of {spent['limit']} bits"
        )
        for name in ("hostile-sockets", "hostile-copier"):
            answer = models.submit(applicant, scene.grant, name, scene.work)
            scene.hostile[name] = answer["job"]["id"]


def inspect(scene: Scene) -> None:
    """Step 7."""
    with scene.narrator.step(7, "Collect and inspect", f"/jobs/{scene.job}/") as tell:
        applicant = scene.person("applicant").portal
        scene.report = applicant.get(f"jobs/{scene.job}/inspection")
        if scene.report["official"] is not None:
            raise StepFailed("the applicant saw figures before the reviewers let them out")
        if scene.report["verdict"] == "block":
            rules = [row["rule"] for row in scene.report["findings"] if row["severity"] == "block"]
            raise StepFailed(f"the honest model is blocked: {', '.join(rules)}")
        looked_at = ", ".join(row["rule"] for row in scene.report["findings"])
        tell(f"verdict {scene.report['verdict']}; looked at: {looked_at}")


def review(scene: Scene) -> None:
    """Step 8."""
    with scene.narrator.step(8, "Review", "/releases/") as tell:
        proposed = scene.person("applicant").portal.post(
            "releases", job=scene.job, note="The weights and their figures."
        )
        scene.release = proposed["id"]
        state = models.review(scene.three("reviewer", 2), scene.release)
        if state not in ("approved", "released"):
            raise StepFailed(f"the release is {state}")
        auditor = scene.person("auditor").portal
        operator = auditor.get(f"jobs/{scene.job}")["operator"]
        scene.report = auditor.get(f"jobs/{scene.job}/inspection")
        tell(
            f"two reviewers, blind to each other, read report, curves and log of what "
            f"{operator['backend']} {operator['backend_version']} ran, and approved; on the sealed "
            f"split {models.official(scene.report)}"
        )


def release(scene: Scene) -> None:
    """Step 9."""
    with scene.narrator.step(9, "Release and download", f"/releases/{scene.release}/") as tell:
        bundle, refused = models.fetch_bundle(
            scene.person("applicant"), scene.person("stranger"), scene.release, scene.work
        )
        key = scene.work / "release.pem"
        key.write_text(_release_key(scene))
        models.command("verify", bundle, "--key", key)
        unlettered = originals.without_text(
            scene.originals["mammography"], scene.work / "mammography", scene.work / "unlettered"
        )
        figures = models.check_weights(bundle, unlettered, scene.work)
        released = scene.report["official"]["image"]["auc"]
        # Masks differ by some pixels from what is painted here, so the figures do a little too.
        if released is None or abs(figures["auc"] - released["value"]) > 0.03:
            raise StepFailed(f"the weights give AUC {figures['auc']:.3f}, not {released}")
        tell(
            f"signed bundle of {bundle.stat().st_size // 1024} KiB verifies offline; its link "
            f"refused {refused} misuses; the weights load and give AUC {figures['auc']:.3f} on the "
            f"pictures as they were drawn (released: {released['value']:.3f})"
        )


def _release_key(scene: Scene) -> str:
    keys = Portal(scene.url).get("keys")["results"]
    return str(next(row["pem"] for row in keys if row["use"] == "release"))


def audit(scene: Scene) -> None:
    """Step 10."""
    auditor = scene.person("auditor").portal
    with scene.narrator.step(10, "Audit", "/audit/") as tell:
        actors: set[str] = set()
        actions: set[str] = set()
        for event in auditor.pages("audit/events"):
            actors.add(event["actor"])
            actions.add(event["action"])
        _verify_audit(scene)
        tell(f"the chain holds; {len(actions)} kinds of events by {len(actors)} actors")


def _verify_audit(scene: Scene) -> None:
    checkpoint = scene.work / "checkpoint.json"
    for arguments in (
        ["audit", "checkpoint", str(checkpoint)],
        ["audit", "verify", "--checkpoint", str(checkpoint)],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "glovebox_cli", *arguments],
            env=scene.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StepFailed(done.stderr.strip()[-300:])


def refusals(scene: Scene) -> None:
    """Step 11."""
    applicant, stranger = scene.person("applicant"), scene.person("stranger")
    with scene.narrator.step(11, "Refusals", f"/jobs/{scene.hostile['hostile-copier']}/") as tell:
        sleeper_grant = requests.obtain(
            applicant, scene.three("committee", 3), "mammography", scene.work, days=1
        )["id"]
        sleeper = models.submit(applicant, sleeper_grant, "sleeper", scene.work)["job"]["id"]
        tell(_sockets(scene))
        tell(_copier(scene))
        try:
            models.submit(stranger, scene.grant, "lesion-cnn", scene.work)
        except UserError:
            tell("a researcher without a grant gets nothing")
        else:
            raise StepFailed("somebody without a grant could submit")
        until(
            lambda: applicant.portal.get(f"jobs/{sleeper}")["state"] == "running" or None,
            seconds=180,
            what="the sleeper to run",
        )
        lapsed = time.monotonic()
        scene.person("steward").portal.post(
            f"grants/{sleeper_grant}/revoke", reason="The demonstration shows a lapse."
        )
        job = models.wait_for(applicant, sleeper, seconds=60)
        if (job["state"], job["reason"]) != ("stopped", "lapsed"):
            raise StepFailed(f"the job of a lapsed grant is {job['state']} {job['reason']}")
        tell(f"a lapsed grant stopped its running job in {time.monotonic() - lapsed:.0f} s")


def _sockets(scene: Scene) -> str:
    number = scene.hostile["hostile-sockets"]
    job = models.wait_for(scene.person("applicant"), number)
    if job["state"] != "finished":
        raise StepFailed(f"hostile-sockets is {job['state']} ({job['reason']})")
    # The auditor reads everything; the applicant of an unreleased job sees no figures.
    metrics = scene.person("auditor").portal.get(f"jobs/{number}/inspection")["metrics"]
    counted = {name: metrics.get(name) for name in ("opened", "read", "written")}
    if any(value != 0 for value in counted.values()):
        raise StepFailed(f"the hostile job got out: {counted}")
    return "hostile job: 0 sockets opened, 0 foreign files read, 0 places written"


def _copier(scene: Scene) -> str:
    number = scene.hostile["hostile-copier"]
    models.wait_for(scene.person("applicant"), number)
    report = scene.person("applicant").portal.get(f"jobs/{number}/inspection")
    if report["verdict"] != "block":
        raise StepFailed("training pictures inside weights were not found")
    rules = sorted({row["rule"] for row in report["findings"] if row["severity"] == "block"})
    models.propose_blocked(scene.person("applicant"), number)
    return f"training pictures in weights: blocked by {', '.join(rules)}, cannot be proposed"


def _accounts(scene: Scene, administrators: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Keep the one-time-code secrets of this demonstration and return who can sign in."""
    secrets = {row["email"]: row["totp_secret"] for row in administrators}
    secrets |= {person.email: person.totp_secret for person in scene.cast.values()}
    path = scene.folder / "accounts.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(secrets))
    shown = [(row["email"], row["password"], "administrator") for row in administrators]
    shown += [(person.email, person.password, person.name) for person in scene.cast.values()]
    return shown
