"""What may be asked of a server now: the same preconditions that accept a request, said beforehand."""

from __future__ import annotations

from enum import StrEnum

from lifeboat.api.names import CURRENT, LATEST
from lifeboat.engines.facts import Known
from lifeboat.engines.ledger import Direction, FailoverStage, Ledger
from lifeboat.lifecycle import points
from lifeboat.lifecycle.decide import acceptance
from lifeboat.lifecycle.decide.failovers import BEFORE_COMMIT
from lifeboat.lifecycle.decide.turn import turn_refusal
from lifeboat.lifecycle.view import Notice, View, known


class Operation(StrEnum):
    """What a person can ask for, by editing a spec or creating an object."""

    START_REPLICATION = "StartReplication"
    STOP_REPLICATION = "StopReplication"
    RESTART = "Restart"
    DRILL = "Drill"
    FAILOVER = "Failover"
    CHANGE_RECOVERY_POINT = "ChangeRecoveryPoint"
    COMMIT = "Commit"
    ROLLBACK = "Rollback"
    REVERSE_REGISTER = "ReverseRegister"
    FAILBACK = "Failback"
    REGISTER = "Register"


def allowed_operations(view: View, ledger: Ledger) -> tuple[Operation, ...]:
    """The operations that would be accepted now, sorted by name."""
    return tuple(sorted(_allowed(view, ledger)))


def _allowed(view: View, ledger: Ledger) -> set[Operation]:
    replica, record = known(view.way.replica), ledger.failover
    allowed: set[Operation] = set()
    source = known(view.way.source)
    if record is None:
        allowed.add(Operation.STOP_REPLICATION if ledger.replicating else Operation.START_REPLICATION)
        if source is not None and source.running and source.boot_time is not None:
            allowed.add(Operation.RESTART)
        if acceptance.refusal(_latest(view, ledger)) is None:
            back = ledger.direction is Direction.REVERSE
            allowed.add(Operation.FAILBACK if back else Operation.FAILOVER)
    elif record.stage in BEFORE_COMMIT:
        allowed.add(Operation.ROLLBACK)
        if record.stage is not FailoverStage.STOPPING_REPLICATION:
            allowed.add(Operation.CHANGE_RECOVERY_POINT)
        if record.stage is FailoverStage.AWAITING_COMMIT:
            allowed.add(Operation.COMMIT)
    elif record.stage is FailoverStage.COMMITTED and turn_refusal(view, ledger) is None:
        allowed.add(Operation.REGISTER if record.failback else Operation.REVERSE_REGISTER)
    drillable = record is None or record.stage is FailoverStage.AWAITING_COMMIT
    usable = replica is not None and any(point.problem is None for point in replica.points)
    if drillable and usable and isinstance(view.target, Known):
        allowed.add(Operation.DRILL)
    return allowed


def _latest(view: View, ledger: Ledger) -> acceptance.Request:
    """A failover to whatever is there: the tip where it is consistent, else the latest point."""
    back = ledger.direction is Direction.REVERSE
    wanted = CURRENT if points.consistent(view.way.replica) else LATEST
    return acceptance.Request(view, ledger, wanted, planned=back, failback=back)


def failover_refusal(view: View, ledger: Ledger) -> Notice | None:
    """Why a failover could not begin now, or None where it could."""
    return acceptance.refusal(_latest(view, ledger))
