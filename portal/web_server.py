"""gunicorn's configuration: each web process is confined before it answers anything."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from portal.confinement import confine_web

worker_class = "gthread"
timeout = 120
graceful_timeout = 10
control_socket_disable = True


def post_worker_init(worker: Any) -> None:
    """Run in each process once the application is loaded, before its threads start."""
    confined = confine_web(base=settings.BASE_DIR, home=settings.HOME, keys=settings.KEYS)
    worker.log.info("confined by the kernel" if confined else "not confined by the kernel")
