"""The officer's sample: how many files, which ones, and whether the version passes.

Rule of three: when none of n files drawn at random shows a miss, the true rate is below 3/n with
95 % confidence; in general n = ln(1 - confidence) / ln(1 - rate).
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from deid.decoding import Decoder
from deid.quarantine import Quarantined
from policies.errors import CannotRun, _

Row: TypeAlias = Mapping[str, Any]
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ULTRASOUND = frozenset({"US", "IVUS"})
EVERY = "every image"


class SamplePolicy(Protocol):
    """The settings that the sample goes by (``policies`` section ``deid``)."""

    @property
    def sample_confidence(self) -> float: ...
    @property
    def sample_miss_rate(self) -> float: ...
    @property
    def sample_minimum(self) -> int: ...
    @property
    def sample_secondary_captures(self) -> bool: ...
    @property
    def sample_below_score(self) -> float: ...


def stratum(row: Row) -> str:
    """What a row stands for in the sample: modality, vendor and SOP class in one line."""
    facts = row.get("stratum", {})
    return " / ".join(str(facts.get(name) or "-") for name in ("modality", "vendor", "sop_class"))


def sample_size(confidence: float, miss_rate: float) -> int:
    """How many clean files bound the rate of misses: 299 for 1 % with 95 % confidence."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - miss_rate))


def bound(clean: int, confidence: float = 0.95) -> float:
    """The rate of misses that ``clean`` files without a miss exclude, with that confidence."""
    return 1.0 if clean <= 0 else 1 - (1 - confidence) ** (1 / clean)


def published(rows: Iterable[Row]) -> list[Row]:
    """The rows that have a picture to look at, each target once, in a fixed order."""
    by_target = {
        str(row["target"]): row
        for row in rows
        if row["target"] and row["kind"] in ("dicom", "photo", "video")
    }
    return [by_target[target] for target in sorted(by_target)]


def draw_sample(rows: Iterable[Row], policy: SamplePolicy, seed: int | str) -> list[Row]:
    """The files that the officer must see: a random draw over all strata, and every risky one.

    The draw is of the size that the policy's bound asks for, or of everything where there is
    less, spread over modality, vendor and SOP class so that each is seen. Beyond it: all
    secondary captures and ultrasound, and every file whose detector was unsure.
    """
    return [row for row, _why in draw(rows, policy, seed)]


def draw(
    rows: Iterable[Row], policy: SamplePolicy, seed: int | str, *, every: bool = False
) -> list[tuple[Row, str]]:
    """:func:`draw_sample` with the reason why each was drawn; ``every`` draws all there are.

    The reason is empty for the random draw: the bound rests on those files alone, since what is
    always looked at stands for nothing but itself.
    """
    all_rows = published(rows)
    if every:
        return [(row, EVERY) for row in all_rows]
    must = [(row, why) for row in all_rows if (why := _risk(row, policy))]
    wanted = max(
        policy.sample_minimum, sample_size(policy.sample_confidence, policy.sample_miss_rate)
    )
    chosen = {str(row["target"]): (row, why) for row, why in must}
    chosen.update((str(row["target"]), (row, "")) for row in _spread(all_rows, wanted, seed))
    return [chosen[target] for target in sorted(chosen)]


def _risk(row: Row, policy: SamplePolicy) -> str:
    """Why a file is looked at whatever the draw is; empty when nothing says so."""
    if row.get("review"):
        return str(row["review"])[:40]
    facts = row.get("stratum", {})
    if policy.sample_secondary_captures:
        if str(facts.get("sop_class", "")).startswith(SECONDARY_CAPTURE):
            return "secondary capture"
        if facts.get("modality") in ULTRASOUND:
            return "ultrasound"
    scores = [
        float(box["score"]) for boxes in row["boxes"].values() for box in boxes if "score" in box
    ]
    return "low score" if scores and min(scores) < policy.sample_below_score else ""


def _spread(rows: Sequence[Row], wanted: int, seed: int | str) -> list[Row]:
    """``wanted`` rows, in proportion to the strata and at least one of each."""
    if len(rows) <= wanted:
        return list(rows)
    generator = random.Random(f"glovebox sample {seed}")  # noqa: S311 - reproducible, not secret
    strata: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        strata[stratum(row)].append(row)
    chosen: list[Row] = []
    rest: list[Row] = []
    for key in sorted(strata):
        members = strata[key]
        generator.shuffle(members)
        share = max(1, wanted * len(members) // len(rows))
        chosen.extend(members[:share])
        rest.extend(members[share:])
    generator.shuffle(rest)
    return chosen + rest[: max(0, wanted - len(chosen))]


def decide(findings: Iterable[Mapping[str, Any]]) -> Literal["pass", "fail"]:
    """Pass only when no finding says that something identifying was left (``missed``).

    Each finding has ``kind``: missed and bad-range (a box that does not cover its text) fail the
    version; wrong and extra boxes hide too much, which the officer may accept.
    """
    failing = {"missed", "bad-range"}
    known = failing | {"wrong", "extra", "clean"}
    kinds = [str(finding.get("kind", "missed")) for finding in findings]
    return "fail" if any(kind in failing or kind not in known for kind in kinds) else "pass"


def picture(path: Path) -> bytes:
    """A file as PNG bytes, decoded in a process of its own without keys.

    Raises :class:`CannotRun` when the file cannot be shown.
    """
    decoder = Decoder()
    try:
        return decoder.ask({"operation": "picture"}, path.read_bytes())[1]
    except (Quarantined, OSError):
        raise CannotRun(_("This file cannot be shown as a picture.")) from None
    finally:
        decoder.close()
