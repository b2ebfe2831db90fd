"""``glovebox sandbox run``, ``glovebox sandbox doctor`` and ``glovebox rehearse``."""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from policies.document import Policy, default_policy
from policies.errors import Invalid
from policies.names import SLUG
from policies.quantities import parse_bytes, parse_seconds
from policies.submission import MANIFEST_NAME, Manifest, parse_manifest
from sandbox_runner import rehearse as rehearsals
from sandbox_runner import scratch
from sandbox_runner.backends import BACKENDS
from sandbox_runner.backends.choice import backend
from sandbox_runner.lifecycle import limits_of, run_job, sweep
from sandbox_runner.spec import JobSpec, Outcome
from sandbox_runner.static_scan import scan

EXIT_CODES: Final = {
    ("refused", "manifest"): 2,
    ("refused", "isolation"): 3,
    ("refused", "resources"): 3,
}


def register(subparsers: Any) -> None:
    """Add this room's commands."""
    sandbox = subparsers.add_parser("sandbox", help="run code sealed, or see what can be sealed")
    commands = sandbox.add_subparsers(metavar="COMMAND", required=True)
    run = commands.add_parser("run", help="run a submission in a sandbox")
    _common(run, limits="more or less than the manifest asks for; this machine's owner decides")
    run.add_argument(
        "--backend",
        default="auto",
        choices=("auto", "gvisor", "bubblewrap", "kubernetes"),
        help="what seals it; auto takes the strongest that holds here (default: auto)",
    )
    run.set_defaults(run=run_command)
    doctor = commands.add_parser("doctor", help="try what this machine can enforce")
    doctor.add_argument("--json", action="store_true", help=_JSON)
    doctor.set_defaults(run=doctor_command)
    rehearse = subparsers.add_parser(
        "rehearse", help="run a submission at home on the open sample, without isolation"
    )
    _common(rehearse, limits="of these, a rehearsal holds the time only")
    rehearse.set_defaults(run=rehearse_command)


_JSON: Final = "one JSON document on standard output"


def _common(parser: argparse.ArgumentParser, *, limits: str) -> None:
    parser.add_argument("submission", type=Path, help="the directory with glovebox.toml")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="SLUG=DIR",
        help="the directory of a dataset, seen as /data/SLUG",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="where the declared files of a finished job are put",
    )
    parser.add_argument("--json", action="store_true", help=_JSON)
    group = parser.add_argument_group("limits", limits)
    group.add_argument("--time", metavar="2h", help="wall clock, after which it is stopped")
    group.add_argument("--memory", metavar="8Gi", help="memory of all its processes, files in /tmp "
                       "and /output included")  # fmt: skip
    group.add_argument("--cpus", type=int, metavar="N", help="processors")
    group.add_argument("--gpus", type=int, metavar="N", help="GPUs")
    group.add_argument("--output-bytes", metavar="2Gi", help="what it may write to /output")
    group.add_argument("--processes", type=int, metavar="N", help="processes and threads at once")


def read_datasets(values: list[str]) -> dict[str, Path]:
    """Return directories by slug from ``SLUG=DIR`` words. Raises :class:`Invalid`."""
    datasets: dict[str, Path] = {}
    for value in values:
        slug, _, directory = value.partition("=")
        path = Path(directory)
        if not SLUG.fullmatch(slug) or not directory:
            raise Invalid("Write --data as slug=directory.", field="data", code="cli.data")
        if not path.is_dir():
            raise Invalid(
                "The directory given for the dataset {slug} is not there.",
                field="data",
                code="cli.data",
                slug=slug,
            )
        datasets[slug] = path.resolve()
    return datasets


def read_submission(
    submission: Path, args: argparse.Namespace, policy: Policy
) -> tuple[Manifest, dict[str, Path]]:
    """Return the manifest with the command line's changes, and its datasets' directories."""
    if not submission.is_dir():
        raise Invalid("The submission is not a directory.", field="submission", code="cli.path")
    path = submission / MANIFEST_NAME
    try:
        if path.is_symlink():
            raise OSError
        with path.open("rb") as file:
            text = file.read(policy.submission.manifest_bytes + 1)
    except OSError:
        raise Invalid(
            "The submission has no {name}.",
            field=MANIFEST_NAME,
            code="manifest.missing",
            name=MANIFEST_NAME,
        ) from None
    members = {
        each.relative_to(submission).as_posix()
        for each in submission.rglob("*")
        if each.is_file() and not each.is_symlink()
    }
    manifest = parse_manifest(text, policy, members=members)
    datasets = read_datasets(args.data)
    manifest = manifest.with_datasets({slug: manifest.datasets.get(slug, "1") for slug in datasets})
    for slug in manifest.datasets:
        if slug not in datasets:
            raise Invalid(
                "No directory was given for the dataset {slug}: add --data {slug}=DIR.",
                field=f"datasets.{slug}",
                code="cli.data",
                slug=slug,
            )
    return manifest.with_resources(**_changes(args)), datasets


def _changes(args: argparse.Namespace) -> dict[str, int]:
    changes: dict[str, int] = {}
    for name, value in (("cpus", args.cpus), ("gpus", args.gpus), ("processes", args.processes)):
        if value is not None:
            if value < (0 if name == "gpus" else 1):
                raise Invalid("This must be above zero.", field=name, code="cli.number")
            changes[name] = value
    if args.memory is not None:
        changes["memory_bytes"] = parse_bytes(args.memory, "memory")
    if args.output_bytes is not None:
        changes["output_bytes"] = parse_bytes(args.output_bytes, "output-bytes")
    if args.time is not None:
        changes["wall_seconds"] = parse_seconds(args.time, "time")
    return changes


def run_command(args: argparse.Namespace) -> int:
    """Run a submission sealed and print its outcome."""
    policy = default_policy()
    try:
        manifest, datasets = read_submission(args.submission, args, policy)
    except Invalid as error:
        _say(f"{error.field}: {error}")
        outcome = Outcome("refused", "manifest", None, 0.0, 0.0, 0, "", detail=str(error))
        return _finish(outcome, args)
    cancel = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: cancel.set())
    sweep()
    with scratch.folder() as folder:
        # A folder in it: the job locks its own.
        workdir = folder / "job"
        spec = JobSpec(
            id=f"run-{secrets.token_hex(6)}",
            submission=args.submission.resolve(),
            manifest=manifest,
            datasets=datasets,
            output=args.output.absolute(),
            limits=limits_of(manifest.resources, policy),
            backend=args.backend,
            minimum_isolation=policy.isolation.minimum,
        )
        outcome = run_job(spec, policy, workdir, progress=_show_progress, cancel=cancel)
        _show_log(workdir / "log")
    return _finish(outcome, args)


def rehearse_command(args: argparse.Namespace) -> int:
    """Run a submission without isolation on samples and print its outcome."""
    policy = default_policy()
    manifest, datasets = read_submission(args.submission, args, policy)
    _say("Not enforced in a rehearsal: " + "; ".join(rehearsals.NOT_ENFORCED) + ".")
    for advice in scan(args.submission):
        _say(f"advice: {advice.file}:{advice.line}: {advice.message}")
    with scratch.folder() as workdir:
        outcome = rehearsals.rehearse(
            args.submission.resolve(),
            manifest,
            datasets,
            args.output.absolute(),
            limits_of(manifest.resources, policy),
            policy,
            workdir,
            progress=_show_progress,
        )
    return _finish(outcome, args, rehearsal=True)


def doctor_command(args: argparse.Namespace) -> int:
    """Print what each backend of this machine enforces; 1 where none holds all it must."""
    document: dict[str, Any] = {}
    whole = False
    for name in BACKENDS:
        lines = backend(name).check()
        whole |= all(line.state != "missing" or not line.required for line in lines)
        document[name] = [vars(line) for line in lines]
        _say(f"{name} {backend(name).version()}".rstrip())
        for line in lines:
            detail = f" ({line.detail})" if line.detail else ""
            _say(f"  {line.state:8}{line.name}{detail}")
            if line.advice:
                _say(f"          > {line.advice}")
    if args.json:
        print(json.dumps({"usable": whole, "backends": document}))
    return 0 if whole else 1


def _finish(outcome: Outcome, args: argparse.Namespace, *, rehearsal: bool = False) -> int:
    """Print the outcome and return the exit code that stands for it."""
    _say(f"{outcome.state}: {outcome.reason}" + (f" ({outcome.detail})" if outcome.detail else ""))
    if outcome.fault is not None:
        fault = outcome.fault
        where = f" in {fault.file}, line {fault.line}" if fault.file else ""
        _say(f"{fault.type}{where}")
    for artefact in outcome.artefacts:
        _say(f"  {artefact.path}  {artefact.bytes} bytes  {artefact.sha256}")
    for rejected in outcome.rejected:
        _say(f"  refused {rejected.path}: {rejected.why}")
    if args.json:
        document = outcome.as_mapping()
        print(json.dumps({**document, "rehearsal": True} if rehearsal else document))
    if outcome.state == "finished":
        return 0
    return EXIT_CODES.get((outcome.state, outcome.reason), 1)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _show_progress(step: int, values: Mapping[str, float]) -> None:
    _say(f"step {step}: " + ", ".join(f"{name} {value:g}" for name, value in values.items()))


def _show_log(path: Path) -> None:
    """Show the end of the job's own words, made inert: they may hold terminal escapes."""
    if path.exists():
        text = path.read_bytes()[-4000:].decode("utf-8", errors="replace")
        for row in text.splitlines():
            _say("  | " + "".join(c if c.isprintable() else "?" for c in row))
