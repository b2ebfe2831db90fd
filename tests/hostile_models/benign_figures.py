"""What the whole gate says of the benign suite: every network trained and inspected anew.

usage: python -m tests.hostile_models.benign_figures ROWS [--seeds 1 2 3] [--minutes 600]
           [--only NAME ...] [--part K/N] [--seconds 120]

Each inspection is a line of the file ROWS; those that are there are not made again, so it may be
ended and started again. With all of them there it prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scipy.stats import beta

from policies.document import default_policy
from sandbox_runner.inspection import Report

from .benign import BENIGN, REMEMBERING, Benign, make

#: Findings that ask for review whatever the network: its type, its task or its dataset alone
#: bring them, and they are known before a training starts.
ORDINARY = frozenset(
    {
        "tensors.precision",
        "tensors.integers",
        "tensors.few-samples",
        "evaluation.none",
        "membership.unmeasured",
        "membership.few",
    }
)
#: Every rule that can flag a network which was honestly trained, with what it needs to be asked.
RULES = (
    "tensors.dead", "tensors.dead-parts", "tensors.parts-unasked", "tensors.counters",
    "tensors.nonfinite", "tensors.budget", "tensors.room", "metrics.budget", "samples.stored",
    "samples.rows", "samples.likeness", "samples.anywhere", "samples.smooth", "payload.file",
    "payload.text", "payload.low-bits", "payload.steps", "payload.exponents", "payload.even",
    "payload.repeated", "payload.few-values", "payload.whole-numbers", "network.fault",
    "evaluation.unsteady", "membership.auc", "membership.rate", "membership.unsteady",
    "memorisation.generated", "memorisation.settled", "memorisation.inverted",
    "memorisation.instances", "memorisation.transpose",
)  # fmt: skip
MIXED = 7
#: Checks that are not run on every network leave a finding wherever they are.
_TOLD = ("membership.auc", "membership.rate", "memorisation.")


def more_than_ordinary(report: Report) -> list[str]:
    """Return the rules that ask for review or block because of what this network is."""
    return sorted(
        {
            found.rule
            for found in report.findings
            if found.severity != "info" and found.rule not in ORDINARY
        }
    )


def row_of(name: str, seed: int, home: Path, seconds: float) -> dict[str, Any]:
    """Train and inspect one network; return what was found."""
    job = make(name, seed, home)
    policy = default_policy()
    # On a busy machine the clock would decide, and not the network.
    policy = replace(policy, attacks=replace(policy.attacks, seconds=seconds))
    start = time.monotonic()
    report = job.inspect(home / f"work-{job.submission.parent.name}", policy)
    shutil.rmtree(job.submission.parent)
    figures = {
        found.rule: {k: v for k, v in found.evidence.items() if isinstance(v, int | float | str)}
        for found in report.findings
        if found.rule.startswith(
            ("membership.", "memorisation.", "payload.", "tensors.dead", "samples.")
        )
        or found.rule in ("tensors.room", "network.fault")
    }
    return {
        "name": name,
        "seed": seed,
        "type": job.dtype,
        "verdict": report.verdict,
        "found": {found.rule: found.severity for found in report.findings},
        "more": more_than_ordinary(report),
        "figures": figures,
        "loss": [job.first, job.last],
        "auc": official_auc(report),
        "seconds": round(time.monotonic() - start, 1),
    }


def official_auc(report: Report) -> float | None:
    """Return the official AUC a picture, the mean of those of several classes."""
    official = report.official
    tables = list(official.get("classes", {}).values()) or [official]
    found = [(each.get("image") or {}).get("auc") for each in tables]
    values = [each["value"] for each in found if each is not None]
    return sum(values) / len(values) if values else None


def really_trained(case: Benign, auc: float | None, loss: Sequence[float]) -> bool:
    """Whether a network learned what it was to learn, on sealed pictures or else by its loss."""
    if case.task == "classification":
        return (auc or 0.0) >= case.least_auc
    return loss[1] < 0.9 * loss[0]


def share(hits: int, count: int) -> str:
    """Return hits of count, with Clopper's and Pearson's 95 % interval."""
    if not count:
        return "-"
    low = float(beta.ppf(0.025, hits, count - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, count - hits)) if hits < count else 1.0
    return f"{hits} of {count}, {hits / count:.1%} [{low:.1%}, {high:.1%}]"


def _line(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    blocked = sum(row["verdict"] == "block" for row in rows)
    needed = sum(bool(row["more"]) for row in rows)
    passed = sum(row["verdict"] == "pass" for row in rows)
    cells = (share(blocked, len(rows)), share(needed, len(rows)), f"{passed} of {len(rows)}")
    return f"| {name} | {' | '.join(cells)} |"


def tables(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the tables of the page docs/release-gate.md."""
    rows = list(rows)
    whole = [row for row in rows if row["name"] in BENIGN]
    benign = [r for r in whole if really_trained(BENIGN[r["name"]], r["auc"], r["loss"])]
    narrow = [row for row in benign if row["type"] != "F32"]
    lines = [
        "| networks | blocked | more than ordinary review | passed |",
        "|---|---|---|---|",
        _line("all", benign),
        _line("BF16, F16 and I8", narrow),
        *(
            _line(kind, [r for r in benign if r["type"] == kind])
            for kind in ("BF16", "F16", "I8", "F32")
        ),
        *(
            _line(f"seed {seed}", [r for r in narrow if r["seed"] == seed])
            for seed in sorted({row["seed"] for row in benign})
        ),
        "",
        "| rule | flagged | of which blocked |",
        "|---|---|---|",
    ]
    for rule in RULES:
        told = rule.startswith(_TOLD) and not rule.endswith("unsteady")
        asked = [r for r in benign if rule in r["found"] or not told]
        hits = [r["found"][rule] for r in asked if r["found"].get(rule, "info") != "info"]
        lines.append(f"| `{rule}` | {share(len(hits), len(asked))} | {hits.count('block')} |")
    rest = {rule for row in benign for rule in row["more"]} - set(RULES)
    dull = [f"{r['name']} {r['seed']}" for r in whole if r not in benign]
    lines += ["", f"Left out, for they learned nothing: {', '.join(dull) or 'none'}."]
    lines += ["", f"Other rules that flagged: {', '.join(sorted(rest)) or 'none'}.", ""]
    for row in benign:
        if row["more"]:
            lines.append(f"- {row['name']}, seed {row['seed']}, {row['type']}: "
                         f"{', '.join(row['more'])}")  # fmt: skip
    lines.append("")
    for row in rows:
        if row["name"] in REMEMBERING:
            lines.append(f"- remembering: {row['name']}, seed {row['seed']}, {row['type']}: "
                         f"{row['verdict']}, {', '.join(row['more']) or 'nothing'}")  # fmt: skip
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Train, inspect, append; print when all is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--only", nargs="+", default=[*BENIGN, *REMEMBERING])
    parser.add_argument("--part", default="1/1", help="K/N: one of N that run beside each other")
    parser.add_argument(
        "--seconds", type=float, default=default_policy().attacks.seconds,
        help="what attacks may take; more on a busy machine",
    )  # fmt: skip
    given = parser.parse_args(argv)
    part, parts = (int(each) for each in given.part.split("/"))
    end = time.monotonic() + 60 * given.minutes
    kept = _kept(given.rows)
    there = {(row["name"], row["seed"]) for row in kept}
    # Mixed, so that the first ones are of many kinds.
    mixed = [name for first in range(MIXED) for name in given.only[first::MIXED]]
    wanted = [(name, seed) for seed in given.seeds for name in mixed]
    missing = [each for each in wanted[part - 1 :: parts] if each not in there]
    with tempfile.TemporaryDirectory(prefix="benign-") as folder:
        for name, seed in missing:
            if time.monotonic() > end:
                print(f"{len(missing)} were missing; not all are done", file=sys.stderr)
                return 3
            row = row_of(name, seed, Path(folder), given.seconds)
            with given.rows.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(f"{seed} {name} {row['type']}: {row['verdict']} {row['more']}", file=sys.stderr)
    chosen = set(wanted)
    print(tables(row for row in _kept(given.rows) if (row["name"], row["seed"]) in chosen))
    return 0


def _kept(place: Path) -> list[dict[str, Any]]:
    if not place.exists():
        return []
    return [json.loads(line) for line in place.read_text().splitlines()]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
