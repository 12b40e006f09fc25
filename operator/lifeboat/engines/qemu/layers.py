"""The layers of a replica: putting one on the tip, and getting rid of those that hold no point.

A point is a layer with a name. Taking a point puts a fresh layer on the tip of every disk in one transaction, so all
disks stop at one instant. A crash between any two steps is healed by `heal`, which every verb calls first:

* files made, nothing recorded: the next point uses the same numbers and makes them again;
* recorded as pending, daemon alive: the transaction was done if the pending nodes stand on something, which is asked;
* recorded as pending, daemon gone: it was done if anything was written to the pending files. If nothing was, leaving
  them out changes no byte, and the point, which nobody was told of, is taken anew.

Removing a point takes its name away, which is durable at once; its layer is merged into the one below it or deleted
when nothing stands on it, in the background. Until a merge is recorded the merged layer stays in the chain, above the
one that got its data, so that a crash in the middle changes nothing that can be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Collection
from pathlib import Path

from lifeboat.engines.contract import NoSpace
from lifeboat.engines.qemu import images, storage_daemon
from lifeboat.engines.qemu.independence import is_independent
from lifeboat.engines.qemu.records import (
    Layer,
    Pending,
    PointRecord,
    ReplicaRecord,
    layer_file,
    load_replica,
    machines,
    save_replica,
)
from lifeboat.engines.qemu.zones import Zone
from lifeboat.host import files
from lifeboat.host.qmp import CommandFailed, Monitors, Session, Silent

logger = logging.getLogger(__name__)

_MERGE = "merge-"


def layer_files(zone: Zone, record: ReplicaRecord, layer: Layer) -> tuple[Path, ...]:
    """The files of a layer, one per disk."""
    return tuple(layer_file(zone, record, layer, index) for index in range(len(layer.disks)))


def named(record: ReplicaRecord, number: int, point: PointRecord) -> tuple[Layer, ...]:
    """The layers, with this one as a point."""
    return tuple(
        layer.model_copy(update={"point": point}) if layer.number == number else layer for layer in record.layers
    )


async def load(monitors: Monitors, zone: Zone, server_id: str) -> ReplicaRecord | None:
    """The replica's record, healed, or None where there is no replica."""
    record = load_replica(zone, server_id)
    return None if record is None else await heal(monitors, zone, record)


async def close_door(monitors: Monitors, zone: Zone, record: ReplicaRecord) -> ReplicaRecord:
    """Hold the tip open for Lifeboat alone: the source cannot write to it from here on.

    The daemon is ended for that and begun again. A line that broke has closed its connections, but what was sent may
    still hang in a tunnel between the zones, and must not arrive after newer writes.
    """
    record = save_replica(zone, record.model_copy(update={"offered": False}))
    await storage_daemon.stop(monitors, zone, record.server_id)
    await storage_daemon.ensure_open(monitors, zone, record)
    return record


async def create_files(zone: Zone, record: ReplicaRecord, layer: Layer, below: Layer | None) -> None:
    """Make a layer's empty files.

    Raises:
        NoSpace: the zone's disk is full.
    """
    with files.disk_errors(zone.name):
        for index, disk in enumerate(record.disks):
            path = layer_file(zone, record, layer, index)
            await asyncio.to_thread(files.make_folder, path.parent)
            backing = layer_file(zone, record, below, index) if below is not None else None
            try:
                await images.create(path, disk.size_bytes, backing)
            except NoSpace as error:
                raise NoSpace(f"the disk of zone {zone.name} is full") from error
            await asyncio.to_thread(files.sync_folder, path.parent)


async def prepare(zone: Zone, record: ReplicaRecord, point: PointRecord) -> ReplicaRecord:
    """Make the files of the layer that will cover the tip, and record what is about to happen."""
    assert record.tip is not None  # noqa: S101  # the caller has seen that there is a tip
    layer = Layer(number=record.next_layer, disks=tuple(disk.name for disk in record.disks), ssd=record.ssd)
    await create_files(zone, record, layer, record.layer(record.tip))
    # The time of a tip's files is that of the last write that arrived. Until one does, the tip is as old as the point
    # that it stands on: while the copy is interrupted, that is older than these files.
    moment = point.time.timestamp()
    for path in layer_files(zone, record, layer):
        await asyncio.to_thread(os.utime, path, (moment, moment))
    return save_replica(zone, record.model_copy(update={"pending": Pending(layer=layer, point=point)}))


async def insert(
    monitors: Monitors,
    zone: Zone,
    record: ReplicaRecord,
    within: contextlib.AbstractAsyncContextManager[None] | None = None,
) -> None:
    """Put the pending layer on the tip of every disk, all at one instant, which lies inside of `within`."""
    pending = record.pending
    assert pending is not None and record.tip is not None  # noqa: S101, PT018  # `prepare` came before
    tip = record.layer(record.tip)
    async with monitors.session(storage_daemon.monitor(zone, record.server_id), 10.0) as session:
        there = await storage_daemon.nodes(session)
        actions = []
        for index in range(len(record.disks)):
            name = storage_daemon.node(index, pending.layer)
            if name not in there:
                path = layer_file(zone, record, pending.layer, index)
                await session.run("blockdev-add", storage_daemon.image_node(name, path, None, writable=True))
            data = {"node": storage_daemon.node(index, tip), "overlay": name}
            actions.append({"type": "blockdev-snapshot", "data": data})
        async with within or contextlib.nullcontext():
            await session.run("transaction", {"actions": actions})


def inserted(zone: Zone, record: ReplicaRecord, point: PointRecord) -> ReplicaRecord:
    """Record that the pending layer is the tip, and that what was the tip is the point."""
    assert record.pending is not None  # noqa: S101  # there was one to insert
    assert record.tip is not None  # noqa: S101  # likewise
    layers = (*named(record, record.tip, point), record.pending.layer)
    number = record.pending.layer.number
    changes = {"layers": layers, "tip": number, "next_layer": number + 1, "pending": None}
    return save_replica(zone, record.model_copy(update=changes))


async def heal(monitors: Monitors, zone: Zone, record: ReplicaRecord) -> ReplicaRecord:
    """Finish or undo a point that was being taken when somebody died."""
    pending = record.pending
    if pending is None:
        return record
    paths = layer_files(zone, record, pending.layer)
    if storage_daemon.running(zone, record.server_id) is not None:
        async with monitors.session(storage_daemon.monitor(zone, record.server_id)) as session:
            there = await storage_daemon.below(session)
            names = [storage_daemon.node(index, pending.layer) for index in range(len(paths))]
            done = all(there.get(name) for name in names)
            if not done:
                for name in names:
                    if name in there:
                        await session.run("blockdev-del", {"node-name": name})
    else:
        complete = all(path.exists() for path in paths)
        done = complete and any([await images.holds_data(path) for path in paths])
    if done:
        return inserted(zone, record, pending.point)
    record = save_replica(zone, record.model_copy(update={"pending": None}))
    for path in paths:
        files.remove(path)
    return record


def standing(zone: Zone, server_id: str) -> dict[int, tuple[str, ...]]:
    """The layers that launched machines stand on, and which machines these are."""
    found: dict[int, tuple[str, ...]] = {}
    for record in machines(zone, server_id):
        if not is_independent(zone, record):
            found[record.layer] = (*found.get(record.layer, ()), record.name)
    return found


def holders(record: ReplicaRecord, layer: Layer, used: Collection[int]) -> bool:
    """Whether a machine stands on this layer or on one that needs it."""
    return any(layer in record.chain(number) for number in used if any(number == each.number for each in record.layers))


async def tidy(monitors: Monitors, zone: Zone, server_id: str) -> None:
    """Delete layers that nothing needs, and bring merges one step further: start one, or record one that is done."""
    record = load_replica(zone, server_id)
    if record is None:
        return
    used = standing(zone, server_id)
    if record.released:
        layers = tuple(
            layer if holders(record, layer, used) else layer.model_copy(update={"point": None})
            for layer in record.layers
        )
        record = record.model_copy(update={"layers": layers})
    record = await _delete_tops(zone, record, used)
    if record.tip is None and record.pending is None:
        _forget_begun(zone, record)
    if storage_daemon.running(zone, server_id) is not None and record.tip is not None:
        try:
            await _merge(monitors, zone, record, used)
        except (Silent, CommandFailed, NoSpace) as error:
            # Room is freed later then: what was asked for is done.
            logger.warning("server %s: layers could not be merged: %s", server_id, error)


async def settle(monitors: Monitors, zone: Zone, record: ReplicaRecord, patience: float = 0.0) -> None:
    """Let no merge run: after `patience` seconds it is stopped, to be begun again later.

    A merge changes files that a machine is about to stand on, and QEMU lays no layer on a chain while one runs.

    Raises:
        Retry: a merge does not stop.
    """
    if storage_daemon.running(zone, record.server_id) is None:
        return
    async with monitors.session(storage_daemon.monitor(zone, record.server_id), patience + 5.0) as session:
        deadline = asyncio.get_running_loop().time() + patience
        # QEMU is asked: short connections see no events.
        while await _merges(session) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for merge in await _merges(session):
            with contextlib.suppress(CommandFailed):
                await session.run("job-cancel", {"id": merge})
        while await _merges(session):  # noqa: ASYNC110  # QEMU is asked: short connections see no events
            await asyncio.sleep(0.02)


def _forget_begun(zone: Zone, record: ReplicaRecord) -> None:
    """Delete what is left of a layer whose files were being made when somebody died: no record tells of it.

    While there is a tip, the next layer takes the same files.
    """
    for ssd in (False, True) if zone.has_ssd() else (False,):
        begun = Layer(number=record.next_layer, disks=tuple(disk.name for disk in record.disks), ssd=ssd)
        for path in layer_files(zone, record, begun):
            files.remove(path)


async def _delete_tops(zone: Zone, record: ReplicaRecord, used: Collection[int]) -> ReplicaRecord:
    """Drop nameless layers that nothing stands on, from the top of each chain down."""
    kept: list[Layer] = []
    dropped: list[Layer] = []
    above: Layer | None = None
    for layer in reversed(record.layers):
        needed = above is not None and not above.base
        if needed or layer.point is not None or layer.number == record.tip or layer.number in used:
            kept.insert(0, layer)
            above = layer
        else:
            dropped.append(layer)
            # Whatever is below is a top now; a base has nothing below.
            above = above if layer.base else None
    if not dropped:
        return record
    changed = save_replica(zone, record.model_copy(update={"layers": tuple(kept)}))
    for layer in dropped:
        for path in layer_files(zone, record, layer):
            files.remove(path)
    return changed


async def _merge(monitors: Monitors, zone: Zone, record: ReplicaRecord, used: Collection[int]) -> None:
    """Merge the layer above a nameless one into it, unless a machine stands there or above.

    The tip is never merged: what is under it waits until the tip has become a point.
    """
    assert record.tip is not None  # noqa: S101  # the caller has seen that there is a tip
    chain = record.chain(record.tip)
    step = next(
        (
            (low, high, over)
            for low, high, over in zip(chain, chain[1:], chain[2:], strict=False)
            if low.point is None and not any(number >= low.number for number in used)
        ),
        None,
    )
    if step is None:
        return
    low, high, over = step
    async with monitors.session(storage_daemon.monitor(zone, record.server_id), 10.0) as session:
        if await _merges(session):
            return
        there = await storage_daemon.below(session)
        started = False
        for index in range(len(record.disks)):
            base = layer_file(zone, record, low, index)
            # A finished merge is seen by what stands where, not by its job, which may have failed.
            if there.get(storage_daemon.node(index, over)) == storage_daemon.node(index, low):
                continue
            started = True
            commit = {
                "job-id": f"{_MERGE}{index}-{high.number}",
                "device": storage_daemon.node(index, chain[-1]),
                "base-node": storage_daemon.node(index, low),
                "top-node": storage_daemon.node(index, high),
                "backing-file": images.relative(base, layer_file(zone, record, over, index)),
            }
            await session.run("block-commit", commit)
        if not started:
            merged = low.model_copy(update={"point": high.point})
            layers = tuple(merged if layer is low else layer for layer in record.layers if layer is not high)
            save_replica(zone, record.model_copy(update={"layers": layers}))
            for index, path in enumerate(layer_files(zone, record, high)):
                await session.run("blockdev-del", {"node-name": storage_daemon.node(index, high)})
                files.remove(path)


async def _merges(session: Session) -> list[str]:
    answer = await session.run("query-block-jobs")
    return [str(found["device"]) for found in answer if str(found["device"]).startswith(_MERGE)]
