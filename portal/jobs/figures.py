"""Measured figures for pages: official ones with interval and target, reported ones by shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_noop

# What a detector for screening is asked to reach (sensitivity, specificity, AUC by patient).
TARGETS: Mapping[str, float] = {"sensitivity": 0.80, "specificity": 0.80, "auc": 0.85}
WORDS: Mapping[str, str] = {
    "sensitivity": gettext_noop("Sensitivity"),
    "specificity": gettext_noop("Specificity"),
    "auc": gettext_noop("AUC"),
    "accuracy": gettext_noop("Accuracy"),
}
LEVELS: Mapping[str, str] = {
    "patient": gettext_noop("by patient"),
    "image": gettext_noop("by image"),
}
# Kinds of artefacts, as pages say them.
KINDS = (gettext_noop("weights"), gettext_noop("metrics"), gettext_noop("config"))
WIDTH, HEIGHT, EDGE = 180, 22, 6


@dataclass(frozen=True)
class Figure:
    """One official figure; ``value`` is None where too few subjects stand behind it."""

    level: str
    name: str
    value: float | None
    low: float | None
    high: float | None
    target: float | None

    @property
    def judged(self) -> str:
        """Return how the figure stands to its target: a look of a state, "" without one."""
        if self.value is None or self.target is None or self.low is None:
            return ""
        if self.low >= self.target:
            return "good"
        return "warn" if self.value >= self.target else "bad"

    @property
    def sentence(self) -> str:
        """Return the same in words."""
        words = {
            "good": gettext_noop("reached"),
            "warn": gettext_noop("reached, but the interval goes below"),
            "bad": gettext_noop("not reached"),
        }
        return gettext(words[self.judged]) if self.judged else ""


def official_figures(official: Mapping[str, Any]) -> list[Figure]:
    """Return the rows of the official metrics, by patient first, then by image, by class if any."""
    found = _levels(official, "")
    classes = official.get("classes")
    if isinstance(classes, Mapping):
        for name, table in classes.items():
            if isinstance(table, Mapping):
                found += _levels(table, f"{gettext('class')} {name}, ")
    return found


@dataclass(frozen=True)
class Moved:
    """One official figure before and after weights were rewritten; None where suppressed."""

    level: str
    name: str
    before: float | None
    after: float | None

    @property
    def lost(self) -> float | None:
        """Return how much of it was lost; below zero where it gained."""
        if self.before is None or self.after is None:
            return None
        return round(self.before - self.after, 4)


@dataclass(frozen=True)
class Rewritten:
    """How weights were rewritten, for pages and the model card; sizes in bits."""

    noise: float
    lowest_bits: int
    capacity: int
    stored: int
    read_back: int
    a_number: float
    agree: list[float]
    zeroed: int
    figures: list[Moved]


def rewritten(sanitising: Mapping[str, Any], official: Mapping[str, Any]) -> Rewritten | None:
    """Return what the inspection did to weights, None where it left them alone."""
    if not sanitising:
        return None
    after = {(f.level, f.name): f.value for f in official_figures(official)}
    return Rewritten(
        noise=sanitising["noise"],
        lowest_bits=sanitising["lowest_bits"],
        capacity=sanitising["capacity_bits"],
        stored=sanitising["stored_bits"],
        read_back=sanitising["read_back_bits"],
        a_number=sanitising["capacity_bits"] / max(1, sanitising["numbers"]),
        agree=[share for share in sanitising["agree"] if share is not None],
        zeroed=sanitising["zeroed"],
        figures=[
            Moved(f.level, f.name, f.value, after.get((f.level, f.name)))
            for f in official_figures(sanitising["before"])
        ],
    )


def _levels(table: Mapping[str, Any], prefix: str) -> list[Figure]:
    found = []
    for level, words in LEVELS.items():
        measured = table.get(level)
        if not isinstance(measured, Mapping):
            continue
        for name, word in WORDS.items():
            if name not in measured:
                continue
            figure = measured[name] or {}
            found.append(
                Figure(
                    level=prefix + gettext(words),
                    name=gettext(word),
                    value=figure.get("value"),
                    low=figure.get("low"),
                    high=figure.get("high"),
                    # The targets are stated by patient; by image they would promise too much.
                    target=TARGETS.get(name) if level == "patient" and not prefix else None,
                )
            )
    return found


def drawing(figure: Figure) -> SafeString:
    """Return the interval on a line from 0 to 1, with the value as a dot, the target as a mark."""
    if figure.value is None or figure.low is None or figure.high is None:
        return format_html("")

    def at(value: float) -> str:
        return f"{EDGE + min(1.0, max(0.0, value)) * (WIDTH - 2 * EDGE):.1f}"

    mark = (
        format_html('<path class="target" d="M{} 3V19"/>', at(figure.target))
        if figure.target is not None
        else ""
    )
    return format_html(
        '<svg class="interval" viewBox="0 0 {} {}" width="{}" height="{}" aria-hidden="true">'
        '<path class="axis" d="M{} 11H{}"/>{}<path class="reach" d="M{} 11H{}"/>'
        '<circle class="dot" cx="{}" cy="11" r="4"/></svg>',
        *(WIDTH, HEIGHT, WIDTH, HEIGHT, at(0), at(1), mark),
        *(at(figure.low), at(figure.high), at(figure.value)),
    )


def kind_of(value: Any) -> str:
    """Return the shape of a reported metric: number, curve, matrix, table, rows or text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    if isinstance(value, Mapping):
        return "table"
    if isinstance(value, list) and value:
        if all(isinstance(item, int | float) for item in value):
            return "curve"
        if all(isinstance(item, list) for item in value):
            return "matrix"
        if all(isinstance(item, Mapping) for item in value):
            return "rows"
    return "text"
