"""The officer's sample: which files are drawn, which round is open, what was signed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from django.db.models import Max, Min, QuerySet

from deid import review
from policies import quality
from policies.document import DeidPolicy
from portal.catalog.models import DatasetVersion
from portal.ingest.models import Intake, ReportRow, ReviewItem

# What sends a version back: something identifying is left.
FAILING = ("missed", "range")


def population(intake: Intake) -> QuerySet[ReportRow]:
    """Return what a sample stands for: one row for each published picture; tables are none."""
    rows = intake.rows.filter(status__in=("written", "unchanged")).exclude(facts__kind="table")
    # The same original sent twice is two rows and one picture.
    first = rows.order_by().values("target").annotate(first=Min("pk")).values("first")
    return rows.filter(pk__in=first)


def draw(intake: Intake, policy: DeidPolicy, seed: int) -> list[tuple[ReportRow, str, str]]:
    """Return the rows to look at, with the stratum each stands for and why it was drawn."""
    rows = {row.position: row for row in population(intake)}
    facts = [
        {
            "position": row.position,
            "status": row.status,
            "target": row.target,
            "boxes": row.boxes,
            **row.facts,
        }
        for row in rows.values()
    ]
    drawn = review.draw(facts, policy, seed, every=policy.examination == "every")
    return [(rows[fact["position"]], review.stratum(fact), why) for fact, why in drawn]


def bound(items: Iterable[ReviewItem], population: int) -> tuple[float, int]:
    """Return the rate of misses that a round excludes with 95 % confidence, and its random files.

    Files that are always looked at stand for nothing but themselves: where not everything was
    looked at, only those drawn at random bound the rate of the rest.
    """
    items = list(items)
    at_random = [item for item in items if not item.why]
    counted = items if len(items) >= population else at_random
    missed = sum(item.finding in FAILING for item in counted)
    rate = quality.upper_bound(sampled=len(counted), missed=missed, population=population)
    return rate, len(at_random)


def current_round(version: DatasetVersion) -> QuerySet[ReviewItem]:
    """Return the items of the newest round, in order."""
    newest = ReviewItem.objects.filter(version=version).aggregate(newest=Max("round"))["newest"]
    return ReviewItem.objects.filter(version=version, round=newest or 0).select_related("row")


def report_digest(intake: Intake) -> str:
    """Return the SHA-256 of the report's rows as they stand, in order."""
    digest = hashlib.sha256()
    for line in report_lines(intake.rows.order_by("position")):
        digest.update(line)
    return digest.hexdigest()


def report_lines(rows: Iterable[ReportRow]) -> Iterable[bytes]:
    """Give the report as JSON lines; it names originals by digest only."""
    for row in rows:
        document = {
            "source": row.source,
            "status": row.status,
            "target": row.target,
            "reason": row.reason,
            "actions": row.actions,
            "boxes": row.boxes,
            "facts": row.facts,
            "seconds": row.seconds,
        }
        yield json.dumps(document, sort_keys=True, ensure_ascii=False).encode() + b"\n"
