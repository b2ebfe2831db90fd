"""Each state as a word for people and one of five looks."""

from __future__ import annotations

from django.utils.translation import gettext_noop

GOOD, WARN, BAD, PLAIN, BUSY = "good", "warn", "bad", "plain", ""

# state or verdict: (word, look)
STATES: dict[str, tuple[str, str]] = {
    "draft": (gettext_noop("draft"), PLAIN),
    "submitted": (gettext_noop("submitted"), BUSY),
    "in_review": (gettext_noop("in review"), BUSY),
    "approved": (gettext_noop("approved"), GOOD),
    "rejected": (gettext_noop("rejected"), BAD),
    "returned": (gettext_noop("returned"), WARN),
    "withdrawn": (gettext_noop("withdrawn"), PLAIN),
    "active": (gettext_noop("active"), GOOD),
    "expired": (gettext_noop("expired"), PLAIN),
    "suspended": (gettext_noop("suspended"), WARN),
    "revoked": (gettext_noop("revoked"), BAD),
    "ingesting": (gettext_noop("being de-identified"), BUSY),
    "de_identified": (gettext_noop("de-identified"), WARN),
    "in_qa": (gettext_noop("being examined"), BUSY),
    "published": (gettext_noop("published"), GOOD),
    "retired": (gettext_noop("retired"), PLAIN),
    "checked": (gettext_noop("checked"), BUSY),
    "queued": (gettext_noop("queued"), BUSY),
    "staging": (gettext_noop("staging"), BUSY),
    "running": (gettext_noop("running"), BUSY),
    "collecting": (gettext_noop("collecting"), BUSY),
    "inspecting": (gettext_noop("inspecting"), BUSY),
    "finished": (gettext_noop("finished"), GOOD),
    "failed": (gettext_noop("failed"), BAD),
    "stopped": (gettext_noop("stopped"), WARN),
    "refused": (gettext_noop("refused"), BAD),
    "proposed": (gettext_noop("proposed"), BUSY),
    "released": (gettext_noop("released"), GOOD),
    "pass": (gettext_noop("pass"), GOOD),
    "review": (gettext_noop("needs review"), WARN),
    "block": (gettext_noop("blocked"), BAD),
    "info": (gettext_noop("note"), PLAIN),
    "written": (gettext_noop("written"), GOOD),
    "unchanged": (gettext_noop("unchanged"), GOOD),
    "quarantined": (gettext_noop("quarantined"), WARN),
    "clean": (gettext_noop("clean"), GOOD),
    "missed": (gettext_noop("missed"), BAD),
    "extra": (gettext_noop("masked too much"), WARN),
    "range": (gettext_noop("bad range"), BAD),
    "wrong": (gettext_noop("wrong box"), WARN),
    "in_force": (gettext_noop("in force"), GOOD),
    "ended": (gettext_noop("ended"), PLAIN),
    "open": (gettext_noop("open"), BUSY),
    "conflicted": (gettext_noop("in conflict"), WARN),
    "approve": (gettext_noop("approve"), GOOD),
    "reject": (gettext_noop("reject"), BAD),
    "return": (gettext_noop("return"), WARN),
}


def word_of(state: str) -> str:
    """Return the untranslated word of a state."""
    return STATES[state][0] if state in STATES else state.replace("_", " ")


def look_of(state: str) -> str:
    """Return the class that gives a state its look."""
    return STATES[state][1] if state in STATES else PLAIN
