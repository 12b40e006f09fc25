"""The ledger: the small durable record, one per server, that decides when memory and Kubernetes forget.

What cannot be read off disks and processes is here: who protects the server, which failover is under way and how far
it got, which points were chosen, whether the fence is up, which drill and failover names are spent. Engines store it at
the recovery site by compare-and-swap on `version`; the lifecycle writes what it is about to do here before it does it.
Statuses may be lost, objects recreated, etcd restored: what stands here holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from pydantic import TypeAdapter

from lifeboat.engines.verbs import Shape

# How many of the drills and failovers that ended are kept with all they tried.
SPENT_IN_FULL = 50


class Direction(StrEnum):
    """Which way a server's data is replicated: to its recovery site, or back to its primary one."""

    FORWARD = "Forward"
    REVERSE = "Reverse"

    @property
    def opposite(self) -> Direction:
        """The other way."""
        return Direction.REVERSE if self is Direction.FORWARD else Direction.FORWARD


class ActiveSite(StrEnum):
    """From where the workload is served."""

    PRIMARY = "Primary"
    RECOVERY = "Recovery"
    NONE = "None"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Claim:
    """The ProtectedServer object that this server belongs to."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """How one declared check ended; `message` says what was seen."""

    name: str
    passed: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class ScriptOutcome:
    """How the script after the switch ended; `exit_code` is None where it never ended."""

    exit_code: int | None
    output: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of the server from one point: a drill has one, a failover one for each point that was tried.

    `requested` is the recoveryPoint string as it was asked, `point` the name it was resolved to, once.
    `disks_of` is the number of the attempt whose disks it runs on: its own, or an earlier one's that were kept.
    `asked` is the instance as it was asked for, so that only an edit, never a changed default, restarts a server.
    """

    number: int
    requested: str
    point: str
    point_time: datetime
    shape: Shape
    accepted_at: datetime
    disks_of: int
    asked: str = ""
    application_consistent: bool = False
    launched_at: datetime | None = None
    ready_at: datetime | None = None
    ended_at: datetime | None = None
    verified: bool = False
    script: ScriptOutcome | None = None
    checks: tuple[CheckOutcome, ...] = ()
    result: str | None = None


class DrillStage(StrEnum):
    """How far a drill got."""

    LAUNCHING = "Launching"
    VERIFYING = "Verifying"
    RUNNING = "Running"
    CLEANING_UP = "CleaningUp"


@dataclass(frozen=True, slots=True)
class DrillRecord:
    """A drill that was accepted and has not ended; `ending` is the outcome it gets once its environment is gone."""

    name: str
    stage: DrillStage
    attempt: Attempt
    ending: str = ""
    reason: str = ""


class FailoverStage(StrEnum):
    """How far a failover got. From `STOPPING_REPLICATION` on it can no longer fail, only be cured or rolled back."""

    STOPPING_REPLICATION = "StoppingReplication"
    LAUNCHING = "Launching"
    VERIFYING = "Verifying"
    AWAITING_COMMIT = "AwaitingCommit"
    CHANGING_RECOVERY_POINT = "ChangingRecoveryPoint"
    ROLLING_BACK = "RollingBack"
    COMMITTING = "Committing"
    COMMITTED = "Committed"


@dataclass(frozen=True, slots=True)
class RefusedEdit:
    """An edit that was refused. It is not tried again by itself: nothing restarts a serving machine out of the blue."""

    requested: str
    asked: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class FailoverRecord:
    """The failover that the server is in. Its last attempt is the one that serves or is being started.

    `tip` is the name under which the replica was frozen at the failover, so that today's data is still there after an
    older point was tried (None where the replica was not consistent); `current_used` says that the tip was started
    from as `current`, which is possible once. `inherited` is true where another Failover object began it, `offered`
    once the running server could be looked at before it was committed. `failback` goes from the recovery site back to
    the primary one. `planned` stops the source cleanly first, as a failback always does.
    """

    name: str
    stage: FailoverStage
    accepted_at: datetime
    attempts: tuple[Attempt, ...]
    tip: str | None = None
    current_used: bool = False
    planned: bool = False
    failback: bool = False
    refused: RefusedEdit | None = None
    inherited: bool = False
    offered: bool = False


@dataclass(frozen=True, slots=True)
class Fence:
    """The order to keep a source from serving: recorded before it is tried, repeated until it is confirmed.

    `direction` tells which source: the one that replication in that direction copies from.
    """

    ordered_at: datetime
    tried_at: datetime | None = None
    confirmed_at: datetime | None = None
    problem: str = ""
    direction: Direction = Direction.FORWARD


@dataclass(frozen=True, slots=True)
class Spent:
    """A drill or failover that ended. An object of this kind and name shows this and never acts again."""

    kind: str
    name: str
    phase: str
    reason: str
    message: str
    at: datetime
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything durable about one server. `version` counts the writes, `term` is the leader's who wrote last.

    `epoch` counts failovers and failbacks, `run` the copies that were begun, `resyncs` the resyncs of this run.
    `direction` is the way that the server is registered for; `registered` is the launched machine that is the server
    at the site where it is served from, None while that is the inventory's own.
    `may_turn` is true once a committed failover has seen a spec that does not ask for the way back: a spec left at
    Reverse from an earlier round must not start anything by itself. `wiped` is the epoch whose consent to wipe the
    original machine is spent. `onto_original` says that this run's replica lies on the original machine's disks.
    `rolled_back` is true from a rollback until replication starts anew.
    `initialized` is true once the client in the server has answered.
    `synced` is true from the moment that the replica was seen to hold every write until an interruption is seen;
    whether what it holds is usable is the engine's to say (`Replica.consistent`).
    `first_point` is the point to take as soon as a copy is whole, until it is there.
    `leftovers` are the machines whose disks a rollback kept, gone once the server is protected again.
    `tested` maps a point to the last drill that proved it.
    """

    server_id: str
    version: int = 0
    term: int = 0
    claim: Claim | None = None
    epoch: int = 0
    active_site: ActiveSite = ActiveSite.PRIMARY
    initialized: bool = False
    replicating: bool = False
    run: int = 0
    resyncs: int = 0
    synced: bool = False
    first_point: str | None = None
    full_copy_reason: str = ""
    rolled_back: bool = False
    direction: Direction = Direction.FORWARD
    registered: str | None = None
    may_turn: bool = False
    wiped: int | None = None
    onto_original: bool = False
    fence: Fence | None = None
    failover: FailoverRecord | None = None
    drills: tuple[DrillRecord, ...] = ()
    spent: tuple[Spent, ...] = ()
    tested: dict[str, str] = field(default_factory=dict)
    leftovers: tuple[str, ...] = ()

    def spend(self, ended: Spent) -> Ledger:
        """The ledger with one more drill or failover that ended.

        Names are kept for good; of all but the last few, what was tried is forgotten, so that the record stays small.
        """
        cut = max(0, len(self.spent) + 1 - SPENT_IN_FULL)
        names_only = tuple(replace(spent, attempts=()) for spent in self.spent[:cut])
        return replace(self, spent=(*names_only, *self.spent[cut:], ended))

    def drill(self, name: str) -> DrillRecord | None:
        """The drill of that name that is under way."""
        return next((drill for drill in self.drills if drill.name == name), None)

    def ended(self, kind: str, name: str) -> Spent | None:
        """How the drill or failover of that name ended, where it did."""
        return next((spent for spent in self.spent if (spent.kind, spent.name) == (kind, name)), None)


_CODEC = TypeAdapter(Ledger)


def encode(ledger: Ledger) -> bytes:
    """Write a ledger as JSON, the same bytes for the same ledger."""
    return _CODEC.dump_json(ledger, indent=1)


def decode(data: bytes) -> Ledger:
    """Read a ledger from JSON; `ValueError` where it is not one."""
    return _CODEC.validate_json(data)
