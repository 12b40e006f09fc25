"""What an engine sees, as values: each fact is known, or unknown with a reason.

Decisions are made from these and nothing else, so an engine that cannot reach a site says so here instead of guessing:
what an unknown blocks and what it must not block is decided by the lifecycle, in one place.
Sizes are bytes, rates bytes per second, times are aware datetimes in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeAlias, TypeVar

from lifeboat.engines.ledger import Direction, Ledger

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Known(Generic[T_co]):
    """A fact that was read just now."""

    value: T_co


@dataclass(frozen=True, slots=True)
class Unknown:
    """A fact that could not be read; `reason` says why, in words for a person."""

    reason: str


Fact: TypeAlias = Known[T_co] | Unknown


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk of a server: its virtual size, and how much of it holds data."""

    name: str
    size_bytes: int
    allocated_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a server is made of, as found at its site or as last recorded beside its replica."""

    cpu: int
    memory_bytes: int
    disks: tuple[Disk, ...]
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """The server at the site that replication copies from.

    `machine` names the launched machine that was registered as this server, None where it is the inventory's own.
    `drained`: an orderly fence ended it, and the replica held its last write by then.
    """

    running: bool
    agent_connected: bool
    boot_time: datetime | None = None
    fenced: bool = False
    machine: str | None = None
    drained: bool = False


class ReplicaState(StrEnum):
    """Where the copy stands. Only `SYNCED` says that every acknowledged write is on the replica."""

    ABSENT = "Absent"
    STARTING = "Starting"
    COPYING = "Copying"
    SYNCED = "Synced"
    INTERRUPTED = "Interrupted"
    RESYNCING = "Resyncing"
    STOPPED = "Stopped"


@dataclass(frozen=True, slots=True)
class Point:
    """A recovery point that exists for all disks of the server, frozen at one instant.

    `problem` says why it cannot be used; `used_by` names the machines whose disks stand on it;
    `held` is true where the engine cannot remove it now (it, or an older point that needs it, is in use).
    """

    name: str
    time: datetime
    application_consistent: bool = False
    problem: str | None = None
    used_by: tuple[str, ...] = ()
    held: bool = False


@dataclass(frozen=True, slots=True)
class Replica:
    """The copy at the other site and the points kept beside it; `run` is that of the copy that was started last.

    `resumable` is meaningful while interrupted: the engine knows what changed meanwhile and can copy just that;
    where it is false, `reason` says why everything has to be copied again. `consistent`: what is on the replica now is
    a state that the source's disks really had at one instant. `basis` says what a copy onto the original machine began
    from, and so whether it copies all or only what differs.
    """

    state: ReplicaState
    run: int = 0
    reason: str = ""
    copied_bytes: int = 0
    total_bytes: int = 0
    bytes_per_second: float = 0.0
    lag_seconds: float | None = None
    resumable: bool = False
    consistent: bool = False
    bandwidth_limit: int | None = None
    basis: str = ""
    points: tuple[Point, ...] = ()


class MachineState(StrEnum):
    """What a started machine does now."""

    RUNNING = "Running"
    HALTED = "Halted"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that the engine started from a point: a drill's or a failover's server.

    `name` is the name it was launched under; `independent` is true once its disks need no point any more.
    `out_of_space`: it runs, but stands still since the site's disk was full; it loses nothing by that.
    """

    name: str
    state: MachineState
    instance_id: str
    reason: str = ""
    agent_connected: bool = False
    addresses: tuple[str, ...] = ()
    elastic_ip: str | None = None
    url: str | None = None
    independent: bool = False
    out_of_space: bool = False


@dataclass(frozen=True, slots=True)
class Network:
    """A network of a site; `taken` maps each used address to who has it.

    A user is `<server>/<machine>` for a machine that was launched, the server's id for one of the inventory, and
    begins with `network ` where the network itself needs the address. Isolated machines take none.
    """

    name: str
    cidr: str
    taken: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage tier, in bytes: what fits into it as a whole, and what is left for those who may not use it up."""

    size_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What a site offers. `elastic_ips` maps each address of the pool to its user, or None while it is free.

    `standard` and `ssd` are its storage tiers; not every site has the second.
    """

    zone: str
    namespaces: tuple[str, ...]
    networks: tuple[Network, ...]
    elastic_ips: Mapping[str, str | None]
    cpu: int
    memory_bytes: int
    standard: Storage
    ssd: Storage | None
    servers: tuple[str, ...] = ()

    def network(self, name: str) -> Network | None:
        """The network of that name, where the site has it."""
        return next((network for network in self.networks if network.name == name), None)


@dataclass(frozen=True, slots=True)
class Way:
    """What is seen of a server in one direction: who is copied from, the copy, and the machines that stand on it.

    `exists` is about the source's site: its inventory, or a machine registered there; `hardware` falls back to what is
    recorded beside the replica, so that it is there when the source is not. `replica` and `machines` are at the
    direction's target site.
    """

    exists: Fact[bool]
    hardware: Fact[Hardware]
    source: Fact[Source]
    replica: Fact[Replica]
    machines: Fact[Mapping[str, Machine]]


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """All that is seen of one server, in both directions.

    A known `ledger` of version 0 means that nothing was ever recorded.
    """

    server_id: str
    ledger: Fact[Ledger]
    forward: Way
    reverse: Way

    def way(self, direction: Direction) -> Way:
        """What is seen in that direction."""
        return self.forward if direction is Direction.FORWARD else self.reverse


def nothing_known(server_id: str, reason: str) -> ServerFacts:
    """Facts of which none is known, for that reason."""
    unknown = Unknown(reason)
    way = Way(unknown, unknown, unknown, unknown, unknown)
    return ServerFacts(server_id, unknown, way, way)


@dataclass(frozen=True, slots=True)
class PairFacts:
    """One look at a site pair: both sites, and the servers that were asked for."""

    primary: Fact[SiteFacts]
    recovery: Fact[SiteFacts]
    servers: Mapping[str, ServerFacts]
