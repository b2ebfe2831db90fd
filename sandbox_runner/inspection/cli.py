"""``glovebox inspect``."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from policies.document import Policy, default_policy, tighten
from policies.errors import Invalid
from policies.submission import MANIFEST_NAME, parse_manifest
from sandbox_runner import scratch
from sandbox_runner.inspection.bar import Bar
from sandbox_runner.inspection.json_file import BadJson, read_object
from sandbox_runner.inspection.report import Report

OUTCOME_BYTES: Final = 4 * 1024 * 1024

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def register(subparsers: Subparsers) -> None:
    """Add ``inspect`` to the command's parser."""
    parser = subparsers.add_parser("inspect", help="examine what a job left before it may leave")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="what the job left")
    parser.add_argument(
        "--submission",
        type=Path,
        required=True,
        metavar="DIR",
        help="the directory with glovebox.toml and the network's code",
    )
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="SLUG=DIR",
        help="a dataset of the job, sealed split included",
    )
    parser.add_argument("--policy", type=Path, metavar="FILE", help="tightens the default policy")
    parser.add_argument(
        "--sanitised",
        type=Path,
        metavar="DIR",
        help="where rewritten weights go, if the policy asks for them; must not exist",
    )
    parser.add_argument(
        "--outcome",
        type=Path,
        metavar="FILE",
        help="what `glovebox sandbox run --json` printed for this output: the runner's record of a "
        "private training, without which none is believed",
    )
    parser.add_argument(
        "--backend", default="auto", help="what seals decoders and network (default: auto)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)


def read_policy(path: Path | None) -> Policy:
    """Return the default policy, tightened by a file if there is one. Raises Invalid."""
    if path is None:
        return default_policy()
    try:
        return tighten(default_policy(), tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise Invalid("The policy cannot be read as TOML.", field="policy") from error


def read_data(pairs: list[str]) -> dict[str, Path]:
    """Return directories by slug from ``SLUG=DIR``. Raises Invalid."""
    found: dict[str, Path] = {}
    for pair in pairs:
        slug, equals, place = pair.partition("=")
        if not equals or not Path(place).is_dir():
            raise Invalid("Write --data SLUG=DIR with a directory that exists.", field="data")
        found[slug] = Path(place).resolve()
    return found


def read_outcome(path: Path | None) -> dict[str, Any] | None:
    """Return the runner's record of a private training from its outcome. Raises Invalid."""
    if path is None:
        return None
    try:
        privacy = read_object(path, OUTCOME_BYTES, depth=12).get("privacy")
    except (BadJson, OSError) as error:
        raise Invalid("The outcome cannot be read as JSON.", field="outcome") from error
    return privacy if isinstance(privacy, dict) else None


def _keep(report: Report, target: Path | None) -> Report:
    """Copy rewritten weights out of the working files; without a place they are not kept."""
    if report.sanitised is None or target is None:
        return replace(report, sanitised=None)
    shutil.copytree(report.sanitised, target)
    return replace(report, sanitised=target.resolve())


def run(args: argparse.Namespace) -> int:
    """Inspect and print the report. Exit codes: 0 pass or review, 1 block, 2 wrong use, 3 no."""
    from sandbox_runner.inspection import inspect

    policy, privacy = read_policy(args.policy), read_outcome(args.outcome)
    datasets = read_data(args.data)
    for name in ("output", "submission"):
        if not getattr(args, name).is_dir():
            raise Invalid("There is no such directory.", field=name)
    try:
        text = (args.submission / MANIFEST_NAME).read_bytes()
    except OSError as error:
        raise Invalid("The submission has no glovebox.toml.", field=MANIFEST_NAME) from error
    manifest = parse_manifest(text, policy)
    if args.sanitised is not None and args.sanitised.exists():
        raise Invalid("There is something at this place already.", field="sanitised")
    progress = Bar()
    with scratch.folder() as workdir:
        report = inspect(
            args.output.resolve(),
            submission=args.submission.resolve(),
            manifest=manifest,
            datasets=datasets,
            policy=policy,
            workdir=workdir,
            backend=args.backend,
            progress=progress,
            privacy=privacy,
        )
        progress.end()
        report = _keep(report, args.sanitised)
    if args.json:
        print(json.dumps(report.as_mapping(), indent=2, allow_nan=False))
    people = sys.stderr if args.json else sys.stdout
    for found in report.findings:
        about = f" ({found.artefact})" if found.artefact else ""
        print(f"{found.severity:6}  {found.rule}{about}: {found.message}", file=people)
    print(f"verdict: {report.verdict}", file=people)
    return 1 if report.verdict == "block" else 0
