"""The verbs of replication and points, and how a copy moves on with time."""

from __future__ import annotations

from datetime import timedelta

from lifeboat.engines.contract import NoSpace, Refused, Retry
from lifeboat.engines.facts import ReplicaState
from lifeboat.engines.simulated.state import BYTES_PER_WRITE, Model, PointRecord, ReplicaRecord, ServerRecord, Track
from lifeboat.engines.simulated.view import copy_rate
from lifeboat.engines.verbs import (
    LimitBandwidth,
    PrunePoints,
    ResumeReplication,
    StartReplication,
    StopReplication,
    TakePoint,
)

_START_SECONDS = 1.0
_ONTO_ORIGINAL = "all is copied: there is no record of what differs from the original"
_GOING = {ReplicaState.STARTING, ReplicaState.COPYING, ReplicaState.SYNCED, ReplicaState.RESYNCING}


def start(model: Model, track: Track, verb: StartReplication) -> None:
    """Start the full copy of that run; the run that is there is left as it is."""
    source = track.source()
    current = track.replica.run if track.replica else 0
    if track.replica is not None and verb.run <= current:
        if verb.run < current:
            raise Refused(f"copy {verb.run} was followed by copy {current}")
        return
    if verb.replication_network not in track.target_zone.networks:
        raise Refused(f"{track.target_zone.name} has no network {verb.replication_network}")
    if verb.use_ssd and not track.target_zone.ssd:
        raise Refused(f"{track.target_zone.name} has no SSD storage")
    if not source.running:
        raise Retry(f"{track.server_id} does not run: a copy needs a running source")
    _need_link(model, track)
    original = _original(track) if verb.onto_original else None
    total = sum(disk.allocated_bytes for disk in source.hardware.disks)
    track.target_zone.need(total - track.reserved - (original.disks.size if original else 0))
    if original is not None:
        _give_up(model, original)
    model.reserve(track, total)
    track.hardware = source.hardware
    track.replica = ReplicaRecord(
        run=verb.run,
        total=total,
        due=model.now + timedelta(seconds=_START_SECONDS),
        limit=verb.bandwidth_limit,
        basis=_ONTO_ORIGINAL if verb.onto_original else "",
    )


def resume(model: Model, track: Track, verb: ResumeReplication) -> None:
    """Go on with what changed; freeze the last consistent state first where a name is given."""
    source = track.source()
    replica = track.replica
    if replica is None or replica.state is ReplicaState.STOPPED:
        raise Refused("replication is stopped: there is nothing to resume")
    if replica.state is not ReplicaState.INTERRUPTED:
        return
    if not replica.resumable:
        raise Refused(replica.reason)
    _need_link(model, track)
    track.target_zone.need(0)
    if verb.freeze_as is not None and replica.held is not None:
        _freeze(model, track, replica, verb.freeze_as)
    replica.state, replica.reason, replica.due = replica.resume_as, "", model.now
    if replica.state is ReplicaState.RESYNCING:
        # From here on old and new blocks are mixed, until everything that changed is there.
        replica.held = None
        replica.total = (source.disks.held - replica.base) * BYTES_PER_WRITE
        replica.copied = 0.0


def limit(track: Track, verb: LimitBandwidth) -> None:
    """Change the rate of the full copy."""
    track.source()
    if track.replica is None:
        raise Refused("there is no replication to limit")
    track.replica.limit = verb.bandwidth_limit


def stop(model: Model, track: Track, verb: StopReplication) -> None:
    """Stop the copy from the recovery side alone, the primary may burn; freeze the replica where a name is given."""
    replica = track.replica
    if replica is None:
        if verb.freeze_as is not None and verb.freeze_as not in track.points:
            raise Refused("there is no replica to freeze")
        return
    if verb.freeze_as is not None:
        _freeze(model, track, replica, verb.freeze_as)
    if replica.state is ReplicaState.SYNCED:
        replica.in_sync_at = model.now
    replica.state, replica.reason, replica.resumable = ReplicaState.STOPPED, "", False


def take_point(model: Model, track: Track, verb: TakePoint) -> None:
    """Freeze the replica as it stands; an application-consistent point needs the source's agent as well."""
    if verb.name in track.points:
        return
    replica = track.replica
    if replica is None:
        raise Refused("there is no replica to take a point of")
    if verb.application_consistent:
        if replica.state is not ReplicaState.SYNCED:
            raise Retry("an application-consistent point needs a replica that is in sync")
        if not track.source().agent:
            raise Retry("the client in the server does not answer, so its file systems cannot be frozen")
    _freeze(model, track, replica, verb.name, application_consistent=verb.application_consistent)


def prune(track: Track, verb: PrunePoints) -> None:
    """Remove the points that nothing stands on."""
    for name in verb.names:
        if (point := track.points.get(name)) is not None and not track.users(point):
            del track.points[name]


def release(model: Model, track: Track) -> None:
    """Delete the replica and every point that no machine stands on, once nothing is written to it any more."""
    if track.replica is not None and track.replica.state is not ReplicaState.STOPPED:
        raise Refused("replication has to be stopped before its replica is deleted")
    track.replica = None
    prune(track, PrunePoints(tuple(track.points)))
    model.reserve(track, 0)


def undrained(track: Track, source: ServerRecord) -> str | None:
    """Why the process of a source that acknowledges nothing any more cannot end yet; None where nothing is missing."""
    replica = track.replica
    if replica is None or replica.state is ReplicaState.STOPPED:
        return None
    if replica.state is ReplicaState.INTERRUPTED:
        return f"replication is interrupted: {replica.reason}"
    if replica.state is not ReplicaState.SYNCED or replica.held != source.disks.held:
        return "the replica does not hold everything yet"
    return None


def _original(track: Track) -> ServerRecord:
    """The server that the target zone has under this id, once its disks may become the replica's."""
    zone = track.target_zone
    original = zone.server(track.server_id)
    if original is None:
        raise Refused(f"{zone.name} has no server {track.server_id} whose disks could be given up")
    if original.running or not original.fenced:
        raise Refused(f"{original.user} in {zone.name} is not stopped and fenced: its disks are not given up")
    for machine in track.machines.values():
        if machine.disks is original.disks and machine.running:
            raise Refused(f"{machine.user} runs on the disks of {original.user}: they are not given up")
    return original


def _give_up(model: Model, original: ServerRecord) -> None:
    """Wipe a server's disks, once: the replica lies on them from now on."""
    disks = original.disks
    original.zone.used_bytes -= disks.size
    disks.held, disks.point, disks.size, disks.given_up = 0, None, 0, True
    model.touch_server(original)


def _last_write(track: Track) -> int:
    source = track.source_zone.server(track.server_id)
    assert source is not None  # noqa: S101 - a copy breaks with its source
    return source.disks.held


def _need_link(model: Model, track: Track) -> None:
    if not model.linked(track):
        raise Retry(f"{track.source_zone.name} and {track.target_zone.name} do not reach each other")


def _freeze(
    model: Model, track: Track, replica: ReplicaRecord, name: str, *, application_consistent: bool = False
) -> None:
    """Make a point of the replica, dated by the data in it: a replica that lags is not as young as the call."""
    if name in track.points:
        return
    if replica.held is None:
        raise Retry("the replica is not consistent while it is being copied")
    if track.target_zone.filled:
        raise NoSpace(f"{track.target_zone.name} has no space for another point")
    time = model.now if replica.state is ReplicaState.SYNCED or replica.in_sync_at is None else replica.in_sync_at
    track.points[name] = PointRecord(name, time, replica.held, application_consistent)


def interrupt(model: Model, track: Track, reason: str, *, resumable: bool) -> None:
    """Break a copy that goes on, or learn of one that is broken already that nothing of it can be resumed."""
    replica = track.replica
    if replica is None:
        return
    resumable = resumable and model.capabilities.delta_resync
    if replica.state in _GOING:
        if replica.state is ReplicaState.SYNCED:
            replica.in_sync_at = model.now
            replica.base = replica.held or 0
        replica.resume_as = (
            ReplicaState.RESYNCING
            if replica.state in {ReplicaState.SYNCED, ReplicaState.RESYNCING}
            else ReplicaState.COPYING
        )
    elif replica.state is not ReplicaState.INTERRUPTED or (resumable or not replica.resumable):
        return
    replica.state, replica.reason, replica.resumable = ReplicaState.INTERRUPTED, reason, resumable
    if not model.capabilities.delta_resync:
        replica.reason = f"{reason}; this engine cannot copy only what changed"
    model.touch(track)


def acknowledge(model: Model, track: Track, source: ServerRecord) -> None:
    """Carry an acknowledged write over, or notice that it cannot be."""
    replica = track.replica
    if replica is None or replica.state is not ReplicaState.SYNCED:
        return
    if track.target_zone.filled:
        interrupt(model, track, f"{track.target_zone.name} is full", resumable=True)
        return
    replica.held = source.disks.held


def progress(model: Model, track: Track) -> None:
    """Move a copy on to the model's time."""
    replica = track.replica
    if replica is None or replica.due > model.now:
        return
    if replica.state is ReplicaState.STARTING:
        replica.state = ReplicaState.COPYING
    if replica.state not in {ReplicaState.COPYING, ReplicaState.RESYNCING}:
        return
    if track.target_zone.filled:
        interrupt(model, track, f"{track.target_zone.name} is full", resumable=True)
        return
    replica.copied += copy_rate(model, replica) * (model.now - replica.due).total_seconds()
    replica.due = model.now
    if replica.copied >= replica.total:
        replica.copied = float(replica.total)
        replica.state = ReplicaState.SYNCED
        replica.held = _last_write(track)
        replica.in_sync_at = model.now
