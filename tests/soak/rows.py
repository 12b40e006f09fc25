"""The client outside both zones: it writes numbered rows wherever the server serves, and knows which are due where.

A row is due on disks once it was acknowledged there. Disks that were made from a recovery point owe besides what the
disks that were copied owed by the point's time; those that were made of the replica as it stood owe what had been
acknowledged when the replica was last seen in step; and after a planned failover or a failback they owe everything.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from demo import web
from lifeboat.engines.contract import Retry
from lifeboat.engines.ledger import Attempt, FailoverStage, Ledger
from lifeboat.lifecycle.machines import failover_machine
from tests.soak import places
from tests.soak.book import Book
from tests.soak.places import Place
from tests.soak.world import SoakWorld

PAUSE_SECONDS = 0.2
WRITE_SECONDS = 10.0
SLOW_SECONDS = 2.0
# An answer that took so long may be another machine's at the same address; a machine needs longer than that to boot.
CERTAIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Base:
    """What disks were made from: other disks as they were at a time, None as they were at their end."""

    disks: str
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Row:
    """An acknowledged row."""

    number: int
    disks: str
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
        self._checked: object = None
        self._acknowledged = 0.0
        self._bases: dict[str, Base] = {}
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
        """Where the server serves, None while it is between two places."""
        return self._look()[0]

    def note(self, ledger: Ledger) -> None:
        """Remember what the disks of each attempt were made from, at their first sight."""
        record = ledger.failover
        if record is None or record.stage is FailoverStage.STOPPING_REPLICATION:
            return
        copied = places.source(self._world, self.server, ledger)
        for attempt in record.attempts:
            name = failover_machine(ledger, attempt.number)
            if copied is None or attempt.disks_of != attempt.number or name in self._bases:
                continue
            until: datetime | None = attempt.point_time
            if attempt.point == record.tip:
                in_step = min(self.in_step or attempt.point_time, record.accepted_at)
                until = None if record.planned else max(attempt.point_time, in_step)
            self._bases[name] = Base(copied.disks, until)
            self._book.note("base", f"{self.server}: {name} has {copied.disks} until {until or 'its end'}")

    def verify(self, place: Place, *, seconds: float = 30.0) -> bool:
        """Compare what is there with what is due; False where nobody answered."""
        deadline = time.monotonic() + seconds
        while True:
            due = self.due(place.disks)
            found = _rows(place.host, due)
            if found is not None:
                break
            if time.monotonic() > deadline or self._end.is_set():
                return False
            time.sleep(0.5)
        if self.place() != place:
            return True  # it has moved on meanwhile: whose rows these are is not certain
        self._judge(due, found, f"{place.host} ({place.machine})")
        return True

    def verify_drill(self, host: str, attempt: Attempt, copied: Place) -> None:
        """Compare what a drill's server has with what its point owes."""
        due = self.due(copied.disks, attempt.point_time)
        found = _rows(host, due)
        if found is not None:
            self._judge(due, found, f"a drill from {attempt.point}")
            self._book.count("drills compared")

    def due(self, disks: str, until: datetime | None = None) -> set[int]:
        """The rows that these disks owed by a time, or owe now."""
        owed = {row.number for row in self.rows if row.disks == disks and (until is None or row.at < until)}
        base = self._bases.get(disks)
        return owed if base is None else owed | self.due(base.disks, base.until)

    def _look(self) -> tuple[Place | None, object]:
        """Where the server serves, and which of its starts there it is."""
        ledger = self._world.ledger(self.server)
        if ledger is not None:
            self.note(ledger)
        place = places.serving(self._world, self.server, ledger)
        return place, (place, ledger.epoch, len(ledger.spent)) if ledger is not None else (place, 0, 0)

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

    def _write(self) -> None:
        while not self._end.is_set():
            with contextlib.suppress(ValueError, Retry):  # a ledger that cannot be read is found at the end
                place, start = self._look()
                if place is not None:
                    self._write_at(place, start)
            self._end.wait(PAUSE_SECONDS)

    def _write_at(self, place: Place, start: object) -> None:
        if self._checked != start:
            if not self.verify(place, seconds=5):
                return
            self._checked = start
        self._number += 1
        began = time.monotonic()
        said = _get(place.host, f"/cgi-bin/write?n={self._number}", WRITE_SECONDS)
        if said != "ok":
            return
        at, took = datetime.now(UTC), time.monotonic() - began
        self._book.count("rows acknowledged")
        # A write that meets a guest which still boots waits for that: only one that follows another tells of a hold-up.
        held_up = began - self._acknowledged < SLOW_SECONDS
        self._acknowledged = time.monotonic()
        if held_up:
            self._book.took(took)
        if held_up and took > SLOW_SECONDS:
            self._book.note("slow", f"{self.server}: {place.machine} took {took:.2f} s to acknowledge {self._number}")
        now = self.place()
        if now == place or (now is None and took < CERTAIN_SECONDS):
            self.rows.append(Row(self._number, place.disks, at))


def _rows(host: str, due: set[int]) -> set[int] | None:
    """The rows that a server has, None where it does not answer.

    One that is stopped in the middle of its answer leaves it short, and nothing in the answer tells. So where something
    seems to be missing it is asked once more.
    """
    found: set[int] | None = None
    for _ in range(2):
        answer = _get(host, "/cgi-bin/rows", 10.0)
        if answer is None:
            return None
        found = {int(number) for number in answer.split()}
        if due <= found:
            break
    return found


def _get(host: str, path: str, seconds: float) -> str | None:
    try:
        return web.get(f"http://{host}{path}", seconds).strip()
    except OSError:
        return None
