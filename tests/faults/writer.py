"""A client that writes numbered rows into whichever server serves, and keeps what was acknowledged, and how fast."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass

from demo import web

_PAUSE_SECONDS = 0.2
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A row that the server said is durable, and when it said so (`time.monotonic`)."""

    number: int
    at: float


class Writer:
    """Writes one row after the other in a thread; each is tried until it is acknowledged, and timed from its first try.

    `stall` is the longest that a row took, in seconds, since `measure` was called. Numbers are never used twice.
    """

    def __init__(self) -> None:
        self.acknowledged: list[Acknowledged] = []
        self.stall = 0.0
        self._host: str | None = None
        self._began: float | None = None
        self._number = 0
        self._changed = threading.Condition()
        self._idle = True
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def aim(self, host: str) -> None:
        """Write to this address from now on."""
        with self._changed:
            self._host, self._began = host, None
            self._changed.notify_all()

    def pause(self) -> None:
        """Write nothing, and return once nothing is under way; a row that nobody acknowledged is given up."""
        with self._changed:
            self._host = None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._idle, 2 * _ANSWER_SECONDS)

    def measure(self) -> None:
        """Count stalls from now on."""
        with self._changed:
            self.stall = 0.0
            if self._began is not None:
                self._began = time.monotonic()

    def waiting(self) -> float:
        """How long the row that is under way has not been acknowledged, in seconds."""
        with self._changed:
            return time.monotonic() - self._began if self._began is not None else 0.0

    def keep(self, numbers: Collection[int]) -> None:
        """Forget all rows but these: another server serves, which has none of the others."""
        with self._changed:
            self.acknowledged = [row for row in self.acknowledged if row.number in numbers]

    def numbers(self) -> list[int]:
        """What was acknowledged so far."""
        with self._changed:
            return [row.number for row in self.acknowledged]

    def until_acknowledged(self, seconds: float) -> None:
        """Wait until one more row was acknowledged."""
        with self._changed:
            before = len(self.acknowledged)
            if not self._changed.wait_for(lambda: len(self.acknowledged) > before, seconds):
                raise TimeoutError(f"no row was acknowledged for {seconds:g} s")

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._ended, self._host = True, None
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._idle = self._host is None
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._ended or self._host is not None)
                if self._ended:
                    return
                self._idle, host = False, str(self._host)
                if self._began is None:
                    self._number += 1
                    self._began = time.monotonic()
            done = self._write(host, self._number)
            with self._changed:
                now = time.monotonic()
                if done and self._began is not None:
                    self.stall = max(self.stall, now - self._began)
                    self.acknowledged.append(Acknowledged(self._number, now))
                    self._began = None
                if self._host is None:
                    self._began = None
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._ended or self._host is None, _PAUSE_SECONDS)

    def _write(self, host: str, number: int) -> bool:
        try:
            return web.get(f"http://{host}/cgi-bin/write?n={number}", _ANSWER_SECONDS).strip() == "ok"
        except OSError:
            return False
