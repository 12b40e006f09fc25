"""Servers, zones and machines as facts: fences, silent zones, inventories with mistakes, addresses, elastic IPs."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from lifeboat.engines.contract import Refused, Retry, Underway, Unreachable
from lifeboat.engines.facts import Known, MachineState, SiteFacts, Unknown
from lifeboat.engines.qemu import QemuEngine
from lifeboat.engines.qemu.zones import Zones
from lifeboat.engines.verbs import (
    Fence,
    Halt,
    Launch,
    MoveElasticIP,
    RemoveMachine,
    Restart,
    Shape,
    StopReplication,
    TakePoint,
    Unfence,
)
from lifeboat.host import forwards, machine, processes
from lifeboat.host.records import FenceOrder, save_fence
from tests.engines.qemu.conftest import MIB, SERVER, World, known, server


async def site(world: World, which: str = "recovery") -> SiteFacts:
    found: SiteFacts = known(getattr(await world.engine.observe(world.pair, [SERVER]), which))
    return found


async def test_a_fenced_server_is_not_started_until_the_fence_is_lifted(world: World) -> None:
    began = time.monotonic()
    await world.perform(Fence(), Fence())
    assert time.monotonic() - began < 3
    assert machine.running(world.source) is None
    source = known((await world.facts()).source)
    assert (source.running, source.fenced) == (False, True)
    with pytest.raises(Refused, match="fenced"):
        await world.engine.start_server("zone-a", SERVER)
    await world.perform(Unfence())
    assert known((await world.facts()).source).running
    await world.perform(Unfence())


async def test_a_stuck_server_is_fenced_in_time(world: World) -> None:
    world.kill(machine.running(world.source), 19)
    began = time.monotonic()
    await world.perform(Fence())
    assert time.monotonic() - began < 3
    assert machine.running(world.source) is None


async def test_a_server_that_was_off_stays_off_when_the_fence_is_lifted(world: World) -> None:
    await world.engine.stop_server("zone-a", SERVER)
    await world.perform(Fence(), Unfence())
    assert machine.running(world.source) is None


async def test_a_guest_that_does_not_go_down_is_stopped_as_it_is_after_a_minute(world: World) -> None:
    await world.replicate()
    await world.write(0, 5, "1M")
    zone = Zones(world.folder).zone("zone-a")
    for seconds in (30, 61):
        asked = datetime.now(UTC) - timedelta(seconds=seconds)
        save_fence(zone, world.source, FenceOrder(at=asked, was_running=True, asked_at=asked))
        status = await world.monitors.run(machine.socket(world.source), "query-status")
        assert status["running"]
        if seconds < 60:
            with pytest.raises(Underway, match="shutting down"):
                await world.perform(Fence(orderly=True))
    await world.perform(Fence(orderly=True))
    assert machine.running(world.source) is None
    await world.perform(StopReplication(freeze_as="tip"))
    await world.launch("machine", "tip")
    assert await world.holds("machine", 0, 5, "1M")
    await world.perform(Unfence())
    assert machine.running(world.source) is not None


async def test_starting_twice_starts_one_machine(world: World) -> None:
    pid = machine.running(world.source)
    await asyncio.gather(*(world.engine.start_server("zone-a", SERVER) for _ in range(3)))
    assert machine.running(world.source) == pid


async def test_a_pid_that_is_somebody_elses_is_not_taken_for_the_machine(world: World) -> None:
    await world.kill_source()
    (world.source / machine.PID).write_text("1\n")
    assert machine.running(world.source) is None
    other = await asyncio.create_subprocess_exec("sleep", "60")
    (world.source / machine.PID).write_text(f"{other.pid}\n")
    assert machine.running(world.source) is None
    await processes.kill(world.source / machine.PID)
    assert other.returncode is None
    other.kill()
    await other.wait()
    await world.engine.start_server("zone-a", SERVER)
    assert machine.running(world.source) is not None


async def test_a_restart_keeps_the_process_and_moves_the_boot_time(world: World) -> None:
    pid = machine.running(world.source)
    before = known((await world.facts()).source).boot_time
    await world.perform(Restart())
    assert machine.running(world.source) == pid
    assert known((await world.facts()).source).boot_time > before


async def test_a_silent_zone_is_unknown_and_blocks_no_failover(world: World) -> None:
    await world.write(0, 1, "0")
    await world.replicate()
    (world.a / "DOWN").touch()
    facts = await world.engine.observe(world.pair, [SERVER])
    seen = facts.servers[SERVER].forward
    for fact in (facts.primary, seen.exists, seen.source):
        assert isinstance(fact, Unknown)
        assert "zone-a" in fact.reason
    assert known(seen.hardware).cpu == 1
    assert [disk.size_bytes for disk in known(seen.hardware).disks] == [256 * MIB, 512 * MIB]
    with pytest.raises(Unreachable):
        await world.perform(Fence())
    await world.perform(StopReplication(freeze_as="tip"))
    await world.launch("machine", "tip")
    assert await world.holds("machine", 0, 1, "0")
    (world.a / "DOWN").unlink()
    assert known((await world.facts()).source).running


async def test_a_zone_that_is_not_there_is_silent(world: World) -> None:
    (world.b / "inventory.yaml").rename(world.b / "elsewhere.yaml")
    facts = await world.engine.observe(world.pair, [SERVER])
    assert isinstance(facts.recovery, Unknown)
    assert isinstance(facts.servers[SERVER].ledger, Unknown)
    assert isinstance(facts.primary, Known)
    with pytest.raises(Unreachable):
        await world.copy()


async def test_a_mistake_in_an_inventory_is_told_with_its_line_and_stops_no_other_zone(world: World) -> None:
    path = world.a / "inventory.yaml"
    lines = path.read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "memory: 64Mi" in text)
    path.write_text("\n".join(lines).replace("memory: 64Mi", "memory: lots"))
    facts = await world.engine.observe(world.pair, [SERVER])
    assert isinstance(facts.primary, Unknown)
    assert f"{path}, line {line}" in facts.primary.reason
    assert "lots" in facts.primary.reason
    assert isinstance(facts.recovery, Known)
    path.write_text("\n".join(lines))
    assert isinstance((await world.engine.observe(world.pair, [])).primary, Known)


async def test_addresses_and_sizes_that_cannot_be_had_are_refused_and_leave_nothing(world: World) -> None:
    await world.replicate()
    await world.perform(TakePoint("point"))
    good: dict[str, Any] = {"cpu": 1, "memory_bytes": 64 * MIB, "network": "app"}
    for wrong, reason in (
        ({"ip_address": "10.9.0.15"}, "not in network"),
        ({"ip_address": "10.2.0.2"}, "gateway"),
        ({"ip_address": "10.2.0.3"}, "name server"),
        ({"ip_address": "10.2.0.15,hostfwd=tcp::22-:22"}, "not an IPv4"),
        ({"cpu": 5}, "CPUs"),
        ({"memory_bytes": 3 << 30}, "memory"),
        ({"network": "other"}, "no network"),
        ({"elastic_ip": "127.0.99.1"}, "not an elastic IP"),
    ):
        with pytest.raises(Refused, match=reason):
            await world.perform(Launch("machine", "point", Shape(**{**good, **wrong})))
    assert await world.machines() == {}
    assert not (world.b / "machines" / SERVER / "machine").exists()


async def test_facts_tell_who_has_which_address(world: World) -> None:
    await world.replicate()
    await world.perform(TakePoint("point"))
    await world.launch("serving", "point", ip_address="10.2.0.40", isolated=False, elastic_ip="127.0.12.5")
    await world.launch("drill", "point", ip_address="10.2.0.40")
    recovery = await site(world)
    network = recovery.network("app")
    assert network is not None
    assert network.taken["10.2.0.40"] == f"{SERVER}/serving"
    assert network.taken["10.2.0.2"].startswith("network ")
    assert recovery.elastic_ips == {"127.0.12.5": f"{SERVER}/serving", "127.0.12.6": None}
    primary = await site(world, "primary")
    assert primary.network("app").taken["10.1.0.15"] == SERVER  # type: ignore[union-attr]
    for shape, reason in (({"ip_address": "10.2.0.40"}, "taken"), ({"elastic_ip": "127.0.12.5"}, "in use")):
        with pytest.raises(Refused, match=reason):
            await world.launch("other", "point", isolated=False, **shape)
    assert (await world.machines())["serving"].url == "http://127.0.12.5/"
    url = (await world.machines())["drill"].url
    assert url is not None
    assert url.startswith("http://127.0.0.1:")


async def test_an_elastic_ip_moves_and_a_route_is_found_again(world: World) -> None:
    await world.replicate()
    await world.perform(TakePoint("point"))
    await world.launch("machine", "point", isolated=False, elastic_ip="127.0.12.5")
    folder = world.b / "machines" / SERVER / "machine"
    pid = machine.running(folder)
    # Nothing in this machine listens, so the engine is not asked: it sees that somebody does.
    route = await forwards.ensure_route(world.monitors, folder, "10.2.0.15", 5432)
    await world.perform(MoveElasticIP("machine", "127.0.12.6"), MoveElasticIP("machine", "127.0.12.6"))
    assert await listens("127.0.12.6", 80)
    assert not await listens("127.0.12.5", 80)
    await world.new_engine()
    assert await forwards.ensure_route(world.monitors, folder, "10.2.0.15", 5432) == route
    await world.perform(MoveElasticIP("machine", None))
    assert not await listens("127.0.12.6", 80)
    assert machine.running(folder) == pid
    assert await listens(*route)


async def listens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def test_a_machine_that_died_is_failed_with_the_reason_and_started_again_on_its_disks(world: World) -> None:
    await world.replicate()
    await world.perform(TakePoint("point"))
    await world.launch("machine", "point")
    folder = world.b / "machines" / SERVER / "machine"
    await world.io(folder, 0, "write -P 7 0 64k")
    await processes.kill(folder / machine.PID)
    seen = (await world.machines())["machine"]
    assert seen.state is MachineState.FAILED
    assert seen.reason
    assert (await world.launch("machine", "point")).state is MachineState.RUNNING
    assert await world.holds("machine", 0, 7, "0")


async def test_the_network_gives_a_server_its_name(world: World) -> None:
    def hostname(pid: int | None) -> str:
        options = psutil.Process(pid).cmdline()
        return str(json.loads(options[options.index("-netdev") + 1])["hostname"])

    await world.replicate()
    await world.perform(TakePoint("point"))
    shape = Shape(cpu=1, memory_bytes=64 * MIB, network="app", isolated=True)
    await world.perform(Launch("named", "point", replace(shape, name="orders-2")), Launch("unnamed", "point", shape))
    machines = world.b / "machines" / SERVER
    assert hostname(machine.running(machines / "named")) == "orders-2"
    assert hostname(machine.running(machines / "unnamed")) == SERVER
    assert hostname(machine.running(world.source)) == SERVER


async def test_disks_that_two_machines_share_go_with_the_last(world: World) -> None:
    await world.replicate()
    await world.perform(TakePoint("point"))
    shape = Shape(cpu=1, memory_bytes=64 * MIB, network="app", isolated=True)
    await world.perform(Launch("one", "point", shape))
    with pytest.raises(Retry, match="still runs"):
        await world.perform(Launch("two", "point", shape, disks_of="one"))
    await world.perform(Halt("one"), Launch("two", "point", shape, disks_of="one"), RemoveMachine("one"))
    assert world.overlay("one", 0).exists()
    assert (await world.machines())["two"].state is MachineState.RUNNING
    await world.perform(RemoveMachine("two"))
    assert not world.overlay("one", 0).exists()


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", ".", "..", "a,id=x", "a b", "-x", "a\n", "x" * 300, "a..b"])
async def test_no_name_leaves_its_folder_or_becomes_an_option(world: World, name: str) -> None:
    before = sorted(world.folder.rglob("*.json"))
    shape = Shape(cpu=1, memory_bytes=64 * MIB, network="app")
    await world.replicate()
    for verb in (
        Launch(name, "point", shape),
        Launch("machine", name, shape),
        Launch("machine", "point", Shape(cpu=1, memory_bytes=64 * MIB, network=name)),
        TakePoint(name),
        RemoveMachine(name),
    ):
        with pytest.raises(Refused):
            await world.perform(verb)
    assert await world.points() == []
    assert [path for path in sorted(world.folder.rglob("*.json")) if path not in before] == [
        world.b / "replicas" / SERVER / "replica.json"
    ]


async def test_a_deep_folder_is_no_obstacle_to_sockets(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("deep") / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    world = World(folder)
    try:
        await world.engine.start_server("zone-a", SERVER)
        await world.replicate()
        await world.perform(TakePoint("point"))
        assert (await world.launch("m" * 60, "point")).state is MachineState.RUNNING
    finally:
        await world.close()


async def test_many_silent_guests_delay_nobody(world: World) -> None:
    others = [
        server(id=f"s{number}", memory="16Mi", ipAddress=None, disks=[
            {"name": "system", "file": f"disks/{number}.qcow2", "size": "16Mi"}
        ])
        for number in range(4)
    ]  # fmt: skip
    for other in others:
        del other["ipAddress"]
    world.write_inventory("zone-a", servers=[server(), *others])
    engine = QemuEngine(world.folder)
    for number in range(4):
        await engine.start_server("zone-a", f"s{number}")
    began = time.monotonic()
    facts = await engine.observe(world.pair, [SERVER, *(f"s{number}" for number in range(4))])
    assert time.monotonic() - began < 1.5
    assert all(known(seen.forward.source).running for seen in facts.servers.values())
    addresses = [known(seen.forward.hardware).addresses for seen in facts.servers.values()]
    assert len(set(addresses)) == 5
    await engine.close()
