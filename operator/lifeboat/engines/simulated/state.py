"""What the simulated world is made of: plain records that the verbs change and the view reads.

Every record that holds data carries a write counter, because the claims of a recovery are about data: which write a
point, a replica or a machine holds last is what the tests ask.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from lifeboat.engines.contract import Capabilities, NoSpace, Refused, Unreachable
from lifeboat.engines.facts import Hardware, MachineState, ReplicaState, ServerFacts, SiteFacts
from lifeboat.engines.ledger import Ledger, ScriptOutcome
from lifeboat.engines.verbs import Shape

CRASHED = "the source process ended and its record of changes with it: everything has to be copied again"
BYTES_PER_WRITE = 64 << 10


@dataclass(slots=True)
class SourceRecord:
    """A server of a zone's inventory; `writes` counts what its disks acknowledged and it never forgets one."""

    server_id: str
    hardware: Hardware
    boot_time: datetime | None
    running: bool = True
    agent: bool = True
    agent_starts: bool = True
    agent_due: datetime | None = None
    fenced: bool = False
    stopped_by_fence: bool = False
    removed: bool = False
    writes: int = 0


@dataclass(slots=True)
class ZoneRecord:
    """A zone: what it offers and who uses it. `taken` maps network, then address, to its user."""

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
    servers: dict[str, SourceRecord] = field(default_factory=dict)
    facts: SiteFacts | None = None

    @property
    def free_bytes(self) -> int:
        """What is left of the zone's storage."""
        return 0 if self.filled else max(0, self.capacity_bytes - self.used_bytes)

    def need(self, size: int) -> None:
        """Raise `NoSpace` where `size` more bytes do not fit."""
        if self.free_bytes < max(size, 1):
            raise NoSpace(f"{self.name} has {self.free_bytes} bytes left, {size} are needed")

    def network_of(self, address: str) -> str | None:
        """The network whose CIDR holds the address."""
        ip = ipaddress.ip_address(address)
        return next((name for name, cidr in self.networks.items() if ip in ipaddress.ip_network(cidr)), None)


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
    """The disks that machines run on, one after the other; `point` is what they still read from."""

    held: int
    point: PointRecord | None
    size: int
    merging: float | None = None


@dataclass(slots=True)
class MachineRecord:
    """A machine that was launched: its disks may be those of an earlier one."""

    name: str
    instance_id: str
    shape: Shape
    disks: Disks
    address: str
    elastic_ip: str | None
    state: MachineState = MachineState.RUNNING
    reason: str = ""
    agent: bool = False
    agent_due: datetime | None = None


@dataclass(slots=True)
class ReplicaRecord:
    """A run of replication. `held` is the last write on the replica, None while it is not consistent.

    `base` is the write that a resync starts from, `resume_as` what goes on after an interruption.
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


@dataclass(slots=True, eq=False)
class Track:
    """All that the recovery zone keeps of one server of the primary zone."""

    server_id: str
    primary: ZoneRecord
    recovery: ZoneRecord
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

    def source(self) -> SourceRecord:
        """The source, from a primary that answers; raises where it does not, or has no such server."""
        if self.primary.silent:
            raise Unreachable(f"{self.primary.name} does not answer")
        found = self.primary.servers.get(self.server_id)
        if found is None or found.removed:
            raise Refused(f"{self.primary.name} has no server {self.server_id}")
        return found

    def machine(self, name: str) -> MachineRecord:
        """The machine of that name; raises `Refused` where there is none."""
        if (found := self.machines.get(name)) is None:
            raise Refused(f"{self.recovery.name} has no machine {name} of {self.server_id}")
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
        return any(
            machine.agent_due is not None or machine.disks.merging is not None for machine in self.machines.values()
        )


@dataclass(slots=True)
class Model:
    """The whole state, with its clock. `generation` rises with whatever changes the view of every server at once."""

    now: datetime
    capabilities: Capabilities
    copy_rate: float
    boot: timedelta
    zones: dict[str, ZoneRecord] = field(default_factory=dict)
    tracks: dict[tuple[str, str], dict[str, Track]] = field(default_factory=dict)
    cut: set[frozenset[str]] = field(default_factory=set)
    moving: dict[Track, None] = field(default_factory=dict)
    booting: dict[str, SourceRecord] = field(default_factory=dict)
    generation: int = 0
    instances: int = 0

    def track(self, primary: str, recovery: str, server_id: str) -> Track:
        """The record of a server in a pair of zones, an empty one where nothing happened to it yet."""
        tracks = self.tracks.setdefault((primary, recovery), {})
        if (found := tracks.get(server_id)) is None:
            for zone in (primary, recovery):
                if zone not in self.zones:
                    raise Refused(f"there is no zone {zone}")
            found = tracks[server_id] = Track(server_id, self.zones[primary], self.zones[recovery])
        return found

    def copies(self, zone: str, server_id: str) -> list[Track]:
        """The records that copy from this server of this zone."""
        return [
            tracks[server_id] for (primary, _), tracks in self.tracks.items() if primary == zone and server_id in tracks
        ]

    def linked(self, track: Track) -> bool:
        """Whether data can pass between the track's zones."""
        return frozenset((track.primary.name, track.recovery.name)) not in self.cut

    def touch(self, track: Track) -> None:
        """Note that what is seen of this server, and of the zone it is copied to, may have changed."""
        track.fresh = -1
        track.recovery.facts = None
        if track.moving():
            self.moving[track] = None

    def reserve(self, track: Track, size: int) -> None:
        """Account `size` bytes to the track's replica, instead of what it had."""
        track.recovery.used_bytes += size - track.reserved
        track.reserved = size
