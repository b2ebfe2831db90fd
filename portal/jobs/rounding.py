"""Times as the applicant sees them: when a job speaks or ends is the job's to choose."""

from __future__ import annotations

import math
from datetime import datetime, timedelta


def rounded_minute(moment: datetime | None, minutes: int = 1) -> datetime | None:
    """Return a time up to the next minute, or to the next of so many minutes of the hour."""
    if moment is None:
        return None
    up = moment + timedelta(minutes=minutes) - timedelta(microseconds=1)
    return up.replace(minute=up.minute - up.minute % minutes, second=0, microsecond=0)


def rounded_seconds(seconds: float | None) -> int | None:
    """Return a run's time as the applicant sees it: up to the next 10 s, from 10 min the minute."""
    if seconds is None:
        return None
    step = 10 if seconds <= 600 else 60
    return math.ceil(seconds / step) * step
