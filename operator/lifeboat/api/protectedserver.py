"""ProtectedServer: one server of the primary site, whose disks are copied to the other site."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from lifeboat.api import cel, values
from lifeboat.api.common import (
    AGE_COLUMN,
    LENIENT,
    READY_COLUMN,
    ActiveSite,
    Column,
    Condition,
    Model,
    ObjectRef,
    Resource,
    of_map,
)
from lifeboat.api.values import Duration, Id, MicroTime, Quantity

MAX_TIERS: Final = 8
MAX_POINTS: Final = 128
MIN_EVERY: Final = timedelta(seconds=10)


class Direction(StrEnum):
    """Which way the data goes."""

    FORWARD = "Forward"
    REVERSE = "Reverse"


class DeletionPolicy(StrEnum):
    """What becomes of replica and points when the ProtectedServer is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class ProtectedServerPhase(StrEnum):
    """Where a server stands, forward and back."""

    INSTALLING_AGENT = "InstallingAgent"
    INITIALIZED = "Initialized"
    STARTING_REPLICATION = "StartingReplication"
    FULL_SYNC = "FullSync"
    REPLICATING = "Replicating"
    INTERRUPTED = "Interrupted"
    RESYNCING = "Resyncing"
    STOPPED = "Stopped"
    FAILING_OVER = "FailingOver"
    FAILED_OVER = "FailedOver"
    CHANGING_RECOVERY_POINT = "ChangingRecoveryPoint"
    ROLLING_BACK = "RollingBack"
    COMMITTING = "Committing"
    COMMITTED = "Committed"
    REVERSE_REGISTERING = "ReverseRegistering"
    REVERSE_REGISTERED = "ReverseRegistered"
    STARTING_REVERSE_REPLICATION = "StartingReverseReplication"
    REVERSE_FULL_SYNC = "ReverseFullSync"
    REVERSE_REPLICATING = "ReverseReplicating"
    REVERSE_INTERRUPTED = "ReverseInterrupted"
    REVERSE_RESYNCING = "ReverseResyncing"
    FAILING_BACK = "FailingBack"
    FAILED_BACK = "FailedBack"
    REGISTERING = "Registering"


class Consistency(StrEnum):
    """What a recovery point promises about its data."""

    CRASH = "Crash"
    APPLICATION = "Application"


class PointState(StrEnum):
    """Whether a recovery point can be used."""

    AVAILABLE = "Available"
    IN_USE = "InUse"
    UNUSABLE = "Unusable"


_GRAMMAR: Final = f"{values.is_duration('self.every')} && {values.is_duration('self.__for__')}"


class Tier(Model):
    """One tier of the policy: a point every so often, kept for so long."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            cel.rule(
                f"!({_GRAMMAR}) || duration(self.every) >= duration('10s')",
                "write 10s or more in every",
                field=".every",
            ),
            cel.rule(
                f"!({_GRAMMAR}) || duration(self.__for__) >= duration(self.every)",
                "write in for at least what every says, such as every: 1h with for: 24h",
                field=".for",
            ),
        )
    )

    every: Duration = Field(description="How often a point is taken, 10s or more, such as 1h.")
    keep_for: Duration = Field(alias="for", description="How long it is kept, at least as long as every, such as 24h.")
    application_consistent: bool = Field(
        default=False,
        description="Freeze the guest's file systems for the moment of the point. Absent: false.",
    )


DEFAULT_TIERS: Final = (Tier(every=timedelta(hours=1), keep_for=timedelta(hours=24)),)
"""The policy where none is given: 24 points."""

_ALL_USABLE: Final = (
    f"self.all(tier, {values.is_duration('tier.every')} && {values.is_duration('tier.__for__')} && "
    "duration(tier.every) >= duration('10s'))"
)


_REVERSE: Final = "self.?direction.orValue('Forward') == 'Reverse'"


class Replication(Model):
    """Whether, which way and how the server is copied."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            cel.rule(
                f"!self.?originalMachine.orValue(false) || {_REVERSE}",
                "originalMachine is for direction: Reverse only: write that direction, or leave originalMachine out",
                field=".originalMachine",
            ),
            cel.rule(
                f"!has(self.confirmWipe) || {_REVERSE}",
                "confirmWipe is for direction: Reverse only: write that direction, or leave confirmWipe out",
                field=".confirmWipe",
            ),
        )
    )

    enabled: bool = Field(
        default=False, description="Copy the server. False: it is registered only, or stopped with its points kept."
    )
    direction: Direction = Field(
        Direction.FORWARD, description="Forward, to the recovery site, or Reverse, back to the primary site."
    )
    original_machine: bool | None = Field(
        None, description="Reverse only: copy back onto the original server, whose data is wiped."
    )
    confirm_wipe: str | None = Field(
        None, max_length=63, description="Reverse only: the serverId once more, as consent to wiping that server."
    )
    recovery_points: tuple[Tier, ...] | None = Field(
        None,
        min_length=1,
        max_length=MAX_TIERS,
        description="The policy of recovery points, 1 to 8 tiers and at most 128 points in all. "
        "Absent: one point every 1h for 24h.",
        json_schema_extra=cel.rules(
            cel.rule(
                f"!{_ALL_USABLE} || self.map(tier, duration(tier.__for__).getMilliseconds() / "
                f"duration(tier.every).getMilliseconds()).sum() <= {MAX_POINTS}",
                "keep at most 128 points in all tiers together: write a longer every or a shorter for",
            )
        )
        | {"x-kubernetes-list-type": "atomic"},
    )
    use_ssd: bool | None = Field(
        None, alias="useSSD", description="Keep the replica on the target site's fast storage tier."
    )
    replication_network: Id | None = Field(
        None, description="The network that carries replication, of the target site. Absent: that site's."
    )
    recovery_network: Id | None = Field(
        None, description="The network that recovered servers join, of the target site. Absent: that site's."
    )
    bandwidth_limit: Quantity | None = Field(
        None, description="The most bytes per second that a full copy may use, such as 50Mi. Absent: no limit."
    )

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The policy that holds: the one given, or the default."""
        return self.recovery_points or DEFAULT_TIERS


class ProtectedServerSpec(Model):
    """What the user asks of a ProtectedServer."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            cel.rule(
                "self.sitePairRef.name == oldSelf.sitePairRef.name",
                "spec.sitePairRef is immutable: create another ProtectedServer",
                field=".sitePairRef.name",
                reason="FieldValueForbidden",
            ),
            cel.rule(
                "self.serverId == oldSelf.serverId",
                "spec.serverId is immutable: create another ProtectedServer",
                field=".serverId",
                reason="FieldValueForbidden",
            ),
            cel.rule(
                "!self.?replication.originalMachine.orValue(false) || "
                "self.?replication.direction.orValue('Forward') != 'Reverse' || "
                "self.?replication.confirmWipe.orValue('') == self.serverId",
                "originalMachine wipes the original server: repeat spec.serverId in spec.replication.confirmWipe",
                field=".replication",
            ),
            cel.rule(
                "!has(self.replication) || !has(self.replication.confirmWipe) || "
                "self.replication.confirmWipe == self.serverId",
                "write in spec.replication.confirmWipe what spec.serverId says, or leave it out",
                field=".replication",
            ),
        )
    )

    site_pair_ref: ObjectRef = Field(description="The SitePair that the server belongs to. Immutable.")
    server_id: Id = Field(description="The id of the existing server at the primary site. Immutable.")
    replication: Replication = Field(
        Replication(), description="Whether, which way and how the server is copied. Absent: registered only."
    )
    deletion_policy: DeletionPolicy = Field(
        DeletionPolicy.RETAIN,
        description="What becomes of replica and points on deletion: Retain keeps them for a later ProtectedServer of "
        "the same server, Delete removes them.",
    )


class Disk(Model):
    """One disk of the server."""

    name: str = Field(description="The disk's name at the site.")
    size_bytes: int | None = Field(None, ge=0, description="Its size in bytes.")


class ServerFacts(Model):
    """The server as it was found."""

    cpu: int | None = Field(None, description="The number of virtual CPUs.")
    memory: Quantity | None = Field(None, description="Its memory.")
    disks: tuple[Disk, ...] = Field((), description="Its disks.")
    addresses: tuple[str, ...] = Field((), description="Its addresses.")


class Progress(Model):
    """How far a copy is."""

    percent: int | None = Field(None, ge=0, le=100, description="How much of it is copied, in percent.")
    copied_bytes: int | None = Field(None, ge=0, description="Bytes copied.")
    total_bytes: int | None = Field(None, ge=0, description="Bytes to copy: allocated data, not disk size.")
    bytes_per_second: int | None = Field(None, ge=0, description="The speed now.")
    seconds_left: int | None = Field(None, ge=0, description="How long the rest takes at that speed.")


class RecoveryPoint(Model):
    """A moment to which the server can be recovered."""

    name: str = Field(max_length=63, description="The point's name, a DNS label.")
    time: MicroTime = Field(description="The moment whose data it holds.")
    consistency: Consistency = Field(
        description="Crash: as after a power cut. Application: the guest's file systems were frozen."
    )
    state: PointState = Field(description="Available, InUse or Unusable.")
    reason: str | None = Field(None, description="Why it is in use or unusable.")
    tested_by: str | None = Field(None, description="The last Drill that proved it with a passed check.")


class RecoveredServer(Model):
    """The server that took over."""

    id: str = Field(description="Its id at the site.")
    zone: str | None = Field(None, description="The zone in which it runs.")
    addresses: tuple[str, ...] = Field((), description="Its addresses.")


class ProtectedServerStatus(Model):
    """What the operator found."""

    observed_generation: int | None = Field(None, description="The generation that this status is about.")
    phase: ProtectedServerPhase | None = Field(None, description="Where the server stands.")
    direction: Direction | None = Field(None, description="Which way the data goes.")
    active_site: ActiveSite | None = Field(None, description="Where the workload is served from.")
    server: ServerFacts | None = Field(None, description="The server as it was found.")
    progress: Progress | None = Field(None, description="How far the copy is.")
    lag_seconds: int | None = Field(None, ge=0, description="How far the replica is behind, in seconds.")
    recovery_points: tuple[RecoveryPoint, ...] = Field(
        (), json_schema_extra=of_map("name"), description="The moments to which the server can be recovered."
    )
    recovery_point_count: int | None = Field(None, ge=0, description="How many there are.")
    latest_recovery_point_time: MicroTime | None = Field(None, description="The moment of the newest.")
    recovered_server: RecoveredServer | None = Field(None, description="The server that took over.")
    allowed_operations: tuple[str, ...] = Field(
        (), json_schema_extra={"x-kubernetes-list-type": "atomic"}, description="What may be asked now."
    )
    conditions: tuple[Condition, ...] = Field(
        (), json_schema_extra=of_map("type"), description="The conditions of the object."
    )


class ProtectedServer(Resource):
    """One server of the primary site, whose disks are copied to the other site."""

    PLURAL: ClassVar[str] = "protectedservers"
    SHORT_NAME: ClassVar[str] = "ps"
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("Server", "string", ".spec.serverId"),
        Column("Phase", "string", ".status.phase"),
        Column("Progress", "integer", ".status.progress.percent"),
        Column("Lag", "integer", ".status.lagSeconds"),
        Column("Points", "integer", ".status.recoveryPointCount"),
        Column("Latest", "date", ".status.latestRecoveryPointTime"),
        Column("Active", "string", ".status.activeSite"),
        READY_COLUMN,
        AGE_COLUMN,
    )

    kind: Literal["ProtectedServer"] = "ProtectedServer"
    spec: ProtectedServerSpec = Field(description="What is asked; the operator never writes it.")
    status: Annotated[ProtectedServerStatus, LENIENT] = Field(
        ProtectedServerStatus(), description="What is; only the operator writes it."
    )
