"""The engine contract in code: the machines that are started from points, and what runs in them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from lifeboat.engines.contract import Refused, Retry, Script, Target
from lifeboat.engines.facts import MachineState, ReplicaState, Way
from lifeboat.engines.verbs import (
    Continue,
    Halt,
    Launch,
    MakeIndependent,
    MoveElasticIP,
    ReleaseReplica,
    RemoveMachine,
    StopReplication,
    TakePoint,
    Verb,
)
from tests.engines.harness import Harness, Stage, known


@pytest.fixture
async def stage(harness: Harness) -> Stage:
    """A server with a point that holds write 1."""
    stage = Stage(harness)
    await stage.replicate()
    await harness.write(1)
    await stage.perform(TakePoint("point-1"))
    return stage


# Starting and stopping


async def test_launching_twice_makes_one_machine(stage: Stage, harness: Harness) -> None:
    first = await stage.launch("machine-1", "point-1")
    await harness.restart_engine()
    assert await stage.launch("machine-1", "point-1") == first
    assert list(await stage.machines()) == ["machine-1"]
    assert first.state is MachineState.RUNNING
    assert first.instance_id


async def test_two_launches_at_the_same_moment_make_one_machine(stage: Stage, harness: Harness) -> None:
    verb = Launch("machine-1", "point-1", stage.shape())
    results = await asyncio.gather(stage.perform(verb), stage.perform(verb), return_exceptions=True)
    assert all(result is None or isinstance(result, Retry) for result in results)
    await stage.up("machine-1")
    assert list(await stage.machines()) == ["machine-1"]
    assert await harness.contents("machine-1") == 1


async def test_a_verb_that_is_cut_off_at_any_moment_is_done_once_when_it_is_asked_again(
    stage: Stage, harness: Harness
) -> None:
    """A deadline, and a leader that lets go, cancel what is under way wherever it is."""
    shape = stage.shape()
    for verb in (TakePoint("cut-off"), Launch("machine-1", "point-1", shape), Halt("machine-1")):
        for seconds in (0.0, 0.003, 0.01, 0.03, 0.1, 0.3):
            with contextlib.suppress(TimeoutError, Retry):
                async with asyncio.timeout(seconds):
                    await stage.perform(verb)
        await _done(stage, verb)
        assert (await stage.points()).count("cut-off") == 1
    await _done(stage, Launch("machine-1", "point-1", shape))
    await stage.up("machine-1")
    assert list(await stage.machines()) == ["machine-1"]
    assert await harness.contents("machine-1") == 1
    with contextlib.suppress(TimeoutError, Retry):
        async with asyncio.timeout(0.03):
            await stage.perform(RemoveMachine("machine-1"))
    await _done(stage, RemoveMachine("machine-1"))
    assert not await stage.machines()


async def _done(stage: Stage, verb: Verb) -> None:
    """Ask until it is done, as the operator does."""
    for _ in range(50):
        try:
            await stage.perform(verb)
        except Retry:
            await stage.pause()
        else:
            return
    raise AssertionError(f"{verb} is never done")


@pytest.mark.guest
async def test_a_machine_gets_the_shape_and_the_address_that_were_asked_for(stage: Stage, harness: Harness) -> None:
    machine = await stage.launch("machine-1", "point-1", stage.shape(cpu=1, ip_address=harness.address(0)))
    assert machine.addresses == (harness.address(0),)
    cpus = await harness.engine.execute(stage.target(), "machine-1", ["nproc"], 20)
    assert cpus.output.strip() == "1"
    memory = await harness.engine.execute(stage.target(), "machine-1", ["grep", "MemTotal:", "/proc/meminfo"], 20)
    total = int(memory.output.split("MemTotal:")[1].split()[0]) << 10
    assert harness.memory_bytes * 0.6 <= total <= harness.memory_bytes, "the kernel keeps some for itself"


async def test_without_an_address_a_machine_gets_one_of_its_network(stage: Stage) -> None:
    machine = await stage.launch("machine-1", "point-1")
    assert len(machine.addresses) == 1


@pytest.mark.parametrize("trouble", ["point", "network", "outside", "cpu"])
async def test_what_cannot_be_launched_is_refused_and_leaves_nothing(
    stage: Stage, harness: Harness, trouble: str
) -> None:
    shape = stage.shape()
    site = await stage.recovery()
    match trouble:
        case "point":
            verb = Launch("machine-1", "no-such-point", shape)
        case "network":
            verb = Launch("machine-1", "point-1", replace(shape, network="no-such-network"))
        case "outside":
            verb = Launch("machine-1", "point-1", replace(shape, ip_address=harness.outside_address))
        case _:
            verb = Launch("machine-1", "point-1", replace(shape, cpu=site.cpu + 1))
    await stage.refuses(verb)
    assert await stage.machines() == {}


async def test_a_taken_address_is_refused_unless_the_machine_is_isolated(stage: Stage, harness: Harness) -> None:
    address = harness.address(0)
    await stage.launch("machine-1", "point-1", stage.shape(ip_address=address))
    network = (await stage.recovery()).network(harness.recovery_network)
    assert network is not None
    assert address in network.taken
    await stage.refuses(Launch("machine-2", "point-1", stage.shape(ip_address=address)))
    drill = await stage.launch("drill", "point-1", stage.shape(ip_address=address, isolated=True))
    assert drill.addresses == (address,)
    assert (await stage.machines())["machine-1"].state is MachineState.RUNNING
    await stage.perform(Halt("machine-1"))
    await harness.settle(lambda facts: known(facts.machines)["machine-1"].state is MachineState.HALTED)
    assert (await stage.launch("machine-3", "point-1", stage.shape(ip_address=address))).addresses == (address,)


@pytest.mark.guest
async def test_a_drill_leaves_replication_in_sync_and_points_can_be_taken(stage: Stage, harness: Harness) -> None:
    states: set[ReplicaState] = set()

    def watch(facts: Way) -> bool:
        states.add(known(facts.replica).state)
        return stage.is_up(facts, "drill")

    await stage.perform(Launch("drill", "point-1", stage.shape(isolated=True)))
    await harness.settle(watch)
    await harness.write(2)
    await stage.perform(TakePoint("point-2"))
    await harness.write_in("drill", 100)
    states.add((await stage.replica()).state)
    await stage.perform(RemoveMachine("drill"))
    states.add((await stage.replica()).state)
    assert states == {ReplicaState.SYNCED}
    await stage.launch("drill-2", "point-2", stage.shape(isolated=True))
    assert await harness.contents("drill-2") == 2, "what a drill wrote is nowhere else"


async def test_a_halted_machine_keeps_its_disks_and_a_launch_with_disks_of_goes_on_with_them(
    stage: Stage, harness: Harness
) -> None:
    await stage.launch("attempt-1", "point-1")
    await harness.write_in("attempt-1", 7)
    with pytest.raises((Retry, Refused)):
        await stage.perform(Launch("attempt-2", "point-1", stage.shape(cpu=1), disks_of="attempt-1"))
    await stage.perform(Halt("attempt-1"), Halt("attempt-1"))
    facts = await harness.settle(lambda facts: known(facts.machines)["attempt-1"].state is MachineState.HALTED)
    assert not known(facts.machines)["attempt-1"].agent_connected
    assert known(facts.replica).points[0].held, "kept disks stand on the point too"
    await harness.restart_engine()
    await stage.launch("attempt-2", "point-1", stage.shape(cpu=1), disks_of="attempt-1")
    assert await harness.contents("attempt-2") == 7


async def test_a_machine_that_runs_is_let_be_by_continue_and_one_that_does_not_stays_halted(
    stage: Stage, harness: Harness
) -> None:
    running = await stage.launch("attempt-1", "point-1")
    await stage.perform(Continue("attempt-1"), Continue("attempt-1"))
    assert (await stage.machines())["attempt-1"] == running
    await stage.perform(Halt("attempt-1"))
    await harness.settle(lambda facts: known(facts.machines)["attempt-1"].state is MachineState.HALTED)
    with pytest.raises((Retry, Refused)):
        await stage.perform(Continue("attempt-1"))
    assert (await stage.machines())["attempt-1"].state is MachineState.HALTED


async def test_a_halted_machine_starts_again_on_its_own_disks(stage: Stage, harness: Harness) -> None:
    await stage.launch("attempt-1", "point-1")
    await harness.write_in("attempt-1", 7)
    await stage.perform(Halt("attempt-1"))
    await harness.settle(lambda facts: known(facts.machines)["attempt-1"].state is MachineState.HALTED)
    await stage.launch("attempt-1", "point-1", disks_of="attempt-1")
    assert await harness.contents("attempt-1") == 7


async def test_a_launch_never_replaces_the_disks_of_a_machine_of_that_name(stage: Stage, harness: Harness) -> None:
    await stage.launch("attempt-1", "point-1")
    await harness.write_in("attempt-1", 7)
    await stage.perform(Halt("attempt-1"))
    await harness.settle(lambda facts: known(facts.machines)["attempt-1"].state is MachineState.HALTED)
    try:
        await stage.launch("attempt-1", "point-1")
    except (Retry, Refused):
        await stage.launch("attempt-1", "point-1", disks_of="attempt-1")
    assert await harness.contents("attempt-1") == 7


async def test_removing_a_machine_twice_removes_it_and_leaves_the_others(stage: Stage, harness: Harness) -> None:
    await stage.launch("drill-1", "point-1", stage.shape(isolated=True))
    other = await stage.launch("drill-2", "point-1", stage.shape(isolated=True))
    await stage.perform(RemoveMachine("drill-1"))
    await harness.restart_engine()
    await stage.perform(RemoveMachine("drill-1"))
    facts = await harness.settle(lambda facts: "drill-1" not in known(facts.machines))
    assert known(facts.machines) == {"drill-2": other}
    assert known(facts.replica).points[0].used_by == ("drill-2",)


async def test_removing_a_machine_leaves_the_disks_that_another_one_goes_on_with(
    stage: Stage, harness: Harness
) -> None:
    await stage.launch("attempt-1", "point-1")
    await harness.write_in("attempt-1", 7)
    await stage.perform(Halt("attempt-1"))
    await harness.settle(lambda facts: known(facts.machines)["attempt-1"].state is MachineState.HALTED)
    await stage.launch("attempt-2", "point-1", disks_of="attempt-1")
    await stage.perform(RemoveMachine("attempt-1"), RemoveMachine("attempt-1"))
    await harness.settle(lambda facts: "attempt-1" not in known(facts.machines))
    assert await harness.contents("attempt-2") == 7
    await stage.perform(Halt("attempt-2"))
    await harness.settle(lambda facts: known(facts.machines)["attempt-2"].state is MachineState.HALTED)
    await stage.launch("attempt-2", "point-1", disks_of="attempt-2")
    assert await harness.contents("attempt-2") == 7


# Replica and machine part


async def test_an_independent_machine_runs_on_when_replica_and_points_are_released(
    stage: Stage, harness: Harness
) -> None:
    await stage.insist(StopReplication(freeze_as="tip"))
    await stage.launch("machine-1", "tip")
    assert not (await stage.machines())["machine-1"].independent
    await stage.perform(MakeIndependent("machine-1"), MakeIndependent("machine-1"))
    await harness.settle(lambda facts: known(facts.machines)["machine-1"].independent)
    await stage.perform(ReleaseReplica())
    await harness.restart_engine()
    await stage.perform(ReleaseReplica())
    facts = await harness.settle(lambda facts: known(facts.replica).state is ReplicaState.ABSENT)
    assert known(facts.replica).points == ()
    assert known(facts.machines)["machine-1"].state is MachineState.RUNNING
    assert await harness.contents("machine-1") == 1
    await harness.write_in("machine-1", 2)
    await stage.perform(Halt("machine-1"))
    await harness.settle(lambda facts: known(facts.machines)["machine-1"].state is MachineState.HALTED)
    await stage.launch("machine-1", "tip", disks_of="machine-1")
    assert await harness.contents("machine-1") == 2, "its disks are whole by themselves"


async def test_releasing_keeps_the_point_under_a_drill(stage: Stage, harness: Harness) -> None:
    await stage.perform(TakePoint("point-2"))
    await stage.launch("drill", "point-1", stage.shape(isolated=True))
    await stage.perform(StopReplication(), ReleaseReplica())
    facts = await harness.settle(lambda facts: len(known(facts.replica).points) == 1)
    assert [point.name for point in known(facts.replica).points] == ["point-1"]
    assert await harness.contents("drill") == 1
    await stage.perform(RemoveMachine("drill"))
    await harness.settle(lambda facts: "drill" not in known(facts.machines))
    await stage.perform(ReleaseReplica())
    await harness.settle(lambda facts: known(facts.replica).state is ReplicaState.ABSENT)
    assert await stage.points() == []


# Addresses for the outside


async def test_an_elastic_ip_moves_without_a_restart(stage: Stage, harness: Harness) -> None:
    first, second = harness.elastic_ips
    if not harness.engine.capabilities.elastic_ips:
        await stage.refuses(Launch("machine-1", "point-1", stage.shape(elastic_ip=first)))
        await stage.launch("machine-1", "point-1")
        await stage.refuses(MoveElasticIP("machine-1", first))
        return
    machine = await stage.launch("machine-1", "point-1", stage.shape(elastic_ip=first))
    assert (machine.elastic_ip, (await stage.recovery()).elastic_ips[second]) == (first, None)
    assert machine.url is not None
    await stage.refuses(Launch("machine-2", "point-1", stage.shape(elastic_ip=first)))
    await stage.perform(MoveElasticIP("machine-1", second), MoveElasticIP("machine-1", second))
    moved = (await stage.machines())["machine-1"]
    assert moved.elastic_ip == second
    assert replace(moved, elastic_ip=first, url=machine.url) == machine, "nothing else changed: it still runs"
    pool = (await stage.recovery()).elastic_ips
    assert pool[first] is None
    assert pool[second] is not None
    await stage.perform(MoveElasticIP("machine-1", None))
    assert (await stage.machines())["machine-1"].elastic_ip is None
    assert (await stage.recovery()).elastic_ips[second] is None


async def test_a_halted_machine_gives_its_elastic_ip_back(stage: Stage, harness: Harness) -> None:
    elastic_ip = harness.elastic_ips[0] if harness.engine.capabilities.elastic_ips else None
    await stage.launch("attempt-1", "point-1", stage.shape(elastic_ip=elastic_ip))
    await stage.perform(Halt("attempt-1"))
    await harness.settle(lambda facts: known(facts.machines)["attempt-1"].state is MachineState.HALTED)
    assert set((await stage.recovery()).elastic_ips.values()) <= {None}
    again = await stage.launch("attempt-2", "point-1", stage.shape(elastic_ip=elastic_ip), disks_of="attempt-1")
    assert again.elastic_ip == elastic_ip


async def test_an_elastic_ip_outside_the_pool_is_refused(stage: Stage) -> None:
    await stage.refuses(Launch("machine-1", "point-1", stage.shape(elastic_ip="203.0.113.99")))
    assert await stage.machines() == {}


@pytest.mark.guest
async def test_a_machine_is_reached_through_its_route_elastic_ip_or_not(stage: Stage, harness: Harness) -> None:
    await stage.launch("routed", "point-1", stage.shape(isolated=True))
    async with asyncio.timeout(60):
        host, port = await _route(harness, stage.target(), "routed")
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        await writer.drain()
        answer = await reader.read(5)
        writer.close()
        await writer.wait_closed()
    assert answer == b"HTTP/"


async def _route(harness: Harness, target: Target, machine: str) -> tuple[str, int]:
    """The route to a machine's web server, once that accepts connections."""
    while True:
        with contextlib.suppress(Retry):
            return await harness.engine.route(target, machine, 80)
        await asyncio.sleep(0.1)


@pytest.mark.guest
async def test_there_is_no_route_to_a_port_that_nothing_listens_on(stage: Stage, harness: Harness) -> None:
    await stage.launch("routed", "point-1", stage.shape(isolated=True))
    async with asyncio.timeout(60):
        await _route(harness, stage.target(), "routed")
    with pytest.raises(Retry, match="81"):
        await harness.engine.route(stage.target(), "routed", 81)


# In the guest


@pytest.mark.guest
async def test_execute_tells_exit_code_and_output(stage: Stage, harness: Harness) -> None:
    await stage.launch("machine-1", "point-1")
    result = await harness.engine.execute(stage.target(), "machine-1", ["sh", "-c", "echo hello; exit 3"], 20)
    assert (result.exit_code, result.output.strip()) == (3, "hello")


@pytest.mark.guest
async def test_a_script_runs_once_for_each_key(stage: Stage, harness: Harness) -> None:
    await stage.launch("machine-1", "point-1")
    content = "echo ran >> /tmp/runs\necho hello\nexit 4\n"
    first = await harness.engine.run_script(stage.target(), "machine-1", Script("key-1", content), 20)
    assert (first.exit_code, first.output.strip()) == (4, "hello")
    shown = await harness.engine.execute(stage.target(), "machine-1", ["cat", "/run/lifeboat/key-1/script"], 20)
    assert "runs" not in shown.output, "it may have been a Secret's"
    await harness.restart_engine()
    assert await harness.engine.run_script(stage.target(), "machine-1", Script("key-1", content), 20) == first
    runs = await harness.engine.execute(stage.target(), "machine-1", ["cat", "/tmp/runs"], 20)
    assert runs.output.split() == ["ran"]
    await harness.engine.run_script(stage.target(), "machine-1", Script("key-2", content), 20)
    runs = await harness.engine.execute(stage.target(), "machine-1", ["cat", "/tmp/runs"], 20)
    assert runs.output.split() == ["ran", "ran"]


@pytest.mark.guest
async def test_nothing_runs_in_a_machine_that_is_halted_or_not_there(stage: Stage, harness: Harness) -> None:
    with pytest.raises((Retry, Refused)):
        await harness.engine.execute(stage.target(), "no-such-machine", ["true"], 5)
    await stage.launch("machine-1", "point-1")
    await stage.perform(Halt("machine-1"))
    with pytest.raises((Retry, Refused)):
        await harness.engine.execute(stage.target(), "machine-1", ["true"], 5)
