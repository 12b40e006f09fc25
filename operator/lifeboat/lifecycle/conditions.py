"""Conditions as kstatus reads them: Ready from the start, Reconciling and Stalled true only when something is amiss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from lifeboat.api.common import Condition
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.view import Notice

READY = "Ready"
RECONCILING = "Reconciling"
STALLED = "Stalled"

Status = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class State:
    """What a condition says."""

    status: Status
    reason: str
    message: str = ""


def readiness(ready: bool, notice: Notice | None, reason: str, message: str) -> dict[str, State]:
    """Ready, Reconciling and Stalled together: they never contradict each other.

    Ready where what spec asks holds and nothing is to be said against it; else stalled where it needs a person, and
    reconciling where it goes on by itself.
    """
    if ready and notice is None:
        return {
            READY: State("True", reason, message),
            RECONCILING: State("False", reason, message),
            STALLED: State("False", reason, message),
        }
    why = notice or Notice(reason, message, stalled=False)
    stalled = why.stalled
    return {
        READY: State("False", why.reason, why.message),
        RECONCILING: State("False" if stalled else "True", why.reason, why.message),
        STALLED: State("True" if stalled else "False", why.reason, why.message),
    }


def conditions(
    states: Mapping[str, State], before: Iterable[Condition], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The conditions to write, sorted by type; the time of the last transition stays where the status stays."""
    last = {condition.type: condition for condition in before}
    written = []
    for name, state in sorted(states.items()):
        earlier = last.get(name)
        kept = earlier is not None and earlier.status == state.status
        written.append(
            Condition(
                type=name,
                status=state.status,
                observed_generation=generation,
                last_transition_time=earlier.last_transition_time if earlier is not None and kept else now,
                reason=state.reason,
                message=state.message,
            )
        )
    return tuple(written)


def refused(notice: Notice) -> dict[str, State]:
    """The conditions of an object that is refused, or waits, before anything was done."""
    return readiness(ready=False, notice=notice, reason=reasons.NOT_YET, message=notice.message)


def find(before: Iterable[Condition], name: str) -> Condition | None:
    """The condition of that type."""
    return next((condition for condition in before if condition.type == name), None)
