"""Numbers of a running job: the newest is kept, one a tick is recorded and charged."""

from __future__ import annotations

import queue
from collections.abc import Mapping

from django.db import transaction

from policies.document import Policy
from policies.ledger import bits_of_tick
from policies.metrics import MetricSpec
from portal.audit.record import record
from portal.jobs import ledger
from portal.jobs.models import Job, LedgerEntry, Tick
from portal.leases import Lease


class Curves:
    """Takes a job's ticks, and records and charges what may be seen of them.

    The runner passes a tick on seldom and rounded. :meth:`take` is called by the thread that reads
    the sandbox and only remembers; :meth:`flush` writes, from the thread that watches the job, so
    that a busy database never holds the sandbox up.
    """

    def __init__(
        self, job: Job, lease: Lease, specs: Mapping[str, MetricSpec], policy: Policy
    ) -> None:
        self._job, self._lease, self._specs, self._policy = job, lease, specs, policy
        self._waiting: queue.SimpleQueue[tuple[int, dict[str, float]]] = queue.SimpleQueue()
        self._stopped = job.curves_stopped

    def take(self, step: int, values: Mapping[str, float]) -> None:
        """Remember one tick."""
        self._waiting.put((step, dict(values)))

    def flush(self) -> int:
        """Record what was taken; return how many ticks were written."""
        written = 0
        while not self._stopped:
            try:
                step, values = self._waiting.get_nowait()
            except queue.Empty:
                break
            written += self._write(step, values)
        return written

    def _write(self, step: int, values: Mapping[str, float]) -> bool:
        job = self._job
        bits = bits_of_tick(self._specs, values)
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
                values=dict(values),
                bits=bits,
            )
        return True
