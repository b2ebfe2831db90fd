"""Numbers of a running job: the newest is kept, one a tick is recorded and charged."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping

from django.db import transaction

from policies.document import Policy, deploy
from policies.errors import Invalid
from policies.ledger import bits_of_tick, round_tick
from policies.metrics import MetricSpec
from portal.audit.record import record
from portal.jobs import ledger
from portal.jobs.models import Job, LedgerEntry, Tick
from portal.leases import Lease


def tick_seconds(policy: Policy) -> int:
    """Return how often this machine lets a job report; the machine's owner may set it."""
    named = os.environ.get("GLOVEBOX_TICK_SECONDS")
    if named and named.isdigit():
        policy = deploy(policy, {"tick_seconds": int(named)})
    return policy.deployment.tick_seconds


class Curves:
    """Takes every number a job reports, and records what may be seen of them.

    :meth:`take` is called by the sandbox's reader and only remembers; :meth:`flush` writes, from
    the thread that watches the job, so that a busy database never holds the sandbox up.
    """

    def __init__(
        self, job: Job, lease: Lease, specs: Mapping[str, MetricSpec], policy: Policy
    ) -> None:
        self._job, self._lease, self._specs, self._policy = job, lease, specs, policy
        self._every = tick_seconds(policy)
        self._lock = threading.Lock()
        self._newest: tuple[int, dict[str, float]] | None = None
        self._written_at = -float("inf")
        self._stopped = job.curves_stopped

    def take(self, step: int, values: Mapping[str, float]) -> None:
        """Remember the newest numbers; those of one step are put together."""
        with self._lock:
            if self._newest is not None and self._newest[0] == step:
                self._newest[1].update(values)
            else:
                self._newest = (step, dict(values))

    def flush(self) -> bool:
        """Record the newest numbers if a tick is due; True when a tick was written."""
        if self._stopped or time.monotonic() - self._written_at < self._every:
            return False
        with self._lock:
            newest, self._newest = self._newest, None
        if newest is None:
            return False
        try:
            step, values = round_tick(self._specs, *newest)
        except Invalid:
            # A step or a name beyond the rules: not shown, and nothing to tell anybody.
            return False
        self._written_at = time.monotonic()
        return self._write(step, values)

    def _write(self, step: int, values: Mapping[str, float | None]) -> bool:
        job = self._job
        known = {name: value for name, value in values.items() if value is not None}
        bits = bits_of_tick(self._specs, known) if known else 0
        if not known:
            return False
        with transaction.atomic():
            self._lease.check()
            if not ledger.charge(job, LedgerEntry.Kind.TICK, self._policy, bits=bits):
                self._stopped = True
                Job.objects.filter(pk=job.pk).update(curves_stopped=True)
                record("job.curves.stop", by=None, about=job, details={"bits": bits})
                return False
            last = Tick.objects.filter(job=job).order_by("-sequence").first()
            Tick.objects.create(
                job=job,
                sequence=last.sequence + 1 if last else 1,
                attempt=job.runs,
                step=step,
                values=known,
                bits=bits,
            )
        return True
