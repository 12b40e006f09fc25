"""Events: told on transitions, found by holding the new status against the one last written.

What broke and is mended within one pass makes no transition that anybody would see, so the step that mends it tells.
"""

from __future__ import annotations

from collections.abc import Iterable

from lifeboat.api.common import Condition
from lifeboat.engines.facts import MachineState, ReplicaState
from lifeboat.engines.verbs import Launch, ResumeReplication
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.conditions import READY, STALLED, find
from lifeboat.lifecycle.report.values import Event
from lifeboat.lifecycle.view import Action, Subject, View, known

PENDING = "Pending"
_ALARMING = {"Interrupted", "ReverseInterrupted", "Failed"}


def transitions(
    subject: Subject,
    phases: tuple[str | None, str | None],
    before: Iterable[Condition],
    after: Iterable[Condition],
) -> tuple[Event, ...]:
    """The events of one object: a new phase, and a new reason why it is not as asked."""
    old_ready, new_ready = find(before, READY), find(after, READY)
    new_stalled = find(after, STALLED)
    if new_ready is None or new_stalled is None:
        return ()
    told = []
    old, new = phases
    # Pending is not news; why it is pending is.
    if new is not None and new not in (old, PENDING):
        told.append(Event(subject, new, new_ready.message or new, warning=new in _ALARMING))
    stalled = new_stalled.status == "True"
    same = old_ready is not None and (old_ready.reason, old_ready.message) == (new_ready.reason, new_ready.message)
    refused = new_ready.status != "True" and (stalled or new == PENDING)
    if refused and not same:
        told.append(Event(subject, new_ready.reason, new_ready.message, warning=True))
    return tuple(told)


def mended(view: View, action: Action) -> Event | None:
    """What broke by itself and was put right by this step, which has just been done; None where nothing had broken."""
    way = view.facts.way(action.direction)
    match action.step:
        case Launch(name):
            machine = (known(way.machines) or {}).get(name)
            if machine is not None and machine.state is MachineState.FAILED:
                message = f"the server stopped by itself{_because(machine.reason)}; it was started again"
                return Event(action.subject, reasons.MACHINE_STOPPED, message, warning=True)
        case ResumeReplication():
            replica = known(way.replica)
            told = view.server.status.phase in _ALARMING
            if replica is not None and replica.state is ReplicaState.INTERRUPTED and not told:
                message = f"replication was interrupted{_because(replica.reason)}; it goes on"
                return Event(action.subject, reasons.INTERRUPTED, message, warning=True)
        case _:
            pass
    return None


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
