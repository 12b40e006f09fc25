"""Each cell of the matrix, on real machines. See matrix.py."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from lifeboat.api.protectedserver import ProtectedServerPhase as Phase
from lifeboat.lifecycle.phases import TRANSITIONS
from tests.faults.faultworld import Base, FaultWorld
from tests.faults.figures import Figures
from tests.faults.matrix import Cell, cells
from tests.faults.watcher import Told

pytestmark = [pytest.mark.timeout(600), pytest.mark.qemu]

STALL_SECONDS = 5.0  # the engine's own tests hold it to one; here machines share the processors with the measuring
INTERRUPTED_SECONDS = 20.0  # likewise, for five
TOLD_SECONDS = 60.0
INTERRUPTED = {Phase.INTERRUPTED, Phase.REVERSE_INTERRUPTED}
PASSED_OVER = 3  # phases that were over before they were told


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everything = metafunc.config.getoption("--matrix", default=False)
    chosen = [cell for cell in cells() if everything or cell.always]
    metafunc.parametrize("cell", [pytest.param(cell, id=cell.name) for cell in chosen])


def test_cell(cell: Cell, world: FaultWorld, request: pytest.FixtureRequest) -> None:
    if cell.fault.name == "disk-full" and not world.tmpfs:
        pytest.skip("only root can give zone-b a small file system of its own")
    figures = Figures(cell.name)
    try:
        _suffers(cell, world, figures)
    finally:
        figures.acknowledged, figures.lost = len(world.judged), len(world.lost) if world.judged else None
        figures.stall = world.writer.stall
        figures.attach(request.node)


def _suffers(cell: Cell, world: FaultWorld, figures: Figures) -> None:
    """Bring the server to the cell's phase, let the fault strike, and judge what comes of it."""
    world.ensure(cell.row.base)
    cell.row.enter(world)
    world.base = Base.NONE
    began, promised = world.begin_cell(), world.writer.numbers()
    cell.fault.strike(world)
    world.release()
    figures.said = explained(cell, world, began)
    if cell.fault.heal is not None:
        if not cell.words:
            # Where there is nothing to tell, it lasts until the operator has looked.
            world.ask_operator()
        cell.fault.heal(world)
    world.ask_operator()
    if cell.runs_ahead:
        world.writer.pause()
        world.writer.keep(promised)
    if cell.code == "person":
        assert cell.row.cure is not None
        cell.row.cure(world)
    else:
        cell.row.settle(world)
    figures.seconds = time.monotonic() - began
    figures.end = str(world.watcher.since(0.0, cell.row.tells)[-1].phase)
    told = world.told()
    if cell.code == "resync":
        figures.interrupted = next(each.at for each in told if each.phase in INTERRUPTED) - began
        # A disk that is full is noticed when something is written that needs room.
        assert figures.interrupted < INTERRUPTED_SECONDS or cell.fault.name == "disk-full"
    if not cell.stops_serving:
        assert world.writer.stall < STALL_SECONDS
    impossible = [f"{a} to {b}" for a, b in _phases(world, began) if not _may_follow(a, b)]
    assert impossible == []
    assert world.left_behind() == []
    world.base = cell.row.ends


def explained(cell: Cell, world: FaultWorld, since: float) -> str:
    """The sentence that says what happened; an assertion where nobody was told."""
    if not cell.words:
        return ""

    def explains(told: Told) -> bool:
        text = f"{told.message} {' '.join(message for _, _, message in told.conditions.values())}"
        return all(word in text for word in cell.words)

    found = world.until_told(explains, since, TOLD_SECONDS)
    said = "\n".join(f"{each.kind} {each.phase}: {each.message}" for each in world.watcher.since(since))
    assert found is not None, f"nothing says {cell.words}, but:\n{said}"
    return f"{found.kind} {found.phase}: {found.message}"


def _phases(world: FaultWorld, since: float) -> list[tuple[Phase, Phase]]:
    told = [Phase(each.phase) for each in world.watcher.since(since, "ps") if each.name == world.server and each.phase]
    return [(a, b) for a, b in pairwise(told) if a is not b]


def _may_follow(before: Phase, after: Phase) -> bool:
    """Whether a phase may be told after another: not each one that passes is told, so some may lie between."""
    reached = {before}
    for _ in range(PASSED_OVER):
        reached = {phase for each in reached for phase in TRANSITIONS[each]}
        if after in reached:
            return True
    return False
