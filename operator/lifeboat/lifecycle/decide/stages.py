"""Steps that more than one stage of a failover takes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from lifeboat.api.failover import FailoverPhase
from lifeboat.engines import verbs
from lifeboat.engines.facts import MachineState
from lifeboat.engines.ledger import (
    ActiveSite,
    Attempt,
    Direction,
    FailoverRecord,
    FailoverStage,
    Fence,
    Ledger,
    Spent,
)
from lifeboat.lifecycle import machines
from lifeboat.lifecycle.view import FAILOVER, Draft, Notice, Subject, View, known


def to_stage(draft: Draft, record: FailoverRecord, stage: FailoverStage, *attempts: Attempt) -> None:
    """Move the failover to a stage, with other attempts where some are given."""
    draft.ledger = replace(draft.ledger, failover=replace(record, stage=stage, attempts=attempts or record.attempts))


def start_machine(draft: Draft, subject: Subject, record: FailoverRecord) -> None:
    """Start the machine of the last attempt, on its own disks or on those that it goes on with."""
    attempt = record.attempts[-1]
    name = machines.failover_machine(draft.ledger, attempt.number)
    own = attempt.disks_of == attempt.number
    disks_of = None if own else machines.failover_machine(draft.ledger, attempt.disks_of)
    draft.act(subject, verbs.Launch(name, attempt.point, attempt.shape, disks_of))


def all_halted(view: View, draft: Draft, subject: Subject, record: FailoverRecord, *, keep: int | None) -> bool:
    """Whether no machine of this failover runs but that of attempt `keep`; stops those that do."""
    found = known(view.way.machines)
    if found is None:
        draft.note(subject, view.target_silent())
        return False
    halted = True
    for name, attempt in machines.attempt_machines(draft.ledger, record).items():
        machine = found.get(name)
        if attempt.number != keep and machine is not None and machine.state is not MachineState.HALTED:
            # Also what ended by itself: its owner must not take it for the server and start it again.
            draft.act(subject, verbs.Halt(name))
            halted = False
    return halted


def back_to_source(ledger: Ledger, record: FailoverRecord, now: datetime) -> Ledger:
    """The ledger once a failover was given up: the source serves. The original stays fenced after a failback."""
    return replace(
        ledger,
        failover=None,
        fence=Fence(ordered_at=now) if record.failback else None,
        active_site=ActiveSite.RECOVERY if record.failback else ActiveSite.PRIMARY,
    )


def leftovers_seen(view: View, ledger: Ledger) -> list[tuple[Direction, str]]:
    """The machines that earlier failovers left, each with the direction whose target zone it is seen in."""
    return [
        (direction, name)
        for direction in Direction
        for name in ledger.leftovers
        if name in (known(view.facts.way(direction).machines) or {})
    ]


def spend(
    ledger: Ledger,
    view: View,
    name: str,
    phase: FailoverPhase,
    notice: Notice,
    attempts: tuple[Attempt, ...] = (),
) -> Ledger:
    """The ledger once a failover of that name has ended."""
    spent = Spent(FAILOVER, name, phase.value, notice.reason, notice.message, view.now, attempts)
    return ledger.spend(spent)
