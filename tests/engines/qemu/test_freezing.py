"""Application-consistent points of a real guest: what is in them, and that no guest stays frozen, whoever dies."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator

import psutil
import pytest

from lifeboat.engines.contract import ExecResult, Retry, Target
from lifeboat.engines.qemu.records import load_replica
from lifeboat.engines.qemu.zones import Zones
from lifeboat.engines.verbs import TakePoint
from lifeboat.host import freezer, freezing, machine
from tests.engines.guest import SharedGuest
from tests.engines.harness import Stage, known
from tests.engines.qemu_guest_harness import GuestHarness

# The first case may have to build the guest's image.
pytestmark = [pytest.mark.qemu, pytest.mark.timeout(600)]

# On a busy host the emulated guest itself takes its time.
SOON = 5.0

# An operator that gets as far as to the frozen guest and no further.
STUCK = """
import asyncio, sys
from pathlib import Path
from lifeboat.engines.contract import Pair, Target
from lifeboat.engines.qemu import QemuEngine
from lifeboat.host.qmp import Session
from lifeboat.engines.verbs import TakePoint

run = Session.run

async def stuck(self, command, arguments=None):
    if command == "transaction":
        print("frozen", flush=True)
        await asyncio.Event().wait()
    return await run(self, command, arguments)

Session.run = stuck
target = Target(Pair("zone-a", "zone-b"), sys.argv[2], 1 << 30)
asyncio.run(QemuEngine(Path(sys.argv[1])).perform(target, TakePoint("point-1", application_consistent=True)))
"""


@pytest.fixture
async def guest(shared_guest: SharedGuest[GuestHarness]) -> AsyncIterator[GuestHarness]:
    async with shared_guest.lent() as lent:
        await Stage(lent).replicate()
        await lent.settle(lambda facts: known(facts.source).agent_connected)
        yield lent


@contextlib.asynccontextmanager
async def stuck_operator(guest: GuestHarness) -> AsyncIterator[Process]:
    """A second operator that holds the guest frozen; it is alive when this is entered, and dead afterwards."""
    command = [sys.executable, "-c", STUCK, str(guest.zones), guest.server_id]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"frozen\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def run_in(guest: GuestHarness, line: str) -> ExecResult:
    agent = guest.source_folder / machine.AGENT
    return await guest.owner._guests.execute(agent, ["/bin/sh", "-c", line], 20)


async def seconds_to_write(guest: GuestHarness, number: int) -> float:
    began = time.monotonic()
    await guest.write(number)
    return time.monotonic() - began


async def throttle(guest: GuestHarness, bytes_per_second: int) -> None:
    """Let the source's second disk write no faster than this; 0 is as fast as it can."""
    limits = {"bps": 0, "bps_rd": 0, "bps_wr": bytes_per_second, "iops": 0, "iops_rd": 0, "iops_wr": 0}
    async with guest.owner._monitors.session(guest.source_folder / machine.OWNER_QMP) as session:
        await session.run("block_set_io_throttle", {"id": "/machine/peripheral/vd1/virtio-backend", **limits})


def recorded_as_frozen(guest: GuestHarness) -> bool:
    record = load_replica(Zones(guest.zones).zone("zone-b"), guest.server_id)
    assert record is not None
    return record.frozen


async def test_a_point_of_a_frozen_guest_holds_what_it_had_in_memory(guest: GuestHarness) -> None:
    stage = Stage(guest)
    await guest.write(1)
    assert await run_in(guest, "echo kept >/data/unsynced") == ExecResult(0, "")
    await stage.take_frozen("point-1")
    await guest.write(2)
    assert [point.application_consistent for point in (await stage.replica()).points] == [True]
    assert not recorded_as_frozen(guest)
    await stage.launch("drill", "point-1", stage.shape(isolated=True))
    assert await guest.contents("drill") == 1
    target = Target(guest.pair, guest.server_id, 1 << 30)
    found = await guest.engine.execute(
        target, "drill", ["/bin/sh", "-c", "cat /data/unsynced; dmesg | grep -c EXT4"], 20
    )
    assert found.output.splitlines()[0] == "kept"
    assert int(found.output.splitlines()[1]) > 0, "its mounts are in the kernel's log"
    recovered = await guest.engine.execute(target, "drill", ["/bin/sh", "-c", "dmesg | grep recovery"], 20)
    assert recovered.output == "", "a file system that was frozen has no journal to replay"


async def test_a_guest_writes_on_within_a_second(guest: GuestHarness) -> None:
    ordinary = max([await seconds_to_write(guest, number) for number in range(1, 11)])
    done = asyncio.Event()

    async def keep_writing() -> list[float]:
        seconds: list[float] = []
        while not done.is_set():
            seconds.append(await seconds_to_write(guest, 11 + len(seconds)))
        return seconds

    async with asyncio.TaskGroup() as group:
        writing = group.create_task(keep_writing())
        try:
            await Stage(guest).take_frozen("point-1")
        finally:
            done.set()
    assert max(writing.result()) < ordinary + 1.0, (ordinary, writing.result())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_guest_is_thawed_without_an_operator(guest: GuestHarness, number: signal.Signals) -> None:
    async with stuck_operator(guest) as operator:
        operator.send_signal(number)
        async with asyncio.timeout(freezer.BOUND + SOON):
            await guest.write(1)
    assert recorded_as_frozen(guest), "no operator has looked since"
    await guest.settle(lambda _: not recorded_as_frozen(guest))
    stage = Stage(guest)
    assert not any(point.application_consistent for point in (await stage.replica()).points)
    await stage.take_frozen("point-1")


async def test_a_new_operator_thaws_what_nobody_else_could(guest: GuestHarness) -> None:
    async with stuck_operator(guest) as operator:
        (holder,) = psutil.Process(operator.pid).children()
        assert freezer.__file__ in holder.cmdline()
        holder.kill()
        operator.kill()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(freezer.BOUND + 1.5):
            await guest.write(1)
    await guest.restart_engine()
    await guest.settle(lambda _: not recorded_as_frozen(guest))
    async with asyncio.timeout(SOON):
        await guest.write(2)


async def test_an_agent_that_hangs_in_the_freeze_thaws_when_it_comes_out(guest: GuestHarness) -> None:
    agent = guest.source_folder / machine.AGENT
    async with freezing.ready(guest.owner._guests, agent) as held:
        await throttle(guest, 1)
        began = time.monotonic()
        with pytest.raises(Retry, match="not frozen within"):
            async with held.frozen():
                raise AssertionError("it is not frozen")
        assert time.monotonic() - began < freezer.BOUND + SOON
    await throttle(guest, 0)
    async with asyncio.timeout(SOON + SOON):
        await guest.write(1)


async def test_a_guest_that_cannot_write_out_is_not_frozen(guest: GuestHarness) -> None:
    stage = Stage(guest)
    assert await run_in(guest, "echo never >/data/unsynced") == ExecResult(0, "")
    await throttle(guest, 1)
    try:
        with pytest.raises(Retry, match="to write out what it has in memory"):
            await stage.perform(TakePoint("point-1", application_consistent=True))
        assert await run_in(guest, "echo other >/data2/file && sync /data2/file") == ExecResult(0, "")
    finally:
        await throttle(guest, 0)
    assert await stage.points() == []
