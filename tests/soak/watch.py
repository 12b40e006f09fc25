"""What must hold at every instant, looked at all the time: who runs beside whom, and when a replica is in step."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from lifeboat.engines.contract import Pair
from lifeboat.engines.facts import Known, ReplicaState
from lifeboat.engines.ledger import DrillStage, FailoverStage, Ledger
from lifeboat.engines.qemu.engine import QemuEngine
from tests.soak import places
from tests.soak.book import Book
from tests.soak.rows import Rows
from tests.soak.world import SoakWorld

LOOK_SECONDS: Final = 0.7
PAIR: Final = Pair("zone-a", "zone-b")
_COUNTED: Final = (FailoverStage.AWAITING_COMMIT, FailoverStage.ROLLING_BACK, FailoverStage.COMMITTED)


class Watcher:
    """Looks with an engine of its own, which changes nothing, until it is told to end."""

    def __init__(self, world: SoakWorld, book: Book, living: Callable[[], Iterable[Rows]]) -> None:
        self._world = world
        self._book = book
        self._living = living
        self._end = threading.Event()
        self._seen: set[str] = set()
        self._unreached: set[tuple[str, int]] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._end.set()
        self._thread.join(30)

    async def _run(self) -> None:
        engine = QemuEngine(self._world.zones)
        while not self._end.is_set():
            living = list(self._living())
            for rows in living:
                try:
                    self._who_serves(rows)
                    self._drills(rows)
                except (OSError, ValueError) as error:
                    self._book.note("watch", f"{rows.server}: {error}")
            asked = datetime.now(UTC)
            facts = await engine.observe(PAIR, {rows.server for rows in living})
            for rows in living:
                seen = facts.servers.get(rows.server)
                if seen is None or not isinstance(seen.ledger, Known):
                    continue
                replica = seen.way(seen.ledger.value.direction).replica
                if isinstance(replica, Known) and replica.value.state is ReplicaState.SYNCED:
                    rows.in_step = asked
            await asyncio.sleep(LOOK_SECONDS)
        await engine.close()

    def _who_serves(self, rows: Rows) -> None:
        server = rows.server
        before, serve, ledger = (
            self._world.ledger(server),
            places.able_to_serve(self._world, server),
            self._world.ledger(server),
        )
        if ledger is None or before is None or before.version != ledger.version:
            return
        rows.note(ledger)
        self._beside_each_other(server, set(serve), ledger)
        record = ledger.failover
        if record is None:
            mark = f"{server} {ledger.direction.value} {ledger.registered}"
            told = f"{server}: {ledger.registered or 'its own server'} is copied, {ledger.direction.value}"
        else:
            mark = f"{server} {ledger.epoch} {record.stage.value} {len(record.attempts)}"
            told = f"{server}: {record.name} {record.stage.value}, attempt {len(record.attempts)}"
        if mark in self._seen:
            return
        self._seen.add(mark)
        self._book.note("stage", told)
        if record is None and ledger.epoch:
            self._book.count(f"turned {ledger.direction.value}")
        elif record is not None and record.stage in _COUNTED:
            self._book.count(f"{'failbacks' if record.failback else 'failovers'} {record.stage.value}")

    def _beside_each_other(self, server: str, serve: set[str], ledger: Ledger) -> None:
        """More than one may serve only while a fence was ordered and is not confirmed, and no two of one failover.

        And while a failback is rolled back whose own zone went silent: who asks for the source then is told that the
        other one may go on until its zone answers.
        """
        record = ledger.failover
        rolls_home_back = record is not None and record.failback and record.stage is FailoverStage.ROLLING_BACK
        if rolls_home_back and not self._world.answers(PAIR.primary_zone):
            self._unreached.add((server, ledger.epoch))
        if len(serve) < 2 or (rolls_home_back and (server, ledger.epoch) in self._unreached):
            return
        names = ", ".join(sorted(serve))
        if ledger.fence is None:
            self._book.violate(f"{server}: {names} run beside each other, and nobody ordered a fence")
        elif ledger.fence.confirmed_at is not None:
            self._book.violate(f"{server}: {names} run beside each other, and the fence is confirmed")
        epochs = [name.split("-")[1] for name in serve if name != places.OWN]
        if len(set(epochs)) < len(epochs):
            self._book.violate(f"{server}: attempts of one failover run beside each other: {names}")

    def _drills(self, rows: Rows) -> None:
        """Compare the data of each drill that runs, once."""
        ledger = self._world.ledger(rows.server)
        copied = places.source(self._world, rows.server, ledger)
        for drill in ledger.drills if ledger is not None else ():
            mark = f"drill {drill.name}"
            elastic = drill.attempt.shape.elastic_ip
            if drill.stage is DrillStage.RUNNING and elastic is not None and mark not in self._seen:
                self._seen.add(mark)
                self._book.count(f"drills that ran {ledger.direction.value}" if ledger is not None else "drills")
                if copied is not None:
                    rows.verify_drill(elastic, drill.attempt, copied)
