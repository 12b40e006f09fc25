"""A launch that was cut short: what it left is seen and can be cleared, and it stands in nobody's way for good."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from lifeboat.engines.facts import MachineState
from lifeboat.engines.ledger import Ledger
from lifeboat.engines.qemu.records import Layer, MachineRecord, PointRecord, ReplicaRecord, save_machine, save_replica
from lifeboat.engines.qemu.zones import Zones
from lifeboat.engines.verbs import ReleaseReplica, RemoveMachine
from tests.engines.qemu.conftest import SERVER, World, known


async def test_what_a_launch_left_that_got_nowhere_is_seen_and_removed(tmp_path: Path) -> None:
    world = World(tmp_path)
    zone = Zones(tmp_path).zone("zone-b")
    point = PointRecord(name="tip-1", time=datetime(2026, 1, 1, tzinfo=UTC))
    layers = (Layer(number=1, disks=("system",), base=True, point=point),)
    save_replica(zone, ReplicaRecord(server_id=SERVER, cpu=1, memory_bytes=1, disks=(), layers=layers, next_layer=2))
    save_machine(
        zone,
        MachineRecord(
            name="failover-1-1", server_id=SERVER, point="tip-1", layer=1, disks_owner="failover-1-1",
            disks=("system",), cpu=1, memory_bytes=1 << 20, network="app", address="10.2.0.5",
        ),
    )  # fmt: skip
    await world.engine.record(world.target, Ledger(SERVER))
    await world.perform(ReleaseReplica())
    assert [held.used_by for held in (await world.replica()).points] == [("failover-1-1",)]
    assert (await world.machines())["failover-1-1"].state is MachineState.HALTED
    await world.perform(RemoveMachine("failover-1-1"))
    assert await world.machines() == {}
    assert (await world.replica()).points == ()
    site = known((await world.engine.observe(world.pair, [SERVER])).recovery)
    assert "10.2.0.5" not in site.network("app").taken
