"""What may leave: artefact kinds, sizes, tensors and metrics, as findings with a verdict.

No scan proves that nothing is hidden. Allow-lists and budgets bound what can leave; the findings
say what was looked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policies.document import Policy
from policies.errors import _
from policies.findings import (
    Finding,
    Severity,
    Verdict,
    finding_from_mapping,
    has_hard_block,
    verdict,
)
from policies.metric_values import check_metrics
from policies.metrics import MetricSpec, round_number
from policies.tensors import (
    TensorFact,
    check_budget,
    check_metadata,
    check_room,
    check_tensors,
    dtype_code,
)

__all__ = [
    "ArtefactFact",
    "Finding",
    "MetricSpec",
    "Severity",
    "TensorFact",
    "Verdict",
    "check_artefact_facts",
    "check_budget",
    "check_config",
    "check_metadata",
    "check_metrics",
    "check_room",
    "check_tensors",
    "dtype_code",
    "finding_from_mapping",
    "has_hard_block",
    "round_number",
    "verdict",
]


@dataclass(frozen=True, slots=True)
class ArtefactFact:
    """One collected file: its path below the output, and its size."""

    path: str
    bytes: int


def check_artefact_facts(
    found: Sequence[ArtefactFact], declared: Mapping[str, str], policy: Policy
) -> list[Finding]:
    """Return what is wrong with the set of files before any is opened.

    ``declared`` is path to kind, as ``Manifest.outputs.names`` has it. A path that was not
    declared was made up by the job, so only reviewers see it.
    """
    limits = policy.release
    most = {
        "weights": limits.weights_bytes,
        "metrics": limits.metrics_bytes,
        "config": limits.config_bytes,
    }
    findings: list[Finding] = []
    strange = [fact for fact in found if fact.path not in declared]
    if strange:
        findings.append(
            Finding(
                "artefacts.undeclared",
                "block",
                "",
                _("There are files that the manifest does not declare."),
                {"count": len(strange), "bytes": sum(fact.bytes for fact in strange)},
                {"paths": [repr(fact.path)[:200] for fact in strange[:20]]},
                hard=True,
            )
        )
    if len({fact.path for fact in found}) != len(found):
        findings.append(
            Finding("artefacts.twice", "block", "", _("A file is there twice."), hard=True)
        )
    for fact in found:
        kind = declared.get(fact.path)
        if kind is None:
            continue
        if kind not in limits.kinds or kind not in most:
            findings.append(
                Finding(
                    "artefacts.kind",
                    "block",
                    fact.path,
                    _("The policy does not let this kind of file leave."),
                )
            )
        elif fact.bytes > most[kind]:
            findings.append(
                Finding(
                    "artefacts.size",
                    "block",
                    fact.path,
                    _("The file is larger than the policy allows."),
                    {"bytes": fact.bytes, "most": most[kind]},
                )
            )
        elif fact.bytes <= 0:
            findings.append(
                Finding("artefacts.empty", "block", fact.path, _("The file is empty."), hard=True)
            )
    present = {declared.get(fact.path) for fact in found}
    return findings + [
        Finding(
            "artefacts.missing", "info", "", _("The job left no file of this kind."), {"kind": kind}
        )
        for kind in ("weights", "metrics")
        if kind not in present
    ]


def check_config(
    declared: Mapping[str, Any], written: object, data: bytes, artefact: str
) -> list[Finding]:
    """Return a block unless the configuration that a job left is the one of its manifest.

    It was written before the run, so it can tell nothing of the data; anything else could.
    ``data`` are the file's own bytes, ``written`` what they mean. The file leaves as it is, so its
    spaces, escapes, digits and the order of its keys must say nothing either.
    """
    if _frozen(written) != _frozen(dict(declared)):
        return [
            Finding(
                "config.differs",
                "block",
                artefact,
                _("The configuration is not the one of the manifest."),
            )
        ]
    if data not in _spellings(declared):
        return [
            Finding(
                "config.spelling",
                "block",
                artefact,
                _(
                    "The configuration is spelled in an unusual way, which could carry data. "
                    "Write it with glovebox.save_config or json.dump."
                ),
            )
        ]
    return []


def _spellings(declared: Mapping[str, Any]) -> frozenset[bytes]:
    """Return the files that ``json.dump`` ordinarily writes: forty, so at most six bits."""
    texts = {
        json.dumps(
            dict(declared), sort_keys=by_name, ensure_ascii=plain, indent=indent, separators=marks
        )
        for by_name in (False, True)
        for plain in (False, True)
        for indent, marks in ((None, None), (None, (",", ":")), (1, None), (2, None), (4, None))
    }
    return frozenset((text + end).encode() for text in texts for end in ("", "\n"))


def _frozen(value: object) -> object:
    """Return a form in which 1, 1.0 and true differ, and the order of keys does not matter."""
    if isinstance(value, Mapping):
        return ("table", frozenset((str(key), _frozen(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return ("list", tuple(_frozen(item) for item in value))
    return (type(value).__name__, value)
