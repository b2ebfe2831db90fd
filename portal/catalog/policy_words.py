"""A dataset's policy as sentences, for people who must decide whether to ask for access."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_noop as _

from policies.document import Policy, Quorum

PURPOSES = {
    "research": _("research"),
    "education": _("education"),
    "commercial": _("commercial development"),
    "download": _("download of the data"),
}
RIGHTS = (
    ("train", _("train")),
    ("weights", _("take trained weights out")),
    ("metrics", _("take metrics out")),
    ("download_data", _("download the data")),
)
ISOLATION = {
    "bubblewrap": _("a sealed process without a network (bubblewrap)"),
    "gvisor": _("a sealed process on a kernel of its own (gVisor)"),
    "kata": _("a virtual machine of its own (Kata)"),
}


@dataclass(frozen=True)
class Section:
    """A heading and the sentences under it, translated."""

    title: str
    sentences: tuple[str, ...]


def in_words(policy: Policy) -> list[Section]:
    """Return what a policy says to those who ask, in the reader's language."""
    return [
        Section(gettext("Who may have what"), tuple(_purposes(policy))),
        Section(gettext("How access is decided"), tuple(_access(policy))),
        Section(gettext("How jobs run"), tuple(_jobs(policy))),
        Section(gettext("What may leave"), tuple(_release(policy))),
        Section(gettext("How the images are cleaned"), tuple(_deid(policy))),
    ]


def _purposes(policy: Policy) -> Iterator[str]:
    for purpose, entitlement in policy.access.purposes.items():
        rights = [gettext(words) for name, words in RIGHTS if getattr(entitlement, name)]
        if purpose in PURPOSES:
            name = gettext(PURPOSES[purpose]).capitalize()
            yield f"{name}: {', '.join(rights) if rights else gettext('nothing')}."


def _votes(quorum: Quorum) -> Iterator[str]:
    yield gettext("{quorum} votes decide; at least {approvals} must approve.").format(
        quorum=quorum.quorum, approvals=quorum.approvals
    )
    if quorum.internal or quorum.external:
        yield gettext("At least {internal} voter from inside and {external} from outside.").format(
            internal=quorum.internal, external=quorum.external
        )
    if quorum.distinct_units:
        yield gettext("The voters belong to different units.")
    if quorum.steward:
        yield gettext("The dataset's steward must approve as well.")


def _access(policy: Policy) -> Iterator[str]:
    yield from _votes(policy.review.access)
    yield gettext("Nobody votes on a request of their own unit, and votes are blind.")
    days = policy.access.maximum_days
    yield ngettext(
        "Access lasts {days} day at most.", "Access lasts {days} days at most.", days
    ).format(days=days)
    people = policy.access.maximum_analysts
    yield ngettext(
        "It is for {people} named person at most.",
        "It is for {people} named people at most.",
        people,
    ).format(people=people)
    if policy.access.ethics_document:
        yield gettext("A decision of an ethics committee must be enclosed.")
    if policy.access.signed_agreement:
        yield gettext("The data-use agreement must be signed.")


def _jobs(policy: Policy) -> Iterator[str]:
    isolation = policy.isolation.minimum
    yield gettext("Code runs at least in {isolation}.").format(
        isolation=gettext(ISOLATION.get(isolation, isolation))
    )
    if not policy.submission.own_trainer:
        yield gettext("Only the portal's own trainers run; you bring a network.")
    yield gettext(
        "While a job runs it may say {job} bits in declared numbers; all jobs of a grant {grant}."
    ).format(job=policy.ledger.job_bits, grant=policy.ledger.grant_bits)
    yield gettext("Rows that are kept for the final test are never shown to a job.")
    if not policy.staging.paths:
        yield gettext("Small files are read through the package glovebox, not by their paths.")


def _release(policy: Policy) -> Iterator[str]:
    yield from _votes(policy.review.release)
    yield gettext("Numbers leave with at most {digits} digits.").format(
        digits=policy.release.digits
    )
    yield gettext("Counts below {threshold} are suppressed.").format(
        threshold=policy.release.cell_threshold
    )
    number = policy.ledger.grant_releases
    yield ngettext(
        "At most {number} release for each grant.",
        "At most {number} releases for each grant.",
        number,
    ).format(number=number)
    if policy.release.sanitise:
        yield gettext("Weights are rounded and rewritten before they leave.")


def _deid(policy: Policy) -> Iterator[str]:
    masked = [
        gettext(words)
        for wanted, words in (
            (policy.deid.redact_text, _("text")),
            (policy.deid.redact_faces, _("faces")),
        )
        if wanted
    ]
    if masked:
        yield gettext("In the pixels these are found and masked: {kinds}.").format(
            kinds=", ".join(masked)
        )
    if policy.deid.redact_plates:
        # No detector knows them; such files go to a person, whatever was drawn.
        yield gettext("A security officer looks for number plates in each photograph and video.")
    if policy.deid.examination == "every":
        yield gettext("A security officer examines every image.")
    else:
        yield gettext(
            "A security officer examines a random sample so large that misses in more than "
            "{rate} of the files would be found with {confidence} confidence."
        ).format(
            rate=f"{policy.deid.sample_miss_rate:.2%}",
            confidence=f"{policy.deid.sample_confidence:.0%}",
        )
    if policy.deid.officers > 1:
        yield gettext("{number} different security officers sign before publication.").format(
            number=policy.deid.officers
        )
    days = policy.deid.originals_days
    yield ngettext(
        "Originals are destroyed after {days} day.",
        "Originals are destroyed after {days} days.",
        days,
    ).format(days=days)
