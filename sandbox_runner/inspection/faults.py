"""What it means that the network's process did not answer."""

from __future__ import annotations

from typing import Final

from policies.findings import Finding
from sandbox_runner.oracle import OracleFault

_FAULTS: Final = {
    "start": "The network's process did not start.",
    "build": "build() failed when it was called with the manifest's [config] and no data.",
    "load": "The weights could not be loaded into the network.",
    "put": "The network did not take the weights that it was given.",
    "forward": "forward() failed on prepared pictures of [config] size.",
    "timeout": "The network did not answer in time.",
    "ended": "The network's process ended.",
    "protocol": "The network's process broke the conversation.",
    "shape": "The network's answers are not one number a picture, or one a class.",
    "not-finite": "The network's answers are not finite numbers.",
}
#: Of these nothing honest comes: the network is not what was submitted.
_BLOCKING: Final = ("build", "load", "protocol")
#: After these the process answers no more; one that is started anew may.
GONE: Final = ("start", "timeout", "ended", *_BLOCKING)


def faulty(fault: OracleFault, artefact: str, asked: str = "") -> Finding:
    """Return the finding on a fault; ``asked`` names the attack in which it came."""
    return Finding(
        "network.fault",
        "block" if fault.reason in _BLOCKING else "review",
        artefact,
        _FAULTS.get(fault.reason, "The network could not be asked."),
        {"reason": fault.reason} | ({"asked": asked} if asked else {}),
    )
