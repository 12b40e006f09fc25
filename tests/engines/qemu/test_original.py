"""A copy back onto the original machine: what differs is found by looking, and the copy is right whatever is there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lifeboat.engines.contract import Retry, Underway
from lifeboat.engines.facts import Replica, ReplicaState
from lifeboat.engines.ledger import Direction
from lifeboat.engines.qemu import holdings, mirror, originals, storage_daemon
from lifeboat.engines.qemu.records import layer_file, load_replica
from lifeboat.engines.qemu.zones import Zones
from lifeboat.engines.verbs import (
    Fence,
    LimitBandwidth,
    MakeIndependent,
    Register,
    ReleaseReplica,
    ResumeReplication,
    StopReplication,
)
from lifeboat.host import processes
from tests.engines.qemu.conftest import DISKS, MIB, SERVER, World, run, server
from tests.engines.qemu.relay import Relay

RECOVERED = "failover-1-1"
REACHED = "127.0.21.19"
WRITTEN = 16 * MIB
"""What each disk held before the failover."""


class Home:
    """A server that was failed over for good, with its original fenced, on the way back onto it."""

    def __init__(self, world: World) -> None:
        self.world = world

    @property
    def recovered(self) -> Path:
        return self.world.b / "machines" / SERVER / RECOVERED

    def original(self, disk: int) -> Path:
        return self.world.a / "disks" / f"{DISKS[disk]}.qcow2"

    async def write(self, disk: int, pattern: int, offset: int, length: int) -> None:
        said = await self.world.io(self.recovered, disk, f"write -P {pattern} {offset} {length}")
        assert "wrote" in said or not said, said

    async def copy(self, run: int = 2, limit: int | None = None) -> None:
        """Ask for the copy until it has begun, as the operator does."""

        async def begun() -> bool:
            with contextlib.suppress(Retry):
                await self.world.copy(run, limit, onto_original=True)
                return True
            return False

        await self.world.until(begun, 60.0)

    async def in_step(self, run: int = 2) -> Replica:
        await self.copy(run)
        return await self.world.reaches(ReplicaState.SYNCED, 60.0)

    async def resumed(self) -> Replica:
        async def in_step() -> Replica | None:
            with contextlib.suppress(Retry):
                await self.world.perform(ResumeReplication())
            found = await self.world.replica()
            return found if found.state is ReplicaState.SYNCED else None

        found: Replica = await self.world.until(in_step, 60.0)
        return found

    async def assert_equal(self) -> None:
        """Both sides hold the same, bit by bit, once the recovered server has come to its end."""
        with contextlib.suppress(Retry):
            await self.world.perform(Fence(orderly=True))
        await self.world.until(self._fenced, 60.0)
        await self.world.perform(StopReplication(freeze_as="tip-2"))
        zone = Zones(self.world.folder).zone("zone-a")
        record = load_replica(zone, SERVER)
        assert record is not None
        tip = record.point_layer("tip-2")
        assert tip is not None
        assert tip.point is not None
        assert tip.point.problem is None
        for disk in range(len(DISKS)):
            await run("qemu-img", "compare", str(layer_file(zone, record, tip, disk)), str(self.disk(disk)))

    def disk(self, disk: int) -> Path:
        return self.world.overlay(RECOVERED, disk)

    async def _fenced(self) -> bool:
        with contextlib.suppress(Retry):
            await self.world.perform(Fence(orderly=True))
            return True
        return False


async def failed_over(world: World, *, planned: bool) -> Home:
    """Without `planned` the source goes on writing after the replica has lost it."""
    for disk in range(len(DISKS)):
        await world.write(disk, 1 + disk, "1M", str(WRITTEN))
    await world.replicate()
    if planned:
        await world.until(lambda: _done(world, Fence(orderly=True)), 60.0)
        await world.perform(StopReplication(freeze_as="tip-1"))
    else:
        await world.perform(StopReplication(freeze_as="tip-1"))
        for disk in range(len(DISKS)):
            await world.write(disk, 9, "3M", "2M")
            await world.write(disk, 8, "100M", "1M")
        await world.perform(Fence())
    await world.launch(RECOVERED, "tip-1", isolated=False)
    await world.perform(MakeIndependent(RECOVERED))
    await world.until(lambda: _independent(world), 60.0)
    await world.perform(ReleaseReplica())
    world.target = replace(world.target, direction=Direction.REVERSE)
    await world.perform(Register(RECOVERED))
    return Home(world)


async def _done(world: World, verb: Any) -> bool:
    with contextlib.suppress(Retry):
        await world.perform(verb)
        return True
    return False


async def _independent(world: World) -> bool:
    return (await world.machines())[RECOVERED].independent


@contextlib.asynccontextmanager
async def relayed(home: Home) -> Any:
    """The way to the original's zone, with the bytes on it counted."""
    world = home.world
    world.write_inventory("zone-a", reached_at=REACHED, servers=[server()])
    with pytest.raises(Retry, match="link to zone zone-a"):
        await home.world.copy(2, onto_original=True)
    record = load_replica(Zones(world.folder).zone("zone-a"), SERVER)
    assert record is not None
    assert record.port is not None
    relay = Relay(REACHED, "127.0.21.9", record.port)
    try:
        yield relay
    finally:
        relay.close()


async def test_only_what_was_written_since_a_planned_failover_crosses_the_link(world: World) -> None:
    home = await failed_over(world, planned=True)
    await home.write(0, 5, 2 * MIB, MIB)
    await home.write(1, 6, 300 * MIB + 4096, 512)
    await home.world.io(home.recovered, 1, "write -z -u 10M 1M")
    async with relayed(home) as relay:
        replica = await home.in_step()
        assert replica.basis == "only what differs from what the original's disks held is copied"
        assert replica.copied_bytes == replica.total_bytes
        assert 2 * MIB <= replica.copied_bytes < 3 * MIB
        assert relay.passed < 3 * MIB
        await home.write(0, 7, 4 * MIB, MIB)
        await home.assert_equal()


async def test_what_the_source_wrote_before_an_unplanned_failover_lost_it_is_overwritten(world: World) -> None:
    home = await failed_over(world, planned=False)
    await home.write(0, 5, 20 * MIB, MIB)
    replica = await home.in_step()
    assert 7 * MIB <= replica.copied_bytes < 9 * MIB
    await home.assert_equal()


async def test_what_somebody_wrote_behind_our_back_is_overwritten(world: World) -> None:
    home = await failed_over(world, planned=True)
    chance = random.Random(4)
    for disk in range(len(DISKS)):
        commands = []
        for _ in range(20):
            offset, length = chance.randrange(0, 200 * MIB, 512), chance.randrange(512, 300 << 10, 512)
            what = chance.choice((f"write -P {chance.randrange(1, 255)}", "write -z", "discard"))
            commands += ["-c", f"{what} {offset} {length}"]
        await run("qemu-io", "-f", "qcow2", *commands, str(home.original(disk)))
        for _ in range(10):
            offset, length = chance.randrange(0, 200 * MIB, 512), chance.randrange(512, 300 << 10, 512)
            await home.write(disk, chance.randrange(1, 255), offset, length)
    replica = await home.in_step()
    assert replica.basis.startswith("only what differs")
    assert replica.copied_bytes < 2 * WRITTEN
    await home.assert_equal()


def _raw(path: Path) -> None:
    new = path.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-O", "raw", path, new], check=True)
    new.replace(path)


def _snapshot(path: Path) -> None:
    subprocess.run(["qemu-img", "snapshot", "-c", "mine", path], check=True)


def _bigger(path: Path) -> None:
    subprocess.run(["qemu-img", "resize", "-q", path, "+64M"], check=True)


def _hard_link(path: Path) -> None:
    path.with_suffix(".backup").hardlink_to(path)


def _linked(path: Path) -> None:
    elsewhere = path.with_suffix(".elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _standing(path: Path) -> None:
    below = path.with_suffix(".below")
    path.rename(below)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", below, path], check=True)


def _broken(path: Path) -> None:
    """Its header is whole, and its tables are out of reach."""
    with path.open("r+b") as file:
        file.seek(40)
        file.write(b"\xff" * 7)


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "raw": (_raw, "is no plain qcow2 image"),
    "snapshot": (_snapshot, "is no plain qcow2 image"),
    "backing file": (_standing, "is no plain qcow2 image"),
    "another size": (_bigger, "has 603979776 bytes, and the recovered server's 536870912"),
    "hard link": (_hard_link, "is no file of its own"),
    "symbolic link": (_linked, "is no file of its own"),
    "gone": (Path.unlink, "is not there any more"),
}


@pytest.mark.parametrize("way", UNFIT)
async def test_a_disk_that_cannot_be_written_over_as_a_layer_is_told_from_one_that_can(
    tmp_path: Path, way: str
) -> None:
    change, why = UNFIT[way]
    path = tmp_path / "data.qcow2"
    await run("qemu-img", "create", "-q", "-f", "qcow2", str(path), "512M")
    assert originals.unfit(path, 512 * MIB) == ""
    change(path)
    assert originals.unfit(path, 512 * MIB) == why


@pytest.mark.parametrize(
    ("change", "why"),
    [(_raw, "disk data of the original is no plain qcow2 image"), (_broken, "the original's disks cannot be opened: ")],
)
async def test_all_is_copied_where_the_original_s_disks_cannot_be_written_over(
    world: World, change: Callable[[Path], object], why: str
) -> None:
    home = await failed_over(world, planned=True)
    change(home.original(1))
    replica = await home.in_step()
    assert replica.basis.startswith(f"all is copied: {why}")
    assert replica.copied_bytes >= 2 * WRITTEN
    await home.assert_equal()


async def test_all_is_copied_where_somebody_has_the_original_s_disks_open(world: World) -> None:
    home = await failed_over(world, planned=True)
    other = await asyncio.create_subprocess_exec(
        "qemu-io", "-f", "qcow2", str(home.original(0)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert other.stdin is not None
    assert other.stdout is not None
    await other.stdout.readuntil(b"qemu-io> ")
    replica = await home.in_step()
    assert "all is copied: the original's disks cannot be opened" in replica.basis
    other.stdin.write_eof()
    await other.wait()
    await home.assert_equal()


async def test_an_interrupted_copy_goes_on_with_what_differs(world: World) -> None:
    home = await failed_over(world, planned=False)
    await home.write(0, 5, 12 * MIB, 4 * MIB)
    await home.copy(limit=6 * MIB)
    await world.until(lambda: _gone_through(home, 10 * MIB))
    await processes.kill(world.a / "replicas" / SERVER / storage_daemon.PID)
    await world.reaches(ReplicaState.INTERRUPTED)
    await home.write(1, 6, 2 * MIB, MIB)
    await home.write(1, 7, 10 * MIB, MIB)
    with contextlib.suppress(Retry):
        await world.perform(LimitBandwidth(None))
    replica = await home.resumed()
    assert replica.copied_bytes < 16 * MIB
    await home.assert_equal()


async def _gone_through(home: Home, wanted: int) -> bool:
    left_out = sum(holdings.left_out(home.recovered, 2, disk) for disk in range(len(DISKS)))
    return left_out >= wanted


async def test_what_the_guest_writes_meanwhile_arrives(world: World) -> None:
    home = await failed_over(world, planned=False)
    chance = random.Random(7)
    await home.copy(limit=6 * MIB)
    while (await world.replica()).state is not ReplicaState.SYNCED:
        disk, offset = chance.randrange(len(DISKS)), chance.randrange(0, 20 * MIB, 512)
        # What was there before the failover as well: some of it is the same as what the original holds.
        pattern = chance.choice((1 + disk, 9, chance.randrange(1, 255)))
        await home.write(disk, pattern, offset, chance.choice((512, 4096, 64 << 10, 256 << 10)))
        whole = offset // MIB * MIB
        await home.write(disk, 1 + disk, max(whole, MIB), MIB)
        if chance.random() < 0.1:
            await world.perform(LimitBandwidth(None))
    await home.assert_equal()


async def test_what_was_read_before_the_replica_s_process_ended_is_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = await failed_over(world, planned=True)

    async def unreached(*_: object, **__: object) -> None:
        raise Retry("what is read is not used yet")

    with monkeypatch.context() as patch:
        patch.setattr(mirror, "start", unreached)
        with pytest.raises(Retry, match="not used yet"):
            await world.copy(2, onto_original=True)
    zone = Zones(world.folder).zone("zone-a")
    record = load_replica(zone, SERVER)
    assert record is not None
    assert record.tip is not None
    assert await holdings.look(zone, record) is not None
    await storage_daemon.stop(world.monitors, zone, SERVER)
    tip = layer_file(zone, record, record.layer(record.tip), 0)
    await run("qemu-io", "-f", "qcow2", "-c", f"write -P 77 5M {4 * MIB}", str(tip))
    assert await holdings.look(zone, record) is None
    replica = await home.in_step()
    assert 4 * MIB <= replica.copied_bytes < 6 * MIB
    await home.assert_equal()


async def test_a_reading_that_was_killed_begins_anew(world: World) -> None:
    home = await failed_over(world, planned=True)
    await _stopped_while_reading(home)
    os.kill(_reader(world), signal.SIGKILL)
    replica = await home.in_step()
    assert replica.basis.startswith("only what differs")
    assert replica.copied_bytes < MIB
    await home.assert_equal()


async def test_a_reading_that_is_under_way_delays_nothing(world: World) -> None:
    home = await failed_over(world, planned=True)
    await _stopped_while_reading(home)
    assert (await world.replica()).state is ReplicaState.STARTING
    await world.new_engine()
    with pytest.raises(Underway, match="disks of the original are being read"):
        await world.copy(2, onto_original=True)
    reader = _reader(world)
    await world.perform(StopReplication())
    assert not processes.alive(reader)
    assert list((world.a / "replicas" / SERVER).glob("fingerprints-*")) == []
    replica = await home.in_step(3)
    assert replica.basis == "all is copied: disk system of the original is not there any more"
    await home.assert_equal()


async def _stopped_while_reading(home: Home) -> None:
    """Bring the copy to where the original's disks are read, and let that stand still."""
    world = home.world

    async def stop() -> None:
        while True:
            with contextlib.suppress(AssertionError):
                os.kill(_reader(world), signal.SIGSTOP)
                return
            await asyncio.sleep(0.001)

    async with asyncio.TaskGroup() as group:
        group.create_task(stop())
        with pytest.raises(Underway, match="disks of the original are being read"):
            await world.copy(2, onto_original=True)


def _reader(world: World) -> int:
    pid = processes.find(world.a / "replicas" / SERVER / holdings.PID)
    assert pid is not None
    return pid


class Died(Exception):
    """Raised where the operator dies."""


def _dies(name: str, after: bool) -> Callable[[Any], Callable[..., Awaitable[Any]]]:
    def wrap(wrapped: Any) -> Callable[..., Awaitable[Any]]:
        async def dying(*args: Any, **kwargs: Any) -> Any:
            if after:
                await wrapped(*args, **kwargs)
            raise Died(name)

        return dying

    return wrap


DEATHS: dict[str, tuple[object, str, bool]] = {
    "before the disks are given up": (originals, "give_up", False),
    "after the disks are given up": (originals, "give_up", True),
    "after the replica is offered": (storage_daemon, "ensure_offered", True),
    "after the reading began": (holdings, "begin", True),
    "after the reading": (mirror, "start", False),
    "after the line has the fingerprints": (holdings, "hand_over", True),
    "after the fingerprints are used up": (holdings, "use_up", True),
    "after the copy began": (mirror, "start", True),
}


@pytest.mark.parametrize("moment", DEATHS)
async def test_an_operator_that_dies_on_the_way_is_followed_by_one_that_finds_its_own(
    world: World, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, name, after = DEATHS[moment]
    home = await failed_over(world, planned=True)
    await home.write(0, 5, 2 * MIB, MIB)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, _dies(name, after)(getattr(where, name)))
        with pytest.raises(Died):
            await home.copy()
    await home.write(1, 6, 3 * MIB, MIB)
    await world.new_engine()
    replica = await home.in_step()
    assert replica.basis.startswith("only what differs")
    assert replica.copied_bytes < 4 * MIB
    await home.assert_equal()


async def test_an_operator_that_dies_between_two_disks_of_the_original_goes_on_with_both(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = await failed_over(world, planned=True)
    rename = Path.rename

    def dying(self: Path, target: Path) -> Path:
        if self.name == "data.qcow2":
            raise Died
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying)
        with pytest.raises(Died):
            await home.copy()
    await world.new_engine()
    replica = await home.in_step()
    assert replica.copied_bytes < MIB
    await home.assert_equal()
