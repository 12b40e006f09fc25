"""The status of a Drill."""

from __future__ import annotations

from lifeboat.api.common import Result
from lifeboat.api.drill import Drill, DrillPhase, DrillStatus
from lifeboat.engines.ledger import Attempt, DrillRecord, DrillStage, Ledger, Spent
from lifeboat.lifecycle import machines, reasons
from lifeboat.lifecycle.conditions import State, conditions, readiness, refused
from lifeboat.lifecycle.report.recovery import common_status, failed_checks, launched_state, verified_state
from lifeboat.lifecycle.view import DRILL, Notice, Plan, View, subject_of

_PHASES = {
    DrillStage.LAUNCHING: DrillPhase.LAUNCHING,
    DrillStage.VERIFYING: DrillPhase.VERIFYING,
    DrillStage.RUNNING: DrillPhase.RUNNING,
    DrillStage.CLEANING_UP: DrillPhase.CLEANING_UP,
}


def drill_status(view: View, plan: Plan, ledger: Ledger | None, drill: Drill) -> DrillStatus:
    """What is to be told about the drill now."""
    name, subject = drill.metadata.name, subject_of(DRILL, drill.metadata)
    notice = plan.notices.get(subject) or view.troubles.get(subject)
    if ledger is None:
        waiting = notice or Notice(reasons.SITE_SILENT, "the ledger cannot be read", stalled=False)
        return _status(view, drill, drill.status.phase or DrillPhase.PENDING, None, refused(waiting))
    spent = ledger.ended(DRILL, name)
    if spent is not None:
        return _ended(view, drill, spent)
    record = ledger.drill(name)
    if record is None:
        waiting = notice or Notice(reasons.NOT_YET, "the drill is about to start", stalled=False)
        return _status(view, drill, DrillPhase.PENDING, None, refused(waiting))
    return _status(view, drill, _PHASES[record.stage], record.attempt, _under_way(record, notice))


def _under_way(record: DrillRecord, notice: Notice | None) -> dict[str, State]:
    attempt = record.attempt
    if record.stage is not DrillStage.RUNNING:
        message = {
            DrillStage.LAUNCHING: f"the server is being started from point {attempt.point}",
            DrillStage.VERIFYING: "the server runs; its script and checks are under way",
            DrillStage.CLEANING_UP: "the environment is being cleared",
        }[record.stage]
        return readiness(ready=False, notice=notice, reason=reasons.IN_PROGRESS, message=message)
    if attempt.result == Result.FAILED and notice is None:
        notice = Notice(
            reasons.CHECKS_FAILED,
            f"{failed_checks(attempt)}. The server still runs: look at it, then set running: false",
        )
    if attempt.result is None and attempt.ready_at is None and notice is None:
        message = "the server was started and its client has not answered, so nothing says that it works; look at it"
        notice = Notice(reasons.AGENT_SILENT, message)
    return readiness(
        ready=True,
        notice=notice,
        reason=reasons.RUNNING,
        message="the server runs; verify it, then set running: false to clear the environment",
    )


def _ended(view: View, drill: Drill, spent: Spent) -> DrillStatus:
    attempt = spent.attempts[-1] if spent.attempts else None
    phase = DrillPhase(spent.phase)
    failed = phase is DrillPhase.FAILED
    states = readiness(
        ready=not failed,
        notice=Notice(spent.reason, spent.message) if failed else None,
        reason=spent.reason,
        message=spent.message,
    )
    return _status(view, drill, phase, attempt, states)


def _status(
    view: View, drill: Drill, phase: DrillPhase, attempt: Attempt | None, states: dict[str, State]
) -> DrillStatus:
    generation = drill.metadata.generation
    fields = common_status(
        view,
        attempt,
        machines.drill_machine(drill.metadata.name),
        drill.spec.checks,
        drill.spec.instance.post_script,
    )
    states = states | {"Launched": launched_state(attempt), "Verified": verified_state(attempt)}
    return DrillStatus(
        observed_generation=generation,
        phase=phase,
        conditions=conditions(states, drill.status.conditions, generation, view.now),
        **fields,
    )
