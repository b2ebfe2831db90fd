"""Why a job ended as it did, in words for its applicant."""

from __future__ import annotations

from collections.abc import Mapping

from django.utils.translation import gettext, gettext_noop

# (state, reason) of sandbox_runner.spec.REASONS: what happened and what to do.
WORDS: Mapping[tuple[str, str], str] = {
    ("failed", "exit"): gettext_noop("Your program ended with an error."),
    ("failed", "memory"): gettext_noop(
        "It used more memory than it asked for. Ask for more, or use less."
    ),
    ("failed", "processes"): gettext_noop("It started more processes than it asked for."),
    ("failed", "output-limit"): gettext_noop(
        "It wrote more than its output limit, or files that are not declared in [outputs]."
    ),
    ("failed", "data"): gettext_noop(
        "The data could not be prepared. This is not your program's fault; the operators know."
    ),
    ("failed", "image"): gettext_noop(
        "The image could not be started. This is not your program's fault; the operators know."
    ),
    ("stopped", "timeout"): gettext_noop("Its time was over. Ask for more, or do less."),
    ("stopped", "cancelled"): gettext_noop("It was cancelled by those who handed it in."),
    ("stopped", "lapsed"): gettext_noop("Its grant is no longer active, so it was stopped."),
    ("stopped", "evicted"): gettext_noop("The steward or an administrator stopped it."),
    ("stopped", "node-lost"): gettext_noop("Its machine was lost. Hand it in again."),
    ("refused", "manifest"): gettext_noop("Its manifest or code is against the rules."),
    ("refused", "isolation"): gettext_noop(
        "No machine here can isolate it as the dataset's policy asks."
    ),
    ("refused", "resources"): gettext_noop("No machine here has what it asks for."),
}


def in_words(state: str, reason: str) -> str:
    """Return the sentence for a state and its reason, "" where there is nothing to say."""
    return gettext(WORDS[state, reason]) if (state, reason) in WORDS else ""
