"""Copies of a server: begun, stopped and given up.

rbd-mirror copies; what is done here is to tell it of which images. A copy that is stopped is promoted: from then on it
is an image of its own, and nothing that its source writes reaches it. A later copy begins from nothing beside it, so it
is set aside under another name first, with its points.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta

from lifeboat.engines.ceph import arrival, naming, pools, promotion, standing
from lifeboat.engines.ceph.compute import Hold, Made
from lifeboat.engines.ceph.lags import Lags
from lifeboat.engines.ceph.points import Points
from lifeboat.engines.ceph.pools import Image, Look, marks
from lifeboat.engines.ceph.records import ReplicaRecord, Stored, Volume
from lifeboat.engines.ceph.sites import Site
from lifeboat.engines.ceph.source import source_disks
from lifeboat.engines.ceph.workers import CephFailed
from lifeboat.engines.contract import EngineError, NoSpace, Refused, Retry, Underway
from lifeboat.engines.facts import ReplicaState
from lifeboat.engines.verbs import ResumeReplication, StartReplication, StopReplication, TakePoint

# How long a stop waits for the last writes of a source whose site answers.
_LAST_WRITES = timedelta(seconds=30)
_ALL = "all is copied: the original's disks were deleted, since RBD writes no copy over an image that is there"


@dataclass(frozen=True, slots=True)
class Original:
    """The target site's own server, whose disks are given up for a copy: how that is checked, and written down."""

    disks: tuple[Volume, ...]
    check: Callable[[], Awaitable[None]]
    give_up: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Power:
    """Whether a source runs, None where nobody knows, and how to let it stand still."""

    running: bool | None = None
    hold: Callable[[], AbstractAsyncContextManager[Hold]] | None = None


class Replication:
    """The copies of all servers."""

    def __init__(self, points: Points, lags: Lags, clock: Callable[[], datetime]) -> None:
        self._points = points
        self._lags = lags
        self._clock = clock

    async def start(
        self,
        source: Site,
        target: Site,
        server_id: str,
        made: Made,
        verb: StartReplication,
        original: Original | None,
    ) -> None:
        """Start the copy of a run, or see that it was started; `original` is what is to be given up for it.

        Raises:
            Refused: the server's disks or the mirroring of their pools are not as they have to be.
            Underway: the server's disks still read from a point.
            NoSpace: the target has no room.
        """
        stored = await Stored.read(target.records, server_id)
        record = stored.record
        if record is not None and not record.released and record.run >= verb.run:
            if record.run > verb.run:
                raise Refused(f"copy {verb.run} of server {server_id} was followed by copy {record.run}")
            if record.enabled or not record.replicating:
                return
        here, there = await asyncio.gather(pools.look(source), pools.look(target))
        disks = _copyable(here, there, server_id, made, verb)
        if record is None or record.released or record.run != verb.run:
            used = await _used(source, disks)
            given_up = () if original is None else original.disks
            await _has_room(target, there, disks, used, given_up)
            if original is not None:
                await original.check()
            before = record if record is None or record.cleared else _never_begun(record)
            record = await stored.save(
                ReplicaRecord(
                    server_id=server_id,
                    run=verb.run,
                    network=verb.replication_network,
                    cpu=made.cpu,
                    memory_bytes=made.memory_bytes,
                    volumes=tuple(
                        Volume(
                            name=name,
                            pool=disk.pool,
                            image=disk.name,
                            size_bytes=disk.size_bytes,
                            used_bytes=used[name],
                        )
                        for name, disk in disks.items()
                    ),
                    addresses=made.addresses,
                    ports=made.ports,
                    total_bytes=sum(used.values()),
                    earlier=() if before is None else before.volumes,
                    earlier_run=0 if before is None else before.run,
                    given_up=given_up,
                    basis=_ALL if original is not None else "",
                )
            )
        if not record.cleared:
            await self._set_aside(source, target, here, there, record)
            if record.given_up and original is not None:
                await original.check()
                await original.give_up()
                for image in there.named(record.given_up).values():
                    await _remove(target, image)
            record = await stored.save(record.model_copy(update={"cleared": True}))
        for pool, images in _by_pool(record).items():
            await source.worker.call("enable", pool=pool, images=images, deadline=15.0)
        await stored.save(record.model_copy(update={"enabled": True}))

    async def resume(self, source: Site, target: Site, server_id: str, verb: ResumeReplication) -> None:  # noqa: ARG002 - what is copied in order never mixes old and new
        """See that an interrupted copy goes on: rbd-mirror does that by itself, in the order of the writes.

        Raises:
            Refused: it cannot go on, with the reason.
            Retry: it does not yet, with what is in the way.
        """
        stored = await Stored.read(target.records, server_id)
        record = stored.record
        if record is None or not record.replicating:
            raise Refused(f"replication of server {server_id} is stopped: there is nothing to resume")
        here, there = await asyncio.gather(pools.look(source), pools.look(target))
        stand = standing.of_copy(record, here, there, self._lags)
        if stand.state is ReplicaState.INTERRUPTED:
            raise (Retry if stand.resumable else Refused)(stand.reason)

    async def stop(
        self, source: Site | None, target: Site, server_id: str, verb: StopReplication, power: Power
    ) -> None:
        """Stop a copy by promoting it; `source` is None where it does not answer.

        Raises:
            Refused: there is nothing to freeze.
            Retry: the first copy is not whole.
            Underway: the last writes of a source that answers are on their way.
        """
        stored = await Stored.read(target.records, server_id)
        record = stored.record
        if record is None or record.released:
            if verb.freeze_as is not None:
                raise Refused(f"server {server_id} has no replica in zone {target.zone}")
            return
        if record.replicating:
            if verb.freeze_as is not None and not record.synced:
                raise Retry(f"the first copy of server {server_id} is not whole: it cannot be started from")
            if verb.freeze_as is not None:
                record = await self._await_last_writes(source, target, stored, record, verb.freeze_as, power)
            if record.synced:
                await promotion.promote(target, _by_pool(record))
            changes = {"replicating": False, "stopping_since": None, "stopped_at": self._clock()}
            record = await stored.save(record.model_copy(update=changes))
        if verb.freeze_as is not None:
            await self._points.freeze(target, record, verb.freeze_as)
        if source is not None:
            with contextlib.suppress(EngineError):
                await self._let_go(source, target, record)

    async def _await_last_writes(
        self, source: Site | None, target: Site, stored: Stored, record: ReplicaRecord, point: str, power: Power
    ) -> ReplicaRecord:
        """The record of a copy that may be promoted now: with all that its source wrote, where that is to be had.

        A server that runs is let stand still for a point, as for any other.
        """
        if source is None or power.running is None:
            level = await arrival.still_level(target, record)
            return await stored.save(record.model_copy(update={"level": level}))
        if record.stopping_since is None:
            record = await stored.save(record.model_copy(update={"stopping_since": self._clock()}))
        since = record.stopping_since or self._clock()
        if self._clock() - since < _LAST_WRITES:
            if power.running:
                with contextlib.suppress(Refused, NoSpace):
                    await self._points.take(source, target, record.server_id, TakePoint(point), power.hold)
                return record
            stand, seen = await arrival.seen(source, target, record, self._lags)
            if seen.level:
                return await stored.save(seen)
            if stand.state is ReplicaState.SYNCED:
                raise Underway(f"the last writes of server {record.server_id} are on their way to zone {target.zone}")
        return await stored.save(record.model_copy(update={"level": False}))

    async def release(self, source: Site | None, target: Site, server_id: str) -> None:
        """Delete a stopped copy and the points that no machine stands on; the rest goes when it is asked again."""
        stored = await Stored.read(target.records, server_id)
        record = stored.record
        if record is None:
            return
        if record.replicating:
            await self.stop(source, target, server_id, StopReplication(), Power())
            stored = await Stored.read(target.records, server_id)
            record = stored.record or record
        if not record.released:
            record = await stored.save(record.model_copy(update={"released": True}))
        if source is not None:
            with contextlib.suppress(EngineError):
                await self._points.forget_all(source, record)
        await self.tidy(target, server_id)

    async def tidy(self, target: Site, server_id: str) -> None:
        """Delete what a released copy left and nothing needs any more, the record last."""
        stored = await Stored.read(target.records, server_id)
        record = stored.record
        if record is None or not record.released:
            return
        there = await pools.look(target)
        held = {point.name for point in standing.points(record, there, server_id) if point.held}
        left = False
        copies = there.named((*record.volumes, *(() if record.cleared else record.earlier))).values()
        for image in (*copies, *(image for kept in there.kept(server_id).values() for image in kept.values())):
            left = not await self._delete(target, image, held) or left
        if not left:
            await stored.forget()

    async def _delete(self, target: Site, image: Image, held: set[str]) -> bool:
        """Delete an image, or all of it that nobody stands on; whether it is gone."""
        if image.mirror is not None:
            await target.worker.call("promote", pool=image.pool, images=[image.name], force=True)
            await target.worker.call("disable", pool=image.pool, images=[image.name])
        if not held:
            with contextlib.suppress(CephFailed):
                await target.worker.call("remove", pool=image.pool, image=image.name)
                return True
        kept = {naming.snapshot(point) for point in held}
        going = [each.name for each in image.snapshots if each.name not in kept]
        await target.worker.call("remove_snapshots", pool=image.pool, image=image.name, names=going)
        return False

    async def _set_aside(self, source: Site, target: Site, here: Look, there: Look, record: ReplicaRecord) -> None:
        """Put an earlier copy out of the way of a new one; it keeps its points under another name.

        The source's mirroring of it ends first, or a new copy would begin at once.
        """
        old, originals = there.named(record.earlier), here.named(record.earlier)
        for volume in record.earlier:
            image, original = old.get(volume.name), originals.get(volume.name)
            if image is None:
                continue
            primary = await promotion.is_primary_or_going(target, image)
            peer = None if original is None else original.peers.get(there.pools[volume.pool].mirror_uuid)
            whole = primary or (peer is not None and peer.copied)
            if whole:
                await promotion.promote(target, {volume.pool: [image.name]})
            if original is not None and original.mirror is not None:
                await source.worker.call("disable", pool=volume.pool, images=[volume.image], deadline=15.0)
            if not whole:
                raise Underway(f"a copy of disk {volume.name} that was never whole is being deleted")
            await target.worker.call("disable", pool=volume.pool, images=[image.name], deadline=15.0)
            if not marks(old):
                await target.worker.call("remove", pool=volume.pool, image=image.name, deadline=20.0)
                continue
            run = record.earlier_run
            await target.worker.call("note", pool=volume.pool, image=image.name, changes={naming.KEPT: str(run)})
            to = naming.set_aside(image.name, run)
            await target.worker.call("rename", pool=volume.pool, image=image.name, to=to)
        earlier = {(volume.pool, volume.image) for volume in record.earlier}
        for image in there.named(record.volumes).values():
            if (image.pool, image.name) not in earlier and await promotion.is_primary(target, image):
                raise Refused(
                    f"image {image.pool}/{image.name} of zone {target.zone} is in the way of the copy, and no copy "
                    "that Lifeboat made: give it another name with `rbd rename`, or remove it"
                )

    @staticmethod
    async def _let_go(source: Site, target: Site, record: ReplicaRecord) -> None:
        """End the mirroring of a stopped copy on both sides, the source's first: its journal would grow for ever."""
        for site in (source, target) if record.synced else (source,):
            for pool, images in _by_pool(record).items():
                await site.worker.call("disable", pool=pool, images=images, deadline=15.0)


def _copyable(here: Look, there: Look, server_id: str, made: Made, verb: StartReplication) -> dict[str, Image]:
    """The disks to copy, once all is as it has to be.

    Raises:
        Refused: it is not.
        Underway: it is not yet.
    """
    disks = source_disks(here, server_id, made)
    if made.machine is not None and len(disks) < len(made.disks):
        raise Refused(f"a disk of machine {made.machine} has no image in zone {here.zone} any more")
    if not disks:
        raise Refused(
            f"no image of zone {here.zone} is a disk of server {server_id}: mark each of them, as with `rbd image-meta "
            f"set POOL/IMAGE {naming.SERVER} {server_id}` and `rbd image-meta set POOL/IMAGE {naming.DISK} NAME`"
        )
    for disk in disks.values():
        image = f"{disk.pool}/{disk.name}"
        if disk.parent is not None and made.machine is not None:
            raise Underway(f"image {image} of zone {here.zone} still reads from a point: RBD mirrors no such image")
        if not disk.exclusive:
            raise Refused(
                f"image {image} of zone {here.zone} cannot have a journal without an exclusive lock: run `rbd feature "
                f"enable {image} exclusive-lock` there"
            )
        if disk.mirror is not None and not disk.journaled:
            raise Refused(
                f"image {image} of zone {here.zone} is mirrored by snapshots: run `rbd mirror image disable {image}` "
                "there, and Lifeboat mirrors it by its journal"
            )
    for disk in disks.values():
        for look in (here, there):
            pool = look.pools[disk.pool]
            if not pool.mirroring:
                raise Refused(
                    f"pool {disk.pool} of zone {look.zone} is not mirrored: run `rbd mirror pool enable {disk.pool} "
                    "image` there"
                )
            if not pool.peers:
                raise Refused(
                    f"pool {disk.pool} of zone {look.zone} has no peer: run `rbd mirror pool peer bootstrap create "
                    f"{disk.pool} > token` at the one site, and `rbd mirror pool peer bootstrap import {disk.pool} "
                    "token` at the other"
                )
    if verb.use_ssd and any(disk.pool != _fast(here) for disk in disks.values()):
        raise Refused(
            "RBD mirrors an image into the pool of the same name: for a replica on SSD the server's own images have to "
            f"be in pool {_fast(here)}"
        )
    return disks


async def _has_room(
    target: Site, there: Look, disks: Mapping[str, Image], used: Mapping[str, int], given_up: tuple[Volume, ...]
) -> None:
    """See that a copy fits, with what is given up for it.

    Raises:
        NoSpace: it does not.
    """
    back = await _used(target, there.named(given_up))
    for pool in dict.fromkeys(disk.pool for disk in disks.values()):
        size = sum(used[name] for name, disk in disks.items() if disk.pool == pool)
        freed = sum(back.get(volume.name, 0) for volume in given_up if volume.pool == pool)
        left = 0 if there.full else there.free_bytes.get(pool, 0) + freed
        if size > left:
            raise NoSpace(f"the copy needs {size} bytes of pool {pool}, and zone {target.zone} has {left} left")


def _never_begun(record: ReplicaRecord) -> ReplicaRecord:
    """What lies at the target while a copy's predecessor was not out of its way: that predecessor."""
    return record.model_copy(update={"volumes": record.earlier, "run": record.earlier_run})


async def _remove(site: Site, image: Image) -> None:
    """Delete an image with its snapshots; its mirroring ends before."""
    if image.mirror is not None:
        await site.worker.call("disable", pool=image.pool, images=[image.name], deadline=15.0)
    await site.worker.call("remove", pool=image.pool, image=image.name, deadline=20.0)


def _fast(look: Look) -> str:
    return list(look.pools)[-1]


async def _used(source: Site, disks: Mapping[str, Image]) -> dict[str, int]:
    """The bytes of each disk that hold data."""
    found: dict[str, int] = {}
    for name, disk in disks.items():
        found[name] = (await source.worker.call("used", pool=disk.pool, images=[disk.name]))[disk.name]
    return found


def _by_pool(record: ReplicaRecord) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for volume in record.volumes:
        found.setdefault(volume.pool, []).append(volume.image)
    return found
