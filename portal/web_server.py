"""gunicorn's configuration: each web process is confined before it answers anything."""

from __future__ import annotations

import gc
from typing import Any

from django.conf import settings
from django.core.checks.urls import check_url_config

from portal.confinement import confine_web

worker_class = "gthread"
timeout = 120
graceful_timeout = 10
control_socket_disable = True


def post_worker_init(worker: Any) -> None:
    """Run in each process once the application is loaded, before its threads start."""
    confined = confine_web(base=settings.BASE_DIR, home=settings.HOME, keys=settings.KEYS)
    # What is loaded stays to the end: looking through it for garbage took 0.1 s, in the middle of
    # every dozenth request. The pages are loaded first, which the first request would do otherwise.
    check_url_config(None)
    gc.collect()
    gc.freeze()
    worker.log.info("confined by the kernel" if confined else "not confined by the kernel")
