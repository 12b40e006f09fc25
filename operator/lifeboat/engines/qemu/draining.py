"""Seeing that a source which stands still has lost nothing: its last write is on the replica."""

from __future__ import annotations

from lifeboat.engines.contract import Retry, Underway
from lifeboat.engines.qemu import mirror, storage_daemon
from lifeboat.engines.qemu.instep import InStep
from lifeboat.engines.qemu.records import load_replica
from lifeboat.engines.qemu.site_server import SiteServer
from lifeboat.engines.qemu.zones import Zone
from lifeboat.host.qmp import Monitors


class Draining:
    """The end of copies whose sources stand still."""

    def __init__(self, monitors: Monitors, instep: InStep) -> None:
        self._monitors = monitors
        self._instep = instep

    async def drain(self, server: SiteServer, target: Zone | None) -> None:
        """See that the replica holds all that a server which stands still has written.

        Raises:
            Retry: it does not, or that is not known.
        """
        waits = f"server {server.server_id} is down and waits for its last writes to be copied"
        if target is None:
            raise Retry(f"{waits}: the zone of its replica does not answer")
        record = load_replica(target, server.server_id)
        if record is None or not record.replicating:
            return
        seen = await mirror.look(self._monitors, server.folder, record, target.name)
        # Nothing is under way in a guest that stands still, so the strict view is the right one.
        if seen.progress is not mirror.Progress.SYNCED:
            if seen.reason:
                raise Retry(f"{waits}: {seen.reason}")
            raise Underway(waits)
        if not record.offered or not await storage_daemon.is_offered(self._monitors, target, record):
            raise Retry(f"{waits}: the replica in zone {target.name} does not take them")
        self._instep.note(target, record)
