"""Rows that every vote leaves behind; each app adds what was voted on, and its constraint."""

from __future__ import annotations

from typing import ClassVar, Self, TypeVar

from django.db import models
from django.utils import timezone

from portal.accounts.models import Person


class StepRow(models.Model):
    """When something entered and left a state."""

    state = models.CharField(max_length=20)
    entered_at = models.DateTimeField(default=timezone.now)
    left_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True


V = TypeVar("V", bound="VoteRow")


class VoteManager(models.Manager[V]):
    """Votes come with their voters and those' units: the rules judge a vote by both."""

    def get_queryset(self) -> models.QuerySet[V]:
        return super().get_queryset().select_related("voter__unit__organisation")


class VoteRow(models.Model):
    """One person's vote, bound to exactly what they saw."""

    voter = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    choice = models.CharField(max_length=10)
    comment = models.TextField(blank=True)
    bound_to = models.CharField(max_length=64)
    cast_at = models.DateTimeField(default=timezone.now)

    objects: ClassVar[VoteManager[Self]] = VoteManager()

    class Meta:
        abstract = True


class RecusalRow(models.Model):
    """Somebody says that they are too close to judge."""

    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    reason = models.TextField(blank=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        abstract = True
