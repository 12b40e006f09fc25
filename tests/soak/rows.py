"""The client outside both zones: it writes numbered rows wherever the server serves, and knows which are due where.

A row is due on disks once it was acknowledged there. Disks that were made from a recovery point owe what the source had
acknowledged by the point's time; those that were made of the replica as it stood (`current`) owe besides what had been
acknowledged when the replica was last seen in step.
"""

from __future__ import annotations

import contextlib
import threading
import time
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime

from lifeboat.engines.ledger import Attempt, FailoverStage, Ledger
from tests.soak.book import Book
from tests.soak.world import SoakWorld, primary_ip

PAUSE_SECONDS = 0.2
WRITE_SECONDS = 10.0
_SERVES = (FailoverStage.AWAITING_COMMIT, FailoverStage.COMMITTING, FailoverStage.COMMITTED)


@dataclass(frozen=True, slots=True)
class Disks:
    """Which disks a row was written to: the source's (epoch 0), or those of an attempt of a failover."""

    epoch: int = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server serves: address and disks, and the start that put it there."""

    host: str
    disks: Disks
    start: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """An acknowledged row."""

    number: int
    disks: Disks
    at: datetime


class Rows:
    """The rows of one server; its thread writes until it is told to end."""

    def __init__(self, world: SoakWorld, book: Book, server: str) -> None:
        self.server = server
        self.rows: list[Row] = []
        self.in_step: datetime | None = None
        self._world = world
        self._book = book
        self._number = 0
        self._checked: tuple[int, int] = (0, 0)
        self._bases: dict[Disks, tuple[Attempt, datetime | None]] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._write, name=f"rows {server}", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._end.set()
        self._thread.join(WRITE_SECONDS + 5)

    def place(self) -> Place | None:
        """Where the server serves by its ledger, None while it is between two places."""
        ledger = self._world.ledger(self.server)
        record = ledger.failover if ledger is not None else None
        if ledger is None or record is None or record.stage is FailoverStage.STOPPING_REPLICATION:
            return Place(primary_ip(self.server), Disks(), (0, ledger.epoch if ledger is not None else 0))
        attempt = record.attempts[-1]
        if record.stage not in _SERVES or attempt.shape.elastic_ip is None:
            return None
        disks = Disks(ledger.epoch, attempt.disks_of)
        self._note_base(ledger, disks)
        return Place(attempt.shape.elastic_ip, disks, (ledger.epoch, attempt.number))

    def verify(self, place: Place, *, seconds: float = 30.0) -> bool:
        """Compare what is there with what is due; False where nobody answered."""
        deadline = time.monotonic() + seconds
        while True:
            due = self.due(place.disks)
            found = _get(place.host, "/cgi-bin/rows", 10.0)
            if found is not None:
                break
            if time.monotonic() > deadline or self._end.is_set():
                return False
            time.sleep(0.5)
        if self.place() != place:
            return True  # it has moved on meanwhile: whose rows these are is not certain
        there = {int(number) for number in found.split()}
        self._judge(due, there, f"{place.host} ({place.disks})")
        return True

    def verify_drill(self, host: str, attempt: Attempt) -> None:
        """Compare what a drill's server has with what its point owes."""
        due = self._of_point(attempt.point_time)
        found = _get(host, "/cgi-bin/rows", 10.0)
        if found is not None:
            self._judge(due, {int(number) for number in found.split()}, f"a drill from {attempt.point}")
            self._book.count("drills compared")

    def due(self, disks: Disks) -> set[int]:
        """The rows that these disks owe."""
        owed = {row.number for row in self.rows if row.disks == disks}
        if disks in self._bases:
            attempt, in_step = self._bases[disks]
            owed |= self._of_point(attempt.point_time)
            if attempt.requested == "current" and in_step is not None:
                owed |= self._of_point(in_step)
        return owed

    def _of_point(self, time_of_point: datetime) -> set[int]:
        return {row.number for row in self.rows if row.disks == Disks() and row.at < time_of_point}

    def _judge(self, due: set[int], there: set[int], where: str) -> None:
        missing = due - there
        self._book.count("rows compared", len(due))
        if missing:
            self._book.count("rows lost", len(missing))
            at = {row.number: row.at for row in self.rows}
            first = min(missing)
            self._book.violate(
                f"{self.server}: {len(missing)} of {len(due)} rows are missing at {where}; "
                f"the first is {first} of {at[first].isoformat()}, the last {max(missing)}"
            )

    def _note_base(self, ledger: Ledger, disks: Disks) -> None:
        """Remember what an attempt's disks were made from, at its first sight."""
        if disks in self._bases or ledger.failover is None:
            return
        for attempt in ledger.failover.attempts:
            if attempt.number == disks.attempt:
                began = ledger.failover.accepted_at
                in_step = min(self.in_step, began) if self.in_step is not None else None
                self._bases[disks] = (attempt, in_step)

    def _write(self) -> None:
        while not self._end.is_set():
            with contextlib.suppress(ValueError):  # a ledger that cannot be read is found at the end
                place = self.place()
                if place is not None:
                    self._write_at(place)
            self._end.wait(PAUSE_SECONDS)

    def _write_at(self, place: Place) -> None:
        if self._checked != place.start:
            if not self.verify(place, seconds=5):
                return
            self._checked = place.start
        self._number += 1
        began = time.monotonic()
        said = _get(place.host, f"/cgi-bin/write?n={self._number}", WRITE_SECONDS)
        if said != "ok":
            return
        at = datetime.now(UTC)
        self._book.count("rows acknowledged")
        self._book.took(time.monotonic() - began)
        if self.place() == place:
            self.rows.append(Row(self._number, place.disks, at))


def _get(host: str, path: str, seconds: float) -> str | None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{host}{path}", timeout=seconds) as answer:
            return str(answer.read().decode().strip())
    except (OSError, ValueError):
        return None
