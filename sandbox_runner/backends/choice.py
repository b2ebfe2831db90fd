"""Choose a backend, never below the minimum that a dataset's policy names."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import sys
from pathlib import Path
from typing import Final

from policies.errors import CannotRun, Invalid
from sandbox_runner import image
from sandbox_runner.backends import cgroups
from sandbox_runner.backends.bubblewrap import Bubblewrap
from sandbox_runner.backends.gvisor import GVisor
from sandbox_runner.backends.interface import Backend
from sandbox_runner.backends.local import LocalBackend
from sandbox_runner.place import directory

#: Isolation of one machine, weakest first; Kubernetes with Kata stands above both.
STRENGTH: Final = ("bubblewrap", "gvisor", "kata")


@functools.cache
def backend(name: str) -> LocalBackend:
    """Return the backend of this name. Raises :class:`Invalid` for an unknown one."""
    if name == "bubblewrap":
        return Bubblewrap()
    if name == "gvisor":
        return GVisor()
    raise Invalid(
        "The backend {name} is not known; there are: auto, {known}.",
        field="backend",
        code="sandbox.backend",
        name=name,
        known=", ".join(BACKENDS),
    )


#: The backends of one machine, in the order in which ``auto`` tries them.
BACKENDS: Final = ("gvisor", "bubblewrap")


_held: Final[set[str]] = set()


def missing(name: str) -> tuple[str, ...]:
    """Return the required lines that this machine does not hold.

    What held once is not tried again before the machine starts anew or something of the backend
    changes; what did not is, for a machine short of something for a moment must not refuse every
    later job.
    """
    if name in _held:
        return ()
    note, key = directory() / f"held-{name}", _circumstances(name)
    with contextlib.suppress(OSError):
        if note.read_text(encoding="ascii") == key:
            _held.add(name)
            return ()
    lacking = tuple(
        line.name for line in backend(name).check() if line.required and line.state == "missing"
    )
    if not lacking:
        _held.add(name)
        # In place: half of it is no key, and under a second name a kill would leave it for good.
        note.write_text(key, encoding="ascii")
    return lacking


def _circumstances(name: str) -> str:
    """Return a digest of what a trial depends on: the boot, this process's rights, the programs."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    words = [
        Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"),
        *(row for row in status if row.startswith(("Uid:", "CapBnd:", "CapEff:"))),
        backend(name).version(),
        repr(cgroups.find()),
        sys.base_prefix,
    ]
    for path in (*sorted(Path(__file__).parent.glob("*.py")), Path(image.__file__)):
        about = path.stat()
        words.append(f"{path.name} {about.st_size} {about.st_mtime_ns}")
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def choose(name: str, minimum: str) -> Backend:
    """Return the backend asked for (``auto``: the best of this machine), tried and held.

    Raises :class:`CannotRun` when it is weaker than ``minimum``, or when this machine cannot
    give everything it promises: there is no silent step down.
    """
    if minimum not in STRENGTH:
        raise CannotRun(
            "The policy asks for the isolation {minimum}, which is not known here.",
            field="isolation.minimum",
            code="sandbox.isolation",
            minimum=minimum,
        )
    if name == "kubernetes":
        return _cluster(minimum)
    wanted = BACKENDS if name == "auto" else (name,)
    strong = STRENGTH[STRENGTH.index(minimum) :]
    enough = [each for each in wanted if each in strong and backend(each)]
    if not enough:
        for each in wanted:
            backend(each)
        raise CannotRun(
            "The policy asks for at least {minimum}, and {name} is not that.",
            field="backend",
            code="sandbox.isolation",
            minimum=minimum,
            name=name,
        )
    # Among several that are enough, one that says of itself to be slow comes last.
    for each in sorted(enough, key=lambda each: not backend(each).auto):
        if not missing(each):
            return backend(each)
    raise CannotRun(
        "This machine cannot seal with {name}: {missing}. See `glovebox sandbox doctor`.",
        code="sandbox.isolation",
        name=enough[-1],
        missing=", ".join(missing(enough[-1])),
    )


def _cluster(minimum: str) -> Backend:
    """Return the cluster's backend; it chooses the runtime class that is strong enough itself."""
    # Imported late: its client is an optional package.
    from sandbox_runner.backends.kubernetes import KubernetesBackend

    cluster = KubernetesBackend(minimum)
    lacking = [line for line in cluster.check() if line.required and line.state == "missing"]
    if lacking:
        raise CannotRun(
            "The cluster cannot seal: {missing}.",
            code="sandbox.isolation",
            missing=", ".join(f"{line.name} ({line.detail})" for line in lacking),
        )
    return cluster
