"""``glovebox portal ...`` and ``glovebox audit ...``.

Django is set up inside the commands, after the process has been told its role.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from policies.errors import CannotRun, Invalid, _


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this room's commands."""
    portal = subparsers.add_parser("portal", help="run the portal").add_subparsers(
        metavar="COMMAND", required=True
    )
    init = portal.add_parser("init", help="make keys, database and the first administrators")
    init.add_argument(
        "--administrator",
        metavar="EMAIL",
        action="append",
        default=[],
        help="a first administrator; give two, passwords and one-time codes are printed once",
    )
    init.add_argument("--organisation", default="Operator", help="whom the administrators work for")
    init.add_argument("--unit", default="Portal administration")
    init.add_argument("--json", action="store_true")
    init.set_defaults(run=run_init)

    serve = portal.add_parser("serve", help="answer HTTP requests")
    serve.add_argument("--bind", default="127.0.0.1:8000")
    serve.add_argument("--processes", type=int, default=1)
    serve.add_argument("--threads", type=int, default=8)
    serve.set_defaults(run=run_serve)

    worker = portal.add_parser("worker", help="do the work that pages only ask for")
    worker.add_argument("--queue", choices=("all", "short", "long"), default="all")
    worker.add_argument(
        "--processes",
        type=int,
        default=None,
        help="tasks at once; a job takes one while it runs (default: the cores, and two more)",
    )
    worker.set_defaults(run=run_worker)

    beat = portal.add_parser("beat", help="find work that is due and ask for it again")
    beat.add_argument("--every", type=float, default=2.0, metavar="SECONDS")
    beat.set_defaults(run=run_beat)

    audit = subparsers.add_parser("audit", help="verify the audit chain").add_subparsers(
        metavar="COMMAND", required=True
    )
    verify = audit.add_parser("verify", help="walk the chain and name what is wrong")
    verify.add_argument("--checkpoint", type=Path, action="append", default=[], metavar="FILE")
    verify.add_argument("--key", type=Path, metavar="PEM", help="the audit key you trust")
    verify.add_argument("--json", action="store_true")
    verify.set_defaults(run=run_verify)
    checkpoint = audit.add_parser("checkpoint", help="seal, and write a signed checkpoint")
    checkpoint.add_argument("file", type=Path, metavar="FILE")
    checkpoint.set_defaults(run=run_checkpoint)


def _set_up(role: str) -> None:
    """Tell the process what it is, and start Django."""
    os.environ["GLOVEBOX_ROLE"] = role
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    import django

    django.setup()


def run_init(args: argparse.Namespace) -> int:
    """Make what is missing; a second run changes nothing that is there."""
    _set_up("all")
    from django.core.management import call_command

    from portal import first_people, keys
    from portal.accounts.models import Role, RoleAssignment
    from portal.accounts.roles import MINIMUM_ADMINISTRATORS

    if 0 < len(set(args.administrator)) < MINIMUM_ADMINISTRATORS:
        raise Invalid(
            _("At least {number} administrators are needed: a role is given by two people."),
            field="administrator",
            number=MINIMUM_ADMINISTRATORS,
        )
    made = keys.make_all()
    call_command("migrate", verbosity=0)
    call_command("createcachetable", verbosity=0)
    people: list[dict[str, Any]] = []
    if RoleAssignment.objects.filter(role=Role.ADMINISTRATOR).exists():
        print("This portal has administrators already; none was added.", file=sys.stderr)
    elif not args.administrator:
        raise Invalid(
            _("Name two first administrators: --administrator EMAIL --administrator EMAIL"),
            field="administrator",
        )
    else:
        people = first_people.make(
            args.administrator, organisation=args.organisation, unit=args.unit
        )
    if args.json:
        print(json.dumps({"keys": made, "administrators": people}))
        return 0
    for name in made:
        print(f"made key {name}")
    for person in people:
        print(f"administrator {person['email']}")
        print(f"  password         {person['password']}")
        print(f"  one-time codes   {person['totp_url']}")
        print(f"  recovery codes   {' '.join(person['recovery_codes'])}")
    if people:
        print("These are shown this once. Keep them, and change the passwords.")
    return 0


def _replace_process(*command: str) -> int:
    """Become another program: signals then reach it directly."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", *command])  # noqa: S606 - no shell is meant


def run_serve(args: argparse.Namespace) -> int:
    """Serve with gunicorn, in a process that may not read data keys."""
    os.environ["GLOVEBOX_ROLE"] = "web"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    return _replace_process(
        *("gunicorn", "portal.wsgi:application", "--config", "python:portal.web_server"),
        *("--bind", args.bind),
        *("--workers", str(args.processes), "--threads", str(args.threads)),
        *("--access-logfile", os.environ.get("GLOVEBOX_ACCESS_LOG", "/dev/null")),
    )


def run_worker(args: argparse.Namespace) -> int:
    """Work off the queue with Celery."""
    os.environ["GLOVEBOX_ROLE"] = "worker"
    queues = "short,long" if args.queue == "all" else args.queue
    # Jobs run side by side as far as cores and memory reach, and other work beside them.
    processes = args.processes or len(os.sched_getaffinity(0)) + 2
    return _replace_process(
        *("celery", "--app", "portal.celery", "worker", "--queues", queues),
        *("--concurrency", str(processes), "--loglevel", "INFO"),
        *("--hostname", f"{args.queue}-{os.getpid()}@%h"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    )


def run_beat(args: argparse.Namespace) -> int:
    """Look for due work until told to stop."""
    if args.every <= 0:
        raise Invalid(_("The pause must be more than nothing."), field="every")
    _set_up("beat")
    from portal import beat

    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    beat.run(interval=args.every, stop=stop)
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Verify the whole chain; exit code 1 where something is wrong."""
    _set_up(os.environ.get("GLOVEBOX_ROLE", "web"))
    from portal.audit import checkpoints, verify

    given = [checkpoints.parse(_text_of(path)) for path in args.checkpoint]
    trusted = None
    if args.key is not None:
        from portal import keys

        trusted = keys.parse_public(_text_of(args.key).encode())
    result = verify.verify(given, trusted)
    if args.json:
        print(json.dumps(result.as_mapping()))
    for fault in result.faults:
        print(f"{fault.place}: {fault.message}", file=sys.stderr)
    summary = (
        f"{result.events} events, {result.position} sealed, {result.unsealed} not yet sealed, "
        f"{result.checkpoints} checkpoints: "
        + ("the chain holds" if result.held else "the chain does NOT hold")
    )
    print(summary, file=sys.stderr if args.json else sys.stdout)
    return 0 if result.held else 1


def run_checkpoint(args: argparse.Namespace) -> int:
    """Seal what was recorded and write a signed checkpoint to keep elsewhere."""
    _set_up("worker")
    from portal.audit import chain, checkpoints
    from portal.tasking import TryAgain

    try:
        chain.seal()
    except TryAgain:
        raise CannotRun(_("Another process is sealing; try again in a moment.")) from None
    row = checkpoints.make()
    if row is None:
        raise CannotRun(_("Nothing has been recorded yet."))
    checkpoints.export(checkpoints.of_row(row), args.file)
    print(f"{args.file}: {row.position} links, {row.digest}")
    return 0


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        raise Invalid(_("This file cannot be read: {name}"), name=path.name) from None
