"""The JSON shapes of votes and of what a reader may know of them."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext
from rest_framework import serializers

from portal.accounts.serializers import PersonBriefly
from portal.errors import sentence
from portal.voting.ballots import V, VotingView


class VoteSerializer(serializers.Serializer[Any]):
    """A vote, for those who may see it."""

    voter = PersonBriefly()
    choice = serializers.CharField()
    comment = serializers.CharField()
    cast_at = serializers.DateTimeField()


class VotingSerializer(serializers.Serializer[Any]):
    """What the reader may know of the voting."""

    bound_to = serializers.CharField(help_text="send it back with a vote")
    state = serializers.CharField(help_text="open, approved, rejected, returned, conflicted")
    reason = serializers.CharField()
    needed = serializers.ListField(child=serializers.CharField())
    counted = serializers.IntegerField()
    quorum = serializers.IntegerField()
    revealed = serializers.BooleanField()
    may_vote = serializers.BooleanField()
    why_not = serializers.CharField()
    votes = VoteSerializer(many=True)


def voting_facts(view: VotingView[V], *, shows_digest: bool = True) -> dict[str, Any]:
    """Return a view in the shape of VotingSerializer, in the reader's language."""
    decision = view.decision
    return {
        "bound_to": view.bound_to if shows_digest else "",
        "state": decision.state,
        "reason": gettext(decision.reason),
        "needed": [gettext(text) for text in decision.needed],
        "counted": decision.counted,
        "quorum": decision.quorum,
        "revealed": decision.revealed,
        "may_vote": view.may_vote,
        "why_not": sentence(view.why_not) if view.why_not else "",
        "votes": VoteSerializer(view.votes, many=True).data,
    }


class VoteInput(serializers.Serializer[Any]):
    """A vote on exactly what ``bound_to`` names."""

    choice = serializers.ChoiceField(choices=["approve", "reject", "return"])
    bound_to = serializers.CharField(max_length=64)
    comment = serializers.CharField(required=False, allow_blank=True, default="")
