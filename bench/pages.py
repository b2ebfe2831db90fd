"""The 95th percentile of ten pages of a full portal, against the same pages of an empty one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import requests

from bench.portal_folder import environment, free_port, program, served
from bench.ratios import Ratio, in_turns, percentile

EVENTS, JOBS = 100_000, 1_000
REPETITIONS, REQUESTS = 4, 25


def run(folder: Path) -> list[Ratio]:
    """Fill two portals, serve both, and ask them in turns, a page at a time, over HTTP.

    The empty one has one dataset, request, job and release, so that there is a page to show.
    """
    sizes = {"full": (EVENTS, JOBS), "empty": (0, 1)}
    with contextlib.ExitStack() as stack:
        pages, urls = {}, {}
        for name, (events, jobs) in sizes.items():
            own, port = folder / name, free_port()
            own.mkdir()
            surroundings = environment(own, port)
            pages[name] = program(
                "bench.portal_rows", str(events), str(jobs), environment=surroundings
            )
            urls[name] = stack.enter_context(served(own, port))
        print(f"  full: {EVENTS:,} audit rows, {JOBS:,} jobs; empty: one of each; p95 of "
              f"{REPETITIONS} rounds of {REQUESTS} requests")  # fmt: skip
        rows = []
        for page in pages["full"]:
            askers = {
                name: _asker(urls[name] + pages[name][page]["path"], pages[name][page]["session"])
                for name in sizes
            }
            found = in_turns(askers, REPETITIONS)
            rows.append(
                Ratio(f"p95, {page}", "s", "lower", "full", found["full"], "empty", found["empty"])
            )
    return rows


def _asker(url: str, session: str) -> Callable[[], float]:
    """Return how to ask for a page a number of times: the 95th percentile in seconds."""
    client = requests.Session()
    client.trust_env = False
    client.cookies.set("sessionid", session)

    def ask() -> float:
        seconds = []
        for _number in range(REQUESTS):
            began = time.perf_counter()
            answer = client.get(url, timeout=60, allow_redirects=False)
            seconds.append(time.perf_counter() - began)
            if answer.status_code != 200:
                raise RuntimeError(f"a page of the bench answered {answer.status_code}")
        return percentile(seconds, 0.95)

    return ask
