"""What a soak did and found: every action with its time, figures, violations; told and kept."""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path


class Book:
    """The record of one run, written to by all its threads."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.violations: list[str] = []
        self.figures: Counter[str] = Counter()
        self.longest_write = 0.0
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._file = (folder / "actions.log").open("a", encoding="utf-8")
        self.note("seed", str(seed))

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def note(self, what: str, text: str) -> None:
        """Write one line."""
        with self._lock:
            line = f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {self.elapsed:8.2f} {what:<10} {text}"
            self._file.write(f"{line}\n")
            self._file.flush()
            print(line, flush=True)  # noqa: T201 - it talks to a person

    def count(self, what: str, by: int = 1) -> None:
        """Add to a figure."""
        with self._lock:
            self.figures[what] += by

    def violate(self, text: str) -> None:
        """Note that something is as it must never be; each sort of it once."""
        with self._lock:
            if text in self.violations:
                return
            self.violations.append(text)
        self.note("VIOLATION", text)

    def took(self, seconds: float) -> None:
        """Note how long a write took that was acknowledged."""
        with self._lock:
            self.longest_write = max(self.longest_write, seconds)

    def close(self) -> None:
        """Say the figures, and end."""
        for what, number in sorted(self.figures.items()):
            self.note("figure", f"{what}: {number}")
        self.note("figure", f"longest acknowledged write: {self.longest_write:.2f} s")
        self.note("figure", f"violations: {len(self.violations)}")
        self._file.close()
