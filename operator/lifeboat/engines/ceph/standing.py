"""Where a server's copy stands: decided from one look at both sites and the record, with nothing asked of anybody."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from lifeboat.engines.ceph import naming
from lifeboat.engines.ceph.lags import Lags
from lifeboat.engines.ceph.pools import Head, Image, Look, Mark, is_whole, marks
from lifeboat.engines.ceph.records import ReplicaRecord, Volume
from lifeboat.engines.facts import Point, Replica, ReplicaState, Unknown

# A first copy is whole once what was written meanwhile is replayed but for this many seconds: of a server that writes
# all the time it never is to the last entry.
_CAUGHT_UP = 15.0
# rbd-mirror has not told anything of an image yet.
_NOTHING_TOLD = "status not found"
_UNTOLD = 45.0
# Words of rbd-mirror's about a copy that does not follow its source any more.
_SPLIT = "split-brain"
_IS_PRIMARY = "local image is primary"
Ends: TypeAlias = Mapping[str, Head]
_NO_ENDS: Ends = {}


@dataclass(frozen=True, slots=True)
class Stand:
    """Where the copy of one disk, or of all, stands: `lag` is None while there is no whole copy."""

    state: ReplicaState
    reason: str = ""
    resumable: bool = True
    lag: float | None = None


def of_copy(record: ReplicaRecord, source: Look | Unknown, target: Look, lags: Lags, ends: Ends = _NO_ENDS) -> Stand:
    """Where the copy of all disks stands: where the one stands that is furthest behind.

    `ends` has the last entries of the journals whose writer may have been killed, by the ids of the images.
    """
    if isinstance(source, Unknown):
        state = ReplicaState.INTERRUPTED if record.enabled else ReplicaState.STARTING
        return Stand(state, source.reason)
    stands = [_of_disk(record, volume, source, target, lags, ends) for volume in record.volumes]
    for state in (ReplicaState.INTERRUPTED, ReplicaState.STARTING, ReplicaState.COPYING):
        for stand in stands:
            if stand.state is state:
                return stand
    lag = max((stand.lag or 0.0 for stand in stands), default=0.0)
    if not record.synced and lag > _CAUGHT_UP:
        return Stand(ReplicaState.COPYING, lag=lag)
    return Stand(ReplicaState.SYNCED, lag=lag)


def _of_disk(record: ReplicaRecord, volume: Volume, source: Look, target: Look, lags: Lags, ends: Ends) -> Stand:
    """Where one disk stands. What was never begun in this run is being started; later the same is an interruption."""
    missing = ReplicaState.INTERRUPTED if record.enabled else ReplicaState.STARTING
    pool = target.pools[volume.pool]
    for site in (source, target):
        if not site.pools[volume.pool].mirroring:
            return Stand(missing, f"pool {volume.pool} of zone {site.zone} is not mirrored", resumable=False)
    original, copy = (site.named([volume]).get(volume.name) for site in (source, target))
    where = f"image {volume.pool}/{volume.image} of zone {source.zone}"
    if original is None:
        return Stand(missing, f"{where} is gone", resumable=False)
    if original.mirror is None:
        return Stand(missing, f"{where} is not mirrored any more", resumable=False)
    peer = original.peers.get(pool.mirror_uuid)
    told = copy.mirror if copy is not None else None
    # A daemon that was just started tells nothing for half a minute, and one that died before that never will.
    nothing = told is None or (not told.up and told.description == _NOTHING_TOLD)
    untold = lags.untold(original.id, nothing=nothing)
    if (told is not None and not told.up and not nothing) or untold > _UNTOLD:
        return Stand(
            missing if told is None else ReplicaState.INTERRUPTED,
            f"no rbd-mirror runs in zone {target.zone}: start one there (user rbd-mirror)",
        )
    if told is not None and (told.state == "error" or _IS_PRIMARY in told.description):
        split = _SPLIT in told.description or _IS_PRIMARY in told.description
        image = f"{volume.pool}/{volume.image}"
        said = f"rbd-mirror of zone {target.zone} says of {image}: {told.description}"
        if split:
            said = (
                f"image {image} is primary in both zones, which is a split brain: somebody promoted it in zone "
                f"{target.zone}, and nothing is copied onto it any more; to keep what zone {source.zone} has, start "
                "replication anew: what is there now is kept beside the new copy, with its points; to keep what zone "
                f"{target.zone} has, fail over"
            )
        return Stand(ReplicaState.INTERRUPTED, said, resumable=not split)
    if peer is None:
        if record.synced:
            return Stand(ReplicaState.INTERRUPTED, f"{where} has no peer in its journal any more", resumable=False)
        return Stand(ReplicaState.STARTING)
    if not peer.connected:
        return Stand(
            ReplicaState.INTERRUPTED, f"the copy of {where} was cut off: it was too far behind", resumable=False
        )
    end = max(original.head, ends.get(original.id, original.head))
    # From the first look on: what was written during the first copy is behind, too, once that is whole.
    lag = lags.lag(original.id, end, peer.head)
    if not peer.copied or copy is None:
        return Stand(ReplicaState.COPYING)
    return Stand(ReplicaState.SYNCED, lag=lag)


def generations(record: ReplicaRecord | None, target: Look, server_id: str) -> list[dict[str, Image]]:
    """The copies of a server that hold points, newest first: the one that goes on, once whole, and those set aside."""
    found = list(target.kept(server_id).values())
    if record is not None and record.synced:
        found.insert(0, target.named(record.volumes))
    return found


def holding(
    record: ReplicaRecord | None, target: Look, server_id: str, point: str
) -> tuple[Mark, dict[str, Image]] | None:
    """The newest copy that has a point on all its disks, and the point's mark."""
    for disks in generations(record, target, server_id):
        mark = marks(disks).get(point)
        if mark is not None and is_whole(mark, disks):
            return mark, disks
    return None


def points(record: ReplicaRecord | None, target: Look, server_id: str) -> tuple[Point, ...]:
    """The points of a server, oldest first, with the machines whose disks read from them."""
    found: dict[str, Point] = {}
    users = _users(target, server_id)
    for disks in generations(record, target, server_id):
        for name, mark in marks(disks).items():
            if not is_whole(mark, disks):
                continue
            used_by = sorted({user for disk in mark.disks for user in users.get(_place(disks[disk], name), ())})
            before = found.get(name)
            everyone = tuple(sorted({*used_by, *(before.used_by if before else ())}))
            found[name] = dataclasses.replace(
                before or Point(name=name, time=mark.time, problem=mark.problem),
                used_by=everyone,
                held=bool(everyone),
            )
    return tuple(sorted(found.values(), key=lambda point: (point.time, point.name)))


def _place(image: Image, point: str) -> tuple[str, str]:
    return image.id, naming.snapshot(point)


def _users(target: Look, server_id: str) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """The machines whose disks read from a snapshot, by image and snapshot."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for machine, disks in target.machine_disks(server_id).items():
        for image in disks.values():
            if image.parent is not None:
                found[image.parent] = (*found.get(image.parent, ()), machine)
    return found


def replica(
    record: ReplicaRecord | None,
    source: Look | Unknown,
    target: Look,
    server_id: str,
    lags: Lags,
    copied: int,
    ends: Ends = _NO_ENDS,
) -> Replica:
    """The replica as the contract tells of it; `copied` is what the copy holds while it is being made."""
    there = points(record, target, server_id)
    if record is None or record.released:
        return Replica(ReplicaState.ABSENT, points=there)
    # Each disk is copied by itself. Of several, what arrived is of one instant once nothing more was to come.
    together = len(record.volumes) == 1 or record.level
    if not record.replicating:
        return Replica(
            ReplicaState.STOPPED,
            run=record.run,
            consistent=record.synced and together,
            total_bytes=record.total_bytes,
            copied_bytes=record.total_bytes if record.synced else 0,
            basis=record.basis,
            points=there,
        )
    stand = of_copy(record, source, target, lags, ends)
    whole = record.synced or stand.state is ReplicaState.SYNCED
    return Replica(
        state=stand.state,
        run=record.run,
        reason=stand.reason,
        copied_bytes=record.total_bytes if whole else min(copied, record.total_bytes),
        total_bytes=record.total_bytes,
        lag_seconds=stand.lag,
        resumable=stand.state is ReplicaState.INTERRUPTED and stand.resumable,
        # While the source's site answers a stop waits for the last writes, and so makes it true.
        consistent=whole and (together or stand.state is ReplicaState.SYNCED),
        basis=record.basis,
        points=there,
    )
