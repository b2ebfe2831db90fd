"""Log lines say what failed and where, never what it was about."""

from __future__ import annotations

import logging
import sys

from portal.logs import Formatter


def line(name: str, message: str, *args: object, error: Exception | None = None) -> str:
    caught = None
    if error is not None:
        try:
            try:
                raise ValueError("patient Kim, inner")
            except ValueError:
                raise error from None
        except Exception:
            caught = sys.exc_info()
    record = logging.LogRecord(name, logging.ERROR, "x.py", 1, message, args, caught)
    return Formatter().format(record)


def test_an_exception_is_its_type_and_places() -> None:
    text = line("django.request", "Internal Server Error: %s", "/d/secret", error=KeyError("Kim"))
    assert "KeyError" in text
    assert "test_logs.py:" in text
    assert "Kim" not in text
    assert "secret" not in text


def test_a_line_from_outside_begins_no_line_of_its_own() -> None:
    text = line("glovebox.tasks", "task %s", "a\n2026-01-01 INFO glovebox: forged\x1b[2J")
    assert "\n" not in text
    assert "\x1b" not in text
