"""The web process. It is told that it is one before any key could be asked for."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
os.environ.setdefault("GLOVEBOX_ROLE", "web")

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
