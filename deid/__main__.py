"""``python -m deid SRC DST ...``: the command without the dispatcher, for sealed surroundings."""

from __future__ import annotations

import argparse
import sys

from deid import cli
from policies.errors import CannotRun, UserError


def main(argv: list[str] | None = None) -> int:
    """Run ``deid`` with the exit codes of the ``glovebox`` command."""
    parser = argparse.ArgumentParser(prog="deid", usage=cli.USAGE.replace("glovebox deid", "deid"))
    cli.add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except CannotRun as error:
        print(f"deid: {error}", file=sys.stderr)  # noqa: T201 - this is a command
        return 3
    except UserError as error:
        where = f"{error.field}: " if error.field else ""
        print(f"deid: {where}{error}", file=sys.stderr)  # noqa: T201
        return 2


if __name__ == "__main__":
    sys.exit(main())
