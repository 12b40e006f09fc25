"""The engine contract in code: seeing, the ledger and replication.

Each engine runs these through its harness. The modules beside this one go on with points, machines and the source;
docs/engine-contract.md says why each rule is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from lifeboat.engines.contract import LedgerConflict, Refused, Retry, StaleTerm, Unreachable
from lifeboat.engines.facts import Known, Replica, ReplicaState, Unknown, Way
from lifeboat.engines.ledger import ActiveSite, Claim, Ledger
from lifeboat.engines.verbs import (
    Continue,
    Fence,
    Halt,
    Launch,
    LimitBandwidth,
    MakeIndependent,
    MoveElasticIP,
    PrunePoints,
    ReleaseReplica,
    RemoveMachine,
    Restart,
    ResumeReplication,
    StopReplication,
    TakePoint,
    Unfence,
)
from tests.engines.harness import Harness, Stage, known

# Seeing


async def test_observe_sees_both_sites_and_the_server(stage: Stage, harness: Harness) -> None:
    seen = await stage.look()
    assert known(seen.primary).zone == harness.pair.primary_zone
    assert harness.server_id in known(seen.primary).servers
    recovery = known(seen.recovery)
    assert recovery.network(harness.recovery_network) is not None
    assert recovery.network(harness.replication_network) is not None
    server = seen.servers[harness.server_id].way(harness.direction)
    assert known(server.exists)
    assert known(server.source).running
    assert not known(server.source).fenced
    assert len(known(server.hardware).disks) >= 2
    assert known(server.replica).state is ReplicaState.ABSENT
    assert known(server.machines) == {}


async def test_observe_changes_nothing(stage: Stage) -> None:
    first = await stage.look()
    second = await stage.look()
    assert second.servers == first.servers
    for before, after in ((first.primary, second.primary), (first.recovery, second.recovery)):
        # Others may use a zone's storage meanwhile, and what distributed storage could hold is its own estimate.
        whatever = known(before).standard, known(before).ssd
        assert replace(known(after), standard=whatever[0], ssd=whatever[1]) == known(before)
        assert known(after).standard.size_bytes == pytest.approx(known(before).standard.size_bytes, rel=0.01)


async def test_a_server_that_its_site_does_not_have_is_known_not_to_exist(harness: Harness) -> None:
    seen = await harness.engine.observe(harness.pair, ["no-such-server"])
    assert seen.servers["no-such-server"].forward.exists == Known(value=False)


async def test_a_silent_primary_makes_its_facts_unknown_with_a_reason_and_no_others(
    stage: Stage, harness: Harness
) -> None:
    await stage.replicate()
    await stage.perform(TakePoint("point-1"))
    hardware = known((await stage.server()).hardware)
    await stage.record(Ledger(harness.server_id))
    await harness.silence(harness.pair.primary_zone)
    seen = await stage.look()
    ledger = seen.servers[harness.server_id].ledger
    server = seen.servers[harness.server_id].way(harness.direction)
    for fact in (seen.primary, server.exists, server.source):
        assert isinstance(fact, Unknown)
        assert fact.reason
    assert known(seen.recovery).zone == harness.pair.recovery_zone
    assert known(ledger).version == 1
    assert known(server.machines) == {}
    assert known(server.hardware).cpu == hardware.cpu
    assert known(server.hardware).memory_bytes == hardware.memory_bytes
    replica = known(server.replica)
    assert [point.name for point in replica.points] == ["point-1"]
    assert replica.state is not ReplicaState.SYNCED, "nothing proves that writes still arrive"
    await harness.answer(harness.pair.primary_zone)
    await stage.reaches(ReplicaState.SYNCED)


async def test_a_silent_recovery_site_makes_its_facts_unknown_with_a_reason(stage: Stage, harness: Harness) -> None:
    await harness.silence(harness.pair.recovery_zone)
    seen = await stage.look()
    ledger = seen.servers[harness.server_id].ledger
    server = seen.servers[harness.server_id].way(harness.direction)
    for fact in (seen.recovery, server.replica, server.machines, ledger):
        assert isinstance(fact, Unknown)
        assert fact.reason
    assert known(server.source).running
    with pytest.raises(Unreachable):
        await stage.perform(ReleaseReplica())


async def test_a_new_engine_instance_sees_everything(stage: Stage, harness: Harness) -> None:
    await stage.replicate()
    await stage.perform(TakePoint("point-1"))
    await stage.launch("drill-1", "point-1", stage.shape(isolated=True))
    await stage.record(Ledger(harness.server_id))
    before, recorded = await stage.server(), await stage.ledger()
    await harness.restart_engine()
    await stage.reaches(ReplicaState.SYNCED)
    after = await stage.server()
    assert await stage.ledger() == recorded
    assert known(after.machines) == known(before.machines)
    assert known(after.replica).points == known(before.replica).points


# The ledger


async def test_a_ledger_that_was_never_recorded_has_version_zero(stage: Stage, harness: Harness) -> None:
    assert (await stage.ledger()) == Ledger(harness.server_id)


async def test_a_recorded_ledger_is_read_back_with_its_version_and_term(stage: Stage, harness: Harness) -> None:
    ledger = Ledger(harness.server_id, claim=Claim("default", "web", "1234"), active_site=ActiveSite.RECOVERY)
    stored = await stage.record(ledger, term=3)
    assert stored == replace(ledger, version=1, term=3)
    await harness.restart_engine()
    assert await stage.ledger() == stored


async def test_record_refuses_a_version_that_is_not_the_stored_one(stage: Stage, harness: Harness) -> None:
    stored = await stage.record(Ledger(harness.server_id))
    for version in (0, 2):
        with pytest.raises(LedgerConflict):
            await stage.record(replace(stored, version=version))
    assert await stage.ledger() == stored


async def test_of_two_records_at_the_same_moment_one_wins(stage: Stage, harness: Harness) -> None:
    results = await asyncio.gather(
        *(stage.record(Ledger(harness.server_id, run=number)) for number in range(5)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["Ledger", *["LedgerConflict"] * 4]


async def test_record_refuses_a_stale_term(stage: Stage, harness: Harness) -> None:
    stored = await stage.record(Ledger(harness.server_id), term=5)
    with pytest.raises(StaleTerm) as caught:
        await stage.record(stored, term=4)
    assert caught.value.term == 5
    assert (await stage.record(stored, term=5)).version == 2


async def test_every_verb_refuses_a_stale_term(stage: Stage, harness: Harness) -> None:
    await stage.record(Ledger(harness.server_id), term=5)
    before = await stage.server()
    for verb in (
        Restart(),
        stage.copy(),
        ResumeReplication(),
        LimitBandwidth(None),
        StopReplication(),
        TakePoint("point-1"),
        PrunePoints(("point-1",)),
        Fence(),
        Unfence(),
        Launch("machine-1", "point-1", stage.shape()),
        Halt("machine-1"),
        Continue("machine-1"),
        MoveElasticIP("machine-1", None),
        RemoveMachine("machine-1"),
        MakeIndependent("machine-1"),
        ReleaseReplica(),
    ):
        with pytest.raises(StaleTerm):
            await stage.perform(verb, term=4)
    assert await stage.server() == before


# Replication


async def test_a_start_that_was_cut_off_at_any_moment_is_finished_when_it_is_asked_again(
    stage: Stage, harness: Harness
) -> None:
    for run, seconds in enumerate((0.0, 0.01, 0.03, 0.1, 0.2, 0.4), start=1):
        with contextlib.suppress(TimeoutError, Retry):
            async with asyncio.timeout(seconds):
                await stage.perform(stage.copy(run))
        await harness.restart_engine()
        # What was being started when it was cut off may still be on its way.
        await stage.insist(stage.copy(run))
        await stage.reaches(ReplicaState.SYNCED)
        assert (await stage.replica()).run == run
    await harness.write(1)
    await stage.perform(TakePoint("point-1"))
    await stage.launch("drill", "point-1", stage.shape(isolated=True))
    assert await harness.contents("drill") == 1


async def test_starting_replication_twice_starts_one_copy(stage: Stage, harness: Harness) -> None:
    await stage.perform(stage.copy())
    await harness.restart_engine()
    await stage.perform(stage.copy())
    replica = await stage.reaches(ReplicaState.SYNCED)
    assert replica.run == 1
    await stage.perform(stage.copy())
    assert (await stage.replica()).state is ReplicaState.SYNCED


async def test_progress_grows_to_the_allocated_data(stage: Stage, harness: Harness) -> None:
    hardware = known((await stage.server()).hardware)
    allocated = sum(disk.allocated_bytes for disk in hardware.disks)
    seen: list[Replica] = []

    def watch(facts: Way) -> bool:
        seen.append(known(facts.replica))
        return seen[-1].state is ReplicaState.SYNCED

    await stage.perform(stage.copy())
    await harness.settle(watch)
    copied = [replica.copied_bytes for replica in seen if replica.state is ReplicaState.COPYING]
    assert copied == sorted(copied)
    for replica in seen:
        if replica.state is ReplicaState.COPYING:
            assert replica.copied_bytes <= replica.total_bytes
    assert seen[-1].copied_bytes == seen[-1].total_bytes
    assert [replica.consistent for replica in seen] == [replica is seen[-1] for replica in seen]
    assert abs(seen[-1].total_bytes - allocated) <= allocated // 4 + (16 << 20), "allocated data, not disk size"
    await harness.settle(lambda facts: known(facts.replica).lag_seconds == 0)


async def test_a_bandwidth_limit_slows_the_full_copy_and_can_be_lifted(stage: Stage, harness: Harness) -> None:
    if not harness.engine.capabilities.bandwidth_limit:
        await stage.refuses(stage.copy(bandwidth_limit=1 << 20))
        await stage.replicate()
        await stage.refuses(LimitBandwidth(1 << 20))
        return
    await stage.perform(stage.copy(bandwidth_limit=1 << 20))

    def measured(facts: Way) -> bool:
        replica = known(facts.replica)
        return replica.state is ReplicaState.COPYING and replica.bytes_per_second > 0

    replica = known((await harness.settle(measured)).replica)
    assert replica.bandwidth_limit == 1 << 20
    assert replica.bytes_per_second <= 2 << 20
    await stage.perform(LimitBandwidth(None))
    assert (await stage.reaches(ReplicaState.SYNCED)).bandwidth_limit is None


@pytest.mark.guest
async def test_an_acknowledged_write_is_on_a_synced_replica(stage: Stage, harness: Harness) -> None:
    await harness.write(1)
    await stage.replicate()
    await harness.write(2)
    await harness.kill_source()
    await stage.insist(StopReplication(freeze_as="tip"))
    await stage.launch("machine-1", "tip")
    assert await harness.contents("machine-1") == 2


async def test_a_copy_from_a_network_that_is_not_there_is_refused(stage: Stage) -> None:
    await stage.refuses(replace(stage.copy(), replication_network="no-such-network"))


async def test_a_source_that_died_interrupts_for_good_and_the_next_run_copies_all(
    stage: Stage, harness: Harness
) -> None:
    await stage.replicate()
    await stage.perform(TakePoint("point-1"))
    await harness.kill_source()
    if harness.engine.capabilities.outlives_source:
        await _goes_on_with_its_source(stage, harness)
        return
    replica = await stage.reaches(ReplicaState.INTERRUPTED)
    assert not replica.resumable
    assert replica.reason
    await stage.refuses(ResumeReplication())
    assert await harness.start_source()
    await harness.settle(lambda facts: known(facts.source).running)
    replica = await stage.replicate(run=2)
    assert replica.run == 2
    assert "point-1" in await stage.points()


async def _goes_on_with_its_source(stage: Stage, harness: Harness) -> None:
    """Of a copy that lives beside its source a death costs nothing."""
    replica = await stage.reaches(ReplicaState.SYNCED)
    assert replica.consistent
    assert await harness.start_source()
    await harness.settle(lambda facts: known(facts.source).running)
    await harness.write(1)
    await stage.perform(TakePoint("point-2"))
    replica = await stage.reaches(ReplicaState.SYNCED)
    assert replica.run == 1
    assert [point.name for point in replica.points] == ["point-1", "point-2"]
    await stage.launch("drill", "point-2", stage.shape(isolated=True))
    assert await harness.contents("drill") == 1


async def test_an_interrupted_copy_is_resumed_with_only_what_changed(stage: Stage, harness: Harness) -> None:
    full = (await stage.replicate()).total_bytes
    await harness.write(1)
    await harness.cut_link()
    await harness.write(2)
    interrupted = await stage.reaches(ReplicaState.INTERRUPTED)
    assert interrupted.reason
    ordered = harness.engine.capabilities.ordered_replay
    assert interrupted.consistent or ordered, "what is there is what the source had when it was cut off"
    await harness.write(3)
    assert known((await stage.server()).source).running, "the source goes on while the link is down"
    if not harness.engine.capabilities.delta_resync:
        assert not interrupted.resumable
        await harness.restore_link()
        await stage.refuses(ResumeReplication())
        await stage.replicate(run=2)
        return
    assert interrupted.resumable
    await harness.restore_link()
    seen = await _resume(stage, harness)
    assert ReplicaState.COPYING not in {replica.state for replica in seen}
    for replica in seen:
        if replica.state is ReplicaState.RESYNCING:
            assert replica.total_bytes - replica.copied_bytes < full / 2
            assert not replica.consistent, "newer writes without older ones"
    await harness.kill_source()
    await stage.insist(StopReplication(freeze_as="tip"))
    await stage.launch("machine-1", "tip")
    assert await harness.contents("machine-1") == 3
    if ordered:
        return
    await stage.launch("machine-2", "before-resync", stage.shape(isolated=True))
    assert await harness.contents("machine-2") == 1, "frozen before the resync wrote over it"


async def _resume(stage: Stage, harness: Harness) -> list[Replica]:
    """Resume until in sync, repeating what may be repeated, and tell what was seen on the way."""
    seen: list[Replica] = []

    async def try_once() -> None:
        with contextlib.suppress(Retry):
            await stage.perform(ResumeReplication(freeze_as="before-resync"))

    await try_once()
    for _ in range(60):
        before = len(seen)
        with contextlib.suppress(AssertionError):
            await harness.settle(lambda facts: _saw_sync(facts, seen), timeout=5)
        assert len(seen) > before
        if seen[-1].state is ReplicaState.SYNCED:
            break
        await try_once()
    assert seen[-1].state is ReplicaState.SYNCED
    return seen


def _saw_sync(facts: Way, seen: list[Replica]) -> bool:
    seen.append(known(facts.replica))
    return seen[-1].state is ReplicaState.SYNCED


async def test_stopping_keeps_replica_and_points_and_a_higher_run_starts_anew(stage: Stage) -> None:
    await stage.replicate()
    await stage.perform(TakePoint("point-1"), StopReplication(), StopReplication())
    replica = await stage.replica()
    assert replica.state is ReplicaState.STOPPED
    assert await stage.points() == ["point-1"]
    assert (await stage.replicate(run=2)).run == 2
    assert "point-1" in await stage.points()


async def test_freezing_twice_gives_one_point_that_holds_the_last_write_of_a_dead_source(
    stage: Stage, harness: Harness
) -> None:
    await stage.replicate()
    for number in range(1, 6):
        await harness.write(number)
    await harness.kill_source()
    await harness.silence(harness.pair.primary_zone)
    await stage.insist(StopReplication(freeze_as="tip"))
    before = (await stage.replica()).points
    await harness.restart_engine()
    await stage.pause()
    await stage.insist(StopReplication(freeze_as="tip"))
    replica = await stage.replica()
    assert replica.state is ReplicaState.STOPPED
    assert replica.points == before
    assert [point.name for point in before] == ["tip"]
    await stage.launch("machine-1", "tip")
    assert await harness.contents("machine-1") == 5


async def test_while_the_link_is_away_a_resume_is_put_off_and_the_replica_stays_consistent(
    stage: Stage, harness: Harness
) -> None:
    await stage.replicate()
    await harness.write(1)
    await harness.cut_link()
    await harness.write(2)
    await stage.reaches(ReplicaState.INTERRUPTED)
    with pytest.raises(Retry if harness.engine.capabilities.delta_resync else Refused):
        await stage.perform(ResumeReplication(freeze_as="before-resync"))
    replica = await stage.replica()
    assert replica.points == (), "nothing is frozen for a resync that cannot begin"
    if harness.engine.capabilities.ordered_replay:
        await _is_not_taken_for_whole(stage, harness)
        return
    assert replica.consistent
    await harness.kill_source()
    await stage.insist(StopReplication(freeze_as="tip"))
    assert (await stage.replica()).consistent
    await stage.launch("machine-1", "tip")
    assert await harness.contents("machine-1") == 1


async def _is_not_taken_for_whole(stage: Stage, harness: Harness) -> None:
    """Disks that are copied each by itself are of one instant only where it is known that nothing was missing."""
    await harness.kill_source()
    await stage.insist(StopReplication(freeze_as="tip"))
    replica = await stage.replica()
    assert not replica.consistent
    assert replica.points[0].problem
    await stage.refuses(Launch("machine-1", "tip", stage.shape()))


async def test_a_copy_that_is_not_complete_never_becomes_a_usable_point(stage: Stage, harness: Harness) -> None:
    await stage.perform(stage.copy(bandwidth_limit=1 << 20 if harness.engine.capabilities.bandwidth_limit else None))
    assert (await stage.replica()).state in {ReplicaState.STARTING, ReplicaState.COPYING}
    for verb in (TakePoint("point-1"), StopReplication(freeze_as="tip")):
        with contextlib.suppress(Retry, Refused):
            await stage.perform(verb)
    assert all(point.problem for point in (await stage.replica()).points)
