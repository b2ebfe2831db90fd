"""A minute of what ``make fuzz`` does for an hour, and that it would say what it found."""

from __future__ import annotations

import pytest

from tests.fuzz.mutations import changed, explore
from tests.fuzz.promises import CANARY, PROMISES
from tests.fuzz.seeds import SEEDS


@pytest.mark.parametrize("path", sorted(PROMISES))
def test_the_seeds_and_their_changes_keep_every_promise(path: str):
    seeds = list(SEEDS[path]())
    assert sum(CANARY in seed for seed in seeds) >= (1 if path == "dicom" else 6)
    assert sum(PROMISES[path](seed) for seed in seeds) >= len(seeds) // 3
    tried, _written = explore(seeds, PROMISES[path], seconds=5, failed=lambda data: None)
    assert tried > 20


def test_a_broken_promise_is_found_and_its_file_made_small():
    kept: list[bytes] = []

    def promise(data: bytes) -> bool:
        assert b"\xff\xd9" not in data
        return True

    with pytest.raises(AssertionError):
        explore([b"a" * 40, b"b" * 40], promise, seconds=60, failed=kept.append)
    assert b"\xff\xd9" in kept[-1]
    assert len(kept[-1]) <= 42


def test_a_canary_in_an_output_breaks_the_promise(monkeypatch: pytest.MonkeyPatch):
    """The real photograph's cleaner, whose output somebody added to."""
    from tests.fuzz import promises

    seed = next(
        data for data in SEEDS["photo"]() if data.startswith(b"\xff\xd8") and CANARY in data
    )
    original = promises.clean_photo

    def leaking(data: bytes, **options):
        result = original(data, **options)
        object.__setattr__(result, "data", result.data + CANARY)
        return result

    monkeypatch.setattr(promises, "clean_photo", leaking)
    with pytest.raises(AssertionError, match="more than pixels"):
        promises.photo(seed)


def test_each_kind_of_edit_changes_what_it_says():
    data = bytes(range(10))
    assert changed(data, [("replace", 2, 1, b"xy")]) == b"\0\1xy" + data[4:]
    assert changed(data, [("insert", 2, 1, b"xy")]) == b"\0\1xy" + data[2:]
    assert changed(data, [("remove", 2, 3, b"")]) == b"\0\1" + data[5:]
    assert changed(data, [("repeat", 2, 3, b"")]) == data[:5] + data[2:]
    assert changed(data, [("cut", 2, 3, b"")]) == b"\0\1"
