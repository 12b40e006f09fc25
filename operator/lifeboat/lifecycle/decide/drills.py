"""Drills: accept, launch, verify, clear. None of it touches replication."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lifeboat.api.common import Result
from lifeboat.api.drill import Drill, DrillPhase
from lifeboat.api.names import FINALIZER
from lifeboat.engines import verbs
from lifeboat.engines.facts import MachineState, Replica, ReplicaState, Unknown
from lifeboat.engines.ledger import Attempt, DrillRecord, DrillStage, FailoverStage, Ledger, Spent
from lifeboat.lifecycle import machines, points, reasons
from lifeboat.lifecycle.shapes import fingerprint
from lifeboat.lifecycle.view import DRILL, Draft, DropFinalizer, KeepFinalizer, Notice, Subject, View, known, subject_of


def decide_drills(view: View, draft: Draft) -> None:
    """Every drill of the server, each on its own; then those whose object has vanished."""
    objects = {drill.metadata.name: drill for drill in view.drills}
    for drill in view.drills:
        record = draft.ledger.drill(drill.metadata.name)
        if record is not None:
            _proceed(view, draft, record, drill)
        elif draft.ledger.ended(DRILL, drill.metadata.name) is None:
            _accept(view, draft, drill)
        elif drill.metadata.deletion_timestamp and FINALIZER in drill.metadata.finalizers:
            draft.act(subject_of(DRILL, drill.metadata), DropFinalizer())
    for record in draft.ledger.drills:
        if record.name not in objects:
            # The finalizer holds a drill's object until its environment is gone. Where it vanished all the same, a
            # cluster is being rebuilt: the object may come back, so the drill is left to its record.
            _proceed(view, draft, record, None)


@dataclass(frozen=True, slots=True)
class _Request:
    view: View
    ledger: Ledger
    drill: Drill


def _phase_allows(request: _Request) -> Notice | None:
    record = request.ledger.failover
    if record is None or record.stage is FailoverStage.AWAITING_COMMIT:
        return None
    if record.stage is FailoverStage.COMMITTED:
        return Notice(
            reasons.PHASE_DOES_NOT_ALLOW,
            "the failover is committed and the points are freed: a drill needs a replicated server",
            stalled=False,
        )
    return Notice(
        reasons.PHASE_DOES_NOT_ALLOW,
        f"failover {record.name} is under way ({record.stage}); the drill starts after it",
        stalled=False,
    )


def _replica_seen(request: _Request) -> Notice | None:
    replica = request.view.way.replica
    if isinstance(replica, Unknown):
        return Notice(reasons.SITE_SILENT, f"the replica cannot be seen: {replica.reason}", stalled=False)
    if not replica.value.points:
        return Notice(
            reasons.NO_RECOVERY_POINT,
            "there is no recovery point yet; the drill starts with the first one, after the full copy",
            stalled=False,
        )
    return None


def _script_readable(request: _Request) -> Notice | None:
    return request.view.scripts.get(subject_of(DRILL, request.drill.metadata))


def _server_stays(request: _Request) -> Notice | None:
    if request.view.server.metadata.deletion_timestamp is not None:
        return Notice(reasons.DELETING, "its ProtectedServer is being deleted", stalled=False)
    return None


PRECONDITIONS: tuple[Callable[[_Request], Notice | None], ...] = (
    _server_stays,
    _phase_allows,
    _replica_seen,
    _script_readable,
)


def _accept(view: View, draft: Draft, drill: Drill) -> None:
    subject = subject_of(DRILL, drill.metadata)
    if drill.metadata.deletion_timestamp:
        draft.act(subject, DropFinalizer())
        return
    if not drill.spec.running:
        draft.ledger = _spend(
            draft.ledger,
            view,
            drill.metadata.name,
            DrillPhase.CLEANED_UP,
            reasons.CLEANED_UP,
            (),
            "the drill was cleared before it started",
        )
        return
    refusal = next((notice for check in PRECONDITIONS if (notice := check(_Request(view, draft.ledger, drill)))), None)
    if refusal is None:
        attempt = _attempt(view, draft.ledger, drill)
        if isinstance(attempt, Attempt):
            if FINALIZER not in drill.metadata.finalizers:
                draft.act(subject, KeepFinalizer())
                return
            record = DrillRecord(drill.metadata.name, DrillStage.LAUNCHING, attempt)
            draft.ledger = replace(draft.ledger, drills=(*draft.ledger.drills, record))
            return
        refusal = attempt
    draft.note(subject, refusal)


def _attempt(view: View, ledger: Ledger, drill: Drill) -> Attempt | Notice:
    replica = known(view.way.replica) or Replica(ReplicaState.ABSENT)
    point = points.resolve(drill.spec.recovery_point, replica.points)
    if isinstance(point, Notice):
        return point
    names = [machines.drill_machine(drill.metadata.name)]
    promised = frozenset(d.attempt.shape.elastic_ip or "" for d in ledger.drills)
    shape = machines.shape_for(view, drill.spec.instance, names, isolated=True, promised=promised)
    if isinstance(shape, Notice):
        return shape
    return Attempt(
        number=1,
        requested=drill.spec.recovery_point,
        point=point.point,
        point_time=point.time,
        application_consistent=point.application_consistent,
        shape=shape,
        accepted_at=view.now,
        disks_of=1,
        asked=fingerprint(drill.spec.instance),
    )


def _proceed(view: View, draft: Draft, record: DrillRecord, drill: Drill | None) -> None:
    subject = Subject(DRILL, record.name)
    if record.stage is not DrillStage.CLEANING_UP and (ending := _ending(view, draft, record, drill)):
        draft.ledger = _with(draft.ledger, ending)
        return
    found = known(view.way.machines)
    if found is None:
        draft.note(subject, view.target_silent())
        return
    name = machines.drill_machine(record.name)
    machine = found.get(name)
    match record.stage:
        case DrillStage.LAUNCHING:
            if machine is not None and machine.state is MachineState.RUNNING:
                attempt = machines.launched(record.attempt, view.now)
                draft.ledger = _with(draft.ledger, replace(record, stage=DrillStage.VERIFYING, attempt=attempt))
            else:
                free = machines.with_free_elastic_ip(view, record.attempt, [name])
                if free is not None:
                    draft.ledger = _with(draft.ledger, replace(record, attempt=free))
                    return
                machines.note_failed(view, draft, subject, name)
                draft.act(subject, verbs.Launch(name, record.attempt.point, record.attempt.shape))
        case DrillStage.VERIFYING if machine is None or machine.state is not MachineState.RUNNING:
            machines.note_failed(view, draft, subject, name)
            draft.act(subject, verbs.Launch(name, record.attempt.point, record.attempt.shape))
        case DrillStage.VERIFYING if drill is not None and machine is not None:
            has_script = drill.spec.instance.post_script is not None
            verified = machines.verify(
                view, draft, subject, machine, record.attempt, drill.spec.checks, has_script=has_script
            )
            if verified is not None:
                draft.ledger = _with(draft.ledger, replace(record, stage=DrillStage.RUNNING, attempt=verified))
                draft.ledger = _tested(draft.ledger, record.name, verified)
        case DrillStage.CLEANING_UP if machine is not None:
            draft.act(subject, verbs.RemoveMachine(name))
        case DrillStage.CLEANING_UP:
            _end(view, draft, record)
        case DrillStage.RUNNING | DrillStage.VERIFYING:
            if machine is None or machine.state is not MachineState.RUNNING:
                draft.note(
                    subject,
                    Notice(
                        reasons.MACHINE_STOPPED,
                        f"the drill's server stopped{': ' + machine.reason if machine and machine.reason else ''}; "
                        "set running: false to clear the drill, and start another",
                    ),
                )


def _ending(view: View, draft: Draft, record: DrillRecord, drill: Drill | None) -> DrillRecord | None:
    """The record on its way out, where something ends the drill now."""
    cleaning = replace(record, stage=DrillStage.CLEANING_UP, ending=DrillPhase.CLEANED_UP.value)
    failover = draft.ledger.failover
    launching = record.stage is DrillStage.LAUNCHING
    if launching and failover is not None and failover.accepted_at >= record.attempt.accepted_at:
        return replace(cleaning, ending=DrillPhase.FAILED.value, reason=reasons.YIELDED)
    if drill is None:
        # With its server's object going as well, nothing is coming back.
        going = view.server.metadata.deletion_timestamp is not None
        return replace(cleaning, reason="the drill's object is gone") if going else None
    if drill.metadata.deletion_timestamp is not None:
        return replace(cleaning, reason="the drill was deleted")
    if not drill.spec.running:
        return replace(cleaning, reason="running: false")
    launched_at, ttl = record.attempt.launched_at, drill.spec.ttl
    if ttl is not None and launched_at is not None and view.now - launched_at >= ttl:
        return replace(cleaning, reason="its ttl ended")
    trouble = view.troubles.get(Subject(DRILL, record.name))
    if launching and trouble is not None and trouble.stalled:
        return replace(cleaning, ending=DrillPhase.FAILED.value, reason=trouble.message)
    return None


def _end(view: View, draft: Draft, record: DrillRecord) -> None:
    reason = reasons.CLEANED_UP
    message = f"the environment is cleared: {record.reason}"
    if record.ending == DrillPhase.FAILED:
        yielded = record.reason == reasons.YIELDED
        reason = reasons.YIELDED if yielded else reasons.LAUNCH_FAILED
        message = (
            "a failover of the server began while the drill was being launched; start another drill"
            if yielded
            else f"the server could not be started: {record.reason}; mend it and create another drill"
        )
    ledger = replace(draft.ledger, drills=tuple(d for d in draft.ledger.drills if d.name != record.name))
    attempt = replace(record.attempt, ended_at=view.now)
    draft.ledger = _spend(ledger, view, record.name, DrillPhase(record.ending), reason, (attempt,), message)


def _spend(
    ledger: Ledger, view: View, name: str, phase: DrillPhase, reason: str, attempts: tuple[Attempt, ...], message: str
) -> Ledger:
    spent = Spent(DRILL, name, phase.value, reason, message, view.now, attempts)
    return ledger.spend(spent)


def _with(ledger: Ledger, record: DrillRecord) -> Ledger:
    return replace(ledger, drills=tuple(record if d.name == record.name else d for d in ledger.drills))


def _tested(ledger: Ledger, name: str, attempt: Attempt) -> Ledger:
    """Mark the point as proved, where at least one check passed and none failed."""
    if attempt.result != Result.PASSED or not any(check.passed for check in attempt.checks):
        return ledger
    return replace(ledger, tested={**ledger.tested, attempt.point: name})
