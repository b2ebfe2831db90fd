"""A worker as a thread of the test."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest
from django.db import connections

from portal.jobs import engine
from portal.tasking import TryAgain
from tests.portal.browse import browse
from tests.portal.cast import cast

__all__ = ["browse", "cast", "in_thread"]


@pytest.fixture
def in_thread() -> Iterator[Callable[[int], threading.Thread]]:
    """Advance a job in a thread of its own, as a worker does."""
    threads = []

    def start(job_id: int) -> threading.Thread:
        def work() -> None:
            try:
                # Put off: a worker's task notes that and ends, and beat asks again.
                with contextlib.suppress(TryAgain):
                    engine.advance(job_id)
            finally:
                connections.close_all()

        thread = threading.Thread(target=work)
        thread.start()
        threads.append(thread)
        return thread

    yield start
    for thread in threads:
        thread.join(60)
