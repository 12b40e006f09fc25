"""What is seen of the world: facts made from the records, and the same object again while nothing changed.

Unchanged facts are handed out by identity, so that a caller can skip thousands of idle servers with `is`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from types import MappingProxyType

from lifeboat.engines.contract import Pair
from lifeboat.engines.facts import (
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
from lifeboat.engines.ledger import Ledger
from lifeboat.engines.simulated.state import MachineRecord, Model, ReplicaRecord, ServerRecord, Track, ZoneRecord

_ABSENT = Replica(ReplicaState.ABSENT)
_FED_BY_SOURCE = {ReplicaState.STARTING, ReplicaState.COPYING, ReplicaState.SYNCED, ReplicaState.RESYNCING}


def pair_facts(model: Model, pair: Pair, server_ids: Collection[str]) -> PairFacts:
    """See both zones and the servers that were asked for."""
    primary = model.zones.get(pair.primary_zone)
    recovery = model.zones.get(pair.recovery_zone)
    if primary is None or recovery is None:
        reason = f"there is no zone {pair.primary_zone if primary is None else pair.recovery_zone}"
        return PairFacts(
            _zone_fact(primary, pair.primary_zone),
            _zone_fact(recovery, pair.recovery_zone),
            {sid: nothing_known(sid, reason) for sid in server_ids},
        )
    tracks = model.tracks.setdefault((primary.name, recovery.name), {})
    for server_id in server_ids:
        if server_id not in tracks:
            tracks[server_id] = Track(server_id, primary, recovery)
    servers = {
        sid: track.facts if track.facts is not None and track.fresh == model.generation else _see(model, track)
        for sid, track in ((sid, tracks[sid]) for sid in server_ids)
    }
    return PairFacts(_zone_fact(primary, primary.name), _zone_fact(recovery, recovery.name), servers)


def _zone_fact(zone: ZoneRecord | None, name: str) -> Fact[SiteFacts]:
    if zone is None:
        return Unknown(f"there is no zone {name}")
    if zone.silent:
        return _silence(zone)
    if zone.facts is None:
        zone.facts = SiteFacts(
            zone=zone.name,
            namespaces=zone.namespaces,
            networks=tuple(
                Network(network, cidr, MappingProxyType(dict(zone.taken[network])))
                for network, cidr in zone.networks.items()
            ),
            elastic_ips=MappingProxyType(dict(zone.elastic_ips)),
            cpu=zone.cpu,
            memory_bytes=zone.memory_bytes,
            standard=zone.storage(),
            ssd=zone.storage() if zone.ssd else None,
            servers=tuple(sid for sid, source in zone.servers.items() if not source.removed),
        )
    return Known(zone.facts)


def _see(model: Model, track: Track) -> ServerFacts:
    """Build the facts of one server, and keep the old object where it says the same."""
    seen = _server_facts(model, track)
    if track.facts is None or track.facts != seen:
        track.facts = seen
    track.fresh = model.generation
    return track.facts


def _server_facts(model: Model, track: Track) -> ServerFacts:
    back = model.opposite(track)
    home = track.target_zone
    return ServerFacts(
        server_id=track.server_id,
        ledger=_silence(home) if home.silent else Known(track.ledger or Ledger(track.server_id)),
        forward=_way(model, track, f"{track.source_zone.name} has no server {track.server_id}"),
        reverse=_unturned(
            track.source_zone.name, home.name, primary_silent=track.source_zone.silent, recovery_silent=home.silent
        )
        if back is None
        else _way(model, back, f"{home.name} has no server registered"),
    )


@lru_cache
def _unturned(primary: str, recovery: str, *, primary_silent: bool, recovery_silent: bool) -> Way:
    """The way back of servers that never went it: one object for all of them."""
    there = Unknown(f"{primary} does not answer") if primary_silent else None
    here = Unknown(f"{recovery} does not answer") if recovery_silent else None
    return Way(
        exists=here or Known(value=False),
        hardware=here or there or Unknown(f"{recovery} has no server registered"),
        source=here or Unknown(f"{recovery} has no server registered"),
        replica=there or Known(_ABSENT),
        machines=there or Known(MappingProxyType({})),
    )


def _way(model: Model, track: Track, missing: str) -> Way:
    zone, target = track.source_zone, track.target_zone
    source = zone.server(track.server_id)
    replica: Fact[Replica] = _silence(target)
    machines: Fact[Mapping[str, Machine]] = _silence(target)
    if not target.silent:
        replica = Known(_replica(model, track))
        machines = Known(MappingProxyType({name: _machine(machine) for name, machine in track.machines.items()}))
    return Way(
        exists=_silence(zone) if zone.silent else Known(source is not None),
        hardware=_hardware(track, source),
        source=_source(track, source, missing),
        replica=replica,
        machines=machines,
    )


def _silence(zone: ZoneRecord) -> Unknown:
    return Unknown(f"{zone.name} does not answer")


def _hardware(track: Track, source: ServerRecord | None) -> Fact[Hardware]:
    if source is not None and not track.source_zone.silent:
        return Known(source.hardware)
    if track.target_zone.silent:
        return _silence(track.target_zone)
    if track.hardware is not None:
        return Known(track.hardware)
    return Unknown(f"{track.target_zone.name} has no record of what {track.server_id} is made of")


def _source(track: Track, source: ServerRecord | None, missing: str) -> Fact[Source]:
    if track.source_zone.silent:
        return _silence(track.source_zone)
    if source is None:
        return Unknown(missing)
    return Known(
        Source(
            running=source.running,
            agent_connected=source.agent,
            boot_time=source.boot_time,
            fenced=source.fenced,
            drained=source.drained,
            machine=source.name if isinstance(source, MachineRecord) else None,
        )
    )


def _replica(model: Model, track: Track) -> Replica:
    points = tuple(
        Point(
            name=point.name,
            time=point.time,
            application_consistent=point.application_consistent,
            problem=point.problem,
            used_by=(users := track.users(point)),
            held=bool(users),
        )
        for point in track.points.values()
    )
    replica = track.replica
    if replica is None:
        return Replica(ReplicaState.ABSENT, points=points) if points else _ABSENT
    state, reason, resumable = replica.state, replica.reason, replica.resumable
    if track.source_zone.silent and state in _FED_BY_SOURCE:
        # Nothing proves that writes still arrive, and nothing proves that everything has to be copied again.
        state, reason, resumable = ReplicaState.INTERRUPTED, f"{track.source_zone.name} does not answer", True
    return Replica(
        state=state,
        run=replica.run,
        reason=reason,
        copied_bytes=int(replica.copied),
        total_bytes=replica.total,
        bytes_per_second=copy_rate(model, replica) if state is ReplicaState.COPYING else 0.0,
        lag_seconds=_lag(model, track, replica),
        resumable=resumable,
        consistent=replica.held is not None,
        bandwidth_limit=replica.limit,
        basis=replica.basis,
        points=points,
    )


def copy_rate(model: Model, replica: ReplicaRecord) -> float:
    """Bytes per second of a copy; a limit is about the full copy only."""
    if replica.limit is None or replica.state is not ReplicaState.COPYING:
        return model.copy_rate
    return min(model.copy_rate, float(replica.limit))


def _lag(model: Model, track: Track, replica: ReplicaRecord) -> float | None:
    """Seconds of writes that are missing at the recovery zone, None where nobody can tell."""
    match replica.state:
        case ReplicaState.SYNCED if not track.source_zone.silent:
            return 0.0
        case ReplicaState.INTERRUPTED | ReplicaState.RESYNCING if replica.in_sync_at is not None:
            return (model.now - replica.in_sync_at).total_seconds()
        case _:
            return None


def _machine(machine: MachineRecord) -> Machine:
    elastic_ip = machine.elastic_ip
    return Machine(
        name=machine.name,
        state=machine.state,
        instance_id=machine.instance_id,
        reason=_reason(machine),
        agent_connected=machine.agent,
        addresses=(machine.address,),
        elastic_ip=elastic_ip,
        url=f"http://{elastic_ip}/" if elastic_ip else None,
        independent=machine.disks.point is None,
        out_of_space=machine.out_of_space,
    )


def _reason(machine: MachineRecord) -> str:
    if machine.down:
        return "the guest is down; its last writes are still being copied"
    return f"the disk of zone {machine.zone.name} is full" if machine.out_of_space else machine.reason
