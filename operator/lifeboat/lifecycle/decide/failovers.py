"""Failovers: accept one, carry it from stage to stage, follow edits, commit or roll back.

Every stage reads what exists and does the next thing; the record in the ledger moves on when that thing is seen done.
"""

from __future__ import annotations

from dataclasses import replace

from lifeboat.api.failover import Failover, FailoverPhase
from lifeboat.engines import verbs
from lifeboat.engines.facts import Known, MachineState, Replica, ReplicaState, Unknown
from lifeboat.engines.ledger import (
    ActiveSite,
    Attempt,
    FailoverRecord,
    FailoverStage,
    Fence,
    Ledger,
    Spent,
)
from lifeboat.lifecycle import machines, points, reasons
from lifeboat.lifecycle.decide import acceptance
from lifeboat.lifecycle.decide.edits import decide_edit
from lifeboat.lifecycle.decide.fence import fence_waited_for
from lifeboat.lifecycle.view import FAILOVER, Draft, Notice, Subject, View, known, subject_of

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
        if _expired(view, failover) and not failover.metadata.deletion_timestamp:
            draft.note(subject_of(FAILOVER, failover.metadata), _too_late(failover, "the ledger could not be read"))


def _age(failover: Failover) -> tuple[float, str]:
    created = failover.metadata.creation_timestamp
    return (created.timestamp() if created else 0.0, failover.metadata.name)


def _adopt(view: View, draft: Draft, objects: dict[str, Failover]) -> None:
    """Let a new Failover carry on the one under way whose own object is gone."""
    record = draft.ledger.failover
    if record is None or record.stage is FailoverStage.COMMITTED or record.name in objects:
        return
    heirs = [f for f in view.failovers if draft.ledger.ended(FAILOVER, f.metadata.name) is None]
    if not heirs:
        return
    heir = min(heirs, key=_age)
    message = f"its object was deleted; Failover {heir.metadata.name} carries on"
    spent = Spent(FAILOVER, record.name, record.stage.value, reasons.IN_PROGRESS, message, view.now, record.attempts)
    carried = replace(record, name=heir.metadata.name, inherited=True)
    draft.ledger = replace(draft.ledger, failover=carried).spend(spent)


def _accept(view: View, draft: Draft, failover: Failover) -> None:
    subject = subject_of(FAILOVER, failover.metadata)
    if failover.metadata.deletion_timestamp:
        return
    request = acceptance.request_of(view, draft.ledger, failover)
    refusal = acceptance.refusal(request)
    if _expired(view, failover):
        notice = _too_late(failover, refusal.message if refusal else "nobody was there to start it in time")
        draft.ledger = _spend(draft.ledger, view, failover.metadata.name, FailoverPhase.FAILED, notice)
        return
    attempt = acceptance.first_attempt(request) if refusal is None else refusal
    if isinstance(attempt, Notice):
        if attempt.reason in _FOR_GOOD:
            draft.ledger = _spend(draft.ledger, view, failover.metadata.name, FailoverPhase.FAILED, attempt)
        else:
            draft.note(subject, attempt)
        return
    begins = draft.ledger.epoch + 1
    draft.ledger = replace(
        draft.ledger,
        epoch=begins,
        active_site=ActiveSite.UNKNOWN,
        fence=Fence(ordered_at=view.now),
        failover=FailoverRecord(
            name=failover.metadata.name,
            stage=FailoverStage.STOPPING_REPLICATION,
            accepted_at=view.now,
            attempts=(attempt,),
            tip=points.tip_name(draft.ledger) if draft.ledger.synced else None,
            current_used=attempt.point == points.tip_name(draft.ledger),
            planned=failover.spec.planned,
        ),
    )


def _expired(view: View, failover: Failover) -> bool:
    created = failover.metadata.creation_timestamp
    return created is not None and view.now - created >= failover.spec.start_deadline


def _too_late(failover: Failover, why: str) -> Notice:
    minutes = failover.spec.start_deadline.total_seconds() / 60
    return Notice(
        reasons.NOT_ACCEPTED,
        f"it could not start within {minutes:g} min of its creation ({why}) and will not start any more; "
        "if a failover is still wanted, create another one",
    )


def _proceed(view: View, draft: Draft, record: FailoverRecord, failover: Failover | None) -> None:
    subject = Subject(FAILOVER, record.name)
    if failover is not None and failover.spec.rollback and record.stage in BEFORE_COMMIT:
        draft.ledger = replace(draft.ledger, failover=replace(record, stage=FailoverStage.ROLLING_BACK))
        return
    match record.stage:
        case FailoverStage.STOPPING_REPLICATION:
            _stop_replication(view, draft, subject, record)
        case FailoverStage.LAUNCHING | FailoverStage.CHANGING_RECOVERY_POINT if failover is not None and decide_edit(
            view, draft, subject, record, failover
        ):
            pass
        case FailoverStage.CHANGING_RECOVERY_POINT:
            if _all_halted(view, draft, subject, record, keep=record.attempts[-1].number):
                _launch(view, draft, subject, record)
        case FailoverStage.LAUNCHING:
            _launch(view, draft, subject, record)
        case FailoverStage.VERIFYING:
            _verify(view, draft, subject, record, failover)
        case FailoverStage.AWAITING_COMMIT:
            _await_commit(view, draft, subject, record, failover)
        case FailoverStage.ROLLING_BACK:
            _roll_back(view, draft, subject, record)
        case FailoverStage.COMMITTING:
            _commit(view, draft, subject, record)
        case FailoverStage.COMMITTED:
            _release_rest(view, draft, subject)


BEFORE_COMMIT = (
    FailoverStage.STOPPING_REPLICATION,
    FailoverStage.LAUNCHING,
    FailoverStage.VERIFYING,
    FailoverStage.AWAITING_COMMIT,
    FailoverStage.CHANGING_RECOVERY_POINT,
)


def _to(draft: Draft, record: FailoverRecord, stage: FailoverStage, *attempts: Attempt) -> None:
    draft.ledger = replace(draft.ledger, failover=replace(record, stage=stage, attempts=attempts or record.attempts))


def _stop_replication(view: View, draft: Draft, subject: Subject, record: FailoverRecord) -> None:
    """Fence first, so that no write is acknowledged that the frozen tip does not have; then freeze the tip."""
    if not fence_waited_for(view, draft.ledger.fence):
        return
    match view.facts.replica:
        case Known(replica) if replica.state is ReplicaState.STOPPED and (
            record.tip is None or any(point.name == record.tip for point in replica.points)
        ):
            draft.ledger = replace(draft.ledger, replicating=False)
            _to(draft, record, FailoverStage.LAUNCHING)
        case Known(_):
            draft.act(subject, verbs.StopReplication(record.tip))
        case Unknown(reason):
            draft.note(subject, Notice(reasons.SITE_SILENT, f"the replica cannot be seen: {reason}", stalled=False))


def _all_halted(view: View, draft: Draft, subject: Subject, record: FailoverRecord, *, keep: int | None) -> bool:
    """Whether no machine of this failover runs but that of attempt `keep`; stops those that do."""
    found = known(view.facts.machines)
    if found is None:
        draft.note(subject, Notice(reasons.SITE_SILENT, "the recovery site does not answer", stalled=False))
        return False
    halted = True
    for name, attempt in machines.attempt_machines(draft.ledger.epoch, record).items():
        machine = found.get(name)
        if attempt.number != keep and machine is not None and machine.state is MachineState.RUNNING:
            draft.act(subject, verbs.Halt(name))
            halted = False
    return halted


def _launch(view: View, draft: Draft, subject: Subject, record: FailoverRecord) -> None:
    attempt = record.attempts[-1]
    name = machines.failover_machine(draft.ledger.epoch, attempt.number)
    if machines.running(view, name) is not None:
        attempts = (*_ended(view, record), machines.launched(attempt, view.now))
        draft.ledger = replace(draft.ledger, active_site=ActiveSite.RECOVERY)
        _to(draft, record, FailoverStage.VERIFYING, *attempts)
        return
    machines.note_failed(view, draft, subject, name)
    own = attempt.disks_of == attempt.number
    disks_of = None if own else machines.failover_machine(draft.ledger.epoch, attempt.disks_of)
    draft.act(subject, verbs.Launch(name, attempt.point, attempt.shape, disks_of))


def _ended(view: View, record: FailoverRecord) -> tuple[Attempt, ...]:
    return tuple(replace(a, ended_at=a.ended_at or view.now) for a in record.attempts[:-1])


def _verify(view: View, draft: Draft, subject: Subject, record: FailoverRecord, failover: Failover | None) -> None:
    attempt = record.attempts[-1]
    machine = machines.running(view, machines.failover_machine(draft.ledger.epoch, attempt.number))
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
        _to(draft, record, FailoverStage.AWAITING_COMMIT, *record.attempts[:-1], verified)


def _await_commit(
    view: View, draft: Draft, subject: Subject, record: FailoverRecord, failover: Failover | None
) -> None:
    if failover is None:
        return
    if failover.spec.commit:
        _to(draft, record, FailoverStage.COMMITTING)
        return
    if decide_edit(view, draft, subject, record, failover):
        return
    name = machines.failover_machine(draft.ledger.epoch, record.attempts[-1].number)
    found = known(view.facts.machines)
    if found is not None and machines.running(view, name) is None:
        draft.note(
            subject,
            Notice(
                reasons.MACHINE_STOPPED,
                "the recovered server stopped; edit spec.instance or spec.recoveryPoint to start it anew, "
                "or set rollback: true to go back to the source",
            ),
        )


def _roll_back(view: View, draft: Draft, subject: Subject, record: FailoverRecord) -> None:
    if not _all_halted(view, draft, subject, record, keep=None):
        return
    source = view.facts.source
    if view.facts.exists != Known(value=False):
        if isinstance(source, Unknown):
            message = (
                "the recovered server is stopped; the source's fence is lifted once its site answers: " + source.reason
            )
            draft.note(subject, Notice(reasons.SITE_SILENT, message, stalled=False))
            return
        if source.value.fenced:
            draft.act(subject, verbs.Unfence())
            return
    match view.facts.replica:
        case Known(replica) if replica.state in (ReplicaState.STOPPED, ReplicaState.ABSENT):
            pass
        case _:
            draft.act(subject, verbs.StopReplication(record.tip))
            return
    kept = tuple(machines.attempt_machines(draft.ledger.epoch, record))
    serves = isinstance(source, Known) and source.value.running
    message = "serves again" if serves else "is released but does not run: start it in its zone"
    notice = Notice(reasons.ROLLED_BACK, f"the recovered server is stopped and the source {message}")
    ledger = replace(
        draft.ledger,
        failover=None,
        fence=None,
        active_site=ActiveSite.PRIMARY,
        replicating=False,
        synced=False,
        rolled_back=True,
        leftovers=(*draft.ledger.leftovers, *kept),
    )
    attempts = tuple(replace(a, ended_at=a.ended_at or view.now) for a in record.attempts)
    draft.ledger = _spend(ledger, view, record.name, FailoverPhase.ROLLED_BACK, notice, attempts)


def _commit(view: View, draft: Draft, subject: Subject, record: FailoverRecord) -> None:
    found = known(view.facts.machines)
    replica = known(view.facts.replica)
    if found is None or replica is None:
        draft.note(subject, Notice(reasons.SITE_SILENT, "the recovery site does not answer", stalled=False))
        return
    serving = machines.failover_machine(draft.ledger.epoch, record.attempts[-1].number)
    machine = found.get(serving)
    if machine is None or not machine.independent:
        draft.act(subject, verbs.MakeIndependent(serving))
        return
    disks_of = machines.failover_machine(draft.ledger.epoch, record.attempts[-1].disks_of)
    others = [
        name
        for name in (*machines.attempt_machines(draft.ledger.epoch, record), *draft.ledger.leftovers)
        if name in found and name not in (serving, disks_of)
    ]
    for name in others:
        draft.act(subject, verbs.RemoveMachine(name))
    if others:
        return
    if _freeable(replica):
        draft.act(subject, verbs.ReleaseReplica())
        return
    notice = Notice(reasons.COMMITTED, "the recovered server is independent; replica and points are freed")
    _to(draft, record, FailoverStage.COMMITTED)
    ledger = replace(draft.ledger, replicating=False, synced=False, leftovers=())
    draft.ledger = _spend(ledger, view, record.name, FailoverPhase.COMMITTED, notice, record.attempts)


def _release_rest(view: View, draft: Draft, subject: Subject) -> None:
    """Free the points that a drill still held at the commit, once it is cleared."""
    replica = known(view.facts.replica)
    if replica is not None and _freeable(replica):
        draft.act(subject, verbs.ReleaseReplica())


def _freeable(replica: Replica) -> bool:
    """Whether anything is left of the replica that no drill's machine stands on."""
    if not replica.points:
        return replica.state is not ReplicaState.ABSENT
    return any(not point.used_by and not point.held for point in replica.points)


def _spend(
    ledger: Ledger,
    view: View,
    name: str,
    phase: FailoverPhase,
    notice: Notice,
    attempts: tuple[Attempt, ...] = (),
) -> Ledger:
    spent = Spent(FAILOVER, name, phase.value, notice.reason, notice.message, view.now, attempts)
    return ledger.spend(spent)
