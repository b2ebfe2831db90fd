"""``python -m bench.audit_rows EVENTS REPETITIONS``, in the environment of a portal of its own.

Makes the portal, records and seals events by the portal's own functions, and answers with a line
of JSON: rows a second of recording, sealing, verifying, and of the bare reading.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
import time

import django

BATCH = 500
# What is recorded most: views, numbers, and a vote with a few details.
ACTIONS = ("job.viewed", "dataset.viewed", "request.vote", "release.vote", "job.start")


def record_events(count: int, *, people: list, about: object) -> float:  # type: ignore[type-arg]
    """Record events by several people about one row; return the rows a second."""
    from django.db import transaction

    from portal.audit.record import record

    began = time.perf_counter()
    for start in range(0, count, BATCH):
        with transaction.atomic():
            for number in range(start, min(start + BATCH, count)):
                record(
                    ACTIONS[number % len(ACTIONS)],
                    by=people[number % len(people)] if people else None,
                    about=about,  # type: ignore[arg-type]
                    details={"from": "queued", "to": "running", "attempt": number % 7, "bits": 0.5},
                )
    return count / (time.perf_counter() - began)


def seal_all() -> float:
    """Seal what is recorded and sign a checkpoint; return the rows a second."""
    from portal.audit import chain, checkpoints

    began = time.perf_counter()
    count = chain.seal()
    rate = count / (time.perf_counter() - began)
    checkpoints.make()
    return rate


def main(events: int, repetitions: int) -> None:
    """Measure, and print one line of JSON."""
    django.setup()
    from django.conf import settings
    from django.core.management import call_command

    from bench.ratios import in_turns
    from portal import keys
    from portal.accounts.models import Organisation, Person
    from portal.audit import verify

    keys.make_all()
    call_command("migrate", verbosity=0)
    people = [
        Person.objects.create_user(f"person{number}@example.org", name=f"Person {number}")
        for number in range(10)
    ]
    about = Organisation.objects.create(name="Hospital")
    recorded = record_events(events, people=people, about=about)
    sealed = seal_all()

    def verified() -> float:
        began = time.perf_counter()
        result = verify.verify()
        seconds = time.perf_counter() - began
        if not result.held or result.position != events:
            raise RuntimeError("the chain of the bench does not hold")
        return events / seconds

    def bare() -> float:
        database = sqlite3.connect(settings.DATABASES["default"]["NAME"])
        began = time.perf_counter()
        count = 0
        for row in database.execute("SELECT * FROM audit_event ORDER BY id"):
            hashlib.sha256(repr(row).encode()).digest()
            count += 1
        seconds = time.perf_counter() - began
        database.close()
        return count / seconds

    measured = in_turns({"verify": verified, "bare": bare}, repetitions)
    sys.stdout.write(
        json.dumps({**measured, "recorded": recorded, "sealed": sealed, "batch": BATCH}) + "\n"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
