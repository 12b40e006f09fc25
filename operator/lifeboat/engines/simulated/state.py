"""What the simulated world is made of: plain records that the verbs change and the view reads.

Every record that holds data carries a write counter, because the claims of a recovery are about data: which write a
point, a replica or a machine holds last is what the tests ask.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from lifeboat.engines.contract import Capabilities, NoSpace, Refused, Unreachable
from lifeboat.engines.facts import Disk, Hardware, MachineState, ReplicaState, ServerFacts, SiteFacts, Storage
from lifeboat.engines.ledger import Ledger, ScriptOutcome
from lifeboat.engines.verbs import Shape

CRASHED = "the source process ended and its record of changes with it: everything has to be copied again"
BYTES_PER_WRITE = 64 << 10


@dataclass(slots=True, eq=False)
class PointRecord:
    """A frozen state of all disks; `held` is the last write in it, None where it is a mixture of old and new."""

    name: str
    time: datetime
    held: int | None
    application_consistent: bool = False
    problem: str | None = None


@dataclass(slots=True, eq=False)
class Disks:
    """The disks that a server runs on, or machines one after the other. `held` is the last write on them.

    `point` is what they still read from, `given_up` that they were wiped to make room for a replica.
    """

    layout: tuple[Disk, ...]
    held: int = 0
    point: PointRecord | None = None
    size: int = 0
    merging: float | None = None
    given_up: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class _Server:
    """What can be the server at a site: one of its inventory, or a machine that was registered in its place.

    `down` is a guest that acknowledges nothing any more in a process that is still there, since the replica may lack
    its last writes; `down_due` is when a guest that was told to shut down will have.
    """

    server_id: str
    zone: ZoneRecord
    disks: Disks
    boot_time: datetime | None = None
    state: MachineState = MachineState.HALTED
    reason: str = ""
    agent: bool = False
    agent_starts: bool = True
    agent_due: datetime | None = None
    ignores_shutdown: bool = False
    down: bool = False
    down_due: datetime | None = None
    out_of_space: bool = False
    fenced: bool = False
    drained: bool = False
    stopped_by_fence: bool = False

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.state is MachineState.RUNNING

    @property
    def serving(self) -> bool:
        """Whether it acknowledges writes."""
        return self.running and not self.down and not self.out_of_space


@dataclass(slots=True, eq=False, kw_only=True)
class InventoryServer(_Server):
    """A server of a zone's inventory."""

    hardware: Hardware
    removed: bool = False

    @property
    def user(self) -> str:
        """The name under which it has addresses."""
        return self.server_id


@dataclass(slots=True, eq=False, kw_only=True)
class MachineRecord(_Server):
    """A machine that was launched: its disks may be those of an earlier one. `elastic_ip` is the one it has now."""

    name: str
    instance_id: str
    shape: Shape
    address: str
    elastic_ip: str | None = None

    @property
    def user(self) -> str:
        """The name under which it has addresses."""
        return f"{self.server_id}/{self.name}"

    @property
    def hardware(self) -> Hardware:
        """What it is made of, for whoever copies from it."""
        return Hardware(self.shape.cpu, self.shape.memory_bytes, self.disks.layout, (self.address,))


ServerRecord: TypeAlias = InventoryServer | MachineRecord


@dataclass(slots=True, eq=False)
class ZoneRecord:
    """A zone: what it offers and who uses it. `taken` maps network, then address, to its user.

    `registered` has the machines that are the server of that id, instead of the inventory's own.
    """

    name: str
    namespaces: tuple[str, ...]
    elastic_ips: dict[str, str | None]
    cpu: int
    memory_bytes: int
    ssd: bool
    capacity_bytes: int
    used_bytes: int = 0
    filled: bool = False
    silent: bool = False
    networks: dict[str, str] = field(default_factory=dict)
    taken: dict[str, dict[str, str]] = field(default_factory=dict)
    servers: dict[str, InventoryServer] = field(default_factory=dict)
    registered: dict[str, MachineRecord] = field(default_factory=dict)
    facts: SiteFacts | None = None

    @property
    def free_bytes(self) -> int:
        """What is left of the zone's storage."""
        return 0 if self.filled else max(0, self.capacity_bytes - self.used_bytes)

    def storage(self) -> Storage:
        """The zone's storage, which all its tiers share."""
        return Storage(self.capacity_bytes, self.free_bytes)

    def need(self, size: int) -> None:
        """Raise `NoSpace` where `size` more bytes do not fit."""
        if self.free_bytes < max(size, 1):
            raise NoSpace(f"{self.name} has {self.free_bytes} bytes left, {size} are needed")

    def server(self, server_id: str) -> ServerRecord | None:
        """Who is the server of that id here: the registered machine, else the inventory's own."""
        if (machine := self.registered.get(server_id)) is not None:
            return machine
        found = self.servers.get(server_id)
        return None if found is None or found.removed else found

    def need_answer(self) -> None:
        """Raise `Unreachable` where the zone does not answer."""
        if self.silent:
            raise Unreachable(f"{self.name} does not answer")

    def network_of(self, address: str) -> str | None:
        """The network whose CIDR holds the address."""
        ip = ipaddress.ip_address(address)
        return next((name for name, cidr in self.networks.items() if ip in ipaddress.ip_network(cidr)), None)


@dataclass(slots=True)
class ReplicaRecord:
    """A run of replication. `held` is the last write on the replica, None while it is not consistent.

    `base` is the write that a resync starts from, `resume_as` what goes on after an interruption, `basis` what a copy
    onto the original's disks began from.
    """

    run: int
    total: int
    due: datetime
    limit: int | None = None
    state: ReplicaState = ReplicaState.STARTING
    reason: str = ""
    copied: float = 0.0
    held: int | None = None
    base: int = 0
    in_sync_at: datetime | None = None
    resumable: bool = False
    resume_as: ReplicaState = ReplicaState.COPYING
    basis: str = ""


@dataclass(slots=True, eq=False)
class Track:
    """One direction of one server: all that the target zone keeps of what is the server in the source zone.

    The other direction is a track with the zones swapped. The ledger is with the one to the recovery zone.
    """

    server_id: str
    source_zone: ZoneRecord
    target_zone: ZoneRecord
    replica: ReplicaRecord | None = None
    hardware: Hardware | None = None
    points: dict[str, PointRecord] = field(default_factory=dict)
    machines: dict[str, MachineRecord] = field(default_factory=dict)
    scripts: dict[str, ScriptOutcome] = field(default_factory=dict)
    ledger: Ledger | None = None
    reserved: int = 0
    facts: ServerFacts | None = None
    fresh: int = -1

    def users(self, point: PointRecord) -> tuple[str, ...]:
        """The machines whose disks stand on the point."""
        return tuple(name for name, machine in self.machines.items() if machine.disks.point is point)

    def source(self) -> ServerRecord:
        """The source, from a zone that answers; raises where it does not, or has no such server."""
        self.source_zone.need_answer()
        if (found := self.source_zone.server(self.server_id)) is None:
            raise Refused(f"{self.source_zone.name} has no server {self.server_id}")
        return found

    def machine(self, name: str) -> MachineRecord:
        """The machine of that name; raises `Refused` where there is none."""
        if (found := self.machines.get(name)) is None:
            raise Refused(f"{self.target_zone.name} has no machine {name} of {self.server_id}")
        return found

    def moving(self) -> bool:
        """Whether what is seen of this server changes as time goes by."""
        replica = self.replica
        if replica is not None and replica.state in {
            ReplicaState.STARTING,
            ReplicaState.COPYING,
            ReplicaState.RESYNCING,
            ReplicaState.INTERRUPTED,
        }:
            return True
        return any(machine.disks.merging is not None for machine in self.machines.values())


@dataclass(slots=True)
class Model:
    """The whole state, with its clock. `generation` rises with whatever changes the view of every server at once.

    `tracks` is by source zone and target zone; `due` has the servers that boot or shut down.
    """

    now: datetime
    capabilities: Capabilities
    copy_rate: float
    boot: timedelta
    shutdown: timedelta
    zones: dict[str, ZoneRecord] = field(default_factory=dict)
    tracks: dict[tuple[str, str], dict[str, Track]] = field(default_factory=dict)
    cut: set[frozenset[str]] = field(default_factory=set)
    moving: dict[Track, None] = field(default_factory=dict)
    due: dict[ServerRecord, None] = field(default_factory=dict)
    generation: int = 0
    instances: int = 0

    def track(self, source_zone: str, target_zone: str, server_id: str) -> Track:
        """The record of a server between two zones, an empty one where nothing happened to it yet."""
        tracks = self.tracks.setdefault((source_zone, target_zone), {})
        if (found := tracks.get(server_id)) is None:
            for zone in (source_zone, target_zone):
                if zone not in self.zones:
                    raise Refused(f"there is no zone {zone}")
            found = tracks[server_id] = Track(server_id, self.zones[source_zone], self.zones[target_zone])
        return found

    def opposite(self, track: Track) -> Track | None:
        """The other direction, where anything ever happened in it."""
        return self.tracks.get((track.target_zone.name, track.source_zone.name), {}).get(track.server_id)

    def copies(self, server: ServerRecord) -> list[Track]:
        """The records that copy from this server: none while another one is the server at its site."""
        zone, server_id = server.zone, server.server_id
        if zone.server(server_id) is not server:
            return []
        return [
            tracks[server_id] for (name, _), tracks in self.tracks.items() if name == zone.name and server_id in tracks
        ]

    def linked(self, track: Track) -> bool:
        """Whether data can pass between the track's zones."""
        return frozenset((track.source_zone.name, track.target_zone.name)) not in self.cut

    def touch(self, track: Track) -> None:
        """Note that what is seen of this server, in both directions, and of its zones may have changed."""
        for each in (track, self.opposite(track)):
            if each is not None:
                each.fresh = -1
                each.target_zone.facts = None
                if each.moving():
                    self.moving[each] = None

    def touch_ledger(self, track: Track) -> None:
        """Note that the ledger of this server changed, which nothing else shows."""
        track.fresh = -1

    def touch_server(self, server: ServerRecord) -> None:
        """Note that a server or machine changed, for whoever looks next."""
        server.zone.facts = None
        for zones, tracks in self.tracks.items():
            if server.zone.name in zones and (track := tracks.get(server.server_id)) is not None:
                self.touch(track)

    def reserve(self, track: Track, size: int) -> None:
        """Account `size` bytes to the track's replica, instead of what it had."""
        track.target_zone.used_bytes += size - track.reserved
        track.reserved = size
