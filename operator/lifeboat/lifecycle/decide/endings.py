"""How a failover ends: committed, so that the recovered server needs nothing any more, or rolled back."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lifeboat.api.failover import FailoverPhase
from lifeboat.api.protectedserver import Direction
from lifeboat.engines import verbs
from lifeboat.engines.facts import Known, MachineState, Replica, ReplicaState, Unknown
from lifeboat.engines.ledger import FailoverRecord, FailoverStage
from lifeboat.lifecycle import machines, reasons
from lifeboat.lifecycle.decide.stages import all_halted, back_to_source, spend, start_machine, to_stage
from lifeboat.lifecycle.view import Draft, Notice, Subject, View, known

PROTECT_AGAIN: Final = "set direction: Forward on the ProtectedServer to protect it anew"


def rollback_obstacle(view: View, record: FailoverRecord) -> Notice | None:
    """Why the recovered server must go on serving: there is nothing yet that could serve in its place."""
    if all(attempt.launched_at is None for attempt in record.attempts):
        return None
    if view.way.exists == Known(value=False):
        return Notice(
            reasons.UNKNOWN_SERVER,
            "there is no source to go back to: its zone has it no more. The server that was started goes on serving; "
            "set rollback: false, or put the source back",
        )
    if isinstance(view.way.source, Unknown):
        return Notice(
            reasons.SITE_SILENT,
            f"the source's site does not answer ({view.way.source.reason}), so the server that was started goes on; "
            "the rollback follows once the site answers, unless rollback is set back to false",
        )
    return None


def roll_back(view: View, draft: Draft, subject: Subject, record: FailoverRecord) -> None:
    """Stop the recovered server and keep its disks, lift the fence, and go back to the source."""
    # Replication is marked as stopped before the first launch: until then nothing can run at the other site, and a site
    # that burned before is not waited for.
    begun = not draft.ledger.replicating
    if begun and record.failback and isinstance(view.target, Unknown):
        # Nobody serves, and a person has asked for the source: it does not wait for a site that burned in the middle.
        draft.note(subject, _may_serve_there(view, view.target.reason))
    elif begun and not all_halted(view, draft, subject, record, keep=None):
        return
    source = view.way.source
    if view.way.exists != Known(value=False):
        if isinstance(source, Unknown):
            message = (
                "the server that was started is stopped; the source's fence is lifted once its site answers: "
                + source.reason
            )
            draft.note(subject, Notice(reasons.SITE_SILENT, message, stalled=False))
            return
        if source.value.fenced:
            draft.act(subject, verbs.Unfence())
            return
    match view.way.replica:
        case Known(replica) if replica.state in (ReplicaState.STOPPED, ReplicaState.ABSENT):
            pass
        case _:
            draft.act(subject, verbs.StopReplication(record.tip))
            return
    kept = tuple(machines.attempt_machines(draft.ledger, record))
    serves = isinstance(source, Known) and source.value.running
    message = "serves again" if serves else "is released but does not run: start it in its zone"
    notice = Notice(reasons.ROLLED_BACK, f"the server that was started is stopped and the source {message}")
    ledger = replace(
        back_to_source(draft.ledger, record, view.now),
        replicating=False,
        synced=False,
        rolled_back=True,
        leftovers=(*draft.ledger.leftovers, *kept),
    )
    attempts = tuple(replace(a, ended_at=a.ended_at or view.now) for a in record.attempts)
    draft.ledger = spend(ledger, view, record.name, FailoverPhase.ROLLED_BACK, notice, attempts)


def _may_serve_there(view: View, reason: str) -> Notice:
    message = (
        f"zone {view.target_site.zone} does not answer ({reason}), so the server that was started there may still be "
        "serving: stop it if you can reach it. The source is started all the same, and that one is stopped first thing "
        "when its zone answers"
    )
    return Notice(reasons.SITE_SILENT, message, stalled=False)


def committed_unseen() -> Notice:
    """Why a commit that was asked for before there was anything to look at is not carried out."""
    return Notice(
        reasons.COMMIT_TOO_EARLY,
        "commit was asked for before the server was there to be looked at, and its checks did not prove it; nothing is "
        "freed. Delete this Failover, which destroys nothing, and create another one without commit to go on",
    )


def commit(view: View, draft: Draft, subject: Subject, record: FailoverRecord) -> None:
    """Make the recovered server independent, then free the other attempts, the replica and the points."""
    found = known(view.way.machines)
    replica = known(view.way.replica)
    if found is None or replica is None:
        draft.note(subject, view.target_silent())
        return
    serving = machines.failover_machine(draft.ledger, record.attempts[-1].number)
    machine = found.get(serving)
    if machine is None or (not machine.independent and machine.state is not MachineState.RUNNING):
        machines.note_failed(view, draft, subject, serving)
        start_machine(draft, subject, record)
        return
    if not machine.independent:
        draft.act(subject, verbs.MakeIndependent(serving))
        return
    # Also the one whose disks the serving machine goes on with: the disks stay as long as a machine has them.
    others = [
        name
        for name in (*machines.attempt_machines(draft.ledger, record), *draft.ledger.leftovers)
        if name in found and name != serving
    ]
    for name in others:
        draft.act(subject, verbs.RemoveMachine(name))
    if others:
        return
    if _freeable(replica):
        draft.act(subject, verbs.ReleaseReplica())
        return
    notice = Notice(reasons.COMMITTED, "the recovered server is independent; replica and points are freed")
    phase = FailoverPhase.COMMITTED
    if record.failback:
        phase = FailoverPhase.COMPLETED
        message = f"served from zone {view.target_site.zone} again; {PROTECT_AGAIN}"
        notice = Notice(reasons.COMPLETED, message)
    to_stage(draft, record, FailoverStage.COMMITTED)
    forward = view.server.spec.replication.direction == Direction.FORWARD
    may_turn = forward and not record.failback
    # Those of the other site wait for the next copy: here they were removed.
    elsewhere = known(view.facts.way(view.direction.opposite).machines)
    left = tuple(n for n in draft.ledger.leftovers if n not in found and (elsewhere is None or n in elsewhere))
    ledger = replace(draft.ledger, replicating=False, synced=False, leftovers=left, may_turn=may_turn)
    draft.ledger = spend(ledger, view, record.name, phase, notice, record.attempts)


def release_rest(view: View, draft: Draft, subject: Subject) -> None:
    """Free the points that a drill still held at the commit, once it is cleared."""
    replica = known(view.way.replica)
    if replica is not None and _freeable(replica):
        draft.act(subject, verbs.ReleaseReplica())


def _freeable(replica: Replica) -> bool:
    """Whether anything is left of the replica that no drill's machine stands on."""
    if not replica.points:
        return replica.state is not ReplicaState.ABSENT
    return any(not point.used_by and not point.held for point in replica.points)
