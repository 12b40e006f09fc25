"""From a running server to a recovered one, and away again, on real QEMU."""

from __future__ import annotations

from lifeboat.engines.facts import MachineState, ReplicaState
from lifeboat.engines.verbs import Halt, ReleaseReplica, RemoveMachine, StopReplication, TakePoint
from tests.engines.qemu.conftest import World


async def test_a_server_is_copied_frozen_launched_halted_and_removed(world: World) -> None:
    await world.write(0, 1, "0")
    await world.write(1, 2, "400M")
    await world.replicate()
    await world.write(0, 3, "64k")
    await world.perform(TakePoint("point-1"))
    await world.write(0, 4, "64k")
    await world.perform(StopReplication(freeze_as="tip"))
    assert await world.points() == ["point-1", "tip"]
    machine = await world.launch("drill", "point-1")
    assert machine.state is MachineState.RUNNING
    assert await world.holds("drill", 0, 1, "0")
    assert await world.holds("drill", 0, 3, "64k")
    assert await world.holds("drill", 1, 2, "400M")
    await world.launch("machine", "tip")
    assert await world.holds("machine", 0, 4, "64k")
    await world.perform(Halt("drill"))
    assert (await world.machines())["drill"].state is MachineState.HALTED
    await world.perform(RemoveMachine("drill"), RemoveMachine("machine"), ReleaseReplica())
    assert (await world.replica()).state is ReplicaState.ABSENT
    assert await world.machines() == {}
    assert not list((world.b / "storage").rglob("*.qcow2"))
