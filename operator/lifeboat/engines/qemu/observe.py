"""One look at a site pair: both zones, and every server, all at once and with a bound.

Looking changes nothing, with two exceptions that are written down: that a replica was seen in step, and the thaw of a
guest that a dead operator left frozen. A zone that does not answer makes its facts unknown and delays nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Collection, Mapping

from lifeboat.engines.contract import EngineError, Pair, Retry
from lifeboat.engines.facts import (
    Disk,
    Fact,
    Hardware,
    Known,
    Machine,
    Network,
    PairFacts,
    Point,
    Replica,
    ReplicaState,
    ServerFacts,
    SiteFacts,
    Source,
    Unknown,
    Way,
    nothing_known,
)
from lifeboat.engines.qemu import images, layers, mirror, site_server, storage_daemon
from lifeboat.engines.qemu.instep import InStep
from lifeboat.engines.qemu.ledgers import Ledgers
from lifeboat.engines.qemu.points import Points
from lifeboat.engines.qemu.records import Layer, ReplicaRecord, layer_file, load_replica, machines
from lifeboat.engines.qemu.recovered import Recovered
from lifeboat.engines.qemu.servers import Servers
from lifeboat.engines.qemu.site_server import SiteServer
from lifeboat.engines.qemu.zones import Zone, Zones
from lifeboat.host import machine
from lifeboat.host.qmp import CommandFailed, Monitors, Silent

logger = logging.getLogger(__name__)

_AT_ONCE = 16
_PER_SERVER = 5.0


class Observer:
    """Looks at pairs of zones."""

    def __init__(
        self,
        zones: Zones,
        monitors: Monitors,
        instep: InStep,
        points: Points,
        ledgers: Ledgers,
        source_servers: Servers,
        recovered: Recovered,
    ) -> None:
        self._zones = zones
        self._monitors = monitors
        self._instep = instep
        self._points = points
        self._ledgers = ledgers
        self._servers = source_servers
        self._recovered = recovered
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def observe(self, pair: Pair, server_ids: Collection[str]) -> PairFacts:
        """Look at both sites and these servers."""
        primary = self._zone(pair.primary_zone)
        recovery = self._zone(pair.recovery_zone)
        ordered = sorted(set(server_ids))
        async with asyncio.TaskGroup() as group:
            looks = [group.create_task(self._look_at(primary, recovery, server_id)) for server_id in ordered]
            sites = [group.create_task(asyncio.to_thread(self._site, zone)) for zone in (primary, recovery)]
        return PairFacts(
            primary=sites[0].result(),
            recovery=sites[1].result(),
            servers={server_id: look.result() for server_id, look in zip(ordered, looks, strict=True)},
        )

    def _zone(self, name: str) -> Zone | Unknown:
        try:
            return self._zones.zone(name)
        except (EngineError, OSError) as error:
            return Unknown(str(error))

    def _site(self, zone: Zone | Unknown) -> Fact[SiteFacts]:
        if isinstance(zone, Unknown):
            return zone
        try:
            pool: dict[str, str | None] = dict.fromkeys(zone.inventory.elastic_ips)
            pool |= self._servers.elastic_ips(zone) | self._recovered.elastic_ips(zone)
            networks = tuple(
                Network(
                    network.name,
                    network.cidr,
                    network.reserved()
                    | self._servers.addresses(zone, network.name)
                    | self._recovered.addresses(zone, network.name),
                )
                for network in zone.inventory.networks
            )
            return Known(
                SiteFacts(
                    zone=zone.name,
                    namespaces=zone.inventory.namespaces,
                    networks=networks,
                    elastic_ips=pool,
                    cpu=zone.cpu(),
                    memory_bytes=zone.memory_bytes(),
                    standard=zone.storage(),
                    ssd=zone.storage(use_ssd=True) if zone.has_ssd() else None,
                    servers=tuple(server.id for server in zone.inventory.servers),
                )
            )
        except (EngineError, OSError) as error:
            return Unknown(str(error))

    async def _look_at(self, primary: Zone | Unknown, recovery: Zone | Unknown, server_id: str) -> ServerFacts:
        """The facts of a server; what goes wrong with it is unknown of it, and of no other one."""
        try:
            return await self._server(primary, recovery, server_id)
        except (EngineError, OSError) as error:
            return nothing_known(server_id, str(error) or type(error).__name__)

    async def _server(self, primary: Zone | Unknown, recovery: Zone | Unknown, server_id: str) -> ServerFacts:
        async with self._slots:
            ledger = recovery if isinstance(recovery, Unknown) else self._ledgers.fact(recovery, server_id)
            forward, reverse = await asyncio.gather(
                self._way(primary, recovery, server_id),
                self._way(recovery, primary, server_id, registered_only=True),
            )
            return ServerFacts(server_id, ledger, forward, reverse)

    async def _way(
        self, at: Zone | Unknown, target: Zone | Unknown, server_id: str, *, registered_only: bool = False
    ) -> Way:
        """What is seen in one direction: the server at one zone, replica and machines at the other."""
        found: Fact[SiteServer | None]
        missing: Unknown
        if isinstance(at, Unknown):
            found = missing = at
        else:
            found = _find(at, server_id, registered_only=registered_only)
            absent = site_server.absent(at, server_id, registered_only=registered_only)
            missing = found if isinstance(found, Unknown) else Unknown(absent)
        server = found.value if isinstance(found, Known) else None
        source, replica, launched = await asyncio.gather(
            self._source(server, missing), self._replica(found, target, server_id), self._machines(target, server_id)
        )
        exists = found if isinstance(found, Unknown) else Known(server is not None)
        return Way(exists, self._hardware(server, missing, target, server_id), source, replica, launched)

    @staticmethod
    def _hardware(
        server: SiteServer | None, missing: Unknown, target: Zone | Unknown, server_id: str
    ) -> Fact[Hardware]:
        try:
            if server is not None:
                return Known(server.hardware())
            if isinstance(target, Zone):
                record = load_replica(target, server_id)
                if record is not None:
                    return Known(_recorded_hardware(target, record))
        except (EngineError, OSError) as error:
            return Unknown(str(error))
        return missing

    async def _source(self, server: SiteServer | None, missing: Unknown) -> Fact[Source]:
        if server is None:
            return missing
        try:
            async with asyncio.timeout(_PER_SERVER):
                return Known(await self._servers.source(server))
        except (EngineError, OSError) as error:
            return Unknown(str(error) or "it does not answer in time")

    async def _machines(self, target: Zone | Unknown, server_id: str) -> Fact[Mapping[str, Machine]]:
        if isinstance(target, Unknown):
            return target
        try:
            async with asyncio.timeout(_PER_SERVER):
                records = machines(target, server_id)
                found = await asyncio.gather(*(self._recovered.observe(target, record) for record in records))
        except (EngineError, OSError) as error:
            return Unknown(str(error) or "it does not answer in time")
        return Known({each.name: each for each in found})

    async def _replica(self, server: Fact[SiteServer | None], target: Zone | Unknown, server_id: str) -> Fact[Replica]:
        if isinstance(target, Unknown):
            return target
        try:
            async with asyncio.timeout(_PER_SERVER):
                record = load_replica(target, server_id)
                if record is None:
                    return Known(Replica(ReplicaState.ABSENT))
                if record.frozen and isinstance(server, Known) and server.value is not None:
                    with contextlib.suppress(Silent, CommandFailed):
                        await self._points.thaw_leftover(server.value, target)
                return Known(await self._stand(server, target, record))
        except (EngineError, OSError) as error:
            return Unknown(str(error) or "it does not answer in time")

    async def _stand(self, server: Fact[SiteServer | None], target: Zone, record: ReplicaRecord) -> Replica:
        seen = await self._look(server, target, record)
        state, resumable = _state(record, seen)
        lag = None
        if state is ReplicaState.SYNCED:
            record = self._instep.note(target, record)
            lag = 0.0
        elif state not in {ReplicaState.STOPPED, ReplicaState.ABSENT}:
            lag = self._instep.lag(target, record)
        moving = state in {ReplicaState.COPYING, ReplicaState.RESYNCING}
        gone_through = seen.copied_bytes + seen.left_out
        used = layers.standing(target, record.server_id)
        return Replica(
            state=state,
            run=record.run,
            reason=seen.reason if state is ReplicaState.INTERRUPTED else "",
            copied_bytes=seen.copied_bytes,
            total_bytes=seen.total_bytes,
            bytes_per_second=self._instep.rate(target, record.server_id, gone_through if moving else None),
            lag_seconds=lag,
            resumable=resumable,
            bandwidth_limit=record.bandwidth_limit,
            basis=record.basis,
            consistent=state is not ReplicaState.ABSENT and record.consistent(),
            points=tuple(_point(record, layer, used) for layer in record.layers if layer.point is not None),
        )

    async def _look(self, server: Fact[SiteServer | None], target: Zone, record: ReplicaRecord) -> mirror.Mirror:
        if not record.replicating:
            return mirror.Mirror(mirror.Progress.GONE)
        if isinstance(server, Unknown):
            return mirror.Mirror(mirror.Progress.INTERRUPTED, server.reason)
        folder = None if server.value is None else server.value.folder
        if folder is None or machine.running(folder) is None:
            reason = f"server {record.server_id} has stopped: what changed since its last copied write is not known"
            return mirror.Mirror(mirror.Progress.GONE, reason)
        try:
            seen = await mirror.look(self._monitors, folder, record, target.name)
        except Retry as error:
            return mirror.Mirror(mirror.Progress.INTERRUPTED, str(error))
        if seen.progress is mirror.Progress.GONE:
            return seen
        reason = ""
        if storage_daemon.running(target, record.server_id) is None:
            reason = f"the replica's process in zone {target.name} has ended"
        elif not await storage_daemon.answers(self._monitors, target, record.server_id):
            reason = f"the replica's process in zone {target.name} does not answer"
        if reason:
            return dataclasses.replace(seen, progress=mirror.Progress.INTERRUPTED, reason=reason)
        return self._instep.judge(target, record, seen)


def _find(zone: Zone, server_id: str, *, registered_only: bool) -> Fact[SiteServer | None]:
    try:
        return Known(site_server.find(zone, server_id, registered_only=registered_only))
    except (EngineError, OSError) as error:
        return Unknown(str(error))


def _state(record: ReplicaRecord, seen: mirror.Mirror) -> tuple[ReplicaState, bool]:
    """The replica's state, and whether an interruption can be resumed."""
    if record.released:
        return ReplicaState.ABSENT, False
    if not record.replicating:
        return ReplicaState.STOPPED, False
    match seen.progress:
        case mirror.Progress.GONE:
            return (ReplicaState.INTERRUPTED if record.mirrored else ReplicaState.STARTING), False
        case mirror.Progress.INTERRUPTED:
            return (ReplicaState.INTERRUPTED if record.mirrored else ReplicaState.STARTING), record.mirrored
        case mirror.Progress.STARTING:
            return ReplicaState.STARTING, False
        case mirror.Progress.COPYING:
            return (ReplicaState.RESYNCING if record.synced else ReplicaState.COPYING), False
        case mirror.Progress.SYNCED:
            return ReplicaState.SYNCED, False


def _point(record: ReplicaRecord, layer: Layer, used: Mapping[int, tuple[str, ...]]) -> Point:
    assert layer.point is not None  # noqa: S101  # the caller passes layers with a point
    return Point(
        name=layer.point.name,
        time=layer.point.time,
        application_consistent=layer.point.application_consistent,
        problem=layer.point.problem,
        used_by=used.get(layer.number, ()),
        held=layers.holders(record, layer, used),
    )


def _recorded_hardware(zone: Zone, record: ReplicaRecord) -> Hardware:
    disks = []
    for index, disk in enumerate(record.disks):
        allocated = 0
        for layer in record.chain(record.layers[-1].number) if record.layers else ():
            if disk.name in layer.disks:
                with contextlib.suppress(OSError):
                    path = layer_file(zone, record, layer, index)
                    allocated += images.look(path).allocated_bytes
        disks.append(Disk(disk.name, disk.size_bytes, min(allocated, disk.size_bytes)))
    return Hardware(record.cpu, record.memory_bytes, tuple(disks), record.addresses)
