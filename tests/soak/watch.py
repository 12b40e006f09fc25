"""What must hold at every instant, looked at all the time: who runs beside whom, and when a replica is in step."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from lifeboat.engines.contract import Pair
from lifeboat.engines.facts import Known, ReplicaState
from lifeboat.engines.ledger import DrillStage, FailoverStage
from lifeboat.engines.qemu.engine import QemuEngine
from tests.soak.book import Book
from tests.soak.rows import Rows
from tests.soak.world import SoakWorld

LOOK_SECONDS: Final = 0.7
PAIR: Final = Pair("zone-a", "zone-b")


class Watcher:
    """Looks with an engine of its own, which changes nothing, until it is told to end."""

    def __init__(self, world: SoakWorld, book: Book, living: Callable[[], Iterable[Rows]]) -> None:
        self._world = world
        self._book = book
        self._living = living
        self._end = threading.Event()
        self._seen: set[str] = set()
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
                    self._who_serves(rows.server)
                    self._drills(rows)
                except (OSError, ValueError) as error:
                    self._book.note("watch", f"{rows.server}: {error}")
            asked = datetime.now(UTC)
            facts = await engine.observe(PAIR, {rows.server for rows in living})
            for rows in living:
                seen = facts.servers.get(rows.server)
                replica = seen.forward.replica if seen is not None else None
                if isinstance(replica, Known) and replica.value.state is ReplicaState.SYNCED:
                    rows.in_step = asked
            await asyncio.sleep(LOOK_SECONDS)
        await engine.close()

    def _who_serves(self, server: str) -> None:
        recovered, source = self._world.recovered(server), self._world.source_pid(server)
        ledger = self._world.ledger(server)
        if len(recovered) > 1:
            self._book.violate(f"{server}: two recovered servers run at once: {', '.join(sorted(recovered))}")
        if ledger is None:
            return
        if recovered and source is not None and ledger.fence is None:
            self._book.violate(
                f"{server}: {', '.join(recovered)} runs beside the source, which nobody ordered to fence"
            )
        record = ledger.failover
        if record is None:
            return
        mark = f"{server} {ledger.epoch} {record.stage.value} {len(record.attempts)}"
        if mark not in self._seen:
            self._seen.add(mark)
            self._book.note("stage", f"{server}: {record.name} {record.stage.value}, attempt {len(record.attempts)}")
            if record.stage is FailoverStage.AWAITING_COMMIT:
                self._book.count("recovered servers that came to serve")

    def _drills(self, rows: Rows) -> None:
        """Compare the data of each drill that runs, once."""
        ledger = self._world.ledger(rows.server)
        for drill in ledger.drills if ledger is not None else ():
            mark = f"drill {drill.name}"
            elastic = drill.attempt.shape.elastic_ip
            if drill.stage is DrillStage.RUNNING and elastic is not None and mark not in self._seen:
                self._seen.add(mark)
                self._book.count("drills that ran")
                rows.verify_drill(elastic, drill.attempt)
