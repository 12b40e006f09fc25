"""What an engine can be asked to do, as values.

Each verb is idempotent and short: long work (a full copy, a boot, a clean-up) is started by the verb and seen through
`observe`. What a verb creates carries a name that comes from the ledger, so doing it twice does it once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Shape:
    """The machine to start. `cpu` and `memory_bytes` are what the guest sees.

    `ip_address` None means by DHCP; `elastic_ip` is an address of the site's pool (`auto` is resolved before).
    `isolated` cuts the machine off from every other one: a drill's server.
    """

    cpu: int
    memory_bytes: int
    network: str
    name: str | None = None
    ip_address: str | None = None
    use_ssd: bool = False
    elastic_ip: str | None = None
    isolated: bool = False


@dataclass(frozen=True, slots=True)
class Restart:
    """Restart the source server, for a client that comes up only then."""


@dataclass(frozen=True, slots=True)
class StartReplication:
    """Start a full copy of all disks onto the target site, or leave the one that runs as it is.

    `run` tells this copy from earlier ones: a higher one starts anew. Points that exist stay usable.
    `onto_original`: the server that the target site has under this id is stopped and fenced, and its disks become the
    replica: what they held is wiped. Where the engine knows for certain what differs it copies just that, else all;
    `Replica.basis` says which. Doing it again wipes nothing again.
    """

    run: int
    replication_network: str
    use_ssd: bool = False
    bandwidth_limit: int | None = None
    onto_original: bool = False


@dataclass(frozen=True, slots=True)
class ResumeReplication:
    """Go on after an interruption, copying only what changed meanwhile.

    With `freeze_as` the last consistent state becomes a point of that name before anything is written over it: a
    disaster in the middle of a resync must not find an inconsistent replica and nothing else.
    """

    freeze_as: str | None = None


@dataclass(frozen=True, slots=True)
class LimitBandwidth:
    """Change the bytes per second of the full copy; None lifts the limit."""

    bandwidth_limit: int | None


@dataclass(frozen=True, slots=True)
class StopReplication:
    """Stop copying and keep the replica and its points.

    With `freeze_as` the replica as it stands becomes a point of that name: a failover starts from it.
    """

    freeze_as: str | None = None


@dataclass(frozen=True, slots=True)
class TakePoint:
    """Freeze all disks of the replica at one instant as a point of that name."""

    name: str
    application_consistent: bool = False


@dataclass(frozen=True, slots=True)
class PrunePoints:
    """Remove these points; those in use or needed by one in use are left, and stay visible."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fence:
    """Keep the source from serving: stop it, and refuse its start in its zone. Raises `Unreachable` where silent.

    `orderly` shuts the source down cleanly and lets it end only once the replica holds its last write; it raises
    `Retry` until then.
    """

    orderly: bool = False


@dataclass(frozen=True, slots=True)
class Unfence:
    """Lift the fence; a source that the fence stopped is started again."""


@dataclass(frozen=True, slots=True)
class Register:
    """Let a machine that was launched at this direction's source site be the server there from now on.

    It is then what `Source` tells of, what is copied from, fenced, restarted, and started and stopped by its owner.
    The server that the site had under this id before is left as it is, stopped, and is not seen any more.
    """

    machine: str


@dataclass(frozen=True, slots=True)
class Launch:
    """Start a machine of that name from a point, or start again the kept disks of the machine named `disks_of`."""

    machine: str
    point: str
    shape: Shape
    disks_of: str | None = None


@dataclass(frozen=True, slots=True)
class Halt:
    """Stop a machine and keep its disks."""

    machine: str


@dataclass(frozen=True, slots=True)
class Continue:
    """Let a machine go on that stands still since its site's disk was full, or see that it goes on.

    Raises `NoSpace` while there is no room.
    """

    machine: str


@dataclass(frozen=True, slots=True)
class MoveElasticIP:
    """Give a running machine another elastic IP, or none, without a restart."""

    machine: str
    elastic_ip: str | None


@dataclass(frozen=True, slots=True)
class RemoveMachine:
    """Stop a machine and delete its disks, unless another machine has them too."""

    machine: str


@dataclass(frozen=True, slots=True)
class MakeIndependent:
    """Copy into a running machine's disks all they still read from points, until they need none."""

    machine: str


@dataclass(frozen=True, slots=True)
class ReleaseReplica:
    """Delete the replica and all points that no machine stands on."""


Verb: TypeAlias = (
    Restart
    | StartReplication
    | ResumeReplication
    | LimitBandwidth
    | StopReplication
    | TakePoint
    | PrunePoints
    | Fence
    | Unfence
    | Register
    | Launch
    | Halt
    | Continue
    | MoveElasticIP
    | RemoveMachine
    | MakeIndependent
    | ReleaseReplica
)
