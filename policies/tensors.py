"""Weights as facts: names, shapes, types and sizes, held against the declared architecture."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from policies.document import Policy
from policies.errors import _
from policies.findings import Finding

# Bits of one element by safetensors' own type names.
BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "I64": 64,
    "I32": 32,
    "I16": 16,
    "I8": 8,
    "U8": 8,
    "BOOL": 8,
}
_FLOATS = ("F64", "F32", "F16", "BF16")
# Bits of one element that a trained network bears to be anything (measured: four of bfloat16's
# cost the networks of the tests nothing).
HIDDEN_BITS = {"F16": 7, "BF16": 4, "I8": 4, "U8": 4}
_OTHER_NAMES = {
    "float64": "F64",
    "double": "F64",
    "float32": "F32",
    "float": "F32",
    "float16": "F16",
    "half": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "long": "I64",
    "int32": "I32",
    "int": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
# Counters such as BatchNorm's are scalars; more whole numbers than this are a place for data.
_LARGE_INTEGERS = 4096


@dataclass(frozen=True, slots=True)
class TensorFact:
    """One tensor; ``dtype`` in safetensors', NumPy's or torch's words, ``nonfinite`` elements."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    nonfinite: int = 0

    @property
    def elements(self) -> int:
        """The number of elements (1 for a scalar)."""
        return math.prod(self.shape)

    @property
    def bits(self) -> int:
        """The size in bits; an unknown type is counted as 64 an element."""
        return self.elements * BITS.get(dtype_code(self.dtype), 64)


def dtype_code(name: str) -> str:
    """Return safetensors' name of a type (``torch.float32`` is ``F32``), or the name itself."""
    return _OTHER_NAMES.get(name.removeprefix("torch.").removeprefix("numpy."), name)


def check_tensors(
    declared: Sequence[TensorFact],
    found: Sequence[TensorFact],
    policy: Policy,
    *,
    training_samples: int | None = None,
    artefact: str = "model.safetensors",
    complete: bool = True,
) -> list[Finding]:
    """Return what is wrong with the tensors of a weights file.

    ``declared`` is what the network says it has when it is built without data. Every tensor must
    exist there with that shape and a type of the same kind (floats may be narrower). Names that
    only the file has are internal evidence: a job could spell data with them. With
    ``training_samples`` the budgets in bits a sample are held as well. Unless the file must be
    ``complete``, tensors of the network may be missing.
    """
    findings = [
        *_check_form(found, policy, artefact),
        *_check_against(declared, found, artefact, complete),
        *_check_values(found, policy, artefact),
    ]
    if training_samples is not None:
        findings += check_budget(found, training_samples, policy, artefact=artefact)
    return findings


def check_budget(
    found: Sequence[TensorFact],
    training_samples: int,
    policy: Policy,
    *,
    artefact: str = "model.safetensors",
    beside_bits: int = 0,
) -> list[Finding]:
    """Return findings on the size of the weights against the number of training samples.

    No scan proves that weights hold no data; how much they *could* hold of each sample is known.
    ``beside_bits`` leave beside the tensors, as an ONNX model's graph does.
    """
    limits = policy.release
    bits = sum(tensor.bits for tensor in found) + beside_bits
    samples = max(0, training_samples)
    each = bits / samples if samples else math.inf
    evidence = {
        "bits": bits,
        "parameters": sum(tensor.elements for tensor in found),
        "samples": samples,
    }
    if each > limits.block_bits_per_sample:
        return [
            Finding(
                "tensors.budget",
                "block",
                artefact,
                _("The weights could hold far more than the policy allows for so few samples."),
                evidence | {"most_bits_per_sample": limits.block_bits_per_sample},
            )
        ]
    findings = []
    if samples < limits.small_training_set:
        findings.append(
            Finding(
                "tensors.few-samples",
                "review",
                artefact,
                _("The training set is small, so the model may describe single subjects."),
                {"samples": samples, "least": limits.small_training_set},
            )
        )
    large = each > limits.review_bits_per_sample
    findings.append(
        Finding(
            "tensors.budget",
            "review" if large else "info",
            artefact,
            _("The weights are large for the number of samples.")
            if large
            else _("What the weights could hold of each sample."),
            evidence | {"bits_per_sample": each},
        )
    )
    return findings


def check_room(
    found: Sequence[TensorFact], policy: Policy, *, artefact: str = "model.safetensors"
) -> list[Finding]:
    """Return a review where narrow numbers could hide more than the policy leaves to chance.

    The lowest bits of a trained mantissa are what encrypted bits are, too, in any type. Wide types
    go to review whatever their size; of narrow ones so many bits a release are borne, unless the
    weights are rewritten, which makes those bits random.
    """
    limits = policy.release
    narrow = [t for t in found if dtype_code(t.dtype) not in limits.review_dtypes]
    room = sum(t.elements * HIDDEN_BITS.get(dtype_code(t.dtype), 0) for t in narrow)
    if room <= limits.review_hidden_bits:
        return []
    return [
        Finding(
            "tensors.room",
            "review",
            artefact,
            _(
                "The lowest bits of so many numbers could hide more than the policy bears. Let the "
                "weights be rewritten, or reviewers judge."
            ),
            {"bits": room, "most": limits.review_hidden_bits},
        )
    ]


def check_metadata(
    metadata: Mapping[str, str], policy: Policy, *, artefact: str = "model.safetensors"
) -> list[Finding]:
    """Return a hard block where a weights file carries text other than its format's name."""
    keys = set(policy.release.metadata_keys)
    strange = [
        key for key, value in metadata.items() if key not in keys or value not in ("pt", "np", "")
    ]
    if not strange:
        return []
    return [
        Finding(
            "tensors.metadata",
            "block",
            artefact,
            _("The file carries metadata that the policy does not know."),
            {"count": len(strange)},
            {"keys": [repr(key)[:80] for key in strange[:20]]},
            hard=True,
        )
    ]


def _names(tensors: Sequence[TensorFact]) -> dict[str, list[str]]:
    return {"names": [repr(tensor.name)[:120] for tensor in tensors[:20]]}


def _check_form(found: Sequence[TensorFact], policy: Policy, artefact: str) -> list[Finding]:
    limits = policy.release
    findings: list[Finding] = []

    def block(rule: str, message: str, bad: Sequence[TensorFact]) -> None:
        if bad:
            findings.append(
                Finding(rule, "block", artefact, message, {"count": len(bad)}, _names(bad), True)
            )

    if not found:
        findings.append(
            Finding("tensors.none", "block", artefact, _("The file holds no tensor."), hard=True)
        )
    block(
        "tensors.count",
        _("The file holds more tensors than the policy allows."),
        found if len(found) > limits.tensors else (),
    )
    block(
        "tensors.name",
        _("A tensor's name is letters, digits and . _ - within the length of the policy."),
        [
            t
            for t in found
            if len(t.name) > limits.tensor_name_length or not _NAME.fullmatch(t.name)
        ],
    )
    often = Counter(t.name for t in found)
    twice = [t for t in found if often[t.name] > 1]
    block("tensors.twice", _("A tensor's name occurs twice."), twice)
    block(
        "tensors.shape",
        _("A tensor has a shape that no network has."),
        [
            t
            for t in found
            if len(t.shape) > limits.tensor_dimensions or any(side < 0 for side in t.shape)
        ],
    )
    block(
        "tensors.dtype",
        _("A tensor has a type that may not leave."),
        [t for t in found if dtype_code(t.dtype) not in limits.dtypes],
    )
    return findings


def _check_against(
    declared: Sequence[TensorFact], found: Sequence[TensorFact], artefact: str, complete: bool
) -> list[Finding]:
    network = {tensor.name: tensor for tensor in declared}
    there = {tensor.name for tensor in found}
    findings: list[Finding] = []
    extra = [t for t in found if t.name not in network]
    if extra:
        findings.append(
            Finding(
                "tensors.extra",
                "block",
                artefact,
                _("The file holds tensors that the declared network does not have."),
                {"count": len(extra), "bits": sum(t.bits for t in extra)},
                _names(extra),
                hard=True,
            )
        )
    # These names come from the network as built without data, so they may be told.
    missing = [t for t in declared if complete and t.name not in there]
    differ = [t for t in found if t.name in network and t.shape != network[t.name].shape]
    retyped = [t for t in found if t.name in network and not _fits(network[t.name], t)]
    for rule, message, bad in (
        ("tensors.missing", _("The declared network has tensors that the file lacks."), missing),
        ("tensors.differs", _("A tensor has another shape than the declared network's."), differ),
        ("tensors.retyped", _("A tensor has another type than the declared network's."), retyped),
    ):
        if bad:
            findings.append(
                Finding(rule, "block", artefact, message, {"count": len(bad)}, _names(bad), True)
            )
    return findings


def _fits(declared: TensorFact, found: TensorFact) -> bool:
    """Whether the file's type is the network's, or a float no wider than the network's."""
    ours, theirs = dtype_code(declared.dtype), dtype_code(found.dtype)
    if ours in _FLOATS and theirs in _FLOATS:
        return BITS[theirs] <= BITS[ours]
    return ours == theirs


def _check_values(found: Sequence[TensorFact], policy: Policy, artefact: str) -> list[Finding]:
    findings: list[Finding] = []
    broken = [t for t in found if t.nonfinite]
    if broken:
        findings.append(
            Finding(
                "tensors.nonfinite",
                "block",
                artefact,
                _("The weights hold values that are not finite; a trained network has none."),
                {"tensors": len(broken), "values": sum(t.nonfinite for t in broken)},
                _names(broken),
            )
        )
    whole = [
        t for t in found if dtype_code(t.dtype) not in _FLOATS and t.elements > _LARGE_INTEGERS
    ]
    if whole:
        findings.append(
            Finding(
                "tensors.integers",
                "review",
                artefact,
                _("The weights hold large tensors of whole numbers."),
                {"count": len(whole), "bits": sum(t.bits for t in whole)},
                _names(whole),
            )
        )
    wide = [t for t in found if dtype_code(t.dtype) in policy.release.review_dtypes]
    if wide:
        findings.append(
            Finding(
                "tensors.precision",
                "review",
                artefact,
                _("Full precision leaves room for hidden bits that no scan can tell from noise."),
                {"count": len(wide), "bits": sum(t.bits for t in wide)},
            )
        )
    return findings
