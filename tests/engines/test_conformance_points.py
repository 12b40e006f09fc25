"""The engine contract in code: recovery points, what they hold and when they go."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest

from lifeboat.engines.contract import NoSpace, Refused
from lifeboat.engines.facts import ReplicaState
from lifeboat.engines.verbs import Launch, PrunePoints, RemoveMachine, TakePoint
from tests.engines.harness import Harness, Stage, known


async def test_taking_a_point_twice_makes_one(stage: Stage, harness: Harness) -> None:
    await stage.replicate()
    await harness.write(1)
    await stage.perform(TakePoint("point-1"))
    before = (await stage.replica()).points
    await harness.restart_engine()
    await harness.write(2)
    await stage.pause()
    await stage.perform(TakePoint("point-1"))
    assert (await stage.replica()).points == before
    assert [point.name for point in before] == ["point-1"]
    assert before[0].time.utcoffset() == timedelta(), "times are in UTC"
    assert (await stage.replica()).state is ReplicaState.SYNCED
    await stage.launch("drill", "point-1", stage.shape(isolated=True))
    assert await harness.contents("drill") == 1


async def test_the_disks_of_a_point_are_of_one_instant(stage: Stage, harness: Harness) -> None:
    await stage.replicate()
    names = [f"point-{number}" for number in range(4)]
    async with harness.alternating():
        for name in names:
            await stage.perform(TakePoint(name))
    for name in names[1:]:
        await stage.launch("drill", name, stage.shape(isolated=True))
        assert await harness.disks_agree("drill")
        await stage.perform(RemoveMachine("drill"))
        await harness.settle(lambda facts: "drill" not in known(facts.machines))


@pytest.mark.guest
async def test_an_application_consistent_point_says_so(stage: Stage, harness: Harness) -> None:
    await stage.replicate()
    await harness.settle(lambda facts: known(facts.source).agent_connected)
    if not harness.engine.capabilities.application_consistent_points:
        await stage.refuses(TakePoint("point-1", application_consistent=True))
        return
    await stage.take_frozen("point-1")
    await stage.perform(TakePoint("point-2"))
    assert [point.application_consistent for point in (await stage.replica()).points] == [True, False]
    await harness.write(1)


async def test_pruning_removes_points_and_keeps_what_the_others_hold(stage: Stage, harness: Harness) -> None:
    await stage.replicate()
    for number in (1, 2, 3, 4):
        await harness.write(number)
        await stage.perform(TakePoint(f"point-{number}"))
    prune = PrunePoints(("point-1", "point-3"))
    await stage.perform(prune)
    await stage.perform(prune)
    await harness.settle(lambda facts: {"point-2", "point-4"} == {point.name for point in known(facts.replica).points})
    for number in (2, 4):
        await stage.launch(f"drill-{number}", f"point-{number}", stage.shape(isolated=True))
        assert await harness.contents(f"drill-{number}") == number
    await stage.refuses(Launch("drill-1", "point-1", stage.shape(isolated=True)))


async def test_a_point_in_use_is_not_pruned(stage: Stage, harness: Harness) -> None:
    await stage.replicate()
    await harness.write(1)
    await stage.perform(TakePoint("point-1"))
    await stage.launch("drill", "point-1", stage.shape(isolated=True))
    point = (await stage.replica()).points[0]
    assert point.held
    assert point.used_by == ("drill",)
    with contextlib.suppress(Refused):
        await stage.perform(PrunePoints(("point-1",)))
    assert await stage.points() == ["point-1"]
    assert await harness.contents("drill") == 1
    await stage.perform(RemoveMachine("drill"))
    await harness.settle(lambda facts: not known(facts.replica).points[0].held)
    await stage.perform(TakePoint("point-2"), PrunePoints(("point-1",)))
    await harness.settle(lambda facts: [point.name for point in known(facts.replica).points] == ["point-2"])


async def test_old_points_stay_while_a_full_zone_refuses_new_ones(stage: Stage, harness: Harness) -> None:
    await stage.replicate()
    await stage.perform(TakePoint("point-1"))
    await harness.fill_recovery()
    with pytest.raises(NoSpace):
        await stage.perform(TakePoint("point-2"))
    assert await stage.points() == ["point-1"]
