"""What a cluster's operator decided: which namespace, images, runtime classes and storage.

The chart writes it as one JSON document and names it in ``GLOVEBOX_KUBERNETES``.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Final

from policies.errors import CannotRun

#: Weakest to strongest. A pod of ours always runs under one of the last two.
ISOLATION: Final = ("bubblewrap", "gvisor", "kata")

_LABEL_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_OBJECT_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_IMAGE: Final = re.compile(r"[a-z0-9][-a-z0-9._:/]{0,254}@sha256:[0-9a-f]{64}")
_PROFILE: Final = re.compile(r"([A-Za-z0-9_][-A-Za-z0-9_.]*/)*[A-Za-z0-9_][-A-Za-z0-9_.]*|")


@dataclass(frozen=True)
class RuntimeClass:
    """A RuntimeClass of the cluster and how strongly it isolates (a word of ISOLATION).

    ``user_namespaces`` says that its handler offers them: the kubelet refuses ``hostUsers: false``
    for a handler that does not, and containerd so far asks runc alone (google/gvisor#13303).
    """

    name: str
    isolation: str
    user_namespaces: bool = False


@dataclass(frozen=True)
class ClusterSettings:
    """Everything about a cluster that is no part of a job. Seconds are whole seconds."""

    namespace: str
    images: Mapping[str, str]
    carrier_image: str
    runtime_classes: tuple[RuntimeClass, ...]
    staging_claim: str
    staging_root: Path
    outbox_claim: str
    outbox_root: Path
    service_account: str = "sandbox"
    uid: int = 65532
    seccomp_profile: str = ""
    nameserver: str = "127.0.0.1"
    queue: str = ""
    priority_class: str = ""
    pull_secrets: tuple[str, ...] = ()
    gpu_resource: str = "nvidia.com/gpu"
    start_seconds: int = 900
    keep_seconds: int = 3600
    poll_seconds: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what a manifest may not hold: these words go into objects of the cluster."""
        for name in ("namespace", "service_account"):
            _check(name, _LABEL_NAME.fullmatch(getattr(self, name)) is not None)
        for name in ("staging_claim", "outbox_claim"):
            _check(name, _OBJECT_NAME.fullmatch(getattr(self, name)) is not None)
        _check("claims", self.staging_claim != self.outbox_claim)
        for name in ("staging_root", "outbox_root"):
            path = getattr(self, name)
            _check(name, path.is_absolute() and ".." not in path.parts and path != Path("/"))
        for image in (*self.images.values(), self.carrier_image):
            _check("images", _IMAGE.fullmatch(image) is not None)
        for runtime_class in self.runtime_classes:
            _check("runtime_classes", _OBJECT_NAME.fullmatch(runtime_class.name) is not None)
            _check("runtime_classes", runtime_class.isolation in ISOLATION[1:])
        _check("uid", 0 < self.uid < 2**31)
        _check("queue", _LABEL_VALUE.fullmatch(self.queue) is not None)
        _check("priority_class", _LABEL_VALUE.fullmatch(self.priority_class) is not None)
        _check("pull_secrets", all(_OBJECT_NAME.fullmatch(name) for name in self.pull_secrets))
        _check("seccomp_profile", _PROFILE.fullmatch(self.seccomp_profile) is not None)
        _check("nameserver", ipaddress.ip_address(self.nameserver).is_loopback)
        _check("start_seconds", self.start_seconds > 0 and self.keep_seconds > 0)
        _check("poll_seconds", self.poll_seconds > 0)

    def runtime_class(self, minimum: str) -> RuntimeClass:
        """Return the first class at least as strong as ``minimum``. Raises CannotRun."""
        if minimum in ISOLATION:
            for candidate in self.runtime_classes:
                if ISOLATION.index(candidate.isolation) >= ISOLATION.index(minimum):
                    return candidate
        raise CannotRun(
            "This cluster has no runtime class for the isolation {minimum}; name one in "
            "sandbox.runtimeClasses of the chart.",
            code="sandbox.isolation",
            minimum=minimum,
        )

    def image(self, name: str) -> str:
        """Return the image by digest behind a name of the catalogue. Raises CannotRun."""
        if name not in self.images:
            raise CannotRun(
                "The image {image} is not in this cluster's catalogue.",
                code="sandbox.image",
                image=name,
            )
        return self.images[name]


def _check(name: str, held: bool) -> None:
    if not held:
        raise CannotRun(
            "The cluster's setting {name} has a value that is not allowed.",
            code="sandbox.kubernetes.settings",
            name=name,
        )


def parse_settings(document: Mapping[str, Any]) -> ClusterSettings:
    """Return the settings of a document. Raises CannotRun for an unknown, missing or wrong key."""
    known = {field.name for field in fields(ClusterSettings)}
    unknown = sorted(set(document) - known)
    _check(unknown[0] if unknown else "", not unknown)
    values = dict(document)
    try:
        for name in ("staging_root", "outbox_root"):
            values[name] = Path(PurePosixPath(values[name]))
        values["runtime_classes"] = tuple(RuntimeClass(**row) for row in values["runtime_classes"])
        values["pull_secrets"] = tuple(values.get("pull_secrets", ()))
        values["images"] = dict(values["images"])
        return ClusterSettings(**values)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CannotRun(
            "The cluster's settings are incomplete or of a wrong type.",
            code="sandbox.kubernetes.settings",
        ) from error


def load_settings() -> ClusterSettings:
    """Read the document that ``GLOVEBOX_KUBERNETES`` names. Raises CannotRun without one."""
    named = os.environ.get("GLOVEBOX_KUBERNETES", "")
    try:
        document = json.loads(Path(named).read_text(encoding="utf-8")) if named else None
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict):
        raise CannotRun(
            "No cluster is set up: GLOVEBOX_KUBERNETES names the settings that the chart writes.",
            code="sandbox.kubernetes.settings",
        )
    return parse_settings(document)
