"""Turning round: the server that was recovered is registered at its site, and replicated the other way from there.

After a committed failover `direction: Reverse` turns to the way back; after a completed failback `direction: Forward`
turns to where everything began. Nothing else turns, so a spec left over from an earlier round does nothing.
"""

from __future__ import annotations

from dataclasses import replace

from lifeboat.engines import verbs
from lifeboat.engines.facts import Known, ReplicaState, Unknown
from lifeboat.engines.ledger import Direction, FailoverRecord, FailoverStage, Ledger
from lifeboat.lifecycle import machines, reasons
from lifeboat.lifecycle.view import Draft, Notice, View, known


def decide_turn(view: View, draft: Draft) -> None:
    """Turn where spec asks for it and everything is ready for it; see that the machine that serves is registered."""
    wanted, record = asked_direction(view), draft.ledger.failover
    if wanted is draft.ledger.direction:
        if _committed(record) and not draft.ledger.may_turn and wanted is Direction.FORWARD:
            draft.ledger = replace(draft.ledger, may_turn=True)
    elif notice := turn_refusal(view, draft.ledger):
        draft.note(view.subject, notice)
    else:
        draft.ledger = _turned(view, draft.ledger)
        return
    _register(view, draft)


def asked_direction(view: View) -> Direction:
    """The direction that spec asks for."""
    return Direction(view.server.spec.replication.direction.value)


def turn_refusal(view: View, ledger: Ledger) -> Notice | None:
    """Why the server cannot be registered for the other direction now; None where it can."""
    record = ledger.failover
    forward = ledger.direction is Direction.FORWARD
    if not _committed(record) or view.server.metadata.deletion_timestamp is not None:
        message = (
            "direction: Reverse is possible once a failover is committed; set direction: Forward until then"
            if forward
            else "direction: Forward is possible once a failback is completed: create a Failover with type: Failback, "
            "or set direction: Reverse"
        )
        return Notice(reasons.PHASE_DOES_NOT_ALLOW, message)
    if forward and not view.capabilities.reverse_replication:
        return Notice(reasons.NOT_SUPPORTED, "this engine does not replicate back; set direction: Forward")
    if forward and not ledger.may_turn:
        return Notice(
            reasons.PHASE_DOES_NOT_ALLOW,
            "direction: Reverse was there before the failover was committed, so it may be left over from earlier; set "
            "direction: Forward and then Reverse to replicate back now",
        )
    if ledger.drills:
        names = ", ".join(drill.name for drill in ledger.drills)
        return Notice(reasons.IN_USE, f"waiting for drills to be cleared: {names}", stalled=False)
    if notice := machines.not_serving(view, ledger):
        return notice
    server_id, recovery = view.server.spec.server_id, known(view.recovery)
    if forward and recovery is not None and server_id in recovery.servers:
        message = f"zone {recovery.zone} has a server {server_id} of its own, so the recovered one cannot be it as well"
        return Notice(reasons.IN_USE, f"{message}; give the other one another id in the zone's inventory")
    if isinstance(view.facts.forward.machines, Unknown):
        # A machine of this round that is not seen now would never be removed.
        message = f"the machines at the recovery site cannot be seen: {view.facts.forward.machines.reason}"
        return Notice(reasons.SITE_SILENT, message, stalled=False)
    match view.way.replica:
        case Known(replica) if replica.state is ReplicaState.ABSENT and not replica.points:
            return None
        case Known(_):
            return Notice(reasons.IN_PROGRESS, "what is left of the replica is being freed", stalled=False)
        case Unknown(reason):
            return view.target_silent(reason)


def _committed(record: FailoverRecord | None) -> bool:
    return record is not None and record.stage is FailoverStage.COMMITTED


def _turned(view: View, ledger: Ledger) -> Ledger:
    """The ledger with the other direction: the recovered server is the source from here on."""
    record = ledger.failover
    assert record is not None  # noqa: S101 - nothing turns without one
    serving = machines.failover_machine(ledger, record.attempts[-1].number)
    return replace(
        ledger,
        direction=ledger.direction.opposite,
        registered=serving,
        failover=None,
        initialized=False,
        replicating=False,
        synced=False,
        resyncs=0,
        first_point=None,
        full_copy_reason="",
        rolled_back=False,
        may_turn=False,
        onto_original=False,
        tested={},
        leftovers=_superseded(view, serving) if record.failback else ledger.leftovers,
    )


def _superseded(view: View, serving: str) -> tuple[str, ...]:
    """The machines of the round that ends: their disks stay until the server is protected again."""
    found = (known(way.machines) or {} for way in (view.facts.forward, view.facts.reverse))
    return tuple(sorted(name for each in found for name in each if machines.was_launched(name) and name != serving))


def _register(view: View, draft: Draft) -> None:
    registered = draft.ledger.registered
    if registered is None or draft.ledger != draft.before:
        return
    match view.way.source, view.way.exists:
        case Known(source), _ if source.machine == registered:
            pass
        case Unknown(reason), exists if exists != Known(value=False):
            draft.note(view.subject, Notice(reasons.SITE_SILENT, f"the server cannot be seen: {reason}", stalled=False))
        case _:
            draft.act(view.subject, verbs.Register(registered))
