"""Drill: a rehearsal, a server started from a recovery point apart from everything that serves."""

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
)
from lifeboat.api.values import DrillPoint, Duration


class DrillPhase(StrEnum):
    """How far a drill is."""

    PENDING = "Pending"
    LAUNCHING = "Launching"
    VERIFYING = "Verifying"
    RUNNING = "Running"
    CLEANING_UP = "CleaningUp"
    CLEANED_UP = "CleanedUp"
    FAILED = "Failed"


IMMUTABLE: Final = ("serverRef", "recoveryPoint", "instance", "checks", "ttl")
"""All of spec except `running`."""


class DrillSpec(Model):
    """What the user asks of a Drill."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            cel.rule(
                cel.unchanged(*IMMUTABLE),
                "a Drill's spec is immutable except running: create another Drill",
                reason="FieldValueForbidden",
            ),
            cel.rule(
                "oldSelf.?running.orValue(true) || !self.?running.orValue(true)",
                "a Drill that was cleared does not start again: create another Drill",
                field=".running",
                reason="FieldValueForbidden",
            ),
        )
    )

    server_ref: ObjectRef = Field(description="The ProtectedServer to rehearse. Immutable.")
    recovery_point: DrillPoint = Field(
        names.LATEST,
        description="latest, latest-application-consistent, the name of a recovery point, or an RFC 3339 time: the "
        "newest point at or before it. Immutable.",
    )
    instance: Instance = Field(Instance(), description="What the server is to be. Immutable.")
    checks: tuple[Check, ...] = Field(
        (),
        max_length=MAX_CHECKS,
        json_schema_extra=CHECKS_LIST,
        description="What proves that the application works. Immutable.",
    )
    running: bool = Field(
        default=True, description="False clears the environment and keeps the record; it never becomes true again."
    )
    ttl: Duration | None = Field(
        None, description="Clear the environment this long after the server's start, such as 2h. Immutable."
    )


class DrillStatus(RecoveryStatus):
    """What the operator found."""

    phase: DrillPhase | None = Field(None, description="How far the drill is.")


class Drill(Resource):
    """A rehearsal: a server started from a recovery point, apart from everything that serves."""

    PLURAL: ClassVar[str] = "drills"
    SHORT_NAME: ClassVar[str] = "dr"
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("Server", "string", ".spec.serverRef.name"),
        Column("Point", "string", ".status.recoveryPoint.name"),
        Column("Point age", "integer", ".status.recoveryPoint.ageSeconds"),
        Column("Phase", "string", ".status.phase"),
        Column("Result", "string", ".status.result"),
        Column("IP", "string", ".status.instance.ipAddress"),
        Column("RTO", "number", ".status.timings.rtoSeconds"),
        AGE_COLUMN,
    )

    kind: Literal["Drill"] = "Drill"
    spec: DrillSpec = Field(description="What is asked; the operator never writes it.")
    status: Annotated[DrillStatus, LENIENT] = Field(DrillStatus(), description="What is; only the operator writes it.")
