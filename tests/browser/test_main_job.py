"""The main job through the pages, from originals to a verified bundle, with a picture of each page.

Real processes: web server, workers, beat, sandbox. Small originals, so that it is done soon: one
view of each patient, most of them in the sealed split, so that official figures can be shown.
"""

from __future__ import annotations

import contextlib
import csv
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import requests
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.support.ui import Select

from demo import originals
from demo.people import Person
from demo.requests import ETHICS
from synthetic.mammography import write_phantoms
from tests.browser.conftest import Browser
from tests.browser.world import World

PATIENTS = 60
SLUG = "mammography-one"
EXAMPLE = Path(__file__).parents[2] / "examples" / "lesion-cnn"
ENDED = ("finished", "failed", "stopped", "refused")
ANSWERS = {
    "Title of the work": "Lesion detection for a second reader",
    "Aim": "Whether a small network can point a radiologist to views worth a second look.",
    "Method": "A convolutional network on whole views, split by patient, judged by AUC.",
    "What is to leave": "One network of about 16,000 parameters and its figures.",
    "Expertise": "Six years of work on medical images; two earlier models in clinical use.",
    "Period in days": "90",
    "Means to re-identify": "None: no other data of these patients are held.",
    "Gain from re-identification": "None.",
    "Linking with other data": "There is none.",
    "Relation to the dataset's owner": "No shares, staff or funds in common.",
    "Level of protection": "ISO 27001; work on managed machines only.",
    "Control of access rights": "The named analysts only; the model stays in the company.",
}


def one_view(target: Path) -> Path:
    """Pack one view of each patient; two thirds of the patients are sealed."""
    folder = target.with_suffix("")
    write_phantoms(folder, patients=PATIENTS, seed=11, identifiers=True)
    with (folder / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    subjects: dict[str, dict[str, str]] = {}
    for row in rows:
        # The view with a lesion where there is one, so that labels by view and by patient agree.
        if row["subject"] not in subjects or (
            row["label"] == "lesion" and subjects[row["subject"]]["label"] != "lesion"
        ):
            subjects[row["subject"]] = row
    # Ten subjects of each class are needed before a figure may be shown.
    kept = sorted(subjects.values(), key=lambda row: row["label"])
    for number, row in enumerate(kept):
        row["split"] = {1: "train", 3: "train", 5: "train", 7: "validation"}.get(
            number % 10, "sealed"
        )
    names = {row["file"] for row in kept}
    for path in folder.rglob("*.dcm"):
        if path.relative_to(folder).as_posix() not in names:
            path.unlink()
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=rows[0].keys())
        writer.writeheader()
        writer.writerows(kept)
    files = [(path, path.relative_to(folder).as_posix()) for path in sorted(folder.rglob("*"))]
    return originals._pack([pair for pair in files if pair[0].is_file()], target)


def submission(target: Path, *, memory: str = "2Gi") -> Path:
    """Pack the example, for this dataset and a small machine."""
    text = (EXAMPLE / "glovebox.toml").read_text()
    text = text.replace('mammography = "1"', f'{SLUG} = "1"').replace("3Gi", memory)
    code = (EXAMPLE / "train.py").read_text().replace('"mammography"', f'"{SLUG}"')
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("glovebox.toml", text)
        archive.writestr("train.py", code)
        archive.write(EXAMPLE / "model.py", "model.py")
    return target


def choose(browser: Browser, words: str) -> None:
    """Tick the radio button or the box of a label."""
    field = browser.labelled(words)
    if not field.is_selected():
        field.click()


def says(browser: Browser, words: str) -> bool:
    """Whether the page says so; False while it is being replaced."""
    with contextlib.suppress(StaleElementReferenceException):
        return words in browser.text
    return False


def row_of(person: Person, path: str) -> dict[str, Any]:
    found: dict[str, Any] = person.portal.get(path)
    return found


def offer(browser: Browser, portal: World, tmp_path: Path) -> None:
    """1. The steward offers a dataset; what it holds is de-identified."""
    browser.sign_in(portal["steward"])
    browser.go("/steward/new/")
    browser.fill("Title", "Mammography, one view")
    browser.fill("Korean title", "유방촬영, 한 영상")
    browser.fill("Short name", SLUG)
    Select(browser.labelled("Kind")).select_by_value("mammography")
    browser.fill("Description", "Phantoms drawn for tests: one view of each patient.")
    browser.press("Create the dataset")
    if not browser.has("a[href$='/1/']"):
        browser.press("Open the next version")
    browser.go(f"/steward/{SLUG}/1/")
    browser.labelled("Zip file").send_keys(str(one_view(tmp_path / "originals.zip")))
    browser.press("Upload")
    browser.wait(lambda _: says(browser, "Start de-identification"))
    browser.press("Start de-identification")
    browser.shot("main-01-ingest", phone=False)
    portal.wait_for(SLUG, "de_identified")
    browser.go(f"/steward/{SLUG}/1/")
    browser.shot("main-02-de-identified", phone=False)


def examine(browser: Browser, portal: World) -> None:
    """2. The officer examines a sample: some through the page, the others by the API; signs."""
    officer, path = portal["officer"], f"datasets/{SLUG}/versions/1"
    browser.sign_in(officer)
    browser.go(f"/examinations/{SLUG}/1/")
    browser.press("Draw the sample")
    browser.wait(lambda _: row_of(officer, path)["state"] == "in_qa")
    browser.go(f"/examinations/{SLUG}/1/1/")
    for number in range(3):
        browser.wait(lambda _: _reloaded(browser, ".stage img"))
        if not number:
            browser.shot("main-03-examination", phone=False)
        browser.press("Clean")
    for item in officer.portal.pages(f"{path}/examination"):
        if not item["finding"]:
            officer.portal.post(f"{path}/examination/{item['id']}/finding", finding="clean")
    browser.go(f"/examinations/{SLUG}/1/")
    browser.shot("main-04-sign", phone=False)
    browser.press("Sign and publish")
    browser.wait(lambda _: row_of(officer, path)["state"] == "published")


def _reloaded(browser: Browser, selector: str) -> bool:
    if browser.has(selector):
        return True
    browser.driver.refresh()
    return False


def ask(browser: Browser, portal: World, tmp_path: Path) -> int:
    """3, 4. The applicant finds the dataset and asks for access; return the request's number."""
    applicant = portal["applicant"]
    browser.go(f"/datasets/{SLUG}/")
    browser.shot("main-05-dataset", phone=False)
    browser.sign_in(applicant)
    browser.go(f"/datasets/{SLUG}/")
    browser.press("Ask for access")
    browser.shot("request-new", korean=True)
    browser.press("Begin a request")
    number = int(browser.path.split("/")[2])
    browser.press("Hand in to the committee")
    assert browser.has("#id_aim_error"), "what is missing is said beside the field"
    browser.complaints()  # of the status 400
    browser.shot("request-faults")
    choose(browser, "Commercial use")
    for label, answer in ANSWERS.items():
        browser.fill(label, answer)
    browser.fill("Analysts", applicant.email)
    choose(browser, "Security pledge")
    document = tmp_path / "ethics-approval.pdf"
    document.write_bytes(ETHICS)
    browser.labelled("Approval of an ethics board").send_keys(str(document))
    browser.press("Save the draft")
    assert "The draft was saved." in browser.text
    assert "ethics-approval.pdf" in browser.text
    browser.shot("request-form", korean=True, dark=True)
    browser.press("Hand in to the committee")
    assert "Your request is with the committee." in browser.text
    browser.shot("request-applicant")
    return number


def decide(browser: Browser, portal: World, number: int) -> None:
    """4. Three members vote, none seeing another's vote before the quorum."""
    for place in (1, 2, 3):
        browser.sign_in(portal[f"committee{place}"])
        browser.go(f"/requests/{number}/")
        browser.language("en")
        assert "Judged by the criteria" not in browser.text
        if place == 2:
            browser.shot("request-committee", korean=True, dark=True)
        choose(browser, "Approve")
        browser.fill("Comment", f"Judged by the criteria, member {place}.")
        browser.press("Cast the vote")
        assert "Your vote was counted." in browser.text
    assert "Judged by the criteria, member 1." in browser.text  # revealed by the quorum
    browser.shot("request-decided")


def sign(browser: Browser, portal: World, number: int) -> int:
    """4. The applicant signs the agreement; return the grant's number."""
    applicant = portal["applicant"]
    browser.sign_in(applicant)
    browser.go("/requests/")
    browser.shot("requests", korean=True)
    browser.go(f"/requests/{number}/")
    browser.press("Read and sign")
    browser.shot("agreement", korean=True)
    browser.fill("Your full name", applicant.name)
    browser.press("Sign the agreement")
    assert "Your grant has begun." in browser.text
    browser.shot("grant", korean=True)
    return int(browser.path.split("/")[2])


def submit(browser: Browser, portal: World, grant: int, tmp_path: Path) -> int:
    """5. A wrong manifest is answered with its field; the right one becomes a job."""
    browser.go(f"/jobs/new/?grant={grant}")
    wrong = submission(tmp_path / "wrong.zip", memory="900Gi")
    browser.labelled("Submission").send_keys(str(wrong))
    browser.press("Hand in")
    assert "resources.memory" in browser.text
    browser.shot("job-wrong")
    browser.complaints()  # of the status 400
    browser.go(f"/jobs/new/?grant={grant}")
    browser.shot("job-new", korean=True)
    right = submission(tmp_path / "submission.zip")
    browser.labelled("Submission").send_keys(str(right))
    browser.press("Hand in")
    assert "Your submission was taken." in browser.text
    return int(browser.path.split("/")[2])


def run(browser: Browser, portal: World, job: int) -> None:
    """6, 7. The page follows the job by itself: its curves, then its end."""
    applicant = portal["applicant"]
    browser.go(f"/jobs/{job}/")
    browser.shot("job-waiting", phone=False)
    browser.wait(lambda _: browser.has("svg.chart polyline"), seconds=180)
    browser.shot("job-running", korean=True, dark=True)
    browser.wait(lambda _: row_of(applicant, f"jobs/{job}")["state"] in ENDED, seconds=240)
    browser.wait(lambda _: says(browser, "Propose a release"))  # without a reload by hand
    browser.shot("job-finished", korean=True)
    browser.go("/jobs/")
    browser.shot("jobs")


def propose(browser: Browser, job: int) -> int:
    """8. The applicant proposes a release; return its number."""
    browser.go(f"/jobs/{job}/")
    browser.press("Propose a release")
    browser.shot("release-new", korean=True)
    browser.fill("Note to the reviewers", "Trained on one view of each patient, for a test.")
    browser.press("Propose")
    assert "It is with the reviewers." in browser.text
    browser.shot("release-applicant", phone=False)
    return int(browser.path.split("/")[2])


def review(browser: Browser, portal: World, release: int) -> None:
    """8. Two reviewers, blind to each other, look at everything on one screen and approve."""
    for place in (1, 2):
        browser.sign_in(portal[f"reviewer{place}"])
        browser.go(f"/releases/{release}/")
        browser.language("en")
        assert "Nothing speaks against it" not in browser.text
        if place == 1:
            browser.shot("release-review", korean=True, dark=True)
            whole_page(browser, "release-review-whole")
            for words, inside in (("Code", ".code-file"), ("Findings with", ".finding"),
                                  ("Log", "pre.log")):  # fmt: skip
                opened(browser, words, inside)
            browser.shot("release-code", phone=False)
        for box in browser.all("input[name='looked_at']"):
            box.click()
        choose(browser, "Approve")
        browser.fill("Comment", f"Nothing speaks against it, reviewer {place}.")
        browser.press("Cast the vote")
        assert "Your vote was counted." in browser.text, browser.text
    assert "Nothing speaks against it, reviewer 1." in browser.text


def opened(browser: Browser, words: str, inside: str) -> None:
    """Open what is loaded only when it is asked for, because each opening is recorded."""
    summaries = browser.all("details[hx-get] > summary")
    next(one for one in summaries if one.text.startswith(words)).click()
    browser.wait(lambda _: browser.has(f"details[open] .inside {inside}"))


def whole_page(browser: Browser, name: str) -> None:
    """Keep one picture of the page from top to bottom."""
    height = browser.driver.execute_script("return document.documentElement.scrollHeight")
    browser.size(1280, min(int(height), 6000))
    browser.shot(name, phone=False)
    browser.size(1280, 900)


def fetch(browser: Browser, portal: World, release: int, tmp_path: Path) -> Path:
    """9. The bundle is built while the page waits; a personal link works once, for its owner."""
    browser.sign_in(portal["applicant"])
    browser.go(f"/releases/{release}/")
    browser.wait(lambda _: says(browser, "Make my personal link"), seconds=90)
    browser.shot("release-released", korean=True)
    browser.press("Make my personal link")
    address = str(browser.find("main a[download]").get_attribute("href"))
    browser.shot("release-link")
    browser.go(f"/releases/{release}/")
    assert address not in browser.driver.page_source
    cookies = {cookie["name"]: cookie["value"] for cookie in browser.driver.get_cookies()}
    bundle = tmp_path / "bundle.zip"
    answer = requests.get(address, cookies=cookies, timeout=60)
    assert answer.status_code == 200
    bundle.write_bytes(answer.content)
    browser.go(address.removeprefix(browser.url))
    assert "This link was used already" in browser.text
    browser.shot("download-refused", phone=False)
    browser.complaints()  # Chromium complains of the refused link itself
    return bundle


def verify(browser: Browser, portal: World, bundle: Path, tmp_path: Path) -> None:
    """9. Anybody verifies the bundle, offline, with what the public page gives."""
    browser.sign_out()
    browser.go("/revocations/")
    browser.find("details summary").click()
    key = tmp_path / "release.pem"
    key.write_text(browser.find("details pre").text + "\n")
    browser.shot("revocations", korean=True)
    command = [sys.executable, "-m", "glovebox_cli", "verify", str(bundle), "--key", str(key)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(bundle) as archive:
        metrics = next(name for name in archive.namelist() if name.endswith("metrics.json"))
        assert "official" in json.loads(archive.read(metrics))


def revoke(browser: Browser, portal: World, release: int, bundle: Path, tmp_path: Path) -> None:
    """The steward revokes; the signed list names the bundle, which then no longer verifies."""
    browser.sign_in(portal["steward"])
    browser.go(f"/releases/{release}/")
    browser.press("Revoke this release")
    browser.fill("Reason", "A subject has withdrawn.")
    browser.press("Revoke for good")
    assert "Revoked." in browser.text
    browser.shot("release-revoked", phone=False)

    def listed() -> bool:
        browser.go("/revocations/")
        return "A subject has withdrawn." in browser.text

    browser.wait(lambda _: listed())
    browser.shot("revocations-one")
    revocations = tmp_path / "revocations.json"
    revocations.write_bytes(requests.get(f"{browser.url}/revocations.json", timeout=30).content)
    command = [sys.executable, "-m", "glovebox_cli", "verify", str(bundle), "--key",
               str(tmp_path / "release.pem"), "--revocations", str(revocations)]  # fmt: skip
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def read_trail(browser: Browser, portal: World) -> None:
    """10. The auditor finds every step in the trail."""
    browser.sign_in(portal["auditor"])
    browser.go("/audit/")
    browser.shot("main-10-audit", phone=False)
    actions = {row["action"] for row in portal["auditor"].portal.pages("audit/events")}
    for action in (
        "request.vote",
        "agreement.sign",
        "submission.upload",
        "submission.read",
        "job.log.read",
        "inspection.internal.read",
        "release.vote",
        "download",
        "download.refused",
        "release.revoke",
    ):
        assert action in actions, action


def test_the_main_job_through_the_pages(browser: Browser, portal: World, tmp_path: Path) -> None:
    offer(browser, portal, tmp_path)
    examine(browser, portal)
    number = ask(browser, portal, tmp_path)
    decide(browser, portal, number)
    grant = sign(browser, portal, number)
    job = submit(browser, portal, grant, tmp_path)
    run(browser, portal, job)
    release = propose(browser, job)
    review(browser, portal, release)
    bundle = fetch(browser, portal, release, tmp_path)
    verify(browser, portal, bundle, tmp_path)
    revoke(browser, portal, release, bundle, tmp_path)
    read_trail(browser, portal)
