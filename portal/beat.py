"""Find what is due and hint it again: lost messages change nothing because of this loop.

Each app may bring ``portal.<app>.tasks.due()``, which looks for rows whose state wants work and
whose lease is free or over, and hints them. It runs here and not in a worker, so that a full
queue cannot keep it from running.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import threading
from collections.abc import Callable

from django.apps import apps
from django.db import close_old_connections

from portal.tasking import from_beat

log = logging.getLogger("glovebox.beat")


def finders() -> list[tuple[str, Callable[[], object]]]:
    """Return each app's ``due`` function, with its name."""
    found = []
    for app in apps.get_app_configs():
        name = f"{app.name}.tasks"
        if app.name.startswith("portal.") and importlib.util.find_spec(name):
            due = getattr(importlib.import_module(name), "due", None)
            if due is not None:
                found.append((name, due))
    return found


def tick() -> None:
    """Call every app's ``due`` once; one that fails does not keep the others from running."""
    for name, due in finders():
        try:
            due()
        except Exception as error:
            log.warning("%s.due failed (%s)", name, type(error).__name__)


def run(*, interval: float, stop: threading.Event) -> None:
    """Tick every ``interval`` seconds until ``stop`` is set."""
    with from_beat():
        while not stop.is_set():
            close_old_connections()
            tick()
            close_old_connections()
            stop.wait(interval)
