"""The table of docs/threat-model.md has every probe, and says of every kind what stops it."""

from __future__ import annotations

from collections import Counter

from tests.attacks import rows

#: The groups of attacks that there must be.
LEAST = 120


def test_every_probe_stands_in_a_row_and_every_row_has_a_probe() -> None:
    found = rows.probes()

    assert set(found) == set(rows.ROWS)
    assert sum(map(len, found.values())) >= LEAST


def test_every_row_says_what_stops_it_on_each_backend() -> None:
    for row in rows.ROWS.values():
        assert row.attack and row.bubblewrap and row.gvisor and row.kubernetes


def test_no_two_probes_of_a_row_have_one_name() -> None:
    for attacks in rows.probes().values():
        assert [name for name, n in Counter(each.name for each in attacks).items() if n > 1] == []


def test_what_gets_through_is_said_to() -> None:
    for key, attacks in rows.probes().items():
        for attack in attacks:
            assert not attack.known or rows.ROWS[key].remains, f"{attack.name} is not owned up to"
