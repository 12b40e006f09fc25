"""Machines that ran into a full disk: they stand still, lose nothing, and wait for room."""

from __future__ import annotations

from lifeboat.engines import verbs
from lifeboat.engines.facts import MachineState
from lifeboat.engines.ledger import Direction
from lifeboat.lifecycle import machines
from lifeboat.lifecycle.view import DRILL, FAILOVER, Draft, Subject, View, known


def decide_space(view: View, draft: Draft) -> None:
    """Let every machine go on that stands still since its site's disk was full, as soon as there is room again."""
    failover = draft.before.failover
    subjects = {machines.drill_machine(drill.name): Subject(DRILL, drill.name) for drill in draft.before.drills}
    if failover is not None:
        subjects |= dict.fromkeys(machines.attempt_machines(draft.before, failover), Subject(FAILOVER, failover.name))
    for direction in Direction:
        for machine in (known(view.facts.way(direction).machines) or {}).values():
            if machine.state is MachineState.RUNNING and machine.out_of_space:
                draft.act(subjects.get(machine.name, view.subject), verbs.Continue(machine.name), direction)
