"""Failovers: accept one, carry it from stage to stage, follow edits, commit or roll back.

Every stage reads what exists and does the next thing; the record in the ledger moves on when that thing is seen done.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from lifeboat.api import values
from lifeboat.api.common import Result
from lifeboat.api.failover import Failover, FailoverPhase, FailoverType
from lifeboat.engines import verbs
from lifeboat.engines.facts import Known, ReplicaState, Unknown
from lifeboat.engines.ledger import (
    ActiveSite,
    Attempt,
    FailoverRecord,
    FailoverStage,
    Fence,
    Spent,
)
from lifeboat.lifecycle import machines, points, reasons
from lifeboat.lifecycle.decide import acceptance
from lifeboat.lifecycle.decide.edits import decide_edit
from lifeboat.lifecycle.decide.endings import commit, committed_unseen, release_rest, roll_back, rollback_obstacle
from lifeboat.lifecycle.decide.fence import fence_waited_for, last_writes_awaited
from lifeboat.lifecycle.decide.stages import all_halted, spend, start_machine, to_stage
from lifeboat.lifecycle.view import FAILOVER, Draft, Notice, Subject, View, subject_of

# Refusals that no waiting cures: the Failover fails at once, and its name is spent.
_FOR_GOOD = (reasons.FAILOVER_EXISTS, reasons.COMMIT_TOO_EARLY)


def decide_failovers(view: View, draft: Draft) -> None:
    """Carry on the failover that the ledger records, and look at those that ask to begin."""
    objects = {f.metadata.name: f for f in view.failovers}
    _adopt(view, draft, objects)
    for failover in sorted(view.failovers, key=_age):
        name = failover.metadata.name
        record = draft.ledger.failover
        if (record is None or record.name != name) and draft.ledger.ended(FAILOVER, name) is None:
            _accept(view, draft, failover)
    record = draft.ledger.failover
    if record is not None:
        _proceed(view, draft, record, objects.get(record.name))


def expire_failovers(view: View, draft: Draft) -> None:
    """Say of each Failover whose deadline has passed that it will not start any more, ledger or not."""
    for failover in view.failovers:
        if expired(failover, view.now) and not failover.metadata.deletion_timestamp:
            draft.note(
                subject_of(FAILOVER, failover.metadata),
                too_late(failover, "its server could not be reached, or is refused"),
            )


def _age(failover: Failover) -> tuple[float, str]:
    created = failover.metadata.creation_timestamp
    return (created.timestamp() if created else 0.0, failover.metadata.name)


def _adopt(view: View, draft: Draft, objects: dict[str, Failover]) -> None:
    """Let a new Failover carry on the one under way whose own object is gone."""
    record = draft.ledger.failover
    if record is None or record.stage is FailoverStage.COMMITTED or record.name in objects:
        return
    heirs = [
        f
        for f in view.failovers
        if draft.ledger.ended(FAILOVER, f.metadata.name) is None and _may_inherit(f, failback=record.failback)
    ]
    if not heirs:
        return
    heir = min(heirs, key=_age)
    message = f"its object was deleted; Failover {heir.metadata.name} carries on"
    spent = Spent(FAILOVER, record.name, record.stage.value, reasons.IN_PROGRESS, message, view.now, record.attempts)
    # A planned failover whose source does not answer any more goes on as an unplanned one by another hand.
    planned = record.planned and (record.failback or record.stage is not FailoverStage.STOPPING_REPLICATION)
    carried = replace(record, name=heir.metadata.name, inherited=True, planned=planned)
    draft.ledger = replace(draft.ledger, failover=carried).spend(spent)


def _may_inherit(failover: Failover, *, failback: bool) -> bool:
    """Whether a Failover only goes on. One that decides beforehand, or asks for something else, begins anew."""
    spec = failover.spec
    decided = spec.commit or spec.rollback or spec.planned
    same = (spec.type is FailoverType.FAILBACK) == failback
    return failover.metadata.deletion_timestamp is None and same and not decided


def _accept(view: View, draft: Draft, failover: Failover) -> None:
    subject = subject_of(FAILOVER, failover.metadata)
    if failover.metadata.deletion_timestamp:
        return
    request = acceptance.request_of(view, draft.ledger, failover)
    refusal = acceptance.refusal(request)
    if expired(failover, view.now):
        notice = too_late(failover, refusal.message if refusal else "nobody was there to start it in time")
        draft.ledger = spend(draft.ledger, view, failover.metadata.name, FailoverPhase.FAILED, notice)
        return
    attempt = acceptance.first_attempt(request) if refusal is None else refusal
    if isinstance(attempt, Notice):
        if attempt.reason in _FOR_GOOD:
            draft.ledger = spend(draft.ledger, view, failover.metadata.name, FailoverPhase.FAILED, attempt)
        else:
            draft.note(subject, attempt)
        return
    begins = draft.ledger.epoch + 1
    draft.ledger = replace(
        draft.ledger,
        epoch=begins,
        active_site=ActiveSite.UNKNOWN,
        may_turn=False,
        fence=Fence(ordered_at=view.now, direction=draft.ledger.direction),
        failover=FailoverRecord(
            name=failover.metadata.name,
            stage=FailoverStage.STOPPING_REPLICATION,
            accepted_at=view.now,
            attempts=(attempt,),
            tip=points.tip_name(draft.ledger) if points.consistent(view.way.replica) else None,
            current_used=attempt.point == points.tip_name(draft.ledger),
            planned=request.planned,
            failback=request.failback,
        ),
    )


def expired(failover: Failover, now: datetime) -> bool:
    """Whether it is too late for a Failover to start: one that waited so long may be wanted by nobody any more."""
    created = failover.metadata.creation_timestamp
    return created is not None and now - created >= failover.spec.start_deadline


def too_late(failover: Failover, why: str) -> Notice:
    """What to tell of a Failover that will not start any more."""
    deadline = values.format_duration(failover.spec.start_deadline)
    return Notice(
        reasons.NOT_ACCEPTED,
        f"it could not start within {deadline} of its creation ({why}) and will not start any more; "
        "if a failover is still wanted, create another one",
    )


def _proceed(view: View, draft: Draft, record: FailoverRecord, failover: Failover | None) -> None:
    subject = Subject(FAILOVER, record.name)
    if failover is not None and failover.spec.rollback and record.stage in BEFORE_COMMIT:
        obstacle = rollback_obstacle(view, record)
        if obstacle is None:
            draft.ledger = replace(draft.ledger, failover=replace(record, stage=FailoverStage.ROLLING_BACK))
            return
        draft.note(subject, obstacle)
    match record.stage:
        case FailoverStage.STOPPING_REPLICATION:
            _stop_replication(view, draft, subject, record)
        case FailoverStage.LAUNCHING | FailoverStage.CHANGING_RECOVERY_POINT if failover is not None and decide_edit(
            view, draft, subject, record, failover
        ):
            pass
        case FailoverStage.CHANGING_RECOVERY_POINT:
            if all_halted(view, draft, subject, record, keep=record.attempts[-1].number):
                _launch(view, draft, subject, record)
        case FailoverStage.LAUNCHING:
            _launch(view, draft, subject, record)
        case FailoverStage.VERIFYING:
            _verify(view, draft, subject, record, failover)
        case FailoverStage.AWAITING_COMMIT:
            _await_commit(view, draft, subject, record, failover)
        case FailoverStage.ROLLING_BACK:
            roll_back(view, draft, subject, record)
        case FailoverStage.COMMITTING:
            commit(view, draft, subject, record)
        case FailoverStage.COMMITTED:
            release_rest(view, draft, subject)


BEFORE_COMMIT = (
    FailoverStage.STOPPING_REPLICATION,
    FailoverStage.LAUNCHING,
    FailoverStage.VERIFYING,
    FailoverStage.AWAITING_COMMIT,
    FailoverStage.CHANGING_RECOVERY_POINT,
)


def _stop_replication(view: View, draft: Draft, subject: Subject, record: FailoverRecord) -> None:
    """Fence first, so that no write is acknowledged that the frozen tip does not have; then freeze the tip."""
    if last_writes_awaited(draft.ledger):
        _note_planned(view, draft, subject, failback=record.failback)
        return
    if not fence_waited_for(view, draft.ledger.fence):
        return
    match view.way.replica:
        case Known(replica) if replica.state is ReplicaState.STOPPED and (
            record.tip is None or any(point.name == record.tip for point in replica.points)
        ):
            draft.ledger = replace(draft.ledger, replicating=False)
            tip = next((point for point in replica.points if point.name == record.tip), None)
            # How old the tip really is, is known only now that it is frozen.
            attempts = (
                replace(attempt, point_time=tip.time) if tip is not None and attempt.point == tip.name else attempt
                for attempt in record.attempts
            )
            to_stage(draft, record, FailoverStage.LAUNCHING, *attempts)
        case Known(_):
            draft.act(subject, verbs.StopReplication(record.tip))
        case Unknown(reason):
            draft.note(subject, Notice(reasons.SITE_SILENT, f"the replica cannot be seen: {reason}", stalled=False))


def _note_planned(view: View, draft: Draft, subject: Subject, *, failback: bool) -> None:
    """Say what a failover that loses nothing waits for."""
    cure = "set rollback: true to start the server again"
    if not failback:
        cure += ", or delete this Failover and create one without planned: it carries on with what has arrived"
    match view.way.source:
        case Unknown(reason):
            message = (
                f"the source does not answer any more ({reason}), so it cannot be stopped cleanly; this waits for it. "
                f"If it is lost, {cure}"
            )
            draft.note(subject, Notice(reasons.FENCE_PENDING, message, stalled=True))
        case Known(source) if source.fenced and not source.running:
            message = f"the source ended before its last writes had arrived, and this was to lose nothing: {cure}"
            draft.note(subject, Notice(reasons.FENCE_PENDING, message, stalled=True))
        case Known(_) if why := _lost_on_the_way(view):
            message = f"the source's last writes cannot arrive, and this was to lose nothing ({why}): {cure}"
            draft.note(subject, Notice(reasons.FENCE_PENDING, message, stalled=True))
        case Known(_):
            trouble = view.troubles.get(subject)
            why = f": {trouble.message}" if trouble is not None else ""
            message = f"the source is shut down cleanly, and its last writes are awaited{why}"
            draft.note(subject, Notice(reasons.FENCE_PENDING, message, stalled=False))


def _lost_on_the_way(view: View) -> str | None:
    """Why an interrupted copy cannot go on where it broke; None where it can, or is not interrupted."""
    match view.way.replica:
        case Known(replica) if replica.state is ReplicaState.INTERRUPTED and not replica.resumable:
            return replica.reason or "the copy was lost"
        case _:
            return None


def _launch(view: View, draft: Draft, subject: Subject, record: FailoverRecord) -> None:
    attempt = record.attempts[-1]
    name = machines.failover_machine(draft.ledger, attempt.number)
    if machines.running(view, name) is not None:
        attempts = (*_ended(view, record), machines.launched(attempt, view.now))
        draft.ledger = replace(draft.ledger, active_site=ActiveSite.PRIMARY if record.failback else ActiveSite.RECOVERY)
        to_stage(draft, record, FailoverStage.VERIFYING, *attempts)
        return
    free = machines.with_free_elastic_ip(view, attempt, machines.attempt_machines(draft.ledger, record))
    if free is not None:
        to_stage(draft, record, record.stage, *record.attempts[:-1], free)
        return
    machines.note_failed(view, draft, subject, name)
    start_machine(draft, subject, record)


def _ended(view: View, record: FailoverRecord) -> tuple[Attempt, ...]:
    return tuple(replace(a, ended_at=a.ended_at or view.now) for a in record.attempts[:-1])


def _verify(view: View, draft: Draft, subject: Subject, record: FailoverRecord, failover: Failover | None) -> None:
    attempt = record.attempts[-1]
    machine = machines.running(view, machines.failover_machine(draft.ledger, attempt.number))
    if failover is not None and decide_edit(view, draft, subject, record, failover):
        return
    if machine is None:
        _launch(view, draft, subject, record)
        return
    if failover is None:
        return
    has_script = failover.spec.instance.post_script is not None
    verified = machines.verify(view, draft, subject, machine, attempt, failover.spec.checks, has_script=has_script)
    if verified is not None:
        to_stage(draft, record, FailoverStage.AWAITING_COMMIT, *record.attempts[:-1], verified)


def _await_commit(
    view: View, draft: Draft, subject: Subject, record: FailoverRecord, failover: Failover | None
) -> None:
    if failover is None:
        return
    attempt = record.attempts[-1]
    stopped = machines.not_serving(view, draft.ledger)
    # A failback that is proved completes by itself; one that is not waits for a person, as a failover does.
    proved = attempt.result == Result.PASSED or (attempt.result is None and attempt.ready_at is not None)
    if (failover.spec.commit or (record.failback and proved)) and stopped is None:
        if record.offered or proved:
            to_stage(draft, record, FailoverStage.COMMITTING)
        else:
            draft.note(subject, committed_unseen())
        return
    if not failover.spec.commit and not record.offered:
        draft.ledger = replace(draft.ledger, failover=replace(record, offered=True))
        return
    if decide_edit(view, draft, subject, record, failover):
        return
    if stopped is not None:
        draft.note(subject, stopped)
