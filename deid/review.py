"""The officer's sample: how many files, which ones, and whether the version passes.

Rule of three: when none of n files drawn at random shows a miss, the true rate is below 3/n with
95 % confidence; in general n = ln(1 - confidence) / ln(1 - rate).
"""

from __future__ import annotations

import io
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from PIL import Image

from policies.errors import CannotRun, _

Row: TypeAlias = Mapping[str, Any]
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ULTRASOUND = frozenset({"US", "IVUS"})
LARGEST_SIDE = 2048


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
        if row["target"] and row["kind"] in ("dicom", "photo")
    }
    return [by_target[target] for target in sorted(by_target)]


def draw_sample(rows: Iterable[Row], policy: SamplePolicy, seed: int | str) -> list[Row]:
    """The files that the officer must see: a random draw over all strata, and every risky one.

    The draw is of the size that the policy's bound asks for, or of everything where there is
    less, spread over modality, vendor and SOP class so that each is seen. Beyond it: all
    secondary captures and ultrasound, and every file whose detector was unsure.
    """
    all_rows = published(rows)
    must = [row for row in all_rows if _is_risky(row, policy)]
    wanted = max(
        policy.sample_minimum, sample_size(policy.sample_confidence, policy.sample_miss_rate)
    )
    chosen = {str(row["target"]): row for row in _spread(all_rows, wanted, seed)}
    chosen.update((str(row["target"]), row) for row in must)
    return [chosen[target] for target in sorted(chosen)]


def _is_risky(row: Row, policy: SamplePolicy) -> bool:
    stratum = row.get("stratum", {})
    if policy.sample_secondary_captures and (
        str(stratum.get("sop_class", "")).startswith(SECONDARY_CAPTURE)
        or stratum.get("modality") in ULTRASOUND
    ):
        return True
    scores = [float(box[4]) for boxes in row["boxes"].values() for box in boxes]
    return bool(scores) and min(scores) < policy.sample_below_score


def _spread(rows: Sequence[Row], wanted: int, seed: int | str) -> list[Row]:
    """``wanted`` rows, in proportion to the strata and at least one of each."""
    if len(rows) <= wanted:
        return list(rows)
    generator = random.Random(f"glovebox sample {seed}")  # noqa: S311 - reproducible, not secret
    strata: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        stratum = row.get("stratum", {})
        strata[tuple(str(stratum.get(name, "")) for name in ("modality", "vendor", "sop_class"))
               ].append(row)  # fmt: skip
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


def picture_of(data: bytes) -> bytes:
    """A DICOM file or a photograph as PNG, for the decoder process; the middle frame of several."""
    if data[128:132] == b"DICM" or data[:2] in (b"\x08\x00", b"\x02\x00"):
        from deid.dicom import display
        from deid.dicom.decode import stored

        dataset, frames, properties = stored(data)
        shown = display.pictures(frames[frames.shape[0] // 2], properties, _palette(dataset))
        array = shown[0] if shown else np.zeros(frames.shape[1:3], np.uint8)
        image = Image.fromarray(array)
    else:
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


def _palette(dataset: Any) -> Any:
    return dataset if "RedPaletteColorLookupTableDescriptor" in dataset else None


def picture(path: Any) -> bytes:
    """A file as PNG bytes, decoded in a process of its own without keys.

    Raises :class:`CannotRun` when the file cannot be shown.
    """
    from pathlib import Path

    from deid.decoding import Decoder
    from deid.quarantine import Quarantined

    decoder = Decoder()
    try:
        return decoder.ask({"operation": "picture"}, Path(path).read_bytes())[1]
    except (Quarantined, OSError):
        raise CannotRun(_("This file cannot be shown as a picture.")) from None
    finally:
        decoder.close()
