"""The ``glovebox`` command: a thin dispatcher. Each room brings its own ``cli.py``."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence

from policies.errors import CannotRun, UserError

# A room whose optional packages are not installed is left out of the help, not half-loaded.
ROOMS = (
    ("deid.cli", "pydicom"),
    ("deid.sources.cli", "pydicom"),
    ("sandbox_runner.cli", "numpy"),
    ("sandbox_runner.inspection.cli", "numpy"),
    ("bundle.cli", "cryptography"),
    ("client.cli", "requests"),
    ("portal.cli", "django"),
    ("demo.cli", "django"),
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every room's sub-commands that this installation can run."""
    parser = argparse.ArgumentParser(
        prog="glovebox", description="Train on data that you never hold."
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for module, needs in ROOMS:
        if importlib.util.find_spec(needs) is not None:
            importlib.import_module(module).register(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 held, 1 found something, 2 wrong use, 3 could not run."""
    args = build_parser().parse_args(argv)
    try:
        return int(args.run(args))
    except CannotRun as error:
        print(f"glovebox: {error}", file=sys.stderr)
        return 3
    except UserError as error:
        where = f"{error.field}: " if error.field else ""
        print(f"glovebox: {where}{error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
