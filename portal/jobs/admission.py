"""Which job may start on this machine now, and what this machine has."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from policies.document import POLICY_BYTES, DeploymentPolicy, Policy, default_policy, deploy
from policies.submission import parse_bytes
from policies.toml_text import read_toml
from portal.catalog.models import Dataset
from portal.catalog.queries import policy_of
from portal.jobs import line
from portal.jobs.models import Job, Node
from portal.jobs.transitions import move, set_waiting
from portal.leases import Lease


def _total_memory() -> int:
    """Bytes that jobs may use: what is set, else three quarters of the machine's, or of ours."""
    named = os.environ.get("GLOVEBOX_NODE_MEMORY")
    if named:
        return parse_bytes(named, "GLOVEBOX_NODE_MEMORY")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


def this_node() -> Node:
    """Return this machine's row, with what its jobs may use together brought up to date."""
    cpus = int(os.environ.get("GLOVEBOX_NODE_CPUS", 0)) or len(os.sched_getaffinity(0))
    node, _created = Node.objects.update_or_create(
        name=os.environ.get("GLOVEBOX_NODE", socket.gethostname())[:120],
        defaults={
            "cpus": cpus,
            "memory_bytes": _total_memory(),
            "gpus": int(os.environ.get("GLOVEBOX_NODE_GPUS", 0)),
            "seen_at": timezone.now(),
        },
    )
    return node


def _settings() -> dict[str, Any]:
    """Return what this machine's owner set of [deployment]. Raises Invalid naming the field."""
    named = os.environ.get("GLOVEBOX_DEPLOYMENT")
    found: dict[str, Any] = {}
    if named:
        found = dict(read_toml(Path(named).read_bytes(), "GLOVEBOX_DEPLOYMENT", POLICY_BYTES))
    if ticks := os.environ.get("GLOVEBOX_TICK_SECONDS"):
        found["tick_seconds"] = int(ticks)
    if place := os.environ.get("GLOVEBOX_PLAIN_PLACE"):
        found["plain_place"] = place
    if warm := os.environ.get("GLOVEBOX_WARM"):
        found["warm"] = warm
    return found


def machine_policy(dataset: Dataset) -> Policy:
    """Return a dataset's policy with what this machine's owner set."""
    return deploy(policy_of(dataset), _settings())


def machine_settings() -> DeploymentPolicy:
    """Return what this machine's owner set, or the shipped settings."""
    return deploy(default_policy(), _settings()).deployment


def ahead_of(job: Job) -> QuerySet[Job]:
    """Return the queued jobs that came before this one."""
    return Job.objects.filter(state="queued", pk__lt=job.pk, stop_requested="")


def never_fits(job: Job, node: Node) -> str:
    """Return the resource that this machine can never give the job, or an empty string."""
    lacking = line.amount_of(job).lacking(line.machine_of(node))
    return "memory" if lacking == "memory_bytes" else lacking


def line_now(node: Node) -> line.Line:
    """Return the queue as this machine sees it."""
    return line.line_of(node, machine_settings().queue)


def admit(job: Job, lease: Lease, node: Node) -> bool:
    """Move a queued job to staging if it is its turn and there is room; else say why it waits.

    The rules are those of policies.queue: shares, priorities, and no job waits forever.
    """
    with transaction.atomic():
        # The lock: of two workers at once the second sees what the first has given away.
        node = Node.objects.select_for_update().get(pk=node.pk)
        plan = line_now(node).plan()
        if job.pk in plan.start:
            move(
                job,
                "stage",
                lease=lease,
                node=node,
                admitted_at=timezone.now(),
                starts_at=None,
                waiting="staging",
                waiting_facts={},
            )
            return True
        wait = plan.waits.get(job.pk)
        if wait is None:
            # It is not this machine's to run.
            set_waiting(job, "queue", ahead=ahead_of(job).count())
        else:
            set_waiting(job, wait.code, **line.facts_of(wait))
    return False


def startable(node: Node) -> tuple[int, ...]:
    """Return the jobs whose turn it is now."""
    return line_now(node).plan().start


def estimate(node: Node) -> int:
    """Note when each queued job will likely start; return how many were looked at."""
    found = line_now(node).estimates()
    for job in Job.objects.filter(line.free_rows()).only("pk", "starts_at"):
        starts_at = found.get(job.pk)
        if starts_at != job.starts_at:
            Job.objects.filter(line.free_rows(), pk=job.pk).update(starts_at=starts_at)
    return len(found)
