"""What is special to the simulated world: it is cheap, exact, and fails where a test says so."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lifeboat.engines.contract import LedgerConflict, Retry, Target, Unreachable
from lifeboat.engines.facts import Disk, Hardware, Known, Replica, ReplicaState, ServerFacts
from lifeboat.engines.ledger import Ledger
from lifeboat.engines.simulated.engine import SimulatedEngine
from lifeboat.engines.simulated.world import World
from lifeboat.engines.verbs import (
    Fence,
    Launch,
    MakeIndependent,
    RemoveMachine,
    ResumeReplication,
    Shape,
    StartReplication,
    StopReplication,
    TakePoint,
)

GIB = 1 << 30
START = datetime(2026, 1, 1, tzinfo=UTC)
HARDWARE = Hardware(2, 4 * GIB, (Disk("system", 40 * GIB, GIB), Disk("data", 100 * GIB, GIB)), ("10.0.1.7",))
SHAPE = Shape(cpu=2, memory_bytes=4 * GIB, network="recovery")
COPY = StartReplication(run=1, replication_network="recovery")


@pytest.fixture
def world() -> World:
    world = World(START, copy_rate=1 << 28)
    world.add_network("zone-b", "recovery", "10.0.0.0/16")
    world.add_server("web", HARDWARE)
    return world


def target(world: World, server_id: str = "web", term: int = 1) -> Target:
    return Target(world.pair, server_id, term)


def see(world: World, server_id: str = "web") -> ServerFacts:
    return world.observe(world.pair, [server_id]).servers[server_id]


def replica(world: World) -> Replica:
    fact = see(world).forward.replica
    assert isinstance(fact, Known)
    return fact.value


def replicate(world: World) -> None:
    world.perform(target(world), COPY)
    world.advance(timedelta(minutes=1))
    assert replica(world).state is ReplicaState.SYNCED


def test_five_thousand_idle_servers_are_observed_in_less_than_a_tenth_of_a_second(world: World) -> None:
    servers = [f"server-{number}" for number in range(5_000)]
    for server_id in servers:
        world.add_server(server_id, replace(HARDWARE, addresses=()))
        world.perform(target(world, server_id), COPY)
    world.advance(timedelta(minutes=1))
    world.observe(world.pair, servers)
    world.advance(timedelta(seconds=10))
    began = time.perf_counter()
    seen = world.observe(world.pair, servers)
    assert time.perf_counter() - began < 0.1
    assert len(seen.servers) == 5_000


def test_unchanged_facts_are_the_same_object_and_a_change_is_seen_in_its_server_only(world: World) -> None:
    world.add_server("db", HARDWARE)
    replicate(world)
    web, db = see(world), see(world, "db")
    world.advance(timedelta(hours=1))
    world.silence("zone-a")
    world.answer("zone-a")
    assert see(world) is web
    world.perform(target(world), TakePoint("point-1"))
    assert see(world) is not web
    assert see(world, "db") is db


def test_a_copy_moves_with_the_clock_and_with_nothing_else(world: World) -> None:
    world.perform(target(world), replace(COPY, bandwidth_limit=1 << 27))
    assert replica(world).state is ReplicaState.STARTING
    world.advance(timedelta(seconds=1))
    world.advance(timedelta(seconds=8))
    half = replica(world)
    assert (half.state, half.copied_bytes, half.total_bytes) == (ReplicaState.COPYING, GIB, 2 * GIB)
    assert half.bytes_per_second == 1 << 27
    assert replica(world) == half
    world.advance(timedelta(seconds=8))
    assert replica(world).state is ReplicaState.SYNCED
    with pytest.raises(ValueError, match="backwards"):
        world.advance(timedelta(seconds=-1))


def test_an_error_before_the_effect_leaves_the_world_alone(world: World) -> None:
    replicate(world)
    world.fail_next(TakePoint, Retry("no answer"))
    with pytest.raises(Retry, match="no answer"):
        world.perform(target(world), TakePoint("point-1"))
    assert replica(world).points == ()
    world.perform(target(world), TakePoint("point-1"))
    assert [verb for _, verb in world.performed] == [COPY, TakePoint("point-1")]


def test_an_error_after_the_effect_leaves_the_effect(world: World) -> None:
    replicate(world)
    world.fail_next(StopReplication, Retry("the answer was lost"), after_effect=True)
    with pytest.raises(Retry, match="lost"):
        world.perform(target(world), StopReplication(freeze_as="tip"))
    assert [point.name for point in replica(world).points] == ["tip"]


def test_a_ledger_whose_answer_is_lost_is_stored(world: World) -> None:
    world.fail_next(Ledger, Unreachable("the answer was lost"), after_effect=True)
    with pytest.raises(Unreachable):
        world.record(target(world), Ledger("web", run=1))
    assert see(world).ledger == Known(Ledger("web", version=1, term=1, run=1))
    with pytest.raises(LedgerConflict):
        world.record(target(world), Ledger("web", run=2))


def test_the_journal_has_ledgers_and_verbs_in_one_order(world: World) -> None:
    stored = world.record(target(world), Ledger("web", run=1))
    world.perform(target(world), COPY)
    assert [act for _, act in world.journal] == [stored, COPY]


def test_a_machine_from_an_older_point_lost_what_came_later(world: World) -> None:
    replicate(world)
    world.write("web")
    world.perform(target(world), TakePoint("old"))
    world.write("web")
    world.perform(target(world), Fence())
    world.perform(target(world), StopReplication(freeze_as="tip"))
    for machine, point, lost in (("attempt-1", "old", 1), ("attempt-2", "tip", 0)):
        world.perform(target(world), Launch(machine, point, SHAPE))
        assert world.lost("web", machine) == lost
    with pytest.raises(ValueError, match="does not run"):
        world.write("web")


def test_a_silent_zone_goes_on_and_its_writes_still_arrive(world: World) -> None:
    replicate(world)
    world.silence("zone-a")
    assert world.write("web") == world.replica_contents("web") == 1
    assert replica(world).state is ReplicaState.INTERRUPTED
    assert replica(world).resumable, "nothing says that everything has to be copied again"


def test_a_point_of_a_lagging_replica_is_as_old_as_its_data(world: World) -> None:
    replicate(world)
    world.cut_link()
    cut = world.now
    world.advance(timedelta(minutes=10))
    world.write("web")
    assert replica(world).lag_seconds == 600
    with pytest.raises(Retry, match="do not reach"):
        world.perform(target(world), ResumeReplication())
    world.perform(target(world), TakePoint("point-1"))
    assert replica(world).points[0].time == cut
    assert world.point_contents("web", "point-1") == 0


def test_space_is_given_back_when_replica_and_machines_are_gone(world: World) -> None:
    def free() -> int:
        site = world.observe(world.pair, []).recovery
        assert isinstance(site, Known)
        return site.value.standard.free_bytes

    before = free()
    replicate(world)
    world.perform(target(world), StopReplication(freeze_as="tip"))
    world.perform(target(world), Launch("machine-1", "tip", SHAPE))
    world.perform(target(world), MakeIndependent("machine-1"))
    assert free() == before - 4 * GIB
    world.perform(target(world), RemoveMachine("machine-1"))
    assert free() == before - 2 * GIB


async def test_an_engine_brings_its_world_to_the_clocks_time(world: World) -> None:
    now = START
    engine = SimulatedEngine(world, lambda: now)
    await engine.perform(target(world), COPY)
    now += timedelta(minutes=1)
    seen = (await engine.observe(world.pair, ["web"])).servers["web"].forward.replica
    assert isinstance(seen, Known)
    assert seen.value.state is ReplicaState.SYNCED
