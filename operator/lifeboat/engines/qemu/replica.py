"""A server's replica: starting the copy, resuming it, stopping it, letting it go.

The recovery zone's side is what counts. Ending a replica never waits for the source: the process that receives the copy
ends first, after which nothing that the source still does reaches the replica.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from lifeboat.engines.contract import EngineError, NoSpace, Refused, Retry
from lifeboat.engines.qemu import holdings, layers, lines, mirror, originals, storage_daemon
from lifeboat.engines.qemu.instep import InStep
from lifeboat.engines.qemu.records import (
    REPLICA,
    DiskRecord,
    Layer,
    PointRecord,
    ReplicaRecord,
    load_replica,
    save_replica,
)
from lifeboat.engines.qemu.site_server import SiteServer
from lifeboat.engines.qemu.zones import Zone
from lifeboat.engines.verbs import ResumeReplication, StartReplication, StopReplication
from lifeboat.host import files, machine
from lifeboat.host.qmp import CommandFailed, Monitors, Silent

_ALL = "all is copied: {}"
_DIFFERENCE = "only what differs from what the original's disks held is copied"
# What a resync leaves of the disk for points, ledgers and records.
_LEFT_FREE = 8 << 20


class Replicas:
    """The replicas of all servers."""

    def __init__(self, monitors: Monitors, instep: InStep) -> None:
        self._monitors = monitors
        self._instep = instep

    async def start(self, source: SiteServer, target: Zone, verb: StartReplication) -> None:
        """Start the copy of a run, or see that it was started: a run is started once, whatever becomes of it.

        Raises:
            Refused: the source or the network is not there.
            Retry: the source does not run, or what the original's disks hold is still being read.
            NoSpace: the target's disk is too small.
        """
        server_id, folder = source.server_id, source.folder
        network = target.network(verb.replication_network)
        target.tier(verb.use_ssd)
        record = await layers.load(self._monitors, target, server_id)
        if record is not None and not record.released:
            begun = record.replicating and not record.mirrored
            if record.run > verb.run or (record.run == verb.run and not begun):
                return
        if machine.running(folder) is None:
            raise Retry(f"server {server_id} does not run: its disks can be copied only while it does")
        if record is None or record.released or record.run != verb.run:
            record = await self._begin(source, target, record, verb)
        elif not record.held:
            # An attempt that was cut off may have begun to copy. What is not copied is taken for empty.
            await self._empty(target, record)
        found: Sequence[Path] = ()
        if record.held:
            try:
                record, found = await self._read(target, record)
            except holdings.Unreadable as error:
                record = await self._copy_all(target, record, str(error))
        if not record.held:
            record = await self._offer(target, record)
        await mirror.start(self._monitors, folder, record, network.reached, target.name, found)
        save_replica(target, record.model_copy(update={"mirrored": True, "offered": True}))

    async def resume(self, source: SiteServer, target: Zone, verb: ResumeReplication) -> None:
        """Let an interrupted copy go on with what changed.

        First every disk is connected again, which changes nothing at the replica: as long as that fails the tip stays
        as it is. Then the last consistent state becomes a point, and only then the first byte may arrive: from then
        until the end of the resync the tip holds newer writes without older ones.

        Raises:
            Refused: the source no longer knows what changed.
            Retry: the replica cannot be reached yet, with the reason.
            NoSpace: what changed has no room there.
        """
        server_id, folder = source.server_id, source.folder
        record = await self._present(target, server_id)
        if not record.replicating:
            raise Refused(f"replication of server {server_id} is stopped")
        if machine.running(folder) is None:
            raise Refused(
                f"server {server_id} has stopped: what changed since is not known, all has to be copied again"
            )
        seen = await mirror.look(self._monitors, folder, record, target.name)
        if seen.progress is mirror.Progress.GONE:
            raise Refused(seen.reason)
        time_of_tip = self._instep.tip_time(target, record)
        offered = await storage_daemon.is_offered(self._monitors, target, record)
        if offered and record.offered and seen.progress is not mirror.Progress.INTERRUPTED:
            return
        needed, free = _wanted(source, record, seen) + _LEFT_FREE, target.free_bytes(use_ssd=record.ssd)
        if needed > free:
            raise NoSpace(f"the disk of zone {target.name} is full: what changed needs {needed} bytes, {free} are left")
        await lines.end(folder)
        if record.offered or not offered:
            # Whatever still hangs between the zones of the line that broke ends with the daemon that it led to.
            if record.consistent():
                record = record.model_copy(update={"synced_at": time_of_tip})
            record = await layers.close_door(self._monitors, target, record)
        record = await storage_daemon.ensure_offered(self._monitors, target, record)
        address = target.network(record.network).reached
        try:
            number = await mirror.reconnect(self._monitors, folder, record, address, target.name)
            if verb.freeze_as is not None and record.consistent() and record.point_layer(verb.freeze_as) is None:
                point = PointRecord(name=verb.freeze_as, time=time_of_tip)
                await layers.settle(self._monitors, target, record)
                record = await layers.prepare(target, record, point)
                await layers.insert(self._monitors, target, record)
                record = layers.inserted(target, record, point)
            record = save_replica(target, record.model_copy(update={"torn": True, "offered": True}))
            await mirror.switch(self._monitors, folder, record, number)
        except EngineError as error:
            await lines.end(folder, str(error))
            raise

    async def limit(self, source: SiteServer, target: Zone, bandwidth_limit: int | None) -> None:
        """Change what the full copy may use of the network."""
        record = await self._present(target, source.server_id)
        record = save_replica(target, record.model_copy(update={"bandwidth_limit": bandwidth_limit}))
        if record.replicating and machine.running(source.folder) is not None:
            await mirror.limit(self._monitors, source.folder, record)

    async def stop(self, source: SiteServer | None, target: Zone, server_id: str, verb: StopReplication) -> None:
        """Stop copying; the source is left out when None, and given one second otherwise.

        Raises:
            Refused: there is nothing to freeze.
        """
        record = load_replica(target, server_id)
        if record is None:
            if verb.freeze_as is not None:
                raise Refused(f"server {server_id} has no replica in zone {target.name}")
            return
        folder = None
        if source is not None and machine.running(source.folder) is not None:
            folder = source.folder
        if record.replicating and folder is not None:
            with contextlib.suppress(Silent, CommandFailed, TimeoutError):
                async with asyncio.timeout(1.0):
                    record = await self._instep.check(folder, target, record)
        time_of_tip = self._instep.tip_time(target, record)
        await storage_daemon.stop(self._monitors, target, server_id)
        await holdings.end(target, server_id)
        record = await layers.load(self._monitors, target, server_id) or record
        changes: dict[str, object] = {"replicating": False, "mirrored": False, "offered": False}
        if record.consistent():
            # What is frozen later is of this moment, however long it was in step before.
            changes["synced_at"] = time_of_tip
        if verb.freeze_as is not None and record.point_layer(verb.freeze_as) is None:
            if record.tip is None:
                raise Refused(f"replication of server {server_id} is stopped: there is nothing newer to freeze")
            problem = None if record.consistent() else _problem(record)
            point = PointRecord(name=verb.freeze_as, time=time_of_tip, problem=problem)
            changes |= {"layers": layers.named(record, record.tip, point), "tip": None}
        save_replica(target, record.model_copy(update=changes))
        self._instep.forget(target, server_id)
        if folder is not None:
            # What a source that does not answer in time keeps of the copy is cleaned up by the next start.
            with contextlib.suppress(Retry):
                await mirror.clean(self._monitors, folder, 1.0)

    async def release(self, source: SiteServer | None, target: Zone, server_id: str) -> None:
        """Delete the replica and every point that no machine stands on; the others go when their machines go."""
        if load_replica(target, server_id) is None:
            return
        await self.stop(source, target, server_id, StopReplication())
        record = await self._present(target, server_id)
        save_replica(target, record.model_copy(update={"released": True, "tip": None}))
        await self.tidy(target, server_id)

    async def tidy(self, target: Zone, server_id: str) -> None:
        """Delete what nothing needs any more, the record itself last."""
        await layers.tidy(self._monitors, target, server_id)
        record = load_replica(target, server_id)
        if record is not None and record.released and not record.layers:
            files.remove(target.replica_folder(server_id) / REPLICA)
            for ssd in (False, True) if target.has_ssd() else (False,):
                with contextlib.suppress(OSError):
                    (target.tier(ssd) / "replicas" / server_id).rmdir()

    async def _offer(self, target: Zone, record: ReplicaRecord) -> ReplicaRecord:
        """Offer the tip anew: whatever still hangs between the zones from earlier does not reach it."""
        record = await layers.close_door(self._monitors, target, record)
        return await storage_daemon.ensure_offered(self._monitors, target, record)

    async def _read(self, target: Zone, record: ReplicaRecord) -> tuple[ReplicaRecord, Sequence[Path]]:
        """The fingerprints of what the tip holds.

        Raises:
            Retry: they are not all there yet.
            Unreadable: they cannot be had.
        """
        found = await holdings.look(target, record)
        if found is None:
            try:
                record = await self._offer(target, record)
            except CommandFailed as error:
                raise holdings.Unreadable(f"the original's disks cannot be opened: {error.description}") from error
            await holdings.begin(target, record)
            found = await holdings.look(target, record)
        if found is None:
            raise Retry("the reading of the original's disks was cut short: it begins anew")
        return record, found

    async def _copy_all(self, target: Zone, record: ReplicaRecord, why: str) -> ReplicaRecord:
        """Begin with empty disks instead of the original's, which somebody may have open."""
        await holdings.end(target, record.server_id)
        await self._empty(target, record)
        return save_replica(target, record.model_copy(update={"held": False, "basis": _ALL.format(why)}))

    async def _empty(self, target: Zone, record: ReplicaRecord) -> None:
        """Let the disks of a copy that was begun be empty ones."""
        assert record.tip is not None  # noqa: S101  # a copy that was begun has a tip
        await storage_daemon.stop(self._monitors, target, record.server_id)
        base = record.layer(record.tip)
        for path in layers.layer_files(target, record, base):
            await asyncio.to_thread(files.remove, path)
        await layers.create_files(target, record, base, None)

    async def _present(self, target: Zone, server_id: str) -> ReplicaRecord:
        record = await layers.load(self._monitors, target, server_id)
        if record is None:
            raise Refused(f"server {server_id} has no replica in zone {target.name}")
        return record

    async def _begin(
        self, source: SiteServer, target: Zone, record: ReplicaRecord | None, verb: StartReplication
    ) -> ReplicaRecord:
        """Leave the earlier copy and its points as they are, and lay the ground for a new one beside them."""
        found = source.images()
        needed = sum(image.allocated_bytes for image in found)
        free = target.free_bytes(use_ssd=verb.use_ssd)
        original = originals.find(target, source.server_id) if verb.onto_original else None
        if original is not None:
            free += originals.room(original, use_ssd=verb.use_ssd)
        if needed > free:
            raise NoSpace(f"the copy needs {needed} bytes, and the disk of zone {target.name} has {free} left")
        old: tuple[Layer, ...] = ()
        number = 1
        if record is not None:
            await storage_daemon.stop(self._monitors, target, source.server_id)
            old, number = record.layers, record.next_layer
        base = Layer(number=number, disks=source.disk_names, ssd=verb.use_ssd, base=True)
        fresh = ReplicaRecord(
            server_id=source.server_id,
            cpu=source.what.cpu,
            memory_bytes=source.memory_bytes,
            disks=tuple(
                DiskRecord(name=name, size_bytes=image.size_bytes)
                for name, image in zip(source.disk_names, found, strict=True)
            ),
            addresses=source.fixed_addresses,
            ports=source.what.ports,
            run=verb.run,
            network=verb.replication_network,
            ssd=verb.use_ssd,
            bandwidth_limit=verb.bandwidth_limit,
            replicating=True,
            layers=(*old, base),
            tip=number,
            next_layer=number + 1,
        )
        held = False
        if original is not None:
            sizes = {disk.name: disk.size_bytes for disk in fresh.disks}
            places = zip(sizes, layers.layer_files(target, fresh, base), strict=True)
            why = await originals.give_up(original, verb.run, {name: (path, sizes[name]) for name, path in places})
            held = not why
            fresh = fresh.model_copy(update={"held": held, "basis": _ALL.format(why) if why else _DIFFERENCE})
        if not held:
            await layers.create_files(target, fresh, base, None)
        self._instep.forget(target, source.server_id)
        return save_replica(target, fresh)


def _wanted(source: SiteServer, record: ReplicaRecord, seen: mirror.Mirror) -> int:
    """How much of the disk a resync takes at most."""
    if not record.held:
        return seen.dirty_bytes
    # Such a copy goes over the whole disks, the empty parts as well.
    return min(seen.dirty_bytes, sum(image.allocated_bytes for image in source.images()))


def _problem(record: ReplicaRecord) -> str:
    if record.torn:
        return "the replica was in the middle of a resync: it held newer writes without older ones"
    return "the first copy was not complete"
