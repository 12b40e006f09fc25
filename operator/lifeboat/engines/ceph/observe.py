"""One look at a site pair: both clusters and both computes at once, each with a bound.

What is asked of a cluster is asked for all servers in a few calls. Looking changes nothing, with one exception that is
written down: what a look has seen of a copy for the first time (that it is whole, that all of a server which stands
still has arrived) is noted in the replica's record, because nobody can see it any more once the primary site is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from lifeboat.engines.ceph import arrival, ledgers, pools, records, standing
from lifeboat.engines.ceph.compute import Compute, Made, Offer
from lifeboat.engines.ceph.compute.computes import Computes
from lifeboat.engines.ceph.lags import Lags
from lifeboat.engines.ceph.options import Pools
from lifeboat.engines.ceph.pools import Head, Image, Look
from lifeboat.engines.ceph.records import ReplicaRecord, Stored
from lifeboat.engines.ceph.sites import Site, Sites
from lifeboat.engines.ceph.source import absent, source_disks
from lifeboat.engines.contract import EngineError, Pair
from lifeboat.engines.facts import (
    Disk,
    Fact,
    Hardware,
    Known,
    Machine,
    PairFacts,
    Replica,
    ReplicaState,
    ServerFacts,
    SiteFacts,
    Source,
    Storage,
    Unknown,
    Way,
    nothing_known,
)
from lifeboat.engines.ledger import Ledger

_LOOK = 6.0
_PER_SERVER = 5.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Runs:
    """What runs the servers of a site, and what it has for that."""

    compute: Compute
    offer: Offer


@dataclass(frozen=True, slots=True)
class _End:
    """One site of a pair: its cluster as it was seen, and what runs its servers."""

    zone: str
    site: Site | Unknown
    look: Look | Unknown
    runs: _Runs | Unknown
    pools: Pools


class Observer:
    """Looks at pairs of sites."""

    def __init__(self, sites: Sites, computes: Computes, lags: Lags) -> None:
        self._sites = sites
        self._computes = computes
        self._lags = lags
        self._used: dict[tuple[str, str], tuple[int, int]] = {}

    async def observe(self, pair: Pair, server_ids: Collection[str]) -> PairFacts:
        """Look at both sites and these servers."""
        primary, recovery = await asyncio.gather(
            self._end(pair, pair.primary_zone), self._end(pair, pair.recovery_zone)
        )
        ordered = sorted(set(server_ids))
        seen = await asyncio.gather(*(self._look_at(primary, recovery, server_id) for server_id in ordered))
        return PairFacts(_site(primary), _site(recovery), dict(zip(ordered, seen, strict=True)))

    async def _end(self, pair: Pair, zone: str) -> _End:
        runs: _Runs | Unknown
        try:
            compute = await self._computes.at(pair, zone)
            runs = _Runs(compute, await compute.offer(zone))
        except (EngineError, OSError) as error:
            runs = _unknown(error)
        site: Site | Unknown = Unknown("")
        look: Look | Unknown
        try:
            if isinstance(runs, Unknown):
                look = runs
            else:
                site = await self._sites.site(pair, zone)
                async with asyncio.timeout(_LOOK):
                    look = await pools.look(site)
        except TimeoutError:
            look = Unknown(f"the Ceph cluster of zone {zone} does not answer within {_LOOK:g} s")
        except (EngineError, OSError) as error:
            look = _unknown(error)
        return _End(zone, site, look, runs, site.pools if isinstance(site, Site) else Pools())

    async def _look_at(self, primary: _End, recovery: _End, server_id: str) -> ServerFacts:
        """The facts of a server; what goes wrong with it is unknown of it, and of no other one."""
        try:
            async with asyncio.timeout(_PER_SERVER):
                forward = await self._way(primary, recovery, server_id)
                reverse = await self._way(recovery, primary, server_id, registered_only=True)
        except (EngineError, OSError) as error:
            return nothing_known(server_id, str(error) or "it does not answer in time")
        return ServerFacts(server_id, _ledger(recovery, server_id), forward, reverse)

    async def _way(self, here: _End, there: _End, server_id: str, *, registered_only: bool = False) -> Way:
        """A server in one direction. `registered_only`: a server of the inventory there is another one."""
        made = await self._made(here, server_id, registered_only=registered_only)
        exists = isinstance(made, Known) and made.value is not None
        missing = (
            made
            if isinstance(made, Unknown)
            else Unknown(absent(here.zone, server_id, registered_only=registered_only))
        )
        source = await self._source(here, server_id) if exists else missing
        record = _record(there, server_id)
        return Way(
            exists=made if isinstance(made, Unknown) else Known(exists),
            hardware=await self._hardware(here, made, record, missing, server_id),
            source=source,
            replica=await self._replica(here, there, record, source, server_id),
            machines=await self._machines(there, server_id),
        )

    @staticmethod
    async def _made(here: _End, server_id: str, *, registered_only: bool) -> Fact[Made | None]:
        if isinstance(here.runs, Unknown):
            return here.runs
        try:
            found = await here.runs.compute.made(here.zone, server_id)
        except (EngineError, OSError) as error:
            return _unknown(error)
        return Known(None if registered_only and found is not None and found.machine is None else found)

    @staticmethod
    async def _source(here: _End, server_id: str) -> Fact[Source]:
        if isinstance(here.runs, Unknown):
            return here.runs
        try:
            return Known(await here.runs.compute.source(here.zone, server_id))
        except (EngineError, OSError) as error:
            return _unknown(error)

    async def _hardware(
        self,
        here: _End,
        made: Fact[Made | None],
        record: Fact[ReplicaRecord | None],
        missing: Unknown,
        server_id: str,
    ) -> Fact[Hardware]:
        """What a server is made of, from its site, else as it was recorded when its copy began."""
        now = made.value if isinstance(made, Known) else None
        if now is not None and now.known and isinstance(here.look, Look):
            disks = await self._disks(here, source_disks(here.look, server_id, now))
            return Known(Hardware(now.cpu, now.memory_bytes, disks, now.addresses))
        if isinstance(record, Known) and record.value is not None:
            known = record.value
            disks = tuple(Disk(volume.name, volume.size_bytes, volume.used_bytes) for volume in known.volumes)
            return Known(Hardware(known.cpu, known.memory_bytes, disks, known.addresses))
        return here.look if isinstance(here.look, Unknown) else missing

    async def _disks(self, end: _End, images: Mapping[str, Image]) -> tuple[Disk, ...]:
        used = await self._used_bytes(end, images.values())
        return tuple(Disk(name, image.size_bytes, used.get(image.id, 0)) for name, image in images.items())

    async def _used_bytes(self, end: _End, images: Collection[Image]) -> dict[str, int]:
        """How much of each image holds data, asked for anew as soon as something was written to it."""
        if isinstance(end.site, Unknown):
            return {}
        found: dict[str, int] = {}
        for image in images:
            stamp = hash((image.head, image.size_bytes))
            known = self._used.get((end.zone, image.id))
            if known is None or known[0] != stamp or image.mirror is None:
                told = await end.site.worker.call("used", pool=image.pool, images=[image.name])
                known = self._used[end.zone, image.id] = stamp, int(told[image.name])
            found[image.id] = known[1]
        return found

    async def _replica(
        self,
        here: _End,
        there: _End,
        record: Fact[ReplicaRecord | None],
        source: Fact[Source],
        server_id: str,
    ) -> Fact[Replica]:
        if isinstance(record, Unknown):
            return record
        if isinstance(there.look, Unknown):
            return there.look
        known = record.value
        copied = 0
        if known is not None and known.replicating and not known.synced:
            copies = there.look.named(known.volumes).values()
            with contextlib.suppress(EngineError):
                copied = sum((await self._used_bytes(there, copies)).values())
        still = isinstance(source, Known) and not source.value.running
        ends = await self._ends(here, known) if still else {}
        seen = standing.replica(known, here.look, there.look, server_id, self._lags, copied, ends)
        if known is not None and isinstance(there.site, Site):
            arrived = bool(ends) and seen.lag_seconds == 0.0
            known = await self._note(there.site, there.look, known, seen, still=still, arrived=arrived)
            seen = replace(seen, points=standing.points(known, there.look, server_id))
        return Known(seen)

    @staticmethod
    async def _ends(here: _End, record: ReplicaRecord | None) -> Mapping[str, Head]:
        """The last entries of a server that does not run, as long as it is not written down that all have arrived."""
        if isinstance(here.site, Unknown) or isinstance(here.look, Unknown):
            return {}
        if record is None or not record.replicating or not record.synced or record.level:
            return {}
        return await arrival.ends(here.site, here.look, record)

    @staticmethod
    async def _note(
        site: Site, look: Look, record: ReplicaRecord, seen: Replica, *, still: bool, arrived: bool
    ) -> ReplicaRecord:
        """Write down what is news and cannot be seen any more once the primary site is gone."""
        if not record.replicating or seen.state is not ReplicaState.SYNCED:
            return record
        noted = record.model_copy(update={"synced": True, "level": still and (record.level or arrived)})
        if noted == record:
            return record
        if noted.level and not record.level:
            noted = noted.model_copy(update={"tags": await arrival.tags(site, look, record)})
        stored = await Stored.read(site.records, record.server_id)
        if stored.record != record:
            # A verb has changed it since it was read: the next look sees that.
            return stored.record or record
        with contextlib.suppress(EngineError):
            return await stored.save(noted)
        return record

    async def _machines(self, end: _End, server_id: str) -> Fact[Mapping[str, Machine]]:
        if isinstance(end.look, Unknown):
            return end.look
        if isinstance(end.runs, Unknown):
            return end.runs
        try:
            found = await end.runs.compute.machines(end.zone, server_id)
            disks = await end.runs.compute.disks(end.zone, server_id)
        except (EngineError, OSError) as error:
            return _unknown(error)
        standing_on = {
            image.name
            for images in end.look.machine_disks(server_id).values()
            for image in images.values()
            if image.parent is not None
        }
        return Known(
            {
                name: replace(machine, independent=not any(disk.image in standing_on for disk in disks.get(name, ())))
                for name, machine in found.items()
            }
        )


def _site(end: _End) -> Fact[SiteFacts]:
    if isinstance(end.runs, Unknown):
        return end.runs
    if isinstance(end.look, Unknown):
        return end.look
    fast = end.pools.ssd
    return Known(
        SiteFacts(
            zone=end.zone,
            namespaces=end.runs.offer.namespaces,
            networks=end.runs.offer.networks,
            elastic_ips=end.runs.offer.elastic_ips,
            cpu=end.runs.offer.cpu,
            memory_bytes=end.runs.offer.memory_bytes,
            standard=_storage(end.look, end.pools.standard),
            ssd=None if fast is None else _storage(end.look, fast),
            servers=end.runs.offer.servers,
        )
    )


def _storage(look: Look, pool: str) -> Storage:
    return Storage(look.size_bytes.get(pool, 0), 0 if look.full else look.free_bytes.get(pool, 0))


def _ledger(recovery: _End, server_id: str) -> Fact[Ledger]:
    if isinstance(recovery.look, Unknown):
        return recovery.look
    try:
        return Known(ledgers.understood(server_id, recovery.look.records.get(ledgers.name_of(server_id))))
    except EngineError as error:
        return _unknown(error)


def _record(end: _End, server_id: str) -> Fact[ReplicaRecord | None]:
    if isinstance(end.look, Unknown):
        return end.look
    try:
        return Known(records.understood(end.look.records.get(records.name_of(server_id))))
    except EngineError as error:
        return _unknown(error)


def _unknown(error: Exception) -> Unknown:
    return Unknown(str(error) or type(error).__name__)
