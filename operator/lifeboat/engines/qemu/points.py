"""Recovery points: taking them, with the guest's file systems frozen when asked, and removing them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime

from lifeboat.engines.contract import Refused, Retry
from lifeboat.engines.qemu import layers, mirror, storage_daemon
from lifeboat.engines.qemu.instep import InStep
from lifeboat.engines.qemu.records import PointRecord, ReplicaRecord, load_replica, save_replica
from lifeboat.engines.qemu.site_server import SiteServer
from lifeboat.engines.qemu.zones import Zone
from lifeboat.engines.verbs import PrunePoints, TakePoint
from lifeboat.host import freezing, machine
from lifeboat.host.guest import Guests
from lifeboat.host.inventory import checked_name
from lifeboat.host.qmp import CommandFailed, Monitors, Silent

_FLUSH = 3.0
# `execute` says so.
_NOT_DONE = 124
# A look waits no longer for an agent that is busy; the next one finds it thawed, since it has the order then.
_THAW = 1.0
# A merge is given so long before a point interrupts it.
_MERGE = 3.0


class Points:
    """The recovery points of all servers."""

    def __init__(self, monitors: Monitors, guests: Guests, instep: InStep, clock: Callable[[], datetime]) -> None:
        self._monitors = monitors
        self._guests = guests
        self._instep = instep
        self._clock = clock
        self._freezing: set[tuple[str, str]] = set()

    async def take(self, source: SiteServer | None, target: Zone, server_id: str, verb: TakePoint) -> None:
        """Freeze the tip as a point. While the copy is interrupted, that is the last state that was in step.

        Nothing has to be kept out for that: a line that broke lets nothing through until the copy is resumed.

        Raises:
            Refused: replication is stopped.
            Retry: the replica is not consistent now, or the guest does not freeze.
            NoSpace: the zone's disk is full; the points that exist stay.
        """
        checked_name(verb.name, "point name")
        record = await layers.load(self._monitors, target, server_id)
        if record is not None and record.point_layer(verb.name) is not None:
            return
        if record is None or not record.replicating or record.tip is None:
            raise Refused(f"server {server_id} is not replicated: no point can be taken")
        live = False
        if source is not None and machine.running(source.folder) is not None:
            with contextlib.suppress(Silent, CommandFailed):
                record = await self._instep.check(source.folder, target, record)
                live = self._instep.now(target, server_id)
        if not record.consistent():
            raise Retry(f"the replica of server {server_id} is not consistent yet")
        offered = await storage_daemon.is_offered(self._monitors, target, record)
        live = live and offered
        if verb.application_consistent and (source is None or not live):
            raise Retry("the copy is interrupted: an application-consistent point needs the guest")
        point = PointRecord(name=verb.name, time=self._instep.tip_time(target, record))
        if not offered:
            record = record.model_copy(update={"synced_at": point.time})
            record = await layers.close_door(self._monitors, target, record)
        await layers.settle(self._monitors, target, record, _MERGE)
        if verb.application_consistent and source is not None:
            await self._take_frozen(source, target, record, point)
        else:
            record = await layers.prepare(target, record, point)
            if live:
                point = point.model_copy(update={"time": self._clock()})
            await layers.insert(self._monitors, target, record)
            layers.inserted(target, record, point)
        await layers.tidy(self._monitors, target, server_id)

    async def prune(self, target: Zone, server_id: str, verb: PrunePoints) -> None:
        """Remove points, except those that a machine stands on and those that these need."""
        record = await layers.load(self._monitors, target, server_id)
        if record is None:
            return
        used = layers.standing(target, server_id)
        going = {
            layer.number
            for layer in record.layers
            if layer.point is not None and layer.point.name in verb.names and not layers.holders(record, layer, used)
        }
        if going:
            kept = (
                layer.model_copy(update={"point": None}) if layer.number in going else layer for layer in record.layers
            )
            save_replica(target, record.model_copy(update={"layers": tuple(kept)}))
        await layers.tidy(self._monitors, target, server_id)

    async def thaw_leftover(self, source: SiteServer, target: Zone) -> None:
        """Thaw a guest whose point was being taken when operator and freezer died, or whose agent was too busy.

        Raises:
            Silent: the guest's agent does not answer.
        """
        server_id = source.server_id
        record = load_replica(target, server_id)
        if record is None or not record.frozen or (target.name, server_id) in self._freezing:
            return
        if machine.running(source.folder) is not None:
            await self._guests.thaw(source.folder / machine.AGENT, _THAW)
        record = load_replica(target, server_id)
        if record is not None and (target.name, server_id) not in self._freezing:
            save_replica(target, record.model_copy(update={"frozen": False}))

    async def _take_frozen(self, source: SiteServer, target: Zone, record: ReplicaRecord, point: PointRecord) -> None:
        """Take a point of a guest that stands still, all but the last step being done before it does.

        It counts as application-consistent only when all is known to have held: the guest was frozen until after the
        point was taken, and the copy did not break meanwhile. A point that was taken and of which that is not known
        stays, as a crash-consistent one.
        """
        agent = source.folder / machine.AGENT
        flushed = await self._guests.execute(agent, ("sync",), _FLUSH)
        if flushed.exit_code == _NOT_DONE:
            raise Retry(f"the guest takes more than {_FLUSH:g} s to write out what it has in memory: it is not frozen")
        key = (target.name, record.server_id)
        self._freezing.add(key)
        try:
            async with freezing.ready(self._guests, agent) as freezer:
                record = await layers.prepare(target, record.model_copy(update={"frozen": True}), point)
                point = point.model_copy(update={"time": self._clock()})
                await layers.insert(self._monitors, target, record, freezer.frozen())
            held = freezer.held and await self._in_step(source, target, record)
        finally:
            self._freezing.discard(key)
        point = point.model_copy(update={"application_consistent": held})
        layers.inserted(target, record.model_copy(update={"frozen": False}), point)

    async def _in_step(self, source: SiteServer, target: Zone, record: ReplicaRecord) -> bool:
        """Whether the copy goes on: then all that the guest wrote out before it stood still has arrived."""
        try:
            seen = await mirror.look(self._monitors, source.folder, record, target.name)
        except (Silent, CommandFailed):
            return False
        return self._instep.judge(target, record, seen).progress is mirror.Progress.SYNCED
