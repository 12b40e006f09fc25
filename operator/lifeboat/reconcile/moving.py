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
_VERIFYING = (FailoverStage.VERIFYING, DrillStage.VERIFYING)


def is_moving(view: View) -> bool:
    """Whether a machine boots, is verified or cleared, a copy starts, or a failover is between two rests."""
    return bool(_stages(view)) or _copy_starts(view)


def is_verified_only(view: View) -> bool:
    """Whether all that moves are machines whose verification is under way, and tells its news by itself.

    To look at them more often finds nothing, and takes from a machine that boots on the same host.
    """
    stages = _stages(view)
    under_way = sum(not each.done for each in view.verifications.values())
    return all(stage in _VERIFYING for stage in stages) and under_way >= len(stages) and not _copy_starts(view)


def _stages(view: View) -> list[FailoverStage | DrillStage]:
    """The stages between two rests that drills and the failover are in."""
    if not isinstance(view.facts.ledger, Known):
        return []
    ledger = view.facts.ledger.value
    found: list[FailoverStage | DrillStage] = [d.stage for d in ledger.drills if d.stage is not DrillStage.RUNNING]
    if ledger.failover is not None and ledger.failover.stage not in _RESTING:
        found.append(ledger.failover.stage)
    return found


def _copy_starts(view: View) -> bool:
    replica = view.way.replica
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
