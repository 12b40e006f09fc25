"""Points and the layers under them: one instant for all disks, pruning that changes nothing else, and crashes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest

from lifeboat.engines.contract import NoSpace, Refused
from lifeboat.engines.facts import ReplicaState
from lifeboat.engines.qemu import layers, storage_daemon
from lifeboat.engines.qemu.records import Layer, load_replica
from lifeboat.engines.qemu.zones import Zones
from lifeboat.engines.verbs import (
    Continue,
    Halt,
    MakeIndependent,
    PrunePoints,
    ReleaseReplica,
    RemoveMachine,
    StopReplication,
    TakePoint,
)
from lifeboat.host import machine, processes
from tests.engines.qemu.conftest import MIB, SERVER, World, reads


async def grow(world: World, count: int) -> None:
    """Points 1 to count, each with its number at 0 and at its own place, on both disks."""
    await world.replicate()
    for number in range(1, count + 1):
        for disk in (0, 1):
            await world.write(disk, number, "0")
            await world.write(disk, number, f"{number}M")
        await world.perform(TakePoint(f"point-{number}"))


async def check(world: World, number: int) -> None:
    """A point holds its own number at 0, and each earlier one's at its place."""
    name = f"drill-{number}"
    await world.launch(name, f"point-{number}")
    for disk in (0, 1):
        assert await world.holds(name, disk, number, "0"), (number, disk)
        for earlier in range(1, number + 1):
            assert await world.holds(name, disk, earlier, f"{earlier}M"), (number, disk, earlier)
        assert await world.holds(name, disk, 0, f"{number + 1}M"), (number, disk, "what came later")
    await world.perform(RemoveMachine(name))


def layer_count(world: World) -> int:
    record = load_replica(Zones(world.folder).zone("zone-b"), SERVER)
    assert record is not None
    files = list((world.b / "storage" / "replicas" / SERVER).glob("*.qcow2"))
    assert len(files) == 2 * len(record.layers)
    return len(record.layers)


async def test_pruning_keeps_what_every_other_point_holds(world: World) -> None:
    await grow(world, 6)
    going = PrunePoints(("point-1", "point-2", "point-4"))
    await world.perform(going)
    assert await world.points() == ["point-3", "point-5", "point-6"]

    async def merged() -> bool:
        await world.perform(going)
        return layer_count(world) == 4

    await world.until(merged)
    for number in (3, 5, 6):
        await check(world, number)
    await world.write(0, 9, "0")
    assert (await world.reaches(ReplicaState.SYNCED)).points[-1].name == "point-6"
    await world.perform(StopReplication(freeze_as="tip"))
    await world.launch("tip", "tip")
    assert await world.holds("tip", 0, 9, "0")
    for number in (3, 5, 6):
        await check(world, number)


async def test_what_a_machine_stands_on_is_held_and_later_points_are_not(world: World) -> None:
    await grow(world, 5)
    await world.launch("drill", "point-2")
    points = {point.name: point for point in (await world.replica()).points}
    assert {name for name, point in points.items() if point.held} == {"point-1", "point-2"}
    assert points["point-2"].used_by == ("drill",)
    names = tuple(points)
    await world.perform(PrunePoints(names))
    assert await world.points() == ["point-1", "point-2"]
    await world.perform(TakePoint("point-6"), Halt("drill"), PrunePoints(names))
    assert await world.points() == ["point-1", "point-2", "point-6"]
    assert await world.holds("drill", 1, 2, "2M")
    await world.perform(RemoveMachine("drill"), PrunePoints(names))
    assert await world.points() == ["point-6"]

    async def merged() -> bool:
        await world.perform(PrunePoints(names))
        return layer_count(world) == 2

    await world.until(merged)


async def test_a_launch_in_the_middle_of_a_merge_gets_the_right_content(world: World) -> None:
    await world.replicate()
    await world.write(0, 1, "0", "96M")
    await world.perform(TakePoint("point-1"))
    await world.write(0, 2, "0", "64M")
    await world.perform(TakePoint("point-2"))
    await world.write(0, 3, "0", "32M")
    await world.perform(TakePoint("point-3"))
    await world.perform(PrunePoints(("point-1",)))
    await world.launch("drill", "point-2")
    assert await world.holds("drill", 0, 2, "0", "64M")
    assert await world.holds("drill", 0, 1, "64M", "32M")
    await world.perform(RemoveMachine("drill"))
    await world.launch("drill", "point-3")
    assert await world.holds("drill", 0, 3, "0", "32M")
    assert await world.holds("drill", 0, 2, "32M", "32M")


async def test_a_killed_daemon_in_the_middle_of_a_merge_loses_nothing(world: World) -> None:
    await grow(world, 3)
    await world.perform(PrunePoints(("point-1",)))
    await world.kill_daemon()
    await world.perform(TakePoint("point-4"))
    assert await world.points() == ["point-2", "point-3", "point-4"]
    for number in (2, 3):
        await check(world, number)

    async def merged() -> bool:
        await world.perform(PrunePoints(("point-1",)))
        return layer_count(world) == 4

    await world.until(merged)
    for number in (2, 3):
        await check(world, number)


async def test_the_points_of_an_old_run_go_with_their_chain(world: World) -> None:
    await grow(world, 2)
    await world.perform(StopReplication())
    await world.replicate(run=2)
    await world.perform(TakePoint("new"))
    assert await world.points() == ["point-1", "point-2", "new"]
    await check(world, 1)
    await world.perform(PrunePoints(("point-1",)))
    await check(world, 2)
    await world.perform(PrunePoints(("point-2",)))
    assert await world.points() == ["new"]
    assert layer_count(world) == 2


async def test_disks_of_a_point_are_of_one_instant(world: World) -> None:
    await world.replicate()
    ended = asyncio.Event()

    async def alternate() -> int:
        number = 0
        while not ended.is_set():
            number += 1
            # Each write waits for the one before: the second disk never has a number that the first lacks.
            for disk in (0, 1):
                await world.write(disk, number % 250 + 1, f"{number}M", "4k")
        return number

    async with asyncio.TaskGroup() as group:
        writer = group.create_task(alternate())
        for number in range(5):
            await world.perform(TakePoint(f"point-{number}"))
            await asyncio.sleep(0.05)
        ended.set()
    assert writer.result() > 5
    for number in range(5):
        await world.launch(f"drill-{number}", f"point-{number}")
        count = [0, 0]
        for disk in (0, 1):
            while await world.holds(f"drill-{number}", disk, (count[disk] + 1) % 250 + 1, f"{count[disk] + 1}M", "4k"):
                count[disk] += 1
        assert count[0] - count[1] in {0, 1}, count


class Crash(BaseException):
    """The operator's death, which nothing catches."""


@contextlib.contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, module: object, name: str, *, after: bool) -> Iterator[None]:
    """Let the operator die before or after a step."""
    step = getattr(module, name)

    async def die(*args: object, **named: object) -> None:
        if after:
            await step(*args, **named)
        raise Crash

    def die_at_once(*args: object, **named: object) -> None:
        if after:
            step(*args, **named)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(module, name, die if asyncio.iscoroutinefunction(step) else die_at_once)
        with pytest.raises(Crash):
            yield


@pytest.mark.parametrize("daemon_dies", [False, True])
@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize(
    ("step", "after"),
    [("create_files", True), ("prepare", True), ("insert", True), ("inserted", False), ("inserted", True)],
)
async def test_a_point_whose_operator_died_is_taken_once(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str, *, after: bool, daemon_dies: bool, written: bool
) -> None:
    await world.write(0, 1, "0")
    await world.replicate()
    with dying(monkeypatch, layers, step, after=after):
        await world.perform(TakePoint("point-1"))
    if written:
        await world.write(0, 2, "1M")
    if daemon_dies:
        await world.kill_daemon()
    await world.new_engine()
    await world.perform(TakePoint("point-1"))
    assert await world.points() == ["point-1"]
    await world.perform(TakePoint("point-2"))
    assert layer_count(world) == 3
    await world.launch("one", "point-1")
    assert await world.holds("one", 0, 1, "0")
    await world.launch("two", "point-2")
    assert await world.holds("two", 0, 1, "0")
    assert not written or await world.holds("two", 0, 2, "1M")
    if step in {"insert", "inserted"}:
        assert await world.holds("one", 0, 0, "1M"), "what came after the instant is not in the point"


async def test_two_fresh_engines_see_the_same_points(world: World) -> None:
    await grow(world, 2)
    before = (await world.replica()).points
    await world.new_engine()
    assert (await world.replica()).points == before
    await world.perform(TakePoint("point-2"))
    assert (await world.replica()).points == before


async def test_an_independent_machine_needs_no_point(world: World) -> None:
    await grow(world, 2)
    await world.perform(StopReplication(freeze_as="tip"))
    await world.launch("machine", "tip", isolated=False)
    await world.launch("drill", "point-1")
    assert not (await world.machines())["machine"].independent
    await world.perform(MakeIndependent("machine"))

    async def independent() -> bool:
        return (await world.machines())["machine"].independent

    await world.until(independent)
    await world.perform(ReleaseReplica())
    replica = await world.replica()
    assert replica.state is ReplicaState.ABSENT
    assert [point.name for point in replica.points] == ["point-1"]
    assert await world.holds("machine", 1, 2, "2M")
    assert await world.holds("drill", 1, 1, "1M")
    await world.perform(RemoveMachine("drill"))
    assert (await world.replica()).points == ()
    assert not (world.b / "storage" / "replicas" / SERVER).exists()
    await world.perform(Halt("machine"), ReleaseReplica())
    assert reads(world.overlay("machine", 0), 2, "2M")


async def test_a_machine_killed_once_it_is_independent_has_everything(world: World) -> None:
    await world.write(0, 1, "0", "64M")
    await world.write(1, 2, "200M", "64M")
    await world.replicate()
    await world.perform(StopReplication(freeze_as="tip"))
    await world.launch("machine", "tip")
    await world.perform(MakeIndependent("machine"), MakeIndependent("machine"))

    async def independent() -> bool:
        return (await world.machines())["machine"].independent

    await world.until(independent)
    await processes.kill(world.b / "machines" / SERVER / "machine" / machine.PID)
    await world.perform(ReleaseReplica())
    assert await world.holds("machine", 0, 1, "0", "64M")
    assert await world.holds("machine", 1, 2, "200M", "64M")
    assert (await world.launch("machine", "tip")).independent


async def test_a_machine_that_runs_out_of_space_becoming_independent_says_so_and_goes_on(full_world: World) -> None:
    world = full_world
    await world.write(0, 1, "0", "24M")
    await world.replicate()
    await world.perform(StopReplication(freeze_as="tip"))
    await world.launch("machine", "tip")
    filler = world.storage / "filler"
    free = shutil.disk_usage(world.storage).free
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - 4 * MIB)
    await world.perform(MakeIndependent("machine"))

    said = []

    async def told() -> bool:
        try:
            await world.perform(MakeIndependent("machine"))
        except NoSpace as error:
            said.append(str(error))
        return bool(said)

    await world.until(told)
    assert said == ["the disk of zone zone-b is full: machine machine cannot take over its data"]
    assert not (await world.machines())["machine"].independent
    filler.unlink()
    await world.perform(Continue("machine"))

    async def independent() -> bool:
        with contextlib.suppress(NoSpace):
            await world.perform(MakeIndependent("machine"))
        return (await world.machines())["machine"].independent

    await world.until(independent)
    assert await world.holds("machine", 0, 1, "0", "24M")


async def test_an_engine_that_comes_later_finishes_what_another_one_began(world: World) -> None:
    await world.write(0, 1, "0", "16M")
    await world.replicate()
    await world.perform(StopReplication(freeze_as="tip"))
    await world.launch("machine", "tip")
    await world.perform(MakeIndependent("machine"))
    await world.new_engine()

    async def independent() -> bool:
        return (await world.machines())["machine"].independent

    await world.until(independent)


async def test_released_while_copying_stops_first(world: World) -> None:
    await grow(world, 1)
    await world.perform(ReleaseReplica(), ReleaseReplica())
    assert (await world.replica()).state is ReplicaState.ABSENT
    assert world.daemon() is None
    await world.write(0, 1, "0")
    await world.replicate(run=2)


async def test_a_layer_whose_files_were_being_made_is_not_left_when_the_replica_is_released(world: World) -> None:
    await grow(world, 1)
    zone = Zones(world.folder).zone("zone-b")
    record = load_replica(zone, SERVER)
    assert record is not None
    assert record.tip is not None
    begun = Layer(number=record.next_layer, disks=tuple(disk.name for disk in record.disks))
    await layers.create_files(zone, record, begun, record.layer(record.tip))
    await world.perform(ReleaseReplica())
    assert not list(zone.tier(use_ssd=False).glob(f"replicas/{SERVER}/*"))


async def test_nothing_is_frozen_twice_or_taken_when_stopped(world: World) -> None:
    await grow(world, 1)
    await world.perform(StopReplication(freeze_as="tip"))
    with pytest.raises(Refused):
        await world.perform(StopReplication(freeze_as="another"))
    with pytest.raises(Refused):
        await world.perform(TakePoint("late"))
    assert await world.points() == ["point-1", "tip"]


def test_node_names_stay_short() -> None:
    assert len(storage_daemon.node(15, Layer(number=99_999_999, disks=("x",)))) < 32
