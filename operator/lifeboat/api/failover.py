"""Failover: the workload moves to the recovery site, or, as a failback, home again."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from lifeboat.api import cel, names
from lifeboat.api.common import (
    AGE_COLUMN,
    CHECKS_LIST,
    LENIENT,
    MAX_CHECKS,
    Check,
    Column,
    Instance,
    Model,
    ObjectRef,
    RecoveryStatus,
    Resource,
    of_map,
)
from lifeboat.api.values import Duration, FailoverPoint, MicroTime, Time

DEFAULT_START_DEADLINE: Final = timedelta(minutes=10)


class FailoverType(StrEnum):
    """Which way the workload moves."""

    FAILOVER = "Failover"
    FAILBACK = "Failback"


class FailoverPhase(StrEnum):
    """How far a failover is."""

    PENDING = "Pending"
    STOPPING_REPLICATION = "StoppingReplication"
    LAUNCHING = "Launching"
    VERIFYING = "Verifying"
    AWAITING_COMMIT = "AwaitingCommit"
    CHANGING_RECOVERY_POINT = "ChangingRecoveryPoint"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    COMMITTING = "Committing"
    COMMITTED = "Committed"
    COMPLETED = "Completed"
    FAILED = "Failed"


FROZEN_BY_COMMIT: Final = ("recoveryPoint", "instance", "checks", "startDeadline", "rollback")
"""What may change until commit is asked for; the rest of spec never changes."""

_COMMIT: Final = "self.?commit.orValue(false)"
_COMMITTED_BEFORE: Final = "oldSelf.?commit.orValue(false)"


class FailoverSpec(Model):
    """What the user asks of a Failover."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            cel.rule(
                "self.serverRef.name == oldSelf.serverRef.name",
                "spec.serverRef is immutable: create another Failover",
                field=".serverRef.name",
                reason="FieldValueForbidden",
            ),
            cel.immutable("type", "spec.type is immutable: create another Failover"),
            cel.immutable("planned", "spec.planned is immutable: create another Failover"),
            cel.rule(
                "!self.?planned.orValue(false) || self.?recoveryPoint.orValue('current') == 'current'",
                "a planned failover loses nothing: write recoveryPoint: current, or leave planned out",
                field=".recoveryPoint",
            ),
            cel.rule(
                f"{_COMMIT} || !{_COMMITTED_BEFORE}",
                "spec.commit cannot be taken back: leave it true",
                field=".commit",
                reason="FieldValueForbidden",
            ),
            cel.rule(
                f"!{_COMMIT} || ({cel.unchanged(*FROZEN_BY_COMMIT)})",
                "commit: true stands alone in its edit and freezes the rest of spec: take back every other change",
                reason="FieldValueForbidden",
            ),
            cel.rule(
                f"!({_COMMIT} && self.?rollback.orValue(false))",
                "rollback excludes commit: write true in one of them only",
                field=".rollback",
            ),
        )
    )

    server_ref: ObjectRef = Field(description="The ProtectedServer that moves. Immutable.")
    type: FailoverType = Field(
        FailoverType.FAILOVER,
        description="Failover, to the recovery site, or Failback, home again while it is replicated back. Immutable.",
    )
    planned: bool = Field(
        default=False,
        description="Stop the source first and lose nothing; refused when the source does not answer. Immutable.",
    )
    recovery_point: FailoverPoint = Field(
        names.CURRENT,
        description="current (the replica as it stands now, once per failover), latest, latest-application-consistent, "
        "the name of a recovery point, attempt-<n> (the kept disks of an earlier attempt), or an RFC 3339 time: the "
        "newest point at or before it.",
    )
    instance: Instance = Field(
        Instance(), description="What the server is to be; an edit before commit restarts it with the same disks."
    )
    checks: tuple[Check, ...] = Field(
        (),
        max_length=MAX_CHECKS,
        json_schema_extra=CHECKS_LIST,
        description="What proves that the application works.",
    )
    start_deadline: Duration = Field(
        DEFAULT_START_DEADLINE,
        description="How long after its creation the failover may still start; later it is Failed and never acts.",
    )
    commit: bool = Field(
        default=False,
        description="Make the recovered server independent and free replica and points. Cannot be taken back.",
    )
    rollback: bool = Field(
        default=False,
        description="Before commit: stop and keep the recovered server, and return to the source.",
    )


class Attempt(Model):
    """One recovery point that was tried."""

    attempt: int = Field(ge=1, description="The attempt's number, for attempt-<n>.")
    recovery_point: str = Field(description="The string as it was asked for.")
    point: str | None = Field(None, description="The name of the point that it stood for.")
    point_time: MicroTime | None = Field(None, description="The moment whose data the point holds.")
    started_at: Time | None = Field(None, description="When its server was started.")
    ended_at: Time | None = Field(None, description="When its server was stopped.")
    outcome: str | None = Field(None, max_length=1024, description="How it ended.")


class FailoverStatus(RecoveryStatus):
    """What the operator found."""

    phase: FailoverPhase | None = Field(None, description="How far the failover is.")
    history: tuple[Attempt, ...] = Field(
        (), json_schema_extra=of_map("attempt"), description="The recovery points that were tried."
    )


class Failover(Resource):
    """The workload moves to the recovery site, or, as a failback, home again."""

    PLURAL: ClassVar[str] = "failovers"
    SHORT_NAME: ClassVar[str] = "fo"
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("Server", "string", ".spec.serverRef.name"),
        Column("Type", "string", ".spec.type"),
        Column("Point", "string", ".status.recoveryPoint.name"),
        Column("Point age", "integer", ".status.recoveryPoint.ageSeconds"),
        Column("Phase", "string", ".status.phase"),
        Column("Result", "string", ".status.result"),
        Column("IP", "string", ".status.instance.ipAddress"),
        Column("RTO", "number", ".status.timings.rtoSeconds"),
        AGE_COLUMN,
    )

    kind: Literal["Failover"] = "Failover"
    spec: FailoverSpec = Field(description="What is asked; the operator never writes it.")
    status: Annotated[FailoverStatus, LENIENT] = Field(
        FailoverStatus(), description="What is; only the operator writes it."
    )
