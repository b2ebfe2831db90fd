"""``glovebox intake fetch SOURCE DIR`` and ``glovebox intake receive DIR``."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
import warnings
from pathlib import Path

from deid.sources import credentials
from deid.sources.originals import Bounds, Originals
from policies.errors import Invalid, _
from policies.quantities import parse_bytes


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``intake fetch`` and ``intake receive``."""
    words = subparsers.add_parser("intake", help="take originals in from a store or a PACS")
    commands = words.add_subparsers(metavar="COMMAND", required=True)
    fetch = commands.add_parser(
        "fetch", help="fill a folder with originals from an S3 prefix or from DICOMweb"
    )
    fetch.add_argument("source", metavar="SOURCE", help="s3://BUCKET/PREFIX, or DICOMweb: https://")
    fetch.add_argument("dir", metavar="DIR", type=Path, help="folder for the originals")
    fetch.add_argument(
        "--credentials", type=Path, metavar="FILE",
        help="TOML, readable by its owner only: access_key, secret_key, session_token, or token, "
        "or user, password (default: the environment)",
    )  # fmt: skip
    fetch.add_argument(
        "--query", type=Path, metavar="FILE",
        help="DICOMweb: which studies, lines of Attribute=value (default: all)",
    )  # fmt: skip
    fetch.add_argument("--plain-http", action="store_true", help="allow an address without TLS")
    _bounds(fetch)
    fetch.set_defaults(run=run_fetch)
    receive = commands.add_parser("receive", help="receive originals that a PACS sends (C-STORE)")
    receive.add_argument("dir", metavar="DIR", type=Path, help="folder for the originals")
    receive.add_argument("--aet", required=True, metavar="AET", help="our AE title")
    receive.add_argument("--port", required=True, type=int, metavar="PORT", help="where to listen")
    receive.add_argument(
        "--from", required=True, dest="allowed", action="append", metavar="AET",
        help="AE title that may send",
    )  # fmt: skip
    receive.add_argument(
        "--bind", default="127.0.0.1", metavar="ADDRESS",
        help="address of this machine to listen at (default: 127.0.0.1)",
    )  # fmt: skip
    receive.add_argument(
        "--idle", type=float, metavar="SECONDS", help="end when nothing came for so long"
    )
    _bounds(receive)
    receive.set_defaults(run=run_receive)


def _bounds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=Bounds.files, metavar="N",
                        help="how many files the folder may hold (default: 200000)")  # fmt: skip
    parser.add_argument("--file-bytes", default=str(Bounds.file_bytes), metavar="SIZE",
                        help="how large a file may be (default and most: 4Gi)")  # fmt: skip
    parser.add_argument("--bytes", default=str(Bounds.total_bytes), metavar="SIZE",
                        help="how much the folder may hold (default: 1Ti)")  # fmt: skip
    parser.add_argument("--free", default=str(Bounds.free), metavar="SIZE",
                        help="how much of the disk stays free (default: 4Gi)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run_fetch(args: argparse.Namespace) -> int:
    """Fetch; 1 when something was refused, so that nobody takes the folder for complete."""
    from deid.sources import dicomweb, fetching, s3

    _quiet()
    given = credentials.read(args.credentials)
    bounds = _bounds_of(args)
    source: fetching.Source
    if args.source.startswith("s3://"):
        if args.query is not None:
            raise Invalid(_("A query belongs to DICOMweb."), field="--query")
        source = s3.S3(args.source, given, plain=args.plain_http)
    else:
        query = dicomweb.read_query(args.query)
        source = dicomweb.DicomWeb(
            args.source, given, query, plain=args.plain_http, rows=bounds.files
        )
    with Originals(args.dir, bounds) as originals:
        summary = fetching.fetch(source, originals, _progress if sys.stderr.isatty() else None)
    found = summary.as_mapping()
    reasons = ", ".join(f"{count} {reason}" for reason, count in found["refused"].items())
    words = f"{summary.listed} listed: {summary.new} new, {summary.already} already here"
    if summary.doubled:
        words += f", {summary.doubled} the same as others"
    print(words + (f"; refused: {reasons}" if reasons else ""), file=sys.stderr)
    if args.json:
        print(json.dumps(found))
    return 1 if summary.refused else 0


def run_receive(args: argparse.Namespace) -> int:
    """Receive until a signal or ``--idle``; 1 when something was refused."""
    from deid.sources import receiving

    _quiet()
    listener = receiving.Listener(args.aet, args.port, tuple(args.allowed), args.bind, args.idle)
    stop = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda _number, _frame: stop.set())

    def ready(port: int) -> None:
        print(f"listening on port {port}", file=sys.stderr, flush=True)

    with Originals(args.dir, _bounds_of(args)) as originals:
        received = receiving.receive(originals, listener, stop, ready)
    found = received.as_mapping()
    reasons = ", ".join(f"{count} {reason}" for reason, count in found["refused"].items())
    words = f"{received.new} new, {received.doubled} the same as others"
    print(words + (f"; refused: {reasons}" if reasons else ""), file=sys.stderr)
    if args.json:
        print(json.dumps(found))
    return 1 if received.refused else 0


def _bounds_of(args: argparse.Namespace) -> Bounds:
    bounds = Bounds(
        file_bytes=parse_bytes(args.file_bytes, "--file-bytes"),
        files=args.files,
        total_bytes=parse_bytes(args.bytes, "--bytes"),
        free=parse_bytes(args.free, "--free"),
    )
    if not 0 < bounds.file_bytes <= Bounds.file_bytes:
        # glovebox deid would hold a larger one back.
        raise Invalid(_("A file may have at most 4Gi."), field="--file-bytes")
    if bounds.files < 1:
        raise Invalid(_("At least one file must be allowed."), field="--files")
    return bounds


def _progress(summary: object) -> None:
    print(f"\r{getattr(summary, 'listed', 0)} looked at", end="", file=sys.stderr, flush=True)


def _quiet() -> None:
    """Libraries log addresses, values and tracebacks; here each of them may name a patient."""
    for name in ("urllib3", "requests", "minio", "pydicom", "pynetdicom"):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.handlers = [logging.NullHandler()]
        logger.setLevel(logging.CRITICAL + 1)
    warnings.simplefilter("ignore")
    threading.excepthook = lambda _error: None
