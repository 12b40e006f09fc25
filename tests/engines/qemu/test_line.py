"""What breaks between the zones: the source writes on, the replica stays a state that the disks had, and it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lifeboat.engines.contract import NoSpace, Retry
from lifeboat.engines.facts import Replica, ReplicaState
from lifeboat.engines.qemu import lines
from lifeboat.engines.qemu.records import load_replica
from lifeboat.engines.qemu.zones import Zones
from lifeboat.engines.verbs import ResumeReplication, StopReplication, TakePoint
from lifeboat.host import machine, processes
from tests.engines.qemu.conftest import DISKS, MIB, SERVER, World
from tests.engines.qemu.relay import Mode, Relay

REACHED = "127.0.22.19"
SECTOR = 512


class Writer:
    """Writes rising numbers to one disk and then to the other, each as soon as the last one is acknowledged."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._done = asyncio.Event()
        self._sector = world.folder / "sector"
        self._task = asyncio.create_task(self._write())
        self.longest = 0.0
        self.number = 0

    async def _write(self) -> None:
        socket = self._world.source / machine.OWNER_QMP
        with contextlib.suppress(Retry):
            async with self._world.monitors.session(socket, 300.0) as session:
                for number in itertools.count(1):
                    self._sector.write_bytes(str(number).encode().ljust(SECTOR, b"\0"))
                    for disk in range(len(DISKS)):
                        began = time.monotonic()
                        command = f'qemu-io -d vd{disk}/virtio-backend "write -s {self._sector} 0 {SECTOR}"'
                        said = await session.human(command)
                        assert "wrote" in said or not said, said
                        self.longest = max(self.longest, time.monotonic() - began)
                    self.number = number
                    if self._done.is_set():
                        return
                    await asyncio.sleep(0.005)

    async def writes(self, more: int = 5) -> None:
        wanted = self.number + more
        await self._world.until(lambda: _true(self.number >= wanted))

    async def stop(self) -> None:
        self._done.set()
        await self._task


async def _true(value: bool) -> bool:
    return value


@contextlib.asynccontextmanager
async def relayed(world: World, rate: int | None = None) -> AsyncIterator[Relay]:
    """Replication through a relay. The port is known once the replica was offered, so the first start finds nobody."""
    world.write_inventory("zone-b", reached_at=REACHED)
    with pytest.raises(Retry, match="link to zone zone-b"):
        await world.copy()
    record = load_replica(Zones(world.folder).zone("zone-b"), SERVER)
    assert record is not None
    assert record.port is not None
    relay = Relay(REACHED, "127.0.22.9", record.port, rate)
    try:
        await world.copy()
        yield relay
    finally:
        relay.close()


def line_pid(world: World) -> int:
    pid = processes.find(world.source / lines.PID)
    assert pid is not None
    return pid


async def resumed(world: World, name: str = "before") -> Replica:
    """Ask until it is in step again, as the operator does."""

    async def in_step() -> Replica | None:
        with contextlib.suppress(Retry):
            await world.perform(ResumeReplication(freeze_as=name))
        replica = await world.replica()
        return replica if replica.state is ReplicaState.SYNCED else None

    found: Replica = await world.until(in_step)
    return found


def number_on(path: Path) -> int:
    out = path.with_suffix(".sector")
    what = [f"if={path}", f"of={out}", f"bs={SECTOR}", "count=1"]
    subprocess.run(["qemu-img", "dd", "-U", "-f", "qcow2", "-O", "raw", *what], check=True, timeout=30)
    return int(out.read_bytes().strip(b"\0") or b"0")


async def numbers(world: World, point: str) -> tuple[int, int]:
    """What a point holds on each disk."""
    await world.launch(f"look-{point}", point)
    first, second = (number_on(world.overlay(f"look-{point}", disk)) for disk in range(len(DISKS)))
    assert first - second in {0, 1}, f"{point} is of different instants: {first}, {second}"
    return first, second


async def assert_equal(world: World) -> None:
    """Both sides hold the same, with the source at rest."""
    await world.perform(StopReplication(freeze_as="tip"))
    await world.launch("tip", "tip")
    await world.kill_source()
    for disk, name in enumerate(DISKS):
        argv = ("qemu-img", "compare", "-U", str(world.a / f"disks/{name}.qcow2"), str(world.overlay("tip", disk)))
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.DEVNULL)
        assert await process.wait() == 0, name


def swallow(mode: Mode) -> Callable[[World, Relay], None]:
    def breaking(_: World, relay: Relay) -> None:
        relay.mode = mode

    return breaking


FAULTS: dict[str, tuple[Callable[[World, Relay], None], str]] = {
    "daemon killed": (lambda world, _: world.kill(world.daemon()), "process in zone zone-b has ended"),
    "daemon stopped": (lambda world, _: world.kill(world.daemon(), signal.SIGSTOP), "does not answer"),
    "line killed": (lambda world, _: os.kill(line_pid(world), signal.SIGKILL), "carries the copy to zone zone-b"),
    "line stopped": (lambda world, _: os.kill(line_pid(world), signal.SIGSTOP), "carries the copy to zone zone-b"),
    "swallows": (swallow(Mode.SWALLOW), "link to zone zone-b is broken: no answer"),
    "swallows up": (swallow(Mode.SWALLOW_UP), "link to zone zone-b is broken: no answer"),
    "swallows down": (swallow(Mode.SWALLOW_DOWN), "link to zone zone-b is broken: no answer"),
    "closes": (lambda _, relay: relay.cut(), "link to zone zone-b is broken"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_whatever_breaks_the_source_writes_on_and_the_copy_comes_back(world: World, fault: str) -> None:
    breaks, reason = FAULTS[fault]
    await world.write(0, 7, "8M", "16M")
    async with relayed(world) as relay:
        full = (await world.reaches(ReplicaState.SYNCED)).total_bytes
        # Nobody looks from here on: what happens is not the operator's doing.
        await world.engine.close()
        writer = Writer(world)
        await writer.writes()
        last = writer.number
        breaks(world, relay)
        await writer.writes(20)
        assert writer.longest < 1.0
        await world.new_engine()
        replica = await world.reaches(ReplicaState.INTERRUPTED, 5)
        assert reason in replica.reason
        assert replica.resumable
        assert replica.consistent
        relay.cut(Mode.PASS)
        replica = await resumed(world)
        assert replica.consistent
        assert replica.total_bytes - full < 4 * MIB, "only what changed is copied"
        await writer.writes()
        await writer.stop()
        first, _ = await numbers(world, "before")
        assert first >= last, "what was acknowledged before the break is there"
        await assert_equal(world)


async def test_a_dead_link_of_an_idle_source_is_seen(world: World) -> None:
    async with relayed(world) as relay:
        await world.reaches(ReplicaState.SYNCED)
        relay.mode = Mode.SWALLOW
        replica = await world.reaches(ReplicaState.INTERRUPTED, 5)
        assert "no answer" in replica.reason
        assert replica.consistent


async def test_while_the_link_is_away_a_resume_touches_nothing(world: World) -> None:
    async with relayed(world) as relay:
        await world.reaches(ReplicaState.SYNCED)
        writer = Writer(world)
        await writer.writes()
        for mode in (Mode.REFUSE, Mode.SWALLOW):
            relay.cut(mode)
            await world.reaches(ReplicaState.INTERRUPTED, 5)
            with pytest.raises(Retry, match="link to zone zone-b is broken"):
                await world.perform(ResumeReplication(freeze_as="before"))
        await writer.writes()
        assert writer.longest < 1.0
        await writer.stop()
        assert (await world.replica()).consistent
        assert await world.points() == []
        await world.perform(TakePoint("kept"), StopReplication(freeze_as="tip"))
        assert await numbers(world, "kept") == await numbers(world, "tip")


async def test_a_link_that_comes_and_goes_leaves_a_state_that_the_disks_had(world: World) -> None:
    async with relayed(world) as relay:
        await world.reaches(ReplicaState.SYNCED)
        writer = Writer(world)
        for round_ in range(4):
            await writer.writes(3)
            for _ in range(3):
                relay.cut()
                await writer.writes(1)
                relay.mode = Mode.PASS
                await writer.writes(1)
            await resumed(world, f"before-{round_}")
        last = writer.number
        relay.cut()
        await writer.writes(3)
        relay.mode = Mode.PASS
        await writer.writes(3)
        await world.kill_source()
        await writer.stop()
        assert (await world.replica()).consistent
        await world.perform(StopReplication(freeze_as="tip"))
        for point in (await world.replica()).points:
            assert point.problem is None
            await numbers(world, point.name)
        assert (await numbers_of(world, "tip"))[0] >= last


async def numbers_of(world: World, point: str) -> tuple[int, int]:
    first, second = (number_on(world.overlay(f"look-{point}", disk)) for disk in range(len(DISKS)))
    return first, second


async def test_a_full_recovery_disk_breaks_the_line_and_the_copy_goes_on_when_there_is_room(full_world: World) -> None:
    world = full_world
    await world.replicate()
    writer = Writer(world)
    await writer.writes()
    filler = world.folder / "small" / "filler"
    filler.write_bytes(bytes(40 * MIB))
    for number in range(4):
        await world.write(1, 2, f"{8 + number * 8}M", "8M")
    replica = await world.reaches(ReplicaState.INTERRUPTED, 5)
    assert replica.reason == "the disk of zone zone-b is full"
    assert replica.resumable
    assert replica.consistent
    with pytest.raises(NoSpace):
        await world.perform(ResumeReplication(freeze_as="before"))
    replica = await world.replica()
    assert replica.consistent, "nothing was torn for a copy that has no room"
    assert "full" in replica.reason
    filler.unlink()
    await resumed(world)
    await writer.stop()
    assert writer.longest < 1.0
    await numbers(world, "before")
    await assert_equal(world)


async def test_a_slow_link_is_not_taken_for_a_broken_one(world: World) -> None:
    await world.write(0, 1, "0", "10M")
    await world.write(1, 2, "0", "6M")
    async with relayed(world, rate=5 * MIB):
        states = []

        async def done() -> bool:
            states.append((await world.replica()).state)
            return states[-1] is ReplicaState.SYNCED

        await world.until(done, 60)
        assert ReplicaState.INTERRUPTED not in states
