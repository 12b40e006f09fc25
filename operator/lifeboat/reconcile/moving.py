"""What of a server moves by itself just now, and is looked at more often."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from lifeboat.engines.facts import Known, ReplicaState
from lifeboat.engines.ledger import DrillStage, FailoverStage
from lifeboat.lifecycle import machines
from lifeboat.lifecycle.view import DRILL, Subject, View

PATIENCE: Final = timedelta(seconds=30)
"""What has not moved for this long is no longer looked at more often."""

_RESTING = (FailoverStage.AWAITING_COMMIT, FailoverStage.COMMITTED)


def is_moving(view: View) -> bool:
    """Whether a machine boots, is verified or cleared, a copy starts, or a failover is between two rests."""
    ledger, replica = view.facts.ledger, view.way.replica
    if isinstance(ledger, Known):
        failover = ledger.value.failover
        if failover is not None and failover.stage not in _RESTING:
            return True
        if any(drill.stage is not DrillStage.RUNNING for drill in ledger.value.drills):
            return True
    return isinstance(replica, Known) and replica.value.state is ReplicaState.STARTING


def launched_at(view: View, subject: Subject, machine: str) -> datetime | None:
    """When the machine of this drill or failover was launched, as the ledger says."""
    if not isinstance(view.facts.ledger, Known):
        return None
    ledger = view.facts.ledger.value
    if subject.kind == DRILL:
        record = ledger.drill(subject.name)
        return record.attempt.launched_at if record is not None else None
    if ledger.failover is None:
        return None
    attempt = machines.attempt_machines(ledger, ledger.failover).get(machine)
    return attempt.launched_at if attempt is not None else None
