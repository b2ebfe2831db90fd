"""Outliving the runner: whoever stops it, and however."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from tests.attacks.attack import Attack, under

# Its children hear nothing, and would write on for as long as anybody lets them.
SURVIVES = """
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        for number in range(1, 32):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            time.sleep(0.01)
print("began", flush=True)
time.sleep(1.5)
open(OUTPUT + "/model.safetensors", "w").write("weights")
"""


@dataclass(frozen=True)
class RunnerAttack(Attack):
    """A program that goes on whatever it hears, and the signals that its runner gets."""

    signals: tuple[signal.Signals, ...] = ()


ATTACKS = under(
    "runner",
    [
        RunnerAttack(
            f"outliving a runner that {name}", SURVIVES, bare=False, signals=signals, slow=slow
        )
        for name, signals, slow in (
            ("is told to end", (signal.SIGTERM,), False),
            ("is interrupted", (signal.SIGINT,), True),
            ("loses its terminal", (signal.SIGHUP,), True),
            ("is told to quit", (signal.SIGQUIT,), True),
            ("is killed", (signal.SIGKILL,), False),
            ("is stopped and then killed", (signal.SIGSTOP, signal.SIGKILL), True),
        )
    ],
)
