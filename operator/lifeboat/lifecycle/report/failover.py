"""The status of a Failover: at a glance what happens, what was lost, and what to do next."""

from __future__ import annotations

from lifeboat.api.common import Result
from lifeboat.api.failover import Attempt as AttemptStatus
from lifeboat.api.failover import Failover, FailoverPhase, FailoverStatus
from lifeboat.engines.ledger import Attempt, FailoverRecord, FailoverStage, Ledger, Spent
from lifeboat.lifecycle import machines, reasons
from lifeboat.lifecycle.conditions import State, conditions, readiness, refused
from lifeboat.lifecycle.decide.endings import PROTECT_AGAIN
from lifeboat.lifecycle.report.recovery import common_status, failed_checks, launched_state, verified_state
from lifeboat.lifecycle.report.server import fence_state, point_age
from lifeboat.lifecycle.view import FAILOVER, Notice, Plan, View, subject_of

_MESSAGES = {
    FailoverStage.STOPPING_REPLICATION: "the source is being fenced and replication stopped",
    FailoverStage.LAUNCHING: "the server is being started",
    FailoverStage.VERIFYING: "the server runs; its script and checks are under way",
    FailoverStage.CHANGING_RECOVERY_POINT: "the server is being started anew",
    FailoverStage.ROLLING_BACK: "the recovered server is being stopped and the source released",
    FailoverStage.COMMITTING: "the recovered server is being made independent",
}


def failover_status(view: View, plan: Plan, ledger: Ledger | None, failover: Failover) -> FailoverStatus:
    """What is to be told about the failover now."""
    name, subject = failover.metadata.name, subject_of(FAILOVER, failover.metadata)
    notice = plan.notices.get(subject) or view.troubles.get(subject)
    if ledger is None:
        waiting = notice or Notice(reasons.SITE_SILENT, "the ledger cannot be read", stalled=False)
        known_phase = failover.status.phase or FailoverPhase.PENDING
        phase = FailoverPhase.FAILED if waiting.reason == reasons.NOT_ACCEPTED else known_phase
        return _status(view, failover, phase, (), refused(waiting), ledger)
    record, spent = ledger.failover, ledger.ended(FAILOVER, name)
    if record is not None and record.name == name:
        return _status(
            view,
            failover,
            _phase(record),
            record.attempts,
            _under_way(view, ledger, record, notice),
            ledger,
        )
    if spent is not None:
        return _ended(view, ledger, failover, spent)
    waiting = notice or Notice(reasons.NOT_YET, "the failover is about to start", stalled=False)
    phase = FailoverPhase.FAILED if waiting.reason == reasons.NOT_ACCEPTED else FailoverPhase.PENDING
    return _status(view, failover, phase, (), refused(waiting), ledger)


def _phase(record: FailoverRecord) -> FailoverPhase:
    if record.failback and record.stage is FailoverStage.COMMITTED:
        return FailoverPhase.COMPLETED
    return FailoverPhase(record.stage.value)


def _under_way(view: View, ledger: Ledger, record: FailoverRecord, notice: Notice | None) -> dict[str, State]:
    attempt = record.attempts[-1]
    warning = _source_warning(view, ledger)
    if record.stage in (FailoverStage.COMMITTED, FailoverStage.AWAITING_COMMIT):
        notice = notice or machines.not_serving(view, ledger)
    match record.stage:
        case FailoverStage.COMMITTED if record.failback:
            message = f"served from zone {view.target_site.zone} again; {PROTECT_AGAIN}.{warning}"
            states = readiness(ready=True, notice=notice, reason=reasons.COMPLETED, message=message)
        case FailoverStage.COMMITTED:
            states = readiness(
                ready=True,
                notice=notice,
                reason=reasons.COMMITTED,
                message=f"confirmed; the server is independent.{warning}",
            )
        case FailoverStage.AWAITING_COMMIT:
            if attempt.result == Result.FAILED and notice is None:
                notice = Notice(
                    reasons.CHECKS_FAILED,
                    f"{failed_checks(attempt)}. The recovered server runs: change spec.recoveryPoint to an earlier "
                    f"point, commit all the same, or set rollback: true.{warning}",
                )
            if attempt.result is None and attempt.ready_at is None and notice is None:
                notice = Notice(
                    reasons.AGENT_SILENT,
                    "the server was started and its client has not answered, so nothing says that it works: look at "
                    f"it, then set commit: true, change spec.recoveryPoint, or set rollback: true.{warning}",
                )
            age = point_age(attempt.point_time, attempt.accepted_at)
            states = readiness(
                ready=True,
                notice=notice,
                reason=reasons.AWAITING_COMMIT,
                message=f"the server runs from point {attempt.point}, {age} s old when it was chosen; verify it, then "
                f"set commit: true, or change recoveryPoint, or set rollback: true.{warning}",
            )
        case _:
            message = f"{_MESSAGES[record.stage]}.{warning}" if warning else _MESSAGES[record.stage]
            states = readiness(ready=False, notice=notice, reason=reasons.IN_PROGRESS, message=message)
    return states


def _source_warning(view: View, ledger: Ledger) -> str:
    fence = fence_state(view, ledger)
    return "" if fence.status == "True" or ledger.fence is None else f" Take care: {fence.message}"


def _ended(view: View, ledger: Ledger, failover: Failover, spent: Spent) -> FailoverStatus:
    phase = FailoverPhase(spent.phase)
    good = phase in (FailoverPhase.COMMITTED, FailoverPhase.ROLLED_BACK, FailoverPhase.COMPLETED)
    states = readiness(
        ready=good,
        notice=None if good else Notice(spent.reason, spent.message),
        reason=spent.reason,
        message=spent.message,
    )
    return _status(view, failover, phase, spent.attempts, states, ledger)


def _status(
    view: View,
    failover: Failover,
    phase: FailoverPhase,
    attempts: tuple[Attempt, ...],
    states: dict[str, State],
    ledger: Ledger | None,
) -> FailoverStatus:
    generation = failover.metadata.generation
    attempt = attempts[-1] if attempts else None
    serves = ledger is not None and ledger.failover is not None and ledger.failover.name == failover.metadata.name
    machine = machines.failover_machine(ledger, attempt.number) if ledger and serves and attempt else ""
    fields = common_status(view, attempt, machine, failover.spec.checks, failover.spec.instance.post_script)
    fence = (
        fence_state(view, ledger)
        if ledger is not None and serves
        else State("False", reasons.NOT_FENCED, "this failover fences nothing now")
    )
    committed = phase in (FailoverPhase.COMMITTED, FailoverPhase.COMPLETED)
    states = states | {
        "Launched": launched_state(attempt),
        "Verified": verified_state(attempt),
        "SourceFenced": fence,
        "Committed": State("True", reasons.COMMITTED, "confirmed")
        if committed
        else State("False", reasons.NOT_YET, "not confirmed"),
    }
    return FailoverStatus(
        observed_generation=generation,
        phase=phase,
        history=tuple(_history(each) for each in attempts),
        conditions=conditions(states, failover.status.conditions, generation, view.now),
        **fields,
    )


def _history(attempt: Attempt) -> AttemptStatus:
    return AttemptStatus(
        attempt=attempt.number,
        recovery_point=attempt.requested,
        point=attempt.point,
        point_time=attempt.point_time,
        started_at=attempt.launched_at,
        ended_at=attempt.ended_at,
        outcome=_outcome(attempt),
    )


def _outcome(attempt: Attempt) -> str:
    if attempt.result is not None:
        proof = attempt.result if attempt.result == Result.PASSED else f"{attempt.result}: {failed_checks(attempt)}"
    else:
        proof = "started" if attempt.launched_at else "not started"
    kept = f"; its disks are kept, ask for attempt-{attempt.number} to return" if attempt.ended_at else ""
    return f"{proof}{kept}"[:1024]
