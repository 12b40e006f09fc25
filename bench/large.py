"""Five thousand servers, and ten minutes in which nothing changes: too long for the whole run, so by its name only."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bench import scale
from bench.results import Measured

SERVERS: Final = 5000
IDLE_SECONDS: Final = 600.0


def prepare() -> None:
    """Build what the part with fewer servers needs."""
    scale.prepare()


def measure(folder: Path) -> Measured:
    """Measure the same as with fewer servers."""
    return scale.measure_with("large", folder, (SERVERS,), IDLE_SECONDS)
