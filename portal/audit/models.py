"""The audit trail. Rows carry no foreign keys: they outlive whatever they speak of."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from portal.leases import Leased


class Event(models.Model):
    """One thing that somebody did, written in the transaction that did it."""

    at = models.DateTimeField()
    actor_id = models.CharField(max_length=40)  # a person's primary key, or "system"
    actor = models.CharField(max_length=200)  # the e-mail address at that time
    action = models.CharField(max_length=80)
    about_kind = models.CharField(max_length=60)
    about_id = models.CharField(max_length=80)
    about = models.CharField(max_length=300)
    details = models.JSONField(default=dict)
    digest = models.CharField(max_length=64)  # SHA-256 of the row's canonical form

    class Meta:
        ordering: ClassVar = ["id"]
        indexes: ClassVar = [
            models.Index(fields=["about_kind", "about_id"], name="event_about"),
            models.Index(fields=["actor_id"], name="event_actor"),
            models.Index(fields=["action"], name="event_action"),
        ]

    def __str__(self) -> str:
        return f"{self.id} {self.action}"


class Link(models.Model):
    """An event's place in the hash chain, given by the one sealer."""

    position = models.PositiveBigIntegerField(primary_key=True)
    event_id = models.PositiveBigIntegerField(unique=True)
    digest = models.CharField(max_length=64)  # see portal.audit.chain.link_digest


class Checkpoint(models.Model):
    """A signed statement of the chain's head; a copy is exported off the machine."""

    position = models.PositiveBigIntegerField()
    digest = models.CharField(max_length=64)
    at = models.DateTimeField()
    key_id = models.CharField(max_length=64)
    signature = models.TextField()

    class Meta:
        ordering: ClassVar = ["id"]


class Walk(Leased):
    """An auditor asked for the whole chain to be walked; a worker says what it found."""

    asked_at = models.DateTimeField(default=timezone.now)
    done_at = models.DateTimeField(null=True, blank=True)
    result = models.JSONField(default=dict)  # portal.audit.verify.Verification.as_mapping()

    def __str__(self) -> str:
        return f"walk {self.pk}"


class Sealer(Leased):
    """One row whose lease says which process extends the chain."""
