"""Which job may start on this machine now: first come first served, within cores and memory."""

from __future__ import annotations

import os
import socket

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from policies.document import Policy, deploy
from policies.submission import Resources, parse_bytes
from portal.catalog.models import Dataset
from portal.catalog.queries import policy_of
from portal.jobs.models import Job, Node
from portal.jobs.storage import manifest_of
from portal.jobs.transitions import move, set_waiting
from portal.leases import Lease

# States in which a job occupies the machine. Inspection runs the network again, as an oracle.
OCCUPYING = ("staging", "running", "collecting", "inspecting")


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


def machine_policy(dataset: Dataset) -> Policy:
    """Return a dataset's policy with what this machine's owner set."""
    policy = policy_of(dataset)
    settings: dict[str, object] = {}
    if ticks := os.environ.get("GLOVEBOX_TICK_SECONDS"):
        settings["tick_seconds"] = int(ticks)
    if place := os.environ.get("GLOVEBOX_PLAIN_PLACE"):
        settings["plain_place"] = place
    if warm := os.environ.get("GLOVEBOX_WARM"):
        settings["warm"] = warm
    return deploy(policy, settings) if settings else policy


def resources_of(job: Job) -> Resources:
    """Return what a job asked for, as its manifest was read."""
    return manifest_of(job.submission).resources


def ahead_of(job: Job) -> QuerySet[Job]:
    """Return the queued jobs that came before this one."""
    return Job.objects.filter(state="queued", pk__lt=job.pk, stop_requested="")


def never_fits(job: Job, node: Node) -> str:
    """Return the resource that this machine can never give the job, or an empty string."""
    asked = resources_of(job)
    for name, wanted, has in (
        ("cpus", asked.cpus, node.cpus),
        ("memory", asked.memory_bytes, node.memory_bytes),
        ("gpus", asked.gpus, node.gpus),
    ):
        if wanted > has:
            return name
    return ""


def admit(job: Job, lease: Lease, node: Node) -> bool:
    """Move a queued job to staging if the machine has room for it, else say what it waits for.

    First come, first served: a later job never starts before an earlier one that waits for room,
    so a large job is not starved by small ones.
    """
    asked = resources_of(job)
    with transaction.atomic():
        node = Node.objects.select_for_update().get(pk=node.pk)
        used = [
            resources_of(other)
            for other in Job.objects.filter(node=node, state__in=OCCUPYING)
            .exclude(pk=job.pk)
            .select_related("submission")
        ]
        free_cpus = node.cpus - sum(one.cpus for one in used)
        free_memory = node.memory_bytes - sum(one.memory_bytes for one in used)
        free_gpus = node.gpus - sum(one.gpus for one in used)
        ahead = ahead_of(job).count()
        if ahead:
            set_waiting(job, "queue", ahead=ahead)
        elif asked.cpus > free_cpus:
            set_waiting(job, "cpus", wanted=asked.cpus, free=max(0, free_cpus))
        elif asked.memory_bytes > free_memory:
            set_waiting(job, "memory", wanted=asked.memory_bytes, free=max(0, free_memory))
        elif asked.gpus > free_gpus:
            set_waiting(job, "gpus", wanted=asked.gpus, free=max(0, free_gpus))
        else:
            move(job, "stage", lease=lease, node=node, waiting="staging", waiting_facts={})
            return True
    return False
