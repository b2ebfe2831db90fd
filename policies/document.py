"""The policy: one frozen value, read from data, that a dataset may only tighten.

Each field's annotation says in which direction it is tighter, so that loading, tightening and
the documentation all follow from the one declaration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from policies.errors import Invalid, _
from policies.tightening import (
    BYTES,
    FIXED,
    MUST,
    MUST_NOT,
    SECONDS,
    SUBSET,
    SUPERSET,
    Direction,
    Entries,
    Higher,
    Lower,
    Ordered,
    plain,
    read_value,
    tighter_value,
)
from policies.toml_text import read_toml

POLICY_BYTES = 2**18
ISOLATION_ORDER = ("bubblewrap", "gvisor", "kata")
# The shipped profiles of deid/profiles, from the one that keeps most to the one that keeps least.
PROFILE_ORDER = ("research", "basic", "mammography")
# What a security officer looks at: a sample, or every image of the version.
EXAMINATION_ORDER = ("sample", "every")
# Where data may lie in plain: memory that is never swapped to a plain disk or an encrypted disk, as
# far as the machine can tell; or wherever the work folder is.
PLAIN_PLACE_ORDER = ("any", "encrypted")
# What a reviewer may be asked to have looked at; policies/checklist.py has the sentences.
CHECKLIST_LINES = (
    "artefacts",
    "findings",
    "code",
    "metrics",
    "history",
    "changes",
    "subgroups",
    "purpose",
)
SAFETENSORS_DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")


@dataclass(frozen=True, slots=True)
class Image:
    """One entry of the image catalogue; the runner knows how to provide it."""

    description: Annotated[str, FIXED]
    gpu: Annotated[bool, FIXED]


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """How jobs share a machine (policies/queue.py); shares are of its scarcest resource."""

    organisation_share: Annotated[float, Lower(0.01, 1.0)]
    person_share: Annotated[float, Lower(0.01, 1.0)]
    longest_wait: Annotated[int, Lower(0, 366 * 86400), SECONDS]
    margin: Annotated[int, Lower(0, 86400), SECONDS]
    remember: Annotated[int, Lower(0, 366 * 86400), SECONDS]


@dataclass(frozen=True, slots=True)
class DeploymentPolicy:
    """What the owner of the machine sets; no dataset touches it."""

    tick_seconds: Annotated[int, Lower(1, 86400)]
    queue: QueuePolicy
    plain_place: Annotated[str, Ordered(PLAIN_PLACE_ORDER)]
    warm: Annotated[int, Lower(0, 7 * 86400), SECONDS]
    lighter_epsilon: Annotated[float, Lower(0.0, 1000.0)]
    images: Mapping[str, Image]


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What a purpose may get."""

    train: Annotated[bool, MUST_NOT]
    weights: Annotated[bool, MUST_NOT]
    metrics: Annotated[bool, MUST_NOT]
    download_data: Annotated[bool, MUST_NOT]


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """How long, for whom and for what a grant may be."""

    maximum_days: Annotated[int, Lower(1, 3660)]
    maximum_analysts: Annotated[int, Lower(1, 1000)]
    ethics_document: Annotated[bool, MUST]
    signed_agreement: Annotated[bool, MUST]
    purposes: Mapping[str, Entitlement]


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many votes decide, and whose."""

    quorum: Annotated[int, Higher(1, 15)]
    approvals: Annotated[int, Higher(1, 15)]
    internal: Annotated[int, Higher(0, 15)]
    external: Annotated[int, Higher(0, 15)]
    distinct_units: Annotated[bool, MUST]
    external_majority_on_conflict: Annotated[bool, MUST]
    steward: Annotated[bool, MUST]


@dataclass(frozen=True, slots=True)
class ReviewPolicy:
    """The two votes: on access and on release, and what a reviewer of a release ticks."""

    checklist: Annotated[tuple[str, ...], SUPERSET]
    access: Quorum
    release: Quorum


@dataclass(frozen=True, slots=True)
class DeidPolicy:
    """What must be cleaned, how large the checked sample is, and how long originals stay."""

    profile: Annotated[str, Ordered(PROFILE_ORDER)]
    redact_text: Annotated[bool, MUST]
    redact_faces: Annotated[bool, MUST]
    redact_plates: Annotated[bool, MUST]
    sample_confidence: Annotated[float, Higher(0.5, 0.9999)]
    sample_miss_rate: Annotated[float, Lower(0.0001, 0.5)]
    sample_minimum: Annotated[int, Higher(1, 100_000)]
    sample_secondary_captures: Annotated[bool, MUST]
    sample_below_score: Annotated[float, Higher(0.0, 1.0)]
    examination: Annotated[str, Ordered(EXAMINATION_ORDER)]
    officers: Annotated[int, Higher(1, 5)]
    originals_days: Annotated[int, Lower(0, 3660)]
    quarantine_days: Annotated[int, Lower(0, 3660)]
    pictures_days: Annotated[int, Lower(0, 3660)]


@dataclass(frozen=True, slots=True)
class ResourcePolicy:
    """Resources a job gets or may ask for; memory and output in bytes, time in seconds."""

    cpus: Annotated[int, Lower(1, 1024)]
    memory: Annotated[int, Lower(2**26, 2**50), BYTES]
    gpus: Annotated[int, Lower(0, 64)]
    time: Annotated[int, Lower(1, 366 * 86400), SECONDS]
    output: Annotated[int, Lower(2**20, 2**50), BYTES]
    processes: Annotated[int, Lower(1, 65536)]


@dataclass(frozen=True, slots=True)
class ArchivePolicy:
    """How large and how deep an uploaded archive may be; ``ratio`` is unpacked to packed."""

    bytes: Annotated[int, Lower(1, 2**40), BYTES]
    unpacked_bytes: Annotated[int, Lower(1, 2**40), BYTES]
    member_bytes: Annotated[int, Lower(1, 2**40), BYTES]
    members: Annotated[int, Lower(1, 1_000_000)]
    ratio: Annotated[int, Lower(1, 1000)]
    name_length: Annotated[int, Lower(1, 255)]
    depth: Annotated[int, Lower(1, 64)]


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """What may be kept inside between the jobs of a grant; 0 bytes: nothing."""

    bytes: Annotated[int, Lower(0, 2**40), BYTES]
    grant_bytes: Annotated[int, Lower(0, 2**44), BYTES]
    files: Annotated[int, Lower(1, 1_000_000)]
    days: Annotated[int, Lower(1, 366)]


@dataclass(frozen=True, slots=True)
class SubmissionPolicy:
    """What a job may contain and ask for."""

    images: Annotated[tuple[str, ...], SUBSET]
    recipes: Annotated[tuple[str, ...], SUBSET]
    own_trainer: Annotated[bool, MUST_NOT]
    manifest_bytes: Annotated[int, Lower(1, 2**20), BYTES]
    config_bytes: Annotated[int, Lower(0, 2**20), BYTES]
    datasets: Annotated[int, Lower(1, 64)]
    metrics: Annotated[int, Lower(0, 256)]
    outputs: Annotated[int, Lower(1, 256)]
    defaults: ResourcePolicy
    maximum: ResourcePolicy
    archive: ArchivePolicy
    checkpoint: CheckpointPolicy


@dataclass(frozen=True, slots=True)
class ReleasePolicy:
    """What may leave, how large, how exact."""

    kinds: Annotated[tuple[str, ...], SUBSET]
    cell_threshold: Annotated[int, Higher(1, 10_000)]
    digits: Annotated[int, Lower(1, 15)]
    curve_points: Annotated[int, Lower(0, 101)]
    matrix_side: Annotated[int, Lower(0, 32)]
    weights_bytes: Annotated[int, Lower(1, 2**40), BYTES]
    metrics_bytes: Annotated[int, Lower(1, 2**30), BYTES]
    metrics_bits: Annotated[int, Lower(1, 2**30)]
    config_bytes: Annotated[int, Lower(1, 2**30), BYTES]
    tensors: Annotated[int, Lower(1, 1_000_000)]
    tensor_name_length: Annotated[int, Lower(1, 1000)]
    tensor_dimensions: Annotated[int, Lower(1, 32)]
    dtypes: Annotated[tuple[str, ...], SUBSET]
    review_dtypes: Annotated[tuple[str, ...], SUPERSET]
    metadata_keys: Annotated[tuple[str, ...], SUBSET]
    review_bits_per_sample: Annotated[int, Lower(1, 2**40)]
    block_bits_per_sample: Annotated[int, Lower(1, 2**40)]
    review_hidden_bits: Annotated[int, Lower(0, 2**40)]
    small_training_set: Annotated[int, Higher(0, 1_000_000)]
    sanitise: Annotated[bool, MUST]
    sanitise_bits: Annotated[int, Higher(1, 6)]
    sanitise_loss: Annotated[float, Lower(0.0, 1.0)]
    sealed_evaluations: Annotated[int, Lower(0, 1_000_000)]
    download_hours: Annotated[int, Lower(1, 24 * 366)]
    download_uses: Annotated[int, Lower(1, 100)]


_ASKED_LATER = ("sealed_evaluations", "download_hours", "download_uses")


@dataclass(frozen=True, slots=True)
class AttackPolicy:
    """How hard a network is attacked before it leaves, and what an attack must not reach.

    ``pictures`` are asked of each group, ``references`` networks of ours trained beside it.
    """

    seconds: Annotated[int, Higher(10, 86400), SECONDS]
    pictures: Annotated[int, Higher(20, 100_000)]
    references: Annotated[int, Higher(0, 64)]
    membership_review_auc: Annotated[float, Lower(0.5, 1.0)]
    membership_block_auc: Annotated[float, Lower(0.5, 1.0)]
    membership_rate: Annotated[float, Lower(0.001, 0.5)]
    membership_factor: Annotated[float, Lower(1.0, 100.0)]
    memorisation_p: Annotated[float, Higher(0.001, 0.2)]
    memorisation_ratio: Annotated[float, Lower(1.0, 100.0)]
    memorisation_copies: Annotated[float, Lower(0.0, 1.0)]
    memorisation_gap: Annotated[float, Lower(0.0, 2.0)]


@dataclass(frozen=True, slots=True)
class PrivacyPolicy:
    """How much one private training may spend, and up to where its review may be lighter."""

    epsilon: Annotated[float, Lower(0.0, 1000.0)]
    delta: Annotated[float, Lower(0.0, 0.1)]
    lighter_epsilon: Annotated[float, Lower(0.0, 1000.0)]


@dataclass(frozen=True, slots=True)
class LedgerPolicy:
    """How many bits, releases and how much epsilon may be spent in all."""

    job_bits: Annotated[int, Lower(0, 2**40)]
    grant_bits: Annotated[int, Lower(0, 2**40)]
    organisation_bits: Annotated[int, Lower(0, 2**40)]
    dataset_bits: Annotated[int, Lower(0, 2**40)]
    grant_releases: Annotated[int, Lower(0, 1_000_000)]
    grant_epsilon: Annotated[float, Lower(0.0, 1000.0)]
    organisation_epsilon: Annotated[float, Lower(0.0, 1000.0)]
    dataset_epsilon: Annotated[float, Lower(0.0, 1000.0)]


@dataclass(frozen=True, slots=True)
class IsolationPolicy:
    """The weakest isolation that may run on the data, and the sandbox's fixed limits."""

    minimum: Annotated[str, Ordered(ISOLATION_ORDER)]
    tmp_bytes: Annotated[int, Lower(2**20, 2**40), BYTES]
    shm_bytes: Annotated[int, Lower(2**20, 2**40), BYTES]
    open_files: Annotated[int, Lower(64, 1_048_576)]
    output_inodes: Annotated[int, Lower(16, 1_000_000)]
    log_bytes: Annotated[int, Lower(0, 2**32), BYTES]


@dataclass(frozen=True, slots=True)
class StagingPolicy:
    """How the plain copy of a version lies on a machine, and how long it outlives its last job.

    A version with at least ``pack_files`` files of at most ``pack_file_bytes`` has these in shards;
    with ``paths`` they stand under their paths, too, and take twice the room. Less of it in plain,
    and for a shorter time, is tighter.
    """

    warm: Annotated[int, Lower(0, 7 * 86400), SECONDS]
    paths: Annotated[bool, MUST_NOT]
    pack_files: Annotated[int, Lower(1, 1_000_000_000)]
    pack_file_bytes: Annotated[int, Higher(1, 2**26), BYTES]


@dataclass(frozen=True, slots=True)
class HistoryPolicy:
    """When earlier releases of a dataset are worth a notice to reviewers."""

    near_distance: Annotated[float, Higher(0.0, 1.4)]
    near_releases: Annotated[int, Lower(2, 1000)]
    small_bits: Annotated[int, Higher(0, 2**50)]
    small_releases: Annotated[int, Lower(2, 1000)]
    window_days: Annotated[int, Higher(1, 36600)]


@dataclass(frozen=True, slots=True)
class Policy:
    """The whole policy of an installation or of one dataset."""

    name: Annotated[str, FIXED]
    deployment: DeploymentPolicy
    access: AccessPolicy
    review: ReviewPolicy
    deid: DeidPolicy
    submission: SubmissionPolicy
    release: ReleasePolicy
    attacks: AttackPolicy
    privacy: PrivacyPolicy
    ledger: LedgerPolicy
    history: HistoryPolicy
    isolation: IsolationPolicy
    staging: StagingPolicy


@cache
def default_policy() -> Policy:
    """Return the shipped policy, ``documents/default.toml``."""
    source = resources.files("policies") / "documents" / "default.toml"
    return read_policy(source.read_text(encoding="utf-8"))


def read_policy(text: str) -> Policy:
    """Return a whole policy from TOML; raises Invalid naming the first bad field."""
    return policy_from_mapping(read_toml(text, "policy", POLICY_BYTES))


def policy_from_mapping(values: Mapping[str, Any]) -> Policy:
    """Return a whole policy from plain values, the inverse of :func:`as_mapping`."""
    policy: Policy = _load(Policy, values, "")
    _check_together(policy)
    return policy


def tighten(base: Policy, override: Mapping[str, Any]) -> Policy:
    """Return ``base`` with ``override`` applied, every changed field at least as strict.

    Raises Invalid naming the field when it is unknown, of the wrong type, or looser than base.
    The section ``deployment`` is not a dataset's to change.
    """
    if isinstance(override, Mapping) and "deployment" in override:
        raise Invalid(
            _("This section belongs to the installation; a dataset cannot change it."),
            field="deployment",
            code="policy.fixed",
        )
    policy: Policy = _tighten(base, override, "", free=False)
    _check_together(policy)
    return policy


def tighten_toml(base: Policy, text: str) -> Policy:
    """Return :func:`tighten` of a TOML document, as a steward writes it."""
    return tighten(base, read_toml(text, "policy", POLICY_BYTES))


def deploy(base: Policy, settings: Mapping[str, Any]) -> Policy:
    """Return ``base`` with the machine owner's ``[deployment]`` settings, in either direction.

    Raises Invalid naming the field.
    """
    deployment = _tighten(base.deployment, settings, "deployment", free=True)
    policy = dataclasses.replace(base, deployment=deployment)
    _check_together(policy)
    return policy


def as_mapping(policy: object) -> dict[str, Any]:
    """Return plain values (for JSON and for the evidence), sizes and times in bytes and seconds."""
    values: dict[str, Any] = plain(policy)
    return values


def inspected_under(policy: Policy) -> dict[str, Any]:
    """Return what an inspection is held to, as plain values: its record keeps them.

    Not how often a sealed split is asked or a bundle fetched, which is asked at other times.
    """
    values = as_mapping(policy)
    release = {k: v for k, v in values["release"].items() if k not in _ASKED_LATER}
    return {"release": release} | {name: values[name] for name in ("attacks", "privacy")}


def stricter_since(policy: Policy, kept: Mapping[str, Any]) -> str | None:
    """Return a field in which a policy is stricter than the :func:`inspected_under` of before."""
    try:
        _tighten(policy, kept, "", free=False)
    except Invalid as error:
        return error.field or "policy"
    return None


def release_policy(values: Mapping[str, Any]) -> ReleasePolicy:
    """Return the section from plain values, as ``dataclasses.asdict`` gives and JSON carries it."""
    fixed: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return ReleasePolicy(**fixed)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


@cache
def _fields(cls: Any) -> dict[str, tuple[Any, tuple[Direction, ...]]]:
    """Return each field's bare type and its markers."""
    found: dict[str, tuple[Any, tuple[Direction, ...]]] = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if get_origin(hint) is Annotated:
            bare, *markers = get_args(hint)
            found[name] = (bare, tuple(markers))
        else:
            found[name] = (hint, ())
    return found


def _section(value: object, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Invalid(_("This must be a section of settings."), field=path, code="policy.type")
    return value


def _unknown(path: str, names: list[str]) -> Invalid:
    return Invalid(
        _("The policy has no such setting; here it knows {known}."),
        field=path,
        code="policy.unknown",
        known=", ".join(names),
    )


def _load(cls: Any, value: object, path: str) -> Any:
    section = _section(value, path or "policy")
    fields = _fields(cls)
    for name in section:
        if name not in fields:
            raise _unknown(_join(path, str(name)), list(fields))
    result: dict[str, Any] = {}
    for name, (bare, markers) in fields.items():
        here = _join(path, name)
        if name not in section:
            raise Invalid(_("The policy must set this."), field=here, code="policy.missing")
        if dataclasses.is_dataclass(bare):
            result[name] = _load(bare, section[name], here)
        elif get_origin(bare) is Mapping:
            inner = get_args(bare)[1]
            entries = _section(section[name], here)
            result[name] = Entries(
                {key: _load(inner, entries[key], _join(here, key)) for key in entries}
            )
        else:
            result[name] = read_value(bare, markers, section[name], here)
    return cls(**result)


def _tighten(base: Any, override: object, path: str, *, free: bool) -> Any:
    section = _section(override, path or "policy")
    kind: Any = type(base)
    fields = _fields(kind)
    changed: dict[str, Any] = {}
    for name, value in section.items():
        here = _join(path, str(name))
        if name not in fields:
            raise _unknown(here, list(fields))
        bare, markers = fields[name]
        current = getattr(base, name)
        if dataclasses.is_dataclass(bare):
            changed[name] = _tighten(current, value, here, free=free)
        elif get_origin(bare) is Mapping:
            entries = dict(current)
            for key, entry in _section(value, here).items():
                if key in entries:
                    entries[key] = _tighten(entries[key], entry, _join(here, key), free=free)
                elif free:
                    entries[key] = _load(get_args(bare)[1], entry, _join(here, key))
                else:
                    raise _unknown(_join(here, str(key)), list(entries))
            changed[name] = Entries(entries)
        elif free:
            changed[name] = read_value(bare, markers, value, here)
        else:
            changed[name] = tighter_value(bare, markers, current, value, here)
    return dataclasses.replace(base, **changed)


def _check_together(policy: Policy) -> None:
    """Check what no single field can say, so that no policy is impossible to satisfy."""
    for kind, rule in (("access", policy.review.access), ("release", policy.review.release)):
        if rule.approvals > rule.quorum or rule.internal + rule.external > rule.quorum:
            raise Invalid(
                _("The quorum must be at least the approvals, and the internal and external votes"),
                field=f"review.{kind}.quorum",
                code="policy.quorum",
            )
    for line in policy.review.checklist:
        if line not in CHECKLIST_LINES:
            raise Invalid(
                _("The lines of the checklist are {known}."),
                field="review.checklist",
                code="policy.checklist",
                known=", ".join(CHECKLIST_LINES),
            )
    for image in policy.submission.images:
        if image not in policy.deployment.images:
            raise Invalid(
                _("This image is not in the catalogue of the installation."),
                field="submission.images",
                code="policy.image",
            )
    for dtype in (*policy.release.dtypes, *policy.release.review_dtypes):
        if dtype not in SAFETENSORS_DTYPES:
            raise Invalid(
                _("Tensor types are {known}."),
                field="release.dtypes",
                code="policy.dtype",
                known=", ".join(SAFETENSORS_DTYPES),
            )
