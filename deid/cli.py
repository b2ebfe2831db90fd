"""``glovebox deid SRC DST``, ``glovebox deid keygen FILE``, ``glovebox deid verify DST``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from deid import pipeline, profile, vault, verify
from deid.report import STATUSES
from policies.errors import Invalid, _

USAGE = """glovebox deid SRC DST --key FILE [options]
       glovebox deid keygen FILE
       glovebox deid verify DST [--against SRC]"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``deid``. ``keygen`` and ``verify`` are words in the place of SRC: a folder of such a
    name is written ``./keygen``."""
    parser = subparsers.add_parser(
        "deid", help="de-identify a folder or zip of medical images and photographs", usage=USAGE
    )
    add_arguments(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to a parser."""
    parser.add_argument("src", metavar="SRC", help="folder, zip or file; or keygen, or verify")
    parser.add_argument("dst", metavar="DST", help="where the clean files go; FILE for keygen")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the project's pseudonym key")
    parser.add_argument(
        "--profile", default="research", metavar="FILE|NAME",
        help=f"one of {', '.join(profile.shipped())}, or a TOML file (default: research)",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--report", type=Path, metavar="FILE", help="default: DST.report.jsonl")
    parser.add_argument("--resume", action="store_true", help="go on after an interruption")
    parser.add_argument("--quarantine", type=Path, metavar="DIR", help="copy held files there")
    parser.add_argument("--against", type=Path, metavar="SRC", help="verify: the originals")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run one of the three commands."""
    if args.src == "keygen":
        return _keygen(args)
    if args.src == "verify":
        return _verify(args)
    return _deid(args)


def _keygen(args: argparse.Namespace) -> int:
    _only(args, "keygen", ())
    vault.write_key(Path(args.dst))
    _say(args, {"written": True}, "The key was written. Whoever holds it can repeat the mapping.")
    return 0


def _verify(args: argparse.Namespace) -> int:
    _only(args, "verify", ("against",))
    result = verify.verify(Path(args.dst), args.against)
    for finding in result.findings[:50]:
        print(f"{finding.file}: {finding.where}: {finding.rule}", file=sys.stderr)
    held = "no identifier found" if result.held else f"{len(result.findings)} findings"
    _say(args, result.as_mapping(), f"{result.files} files, {result.values} values: {held}")
    return 0 if result.held else 1


def _deid(args: argparse.Namespace) -> int:
    if args.key is None:
        raise Invalid(_("A key is needed; make one with: glovebox deid keygen FILE"), field="--key")
    if args.against is not None:
        raise Invalid(_("This option belongs to deid verify."), field="--against")
    if args.workers < 1:
        raise Invalid(_("At least one worker is needed."), field="--workers")
    summary = pipeline.run(
        Path(args.src),
        Path(args.dst),
        key=vault.read_key(args.key),
        profile=profile.load(args.profile),
        workers=args.workers,
        report=args.report,
        resume=args.resume,
        quarantine=args.quarantine,
        progress=_progress if sys.stderr.isatty() else None,
    )
    words = ", ".join(f"{summary.statuses[name]} {name}" for name in STATUSES)
    if summary.foreign:
        words += f"; {summary.foreign} files in DST are not of this run"
    _say(args, summary.as_mapping(), f"{summary.inputs} inputs: {words}")
    return 1 if summary.statuses["failed"] or summary.foreign else 0


def _progress(done: int, total: int, _row: Mapping[str, object]) -> None:
    print(f"\r{done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _only(args: argparse.Namespace, command: str, allowed: tuple[str, ...]) -> None:
    for name in ("key", "report", "quarantine", "against"):
        if getattr(args, name) is not None and name not in allowed:
            raise Invalid(
                _("deid {command} does not take this option."), field=f"--{name}", command=command
            )
    if args.resume:
        raise Invalid(
            _("deid {command} does not take this option."), field="--resume", command=command
        )


def _say(args: argparse.Namespace, document: Mapping[str, object], words: str) -> None:
    print(words, file=sys.stderr)
    if args.json:
        print(json.dumps(document))
