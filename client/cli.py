"""``glovebox login | datasets | samples | request | submit | status | metrics | releases |
download``: the portal from a terminal."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import io
import json
import os
import sys
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from client import account
from client.api import Portal
from policies.errors import Invalid, _

Runner = Callable[[argparse.Namespace], int]
LIVE = frozenset(
    {"submitted", "checked", "queued", "staging", "running", "collecting", "inspecting"}
)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this room's commands."""

    def command(name: str, run: Runner, words: str) -> argparse.ArgumentParser:
        parser = subparsers.add_parser(name, help=words)
        parser.add_argument("--json", action="store_true", help="one JSON document")
        parser.set_defaults(run=run)
        return parser

    login = command("login", run_login, "sign in at a portal")
    login.add_argument("url", metavar="URL")
    login.add_argument("--email")
    login.add_argument("--days", type=int, default=30, help="how long the token lasts")
    command("datasets", run_datasets, "list the catalogue").add_argument("--url", default="")
    samples = command("samples", run_samples, "download the open sample of a dataset")
    samples.add_argument("dataset")
    samples.add_argument("target", type=Path, nargs="?", default=Path())
    samples.add_argument("--url", default="")
    request = command("request", run_request, "ask for access, from a TOML file of answers")
    request.add_argument("dataset")
    request.add_argument("answers", type=Path, metavar="ANSWERS.toml")
    request.add_argument("--document", type=Path, help="the ethics board's approval (PDF)")
    request.add_argument("--draft", action="store_true", help="do not submit it yet")
    submit = command("submit", run_submit, "hand a submission in")
    submit.add_argument("submission", type=Path, help="a directory or a zip")
    submit.add_argument("--grant", type=int, help="needed where you have several")
    status = command("status", run_status, "show jobs, or one job")
    status.add_argument("job", type=int, nargs="?")
    status.add_argument("--wait", action="store_true", help="until the job has ended")
    metrics = command("metrics", run_metrics, "show a job's curves and inspection")
    metrics.add_argument("job", type=int)
    releases = command("releases", run_releases, "list releases, or propose one")
    releases.add_argument("--propose", type=int, metavar="JOB")
    releases.add_argument("--note", default="")
    download = command("download", run_download, "download a released bundle")
    download.add_argument("release", type=int)
    download.add_argument("target", type=Path, nargs="?")


def _show(args: argparse.Namespace, document: Any, lines: list[str]) -> int:
    """Print the JSON document, or the lines for people."""
    if args.json:
        print(json.dumps(document, ensure_ascii=False))
    else:
        for line in lines:
            print(_inert(line))
    return 0


def _inert(text: str) -> str:
    """Return text without control characters: what a portal says cannot steer a terminal."""
    return "".join(char if char.isprintable() or char == "\t" else "?" for char in text)


def _anyone(url: str) -> Portal:
    """Return the portal named, or the one signed in at; the catalogue is open to visitors."""
    named = url or os.environ.get("GLOVEBOX_URL", "")
    return Portal(named) if named else account.signed_in()


def run_login(args: argparse.Namespace) -> int:
    """Ask for e-mail, password and one-time code; keep a token."""
    email = args.email or input("E-mail: ")
    password = os.environ.get("GLOVEBOX_PASSWORD") or getpass.getpass("Password: ")
    code = os.environ.get("GLOVEBOX_TOTP")
    if code is None:
        code = input("One-time code (empty where you have none): ") if sys.stdin.isatty() else ""
    body = {"email": email, "password": password, "totp": code.strip(), "days": args.days}
    answer = Portal(args.url).post("tokens", name=f"glovebox on {os.uname().nodename}", **body)
    account.keep(args.url.rstrip("/"), answer["token"])
    shown = {"url": args.url, "email": email, "expires_at": answer["expires_at"]}
    return _show(args, shown, [f"Signed in as {email} until {answer['expires_at']}."])


def run_datasets(args: argparse.Namespace) -> int:
    """List the catalogue."""
    rows = list(_anyone(args.url).pages("datasets"))
    lines = []
    for row in rows:
        published = [v for v in row["versions"] if v["state"] == "published"]
        newest = "not published"
        if published:
            facts = published[0]
            newest = f"version {facts['number']}, {facts['subjects']} subjects"
        lines.append(f"{row['slug']:<20} {row['title']}  ({newest})")
    return _show(args, rows, lines)


def run_samples(args: argparse.Namespace) -> int:
    """Download a dataset's open sample and unpack it into TARGET/<dataset>."""
    target = args.target / args.dataset
    if target.exists():
        raise Invalid(_("{name} is there already."), field="target", name=str(target))
    answer = _anyone(args.url).call("GET", f"datasets/{args.dataset}/sample")
    args.target.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        # zipfile strips absolute paths and "..", and writes regular files only.
        packed.extractall(args.target)
    files = sum(path.is_file() for path in target.rglob("*"))
    document = {"folder": str(target), "files": files}
    return _show(args, document, [f"{files} files in {target}"])


def _answers(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise Invalid(_("This file cannot be read: {name}"), field="answers", name=path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(_("This is no TOML: {reason}"), field="answers", reason=str(error)) from None


def run_request(args: argparse.Namespace) -> int:
    """Create an access request, attach its document, and submit it."""
    portal = account.signed_in()
    answers = _answers(args.answers)
    conflict = bool(answers.pop("conflict_declared", False))
    made = portal.post(
        "requests", dataset=args.dataset, answers=answers, conflict_declared=conflict
    )
    path = f"requests/{made['id']}"
    if args.document:
        portal.post_file(
            f"{path}/documents", args.document, content_type="application/pdf", kind="ethics"
        )
    if not args.draft:
        made = portal.post(f"{path}/submit")
    return _show(args, made, [f"request {made['id']}: {made['state'].replace('_', ' ')}"])


@contextlib.contextmanager
def _packed(submission: Path) -> Iterator[Path]:
    """Give a zip of the submission: itself, or one packed in a folder that is gone afterwards."""
    if submission.is_file():
        yield submission
        return
    if not submission.is_dir():
        raise Invalid(_("There is no such file or directory."), field="submission")
    if not (submission / "glovebox.toml").is_file():
        raise Invalid(_("The directory has no glovebox.toml."), field="submission")
    with tempfile.TemporaryDirectory(prefix="glovebox-") as folder:
        target = Path(folder) / f"{submission.resolve().name}.zip"
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted(submission.rglob("*")):
                within = path.relative_to(submission)
                left_out = "__pycache__" in within.parts or any(
                    part.startswith(".") for part in within.parts
                )
                if path.is_file() and not path.is_symlink() and not left_out:
                    packed.write(path, str(within))
        yield target


def run_submit(args: argparse.Namespace) -> int:
    """Upload a submission under a grant."""
    portal = account.signed_in()
    grant = args.grant
    if grant is None:
        usable = list(portal.pages("grants", usable=1))
        if len(usable) != 1:
            raise Invalid(
                _("You have {count} usable grants; name one with --grant: {numbers}"),
                field="grant",
                count=len(usable),
                numbers=", ".join(f"{row['id']} ({row['dataset']})" for row in usable) or "none",
            )
        grant = usable[0]["id"]
    with _packed(args.submission) as archive:
        answer = portal.post_file(
            "submissions", archive, content_type="application/zip", grant=grant
        )
    job = answer["job"]
    return _show(args, answer, [f"job {job['id']}: {job['state']}"])


def _line(job: dict[str, Any]) -> str:
    reason = f" ({job['reason']})" if job.get("reason") else ""
    waiting = job.get("waiting")
    why = f": {waiting['sentence']}" if waiting else ""
    return f"job {job['id']:<5} {job['name']:<24} {job['state']}{reason}{why}"


def run_status(args: argparse.Namespace) -> int:
    """Show jobs, or one job; exit code 1 where the one job did not finish."""
    portal = account.signed_in()
    if args.job is None:
        rows = list(portal.pages("jobs"))
        return _show(args, rows, [_line(row) for row in rows])
    job = portal.get(f"jobs/{args.job}")
    while args.wait and job["state"] in LIVE:
        time.sleep(2)
        job = portal.get(f"jobs/{args.job}")
    lines = [_line(job)]
    if job.get("message"):
        lines.append(job["message"])
    if job.get("fault"):
        fault = job["fault"]
        lines.append(f"{fault['type']} in {fault['file'] or '?'} line {fault['line']}")
    _show(args, job, lines)
    return 0 if job["state"] in LIVE | {"finished"} else 1


def run_metrics(args: argparse.Namespace) -> int:
    """Show curves and the inspection; exit code 1 where it blocks."""
    portal = account.signed_in()
    document: dict[str, Any] = {"curves": portal.get(f"jobs/{args.job}/curves")}
    try:
        document["inspection"] = portal.get(f"jobs/{args.job}/inspection")
    except Invalid:
        document["inspection"] = None
    lines = [f"step {tick['step']}: {tick['values']}" for tick in document["curves"]]
    report = document["inspection"]
    if report:
        lines.append(f"inspection: {report['verdict']}")
        lines += [
            f"  {row['severity']:<7} {row['rule']}: {row['message']}" for row in report["findings"]
        ]
        # None until reviewers have let the figures out.
        official = report["official"] or {}
        lines += [f"  {name}: {value}" for name, value in official.items()]
    _show(args, document, lines)
    return 1 if report and report["verdict"] == "block" else 0


def run_releases(args: argparse.Namespace) -> int:
    """List releases, or propose a finished job's artefacts."""
    portal = account.signed_in()
    if args.propose is not None:
        made = portal.post("releases", job=args.propose, note=args.note)
        return _show(args, made, [f"release {made['id']}: {made['state'].replace('_', ' ')}"])
    rows = list(portal.pages("releases"))
    lines = [f"release {r['id']:<5} {r['name']:<24} {r['dataset']:<20} {r['state']}" for r in rows]
    return _show(args, rows, lines)


def run_download(args: argparse.Namespace) -> int:
    """Make a personal link and use it."""
    portal = account.signed_in()
    target = args.target or Path(f"glovebox-release-{args.release}.zip")
    if target.exists():
        raise Invalid(_("{name} is there already."), field="target", name=str(target))
    facts = portal.get(f"releases/{args.release}/bundle")
    link = portal.post(f"releases/{args.release}/link")
    digest = portal.download(f"downloads/{link['token']}", target)
    if digest != facts["sha256"]:
        target.unlink()
        raise Invalid(_("What arrived is not the signed bundle; it was removed. Try again."))
    document = {"file": str(target), "sha256": digest}
    hint = f"Check it: glovebox verify {target} --key release.pem"
    return _show(args, document, [f"{target}: {digest}", hint])
