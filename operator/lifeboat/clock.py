"""The two clocks: the one that people read, and the one that tells how long something took whatever happened."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The time of day, in UTC."""
    return datetime.now(UTC)


def elapsed() -> float:
    """Seconds since some moment, going on while the process is stopped and while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
