"""Who may put data in, and who may say that they are clean."""

from __future__ import annotations

from collections.abc import Collection

from policies.errors import Denied, _


def check_can_offer(*, person: str, roles: Collection[str], steward: str | None = None) -> None:
    """Check that a person may create a dataset, or change the one owned by ``steward``.

    Raises Denied for anyone who is no steward, and for a steward of another dataset.
    """
    if "steward" not in roles:
        raise Denied(_("Only a steward may put datasets in."), code="quality.steward")
    if steward is not None and person != steward:
        raise Denied(_("Only this dataset's own steward may do this."), code="quality.own-dataset")


def check_can_examine(*, person: str, roles: Collection[str], steward: str, uploader: str) -> None:
    """Check that a person may judge the de-identification of a version.

    Raises Denied for anyone but a security officer, and for one who owns the dataset or uploaded
    the originals: nobody signs their own work off.
    """
    if "officer" not in roles:
        raise Denied(
            _("Only a security officer may examine de-identified images."), code="quality.officer"
        )
    if person in {steward, uploader}:
        raise Denied(
            _("You own this dataset or uploaded its originals; another officer must examine it."),
            code="quality.own-work",
        )


def upper_bound(*, sampled: int, missed: int, population: int, confidence: float = 0.95) -> float:
    """Return the rate of misses that the sample excludes, in [0, 1], at ``confidence``.

    With no miss in n files this is 1 - (1 - confidence)^(1/n), which the rule of three (3/n)
    approximates (Hanley and Lippman-Hand, 1983); where everything was looked at it is exact. With
    misses it is the Clopper-Pearson bound, found by bisection.
    """
    if sampled <= 0:
        return 1.0
    if sampled >= population:
        return missed / sampled
    low, high = missed / sampled, 1.0
    for _step in range(60):
        middle = (low + high) / 2
        if _at_most(missed, sampled, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(successes: int, trials: int, rate: float) -> float:
    """Return P(X <= successes) for X binomial."""
    if rate >= 1:
        return 1.0 if successes >= trials else 0.0
    term = total = (1 - rate) ** trials
    for k in range(1, successes + 1):
        term *= (trials - k + 1) / k * rate / (1 - rate)
        total += term
    return total
