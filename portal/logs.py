"""Log lines for operators: what failed and where in the code, never what it was about.

Exception texts may quote data, addresses may hold a download's secret. So a traceback is reduced
to types and places, and the framework's own lines lose what fills them.
"""

from __future__ import annotations

import logging
import traceback
from types import TracebackType

# A chain of causes longer than this tells nothing more.
MAXIMUM_CAUSES = 5


class Formatter(logging.Formatter):
    """``time level logger: message``, with exceptions as types and lines of code."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.name.startswith("django"):
            record.message = str(record.msg)
        # One event, one line: nothing that came from outside can begin a line of its own.
        record.message = record.message.replace("\n", " ").replace("\r", " ").replace("\x1b", " ")
        return super().formatMessage(record)

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        parts: list[str] = []
        error = ei[1]
        while error is not None and len(parts) < MAXIMUM_CAUSES:
            frames = traceback.extract_tb(error.__traceback__)
            places = "".join(f"\n    {frame.filename}:{frame.lineno}" for frame in frames)
            parts.append(f"  {type(error).__module__}.{type(error).__qualname__}{places}")
            error = error.__cause__ or error.__context__
        return "\n  caused by\n".join(parts)


CONFIGURATION = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"()": "portal.logs.Formatter"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {
        "glovebox": {"handlers": ["console"], "level": "INFO", "propagate": True},
        # Refusals are in the audit trail; here are only the portal's own failures.
        "django": {"handlers": ["console"], "level": "ERROR", "propagate": False},
    },
}
