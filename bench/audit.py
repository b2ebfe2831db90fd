"""Audit rows verified a second, against reading every row and hashing it once."""

from __future__ import annotations

from pathlib import Path

from bench.portal_folder import environment, program
from bench.ratios import Ratio

EVENTS = 30_000
REPETITIONS = 5


def run(folder: Path) -> list[Ratio]:
    """Record events, seal them, and verify the chain in turns with the bare reading."""
    found = program(
        "bench.audit_rows", str(EVENTS), str(REPETITIONS), environment=environment(folder)
    )
    print(f"  {EVENTS} events, recorded at {found['recorded']:,.0f} rows/s in transactions of "
          f"{found['batch']}, sealed at {found['sealed']:,.0f} rows/s")  # fmt: skip
    return [
        Ratio("verify against reading and one SHA-256 a row", "rows/s", "higher", "verify",
              found["verify"], "bare", found["bare"])
    ]  # fmt: skip
