"""Recovery points: snapshots of all disks of a server, taken where the disks are written and replayed to the copy.

A snapshot is an entry of the image's journal like any write, so on the copy it holds what the disk held at that moment.
Disks have journals of their own. So a server of several stands still while they are snapshotted, and what tells that
all of them were is written on the first one after that, and arrives after that. Snapshots without it are what somebody
left who was cut off: they are no point.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime

from lifeboat.engines.ceph import naming, pools, standing
from lifeboat.engines.ceph.compute import Hold
from lifeboat.engines.ceph.naming import KEPT
from lifeboat.engines.ceph.pools import Image, Mark, mark_text, marks
from lifeboat.engines.ceph.records import ReplicaRecord, Stored
from lifeboat.engines.ceph.sites import Site
from lifeboat.engines.ceph.workers import CephFailed
from lifeboat.engines.contract import NoSpace, Refused, Retry, Underway
from lifeboat.engines.verbs import PrunePoints, TakePoint

# How long a point is waited for that is on its way to the other site, and how often that is looked at.
_ARRIVAL = 8.0
_PAUSE = 0.2


class Points:
    """The recovery points of all servers."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    async def take(
        self,
        source: Site,
        target: Site,
        server_id: str,
        verb: TakePoint,
        hold: Callable[[], AbstractAsyncContextManager[Hold]] | None,
    ) -> None:
        """Take a point, or see that it has arrived; `hold` lets the server stand still, None while it does anyway.

        Raises:
            Refused: replication is stopped.
            Retry: there is no whole copy, or the server did not stand still long enough.
            Underway: it was taken and has not arrived yet.
            NoSpace: the target is full; the points that exist stay.
        """
        record = (await Stored.read(target.records, server_id)).record
        there = await pools.look(target)
        if standing.holding(record, there, server_id, verb.name) is not None:
            return
        if record is None or not record.replicating:
            raise Refused(f"server {server_id} is not replicated: no point can be taken")
        if not record.synced:
            raise Retry(f"the first copy of server {server_id} is not whole yet")
        if there.full:
            raise NoSpace(f"the Ceph cluster of zone {target.zone} is full: a point taken now would not arrive")
        here = await pools.look(source)
        disks = here.named(record.volumes)
        if len(disks) < len(record.volumes):
            raise Refused(f"a disk of server {server_id} has no image in zone {source.zone} any more")
        if verb.name not in marks(disks):
            await self._take(source, disks, verb.name, hold if len(disks) > 1 else None)
        await self._arrived(target, server_id, verb.name)

    async def freeze(self, target: Site, record: ReplicaRecord, name: str) -> None:
        """Let a stopped copy be a point as it stands, or see that it is.

        Of several disks that is a point only where they are known to be of one instant.
        """
        there = await pools.look(target)
        if standing.holding(record, there, record.server_id, name) is not None:
            return
        disks = there.named(record.volumes)
        if len(disks) < len(record.volumes):
            raise Refused(f"the copy of server {record.server_id} has been set aside: there is nothing newer to freeze")
        problem = None
        if len(disks) > 1 and not record.level:
            problem = (
                f"its {len(disks)} disks are not known to be of one instant: each is copied by itself, and how far "
                "each had come is not known; start from an earlier point"
            )
        await self._snapshot_promoted(target, disks, name)
        mark = Mark(name, record.stopped_at or self._clock(), tuple(disks), problem)
        await _note(target, disks, {naming.marker(name): mark_text(mark)})

    async def prune(self, source: Site | None, target: Site, server_id: str, verb: PrunePoints) -> None:
        """Remove points that no machine stands on: of a copy that goes on at its source, of others where they are."""
        record = (await Stored.read(target.records, server_id)).record
        there = await pools.look(target)
        free = {point.name for point in standing.points(record, there, server_id) if not point.held}
        going = [name for name in verb.names if name in free]
        if not going:
            return
        copies = list(there.kept(server_id).values())
        if record is not None and not record.replicating:
            copies.append(there.named(record.volumes))
        for disks in copies:
            await _remove(target, disks, going)
            if KEPT in next(iter(disks.values())).metadata and not set(marks(disks)) - set(going):
                for disk in disks.values():
                    await target.worker.call("remove", pool=disk.pool, image=disk.name, deadline=20.0)
        if source is not None and record is not None and record.replicating:
            here = await pools.look(source)
            await _remove(source, here.named(record.volumes), going)

    async def forget_all(self, source: Site, record: ReplicaRecord) -> None:
        """Remove every point from the disks that were copied, once nobody copies them any more."""
        disks = (await pools.look(source)).named(record.volumes)
        await _remove(source, disks, list(marks(disks)))

    async def _take(
        self,
        source: Site,
        disks: Mapping[str, Image],
        name: str,
        hold: Callable[[], AbstractAsyncContextManager[Hold]] | None,
    ) -> None:
        await _remove(source, disks, [name])
        time = self._clock()
        if hold is None:
            await self._snapshot(source, disks, name)
        else:
            async with hold() as held:
                time = self._clock()
                await self._snapshot(source, disks, name)
                kept = await held.kept()
            if not kept:
                await _remove(source, disks, [name])
                raise Retry("the server went on before all of its disks were snapshotted: the cluster was too slow")
        await _note(source, disks, {naming.marker(name): mark_text(Mark(name, time, tuple(disks)))})

    @staticmethod
    async def _snapshot(site: Site, disks: Mapping[str, Image], name: str) -> None:
        snapshot = naming.snapshot(name)
        calls = []
        for pool in dict.fromkeys(disk.pool for disk in disks.values()):
            images = [disk.name for disk in disks.values() if disk.pool == pool]
            calls.append(site.worker.call("snapshot", pool=pool, images=images, name=snapshot, deadline=15.0))
        await asyncio.gather(*calls)

    async def _snapshot_promoted(self, target: Site, disks: Mapping[str, Image], name: str) -> None:
        """Take snapshots of copies that were promoted just now.

        rbd-mirror has them open until it sees that, and until then they are read-only to everybody. Where it was
        taking in a new writer of the source at that moment, it notes that after the promotion, which so is undone
        though it was answered: such a copy is promoted again.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _ARRIVAL
        while True:
            try:
                await self._snapshot(target, disks, name)
            except CephFailed as error:
                if error.errno != errno.EROFS or loop.time() > end:
                    raise
                await asyncio.sleep(_PAUSE)
                for disk in disks.values():
                    await target.worker.call("promote", pool=disk.pool, images=[disk.name], force=True)
            else:
                return

    async def _arrived(self, target: Site, server_id: str, name: str) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + _ARRIVAL
        while True:
            record = (await Stored.read(target.records, server_id)).record
            if standing.holding(record, await pools.look(target), server_id, name) is not None:
                return
            if loop.time() > end:
                raise Underway(f"point {name} was taken and is on its way to zone {target.zone}")
            await asyncio.sleep(_PAUSE)


async def _note(site: Site, disks: Mapping[str, Image], changes: Mapping[str, str | None]) -> None:
    first = next(iter(disks.values()))
    await site.worker.call("note", pool=first.pool, image=first.name, changes=dict(changes))


async def _remove(site: Site, disks: Mapping[str, Image], names: list[str]) -> None:
    """Remove points from disks: what tells of them first, so that half of one is none."""
    if not disks:
        return
    first = next(iter(disks.values()))
    told: dict[str, str | None] = {naming.marker(name): None for name in names if naming.marker(name) in first.metadata}
    if told:
        await _note(site, disks, told)
    for disk in disks.values():
        there = [naming.snapshot(name) for name in names if disk.snapshot(naming.snapshot(name)) is not None]
        if there:
            await site.worker.call("remove_snapshots", pool=disk.pool, image=disk.name, names=there, deadline=15.0)
