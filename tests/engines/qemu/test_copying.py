"""The copy and its interruptions: what is copied, what a resync copies, what stands still and what does not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import time
from datetime import UTC, datetime, timedelta

import pytest

from lifeboat.engines.contract import NoSpace, Refused, Retry
from lifeboat.engines.facts import ReplicaState
from lifeboat.engines.qemu import lines, mirror
from lifeboat.engines.qemu.records import layer_file, load_replica, save_replica
from lifeboat.engines.qemu.zones import Zones
from lifeboat.engines.verbs import LimitBandwidth, ResumeReplication, StopReplication, TakePoint
from lifeboat.host import machine, processes
from tests.engines.qemu.conftest import MIB, SERVER, World, reads, run


async def test_only_what_holds_data_is_copied(world: World) -> None:
    await world.write(0, 1, "100M", "8M")
    await world.write(1, 2, "400M", "24M")
    replica = await world.replicate()
    assert replica.copied_bytes == replica.total_bytes == 32 * MIB
    assert replica.lag_seconds == 0.0
    assert replica.run == 1
    on_disk = sum(path.stat().st_blocks * 512 for path in (world.b / "storage").rglob("*.qcow2"))
    assert on_disk < 40 * MIB


async def test_a_new_run_hides_what_the_old_one_held_and_keeps_its_points(world: World) -> None:
    await world.write(0, 1, "0")
    await world.replicate()
    await world.perform(TakePoint("old"))
    await world.io(world.source, 0, "write -z -u 0 64k")
    await world.perform(StopReplication())
    await world.replicate(run=2)
    await world.perform(TakePoint("new"))
    await world.launch("old", "old")
    await world.launch("new", "new")
    assert await world.holds("old", 0, 1, "0")
    assert await world.holds("new", 0, 0, "0")


async def test_a_start_that_was_cut_off_leaves_nothing_of_what_it_had_copied(world: World) -> None:
    await world.write(0, 1, "0", "1M")
    await world.replicate()
    await world.kill_daemon()
    zone = Zones(world.folder).zone("zone-b")
    record = load_replica(zone, SERVER)
    assert record is not None
    assert record.tip is not None
    save_replica(zone, record.model_copy(update={"mirrored": False, "synced": False}))
    # As if the source had held this while it was copied, and had let go of it since.
    leftover = layer_file(zone, record, record.layer(record.tip), 0)
    await run("qemu-io", "-f", "qcow2", "-c", "write -q -P 9 200M 64k", str(leftover))
    await world.replicate()
    await world.perform(TakePoint("point"))
    await world.launch("look", "point")
    assert await world.holds("look", 0, 1, "0", "1M")
    assert await world.holds("look", 0, 0, "200M")


async def test_a_limit_holds_for_all_disks_together_and_can_be_lifted(world: World) -> None:
    await world.write(0, 1, "0", "16M")
    await world.write(1, 1, "0", "16M")
    await world.copy(limit=2 * MIB)
    replica = await world.reaches(ReplicaState.COPYING)
    assert replica.bandwidth_limit == 2 * MIB
    began, at_first = time.monotonic(), replica.copied_bytes
    later = await world.until(lambda: _copied(world, at_first + 2 * MIB))
    assert (later - at_first) / (time.monotonic() - began) < 6 * MIB
    await world.perform(LimitBandwidth(None))
    assert (await world.reaches(ReplicaState.SYNCED)).bandwidth_limit is None


async def _copied(world: World, wanted: int) -> int | None:
    copied = (await world.replica()).copied_bytes
    return copied if copied >= wanted else None


async def test_another_engine_finds_the_copy_and_does_not_start_it_again(world: World) -> None:
    await world.write(0, 1, "0", "16M")
    await world.copy(limit=2 * MIB)
    await world.reaches(ReplicaState.COPYING)
    daemon = world.daemon()
    await world.new_engine()
    before = (await world.replica()).copied_bytes
    await world.copy(limit=2 * MIB)
    assert world.daemon() == daemon
    assert (await world.replica()).copied_bytes >= before
    await world.perform(LimitBandwidth(None))
    await world.reaches(ReplicaState.SYNCED)


async def test_a_killed_replica_is_resumed_with_only_what_changed(world: World) -> None:
    await world.write(0, 1, "0", "64M")
    await world.write(1, 1, "0", "64M")
    await world.replicate()
    await world.kill_daemon()
    for number in range(2, 7):
        await world.write(0, number, f"{number}M", "1M")
    replica = await world.replica()
    assert replica.state is ReplicaState.INTERRUPTED
    assert replica.resumable
    assert replica.lag_seconds is not None
    total = replica.total_bytes
    await world.perform(ResumeReplication(freeze_as="before"))
    replica = await world.reaches(ReplicaState.SYNCED)
    assert replica.total_bytes - total <= 6 * MIB
    assert await world.points() == ["before"]
    await world.perform(StopReplication(freeze_as="tip"))
    await world.launch("before", "before")
    await world.launch("tip", "tip")
    assert await world.holds("before", 0, 1, "2M", "5M")
    for number in range(2, 7):
        assert await world.holds("tip", 0, number, f"{number}M", "1M")
    await world.kill_source()
    for disk, path in enumerate(("system", "data")):
        assert await same(world, world.a / f"disks/{path}.qcow2", "tip", disk)


async def same(world: World, path: object, name: str, disk: int) -> bool:
    process = await asyncio.create_subprocess_exec(
        "qemu-img", "compare", "-U", str(path), str(world.overlay(name, disk)), stdout=asyncio.subprocess.DEVNULL
    )
    return await process.wait() == 0


async def test_a_killed_replica_of_an_idle_source_is_seen_and_resumed(world: World) -> None:
    await world.write(0, 1, "0")
    await world.replicate()
    await world.kill_daemon()
    replica = await world.replica()
    assert (replica.state, replica.resumable) == (ReplicaState.INTERRUPTED, True)
    await world.perform(ResumeReplication(freeze_as="before"))
    await world.reaches(ReplicaState.SYNCED)
    await world.write(0, 2, "0")

    async def resynced() -> bool:
        with contextlib.suppress(Retry):
            await world.perform(ResumeReplication(freeze_as="before"))
        return (await world.replica()).state is ReplicaState.SYNCED

    await world.until(resynced)
    await world.perform(StopReplication(freeze_as="tip"))
    await world.launch("tip", "tip")
    assert await world.holds("tip", 0, 2, "0")


async def test_a_point_of_an_interrupted_replica_is_its_last_consistent_state(world: World) -> None:
    await world.write(0, 1, "0")
    await world.replicate()
    await world.kill_daemon()
    await world.write(0, 2, "0")
    await world.perform(TakePoint("kept"))
    assert (await world.replica()).state is ReplicaState.INTERRUPTED
    await world.write(0, 3, "0")
    await world.perform(ResumeReplication())
    await world.reaches(ReplicaState.SYNCED)
    await world.launch("kept", "kept")
    assert await world.holds("kept", 0, 1, "0")


async def test_what_is_frozen_after_a_break_is_never_younger_than_the_break(world: World) -> None:
    await world.replicate()
    await world.write(0, 1, "0")
    await processes.kill(world.source / lines.PID)
    broken = datetime.now(UTC)
    await world.reaches(ReplicaState.INTERRUPTED)
    await world.write(0, 2, "0")
    await asyncio.sleep(max(0.0, 1.5 - (datetime.now(UTC) - broken).total_seconds()))  # times have to differ
    await world.perform(TakePoint("before"), StopReplication(freeze_as="tip"))
    times = {point.name: point.time for point in (await world.replica()).points}
    assert times["before"] <= broken + timedelta(seconds=0.5)
    assert abs(times["tip"] - times["before"]) < timedelta(milliseconds=1), "nothing arrived in between"


async def test_a_resync_that_is_cut_off_leaves_a_point_that_says_why_it_cannot_be_used(world: World) -> None:
    await world.write(0, 1, "0", "64M")
    await world.replicate()
    await world.kill_daemon()
    await world.write(0, 2, "0", "64M")
    await world.perform(ResumeReplication(freeze_as="before"))
    # Nobody has seen the end of the resync, and nobody can any more.
    await world.kill_source()
    await world.perform(StopReplication(freeze_as="tip"))
    replica = await world.replica()
    assert [(point.name, bool(point.problem)) for point in replica.points] == [("before", False), ("tip", True)]
    await world.launch("before", "before")
    assert await world.holds("before", 0, 1, "0", "64M")
    with pytest.raises(Refused, match="resync"):
        await world.launch("tip", "tip")


async def test_a_port_that_somebody_took_is_a_reason_to_wait(world: World) -> None:
    await world.replicate()
    record = await _record(world)
    await world.kill_daemon()
    await world.write(0, 2, "0")
    with socket.create_server(("127.0.22.9", record["port"])), pytest.raises(Retry, match="port"):
        await world.perform(ResumeReplication(freeze_as="before"))
    assert (await world.replica()).consistent
    assert await world.points() == [], "nothing is frozen before the replica is reached"
    await world.perform(ResumeReplication(freeze_as="before"))
    await world.reaches(ReplicaState.SYNCED)
    assert await world.points() == ["before"]


async def _record(world: World) -> dict[str, int]:
    found: dict[str, int] = json.loads((world.b / "replicas" / SERVER / "replica.json").read_text())
    return found


async def test_a_killed_source_leaves_every_acknowledged_write(world: World) -> None:
    await world.write(0, 1, "0")
    await world.replicate()
    for number in range(2, 30):
        await world.write(number % 2, number, f"{number}M")
    await world.kill_source()
    replica = await world.replica()
    assert replica.state is ReplicaState.INTERRUPTED
    assert not replica.resumable
    assert "stopped" in replica.reason
    (world.a / "DOWN").touch()
    await world.perform(StopReplication(freeze_as="tip"), StopReplication(freeze_as="tip"))
    assert [point.problem for point in (await world.replica()).points] == [None]
    await world.launch("machine", "tip")
    for number in range(2, 30):
        assert await world.holds("machine", number % 2, number, f"{number}M")


async def test_a_replica_that_hangs_is_seen_and_the_source_writes_on(world: World) -> None:
    await world.write(0, 1, "0")
    await world.replicate()
    world.kill(world.daemon(), signal.SIGSTOP)
    await world.io(world.source, 0, "aio_write -P 2 0 64k")
    replica = await world.replica()
    assert (replica.state, replica.resumable) == (ReplicaState.INTERRUPTED, True)
    began = time.monotonic()
    await world.perform(ResumeReplication(freeze_as="before"))
    assert time.monotonic() - began < 6
    await world.reaches(ReplicaState.SYNCED)
    await world.perform(StopReplication(freeze_as="tip"))
    await world.launch("tip", "tip")
    assert await world.holds("tip", 0, 2, "0")


async def test_a_replica_that_hangs_delays_no_failover(world: World) -> None:
    await world.write(0, 1, "0")
    await world.replicate()
    world.kill(world.daemon(), signal.SIGSTOP)
    began = time.monotonic()
    await world.perform(StopReplication(freeze_as="tip"))
    assert time.monotonic() - began < 5
    await world.launch("tip", "tip")
    assert await world.holds("tip", 0, 1, "0")


async def test_a_source_that_is_stuck_delays_no_failover(world: World) -> None:
    await world.write(0, 1, "0")
    await world.replicate()
    pid = machine.running(world.source)
    world.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    await world.perform(StopReplication(freeze_as="tip"))
    assert time.monotonic() - began < 4
    await world.launch("machine", "tip")
    assert time.monotonic() - began < 6
    assert await world.holds("machine", 0, 1, "0")
    world.kill(pid, signal.SIGCONT)


async def test_what_a_woken_source_writes_does_not_reach_the_frozen_point(world: World) -> None:
    await world.write(0, 1, "0")
    await world.replicate()
    pid = machine.running(world.source)
    world.kill(pid, signal.SIGSTOP)
    await world.perform(StopReplication(freeze_as="tip"))
    world.kill(pid, signal.SIGCONT)
    await world.write(0, 2, "0")
    await world.launch("machine", "tip")
    assert await world.holds("machine", 0, 1, "0")
    await world.replicate(run=2)


async def test_the_source_writes_on_when_the_replica_is_full_and_the_reason_says_so(full_world: World) -> None:
    world = full_world
    await world.write(0, 1, "0")
    await world.replicate()
    await world.perform(TakePoint("kept"))
    for number in range(12):
        await world.write(0, 2, f"{number * 8}M", "8M")
    replica = await world.reaches(ReplicaState.INTERRUPTED)
    assert replica.resumable
    assert "full" in replica.reason
    with pytest.raises(NoSpace):
        await world.perform(TakePoint("no-room"))
    assert await world.points() == ["kept"]
    assert reads(world.a / "disks/system.qcow2", 2, "80M", "8M")


async def test_a_copy_that_cannot_fit_is_not_begun(full_world: World) -> None:
    await full_world.write(0, 1, "0", "80M")
    with pytest.raises(NoSpace, match="zone-b"):
        await full_world.copy()


async def test_progress_says_gone_without_jobs(world: World) -> None:
    await world.replicate()
    await mirror.clean(world.monitors, world.source)
    replica = await world.replica()
    assert (replica.state, replica.resumable) == (ReplicaState.INTERRUPTED, False)
    with pytest.raises(Refused):
        await world.perform(ResumeReplication())
