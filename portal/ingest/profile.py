"""Which de-identification profile a dataset's originals get: its own, tightened by its policy."""

from __future__ import annotations

import tomllib
from importlib import resources

from deid import profile
from policies.document import PROFILE_ORDER, DeidPolicy
from policies.errors import GloveboxError
from portal.catalog.models import Dataset
from portal.catalog.queries import policy_of


def name_of(dataset: Dataset) -> str:
    """Return the stricter of the dataset's profile and the one that its policy asks for."""
    return max(dataset.deid_profile, policy_of(dataset).deid.profile, key=PROFILE_ORDER.index)


def document(dataset: Dataset) -> str:
    """Return the profile as TOML, for the program that de-identifies.

    The policy's settings on text, faces and plates become the table ``[photos]``; DICOM pixels
    are cleaned by the options that every shipped profile chooses.
    """
    shipped = resources.files("deid.profiles") / f"{name_of(dataset)}.toml"
    return with_photos(shipped.read_text(encoding="utf-8"), policy_of(dataset).deid)


def with_photos(text: str, policy: DeidPolicy) -> str:
    """Return a profile's TOML with the policy's ``[photos]``; fails where it has one already."""
    if "photos" in tomllib.loads(text):
        raise GloveboxError("a shipped profile must leave [photos] to the policy")
    settings = {
        "text": policy.redact_text,
        "faces": policy.redact_faces,
        "plates": policy.redact_plates,
    }
    lines = [f"{name} = {str(value).lower()}\n" for name, value in settings.items()]
    whole = text.rstrip("\n") + "\n\n[photos]\n" + "".join(lines)
    profile.from_document(tomllib.loads(whole))
    return whole
