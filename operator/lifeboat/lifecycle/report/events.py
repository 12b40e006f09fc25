"""Events: told on transitions, found by holding the new status against the one last written."""

from __future__ import annotations

from collections.abc import Iterable

from lifeboat.api.common import Condition
from lifeboat.lifecycle.conditions import READY, STALLED, find
from lifeboat.lifecycle.report.values import Event
from lifeboat.lifecycle.view import Subject

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
