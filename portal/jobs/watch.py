"""Beside a running sandbox: obey stops, notice a lapsed grant, and never outlive the lease."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from django.db import DatabaseError, connections
from django.utils import timezone

from policies.errors import GloveboxError
from portal.access.models import Grant
from portal.access.queries import usable
from portal.jobs.models import Job
from portal.leases import Lease, LeaseLost
from sandbox_runner.cancelling import Cancelled

LOOK_SECONDS = 0.5
# A runner that could not see its lease for this long ends its sandbox: the lease (60 s) may pass
# to somebody else soon, and two must never run at once.
BLIND_SECONDS = 25.0


class Stopped(GloveboxError):
    """The job must end now; ``reason`` is the word that its row will say."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Watch:
    """A thread that sets ``cancel`` when a job must end; ``reason`` then says why.

    ``each`` is called at every look, for what else has to be written while the sandbox runs.
    Work under it that is broken off with ``Cancelled`` ends as Stopped or LeaseLost.
    """

    def __init__(self, job: Job, lease: Lease, *, each: Callable[[], object] | None = None) -> None:
        self.cancel = threading.Event()
        self.reason = ""
        self._job, self._lease, self._each = job, lease, each
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"watch-{job.pk}", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        if isinstance(error, Cancelled):
            # Work that was broken off for us: why is known here.
            self.check()

    def check(self) -> None:
        """Raise Stopped or LeaseLost where the job must end."""
        if self.reason == "lost":
            raise LeaseLost("the lease has passed to another worker")
        if self.reason:
            raise Stopped(self.reason)

    def _stop(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.cancel.set()

    def _watch(self) -> None:
        seen = time.monotonic()
        try:
            while not self._done.wait(LOOK_SECONDS):
                try:
                    self.look()
                    if self._each is not None and not self.cancel.is_set():
                        self._each()
                    seen = time.monotonic()
                except DatabaseError:
                    if time.monotonic() - seen > BLIND_SECONDS:
                        self._stop("lost")
                except Exception:
                    # Whatever it was, nobody would obey a stop any more.
                    self._stop("lost")
                if self.cancel.is_set():
                    return
        finally:
            connections.close_all()

    def look(self) -> None:
        """Ask the rows once whether the job may go on."""
        row = (
            Job.objects.filter(pk=self._job.pk)
            .values("lease_owner", "lease_until", "stop_requested")
            .first()
        )
        now = timezone.now()
        if (
            self._lease.lost.is_set()
            or row is None
            or row["lease_owner"] != self._lease.owner
            or row["lease_until"] is None
            or row["lease_until"] <= now
        ):
            self._stop("lost")
        elif row["stop_requested"]:
            self._stop(row["stop_requested"])
        elif not Grant.objects.filter(usable(now), pk=self._job.grant_id).exists():
            self._stop("lapsed")
