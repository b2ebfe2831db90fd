from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portal.accounts.models import Person
from tests.portal.ingest.flow import Crew, crew


@pytest.fixture
def people(make_person: Callable[..., Person]) -> Crew:
    """A steward with an open version, and the officer who will examine it."""
    return crew(make_person)


@pytest.fixture(autouse=True)
def own_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give each test a work folder of its own, so that it can say what is left there."""
    folder = tmp_path / "work"
    monkeypatch.setenv("GLOVEBOX_WORK", str(folder))
    yield folder
