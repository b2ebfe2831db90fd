"""``glovebox verify``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bundle.destruction import MOST_BYTES, is_certificate, read_destruction
from bundle.faults import Fault, inert
from bundle.keys import load_key_list, periods
from bundle.verify import verify
from policies.errors import CannotRun

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def register(subparsers: Subparsers) -> None:
    """Add ``verify`` to the command's parser."""
    parser = subparsers.add_parser(
        "verify", help="check a bundle, or a certificate of destruction, offline"
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--key",
        type=Path,
        action="append",
        required=True,
        metavar="PUB",
        help="PEM file with the portal's public keys, older ones too; may be given more than once",
    )
    parser.add_argument("--revocations", type=Path, metavar="FILE", help="the signed list")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify and say so. Exit codes: 0 held, 1 did not, 2 wrong use, 3 no bundle to read."""
    listed = load_key_list(args.key)
    keys = {name: one.key for name, one in listed.items()}
    if not args.bundle.is_file():
        raise CannotRun("There is no bundle of this name.")
    with args.bundle.open("rb") as stream:
        if is_certificate(stream.read(64)):
            stream.seek(0)
            return _certificate(stream.read(MOST_BYTES + 1), keys, as_json=args.json)
    answer = verify(args.bundle, keys, args.revocations, periods(listed))
    if args.json:
        print(json.dumps(answer.as_mapping(), indent=2))
    people = sys.stderr if args.json else sys.stdout
    for line in answer.lines:
        print(f"{'held  ' if line.held else 'FAILED'}  {line.message}", file=people)
    if answer.held:
        print(f"Released {answer.released} to {answer.recipient}. The bundle holds.", file=people)
        print(f"The portal's audit chain and its revocations name {answer.bundle}.", file=people)
    else:
        print("The bundle does not hold. Do not use it.", file=people)
    return 0 if answer.held else 1


def _certificate(data: bytes, keys: Mapping[str, Ed25519PublicKey], *, as_json: bool) -> int:
    people = sys.stderr if as_json else sys.stdout
    try:
        said, key = read_destruction(data, keys)
    except Fault as fault:
        if as_json:
            print(json.dumps({"held": False, "message": str(fault)}, indent=2))
        print(f"FAILED  {fault}", file=people)
        return 1
    if as_json:
        print(json.dumps({"held": True, "key": key, **vars(said)}, indent=2))
    print(f"held    The certificate is signed by the key {key}.", file=people)
    print(
        f"{said.dataset}, version {said.version}: {said.what}, {said.count} objects of "
        f"{said.bytes} bytes. Their keys were destroyed on {inert(said.at)}; on "
        f"{inert(said.certified)} neither "
        "a key nor an object was left in the portal.",
        file=people,
    )
    return 0
