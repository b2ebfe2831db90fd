"""``glovebox demo``: the main job, from originals to a signed model, on this machine."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from policies.errors import CannotRun, UserError, _

MARK = "made-by-glovebox-demo"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this room's command."""
    parser = subparsers.add_parser(
        "demo", help="watch originals go in and a signed, reviewed model come out"
    )
    parser.add_argument("--exit", action="store_true", help="end after the last step")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--patients", type=int, default=160, help="mammography phantoms")
    parser.add_argument("--folder", type=Path, default=Path("glovebox-demo"))
    parser.add_argument("--code", metavar="EMAIL", help="print somebody's one-time code now")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Perform the demonstration. Exit code 0, or 1 with the failing step's name."""
    from demo.narration import StepFailed

    folder = args.folder.resolve()
    if args.code:
        return _print_code(folder, args.code)
    from demo import story
    from demo.processes import check_port

    check_port("127.0.0.1", args.port)
    _begin_clean(folder)
    started = time.monotonic()
    try:
        with story.performance(folder, port=args.port, patients=args.patients) as accounts:
            seconds = time.monotonic() - started
            print(f"\nAll eleven steps are done in {seconds:.0f} s.", flush=True)
            if not args.exit:
                _stay(args.port, accounts)
    except StepFailed as error:
        print(f"\nThe demonstration failed at step {error}", file=sys.stderr)
        print(f"Logs: {args.folder / 'data' / 'logs'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; every process has ended.", file=sys.stderr)
    return 0


def _begin_clean(folder: Path) -> None:
    """Start from clean: remove what an earlier demonstration left, and nothing else."""
    if folder.exists():
        if not (folder / MARK).exists():
            raise CannotRun(
                _("{folder} exists and was not made by the demonstration; name another."),
                code="demo.folder",
                folder=folder.name,
            )
        print("Starting from clean: removing what the last demonstration left.", flush=True)
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()


def _stay(port: int, accounts: list[tuple[str, str, str]]) -> None:
    print(f"\nThe portal stays at http://127.0.0.1:{port} until Ctrl-C. Sign in as:")
    for email, password, what in accounts:
        print(f"  {email:<28} {password:<18} {what}")
    print("One-time codes: .venv/bin/glovebox demo --code EMAIL", flush=True)
    while True:
        time.sleep(3600)


def _print_code(folder: Path, email: str) -> int:
    import json

    from demo.people import one_time_code

    try:
        secrets = json.loads((folder / "accounts.json").read_text())
    except OSError:
        raise CannotRun(_("No demonstration is there; run make demo."), code="demo.none") from None
    if email not in secrets:
        raise UserError(_("Nobody of the demonstration has this address."), field="code")
    print(one_time_code(secrets[email]))
    return 0


def environment(folder: Path, port: int) -> dict[str, str]:
    """Return the environment of the demonstration's processes."""
    return os.environ | {
        "GLOVEBOX_HOME": str(folder / "data"),
        "GLOVEBOX_KEYS": str(folder / "keys"),
        "GLOVEBOX_URL": f"http://127.0.0.1:{port}",
        # A short show: more ticks, and the same budget of bits.
        "GLOVEBOX_TICK_SECONDS": "1",
        "GLOVEBOX_PLAIN_PLACE": "any",  # nothing of the demonstration comes from a person
    }
