"""The engine contract in code: the source server, its fence and its restart."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from lifeboat.engines.contract import Retry, StaleTerm, Unreachable
from lifeboat.engines.facts import ReplicaState
from lifeboat.engines.ledger import Ledger
from lifeboat.engines.verbs import Fence, Restart, ResumeReplication, StopReplication, Unfence
from tests.engines.harness import Harness, Stage, known


async def test_fencing_twice_stops_the_source_and_its_zone_refuses_to_start_it(stage: Stage, harness: Harness) -> None:
    await stage.perform(Fence())
    await harness.restart_engine()
    await stage.perform(Fence())
    source = await stage.source()
    assert source.fenced
    assert not source.running
    assert not source.agent_connected
    assert not await harness.start_source()
    assert not (await stage.source()).running


@pytest.mark.guest
async def test_lifting_the_fence_starts_what_the_fence_stopped(stage: Stage, harness: Harness) -> None:
    await stage.perform(Fence(), Fence(), Unfence(), Unfence())
    facts = await harness.settle(lambda facts: known(facts.source).agent_connected)
    assert known(facts.source).running
    assert not known(facts.source).fenced


async def test_lifting_the_fence_does_not_start_a_source_that_was_not_running(stage: Stage, harness: Harness) -> None:
    await harness.kill_source()
    await stage.perform(Fence(), Unfence())
    assert not (await stage.source()).running
    assert await harness.start_source()
    await harness.settle(lambda facts: known(facts.source).running)


async def test_a_silent_primary_answers_a_fence_with_unreachable_and_soon(stage: Stage, harness: Harness) -> None:
    await harness.silence(harness.pair.primary_zone)
    async with asyncio.timeout(3.5):
        with pytest.raises(Unreachable):
            await stage.perform(Fence())
    await harness.answer(harness.pair.primary_zone)
    source = await stage.source()
    assert source.running
    assert not source.fenced


@pytest.mark.guest
async def test_a_fenced_source_has_all_its_writes_on_the_replica(stage: Stage, harness: Harness) -> None:
    await stage.replicate()
    await harness.write(1)
    await stage.perform(Fence())
    await stage.insist(StopReplication(freeze_as="tip"))
    assert (await stage.replica()).state is ReplicaState.STOPPED
    await stage.launch("machine-1", "tip")
    assert await harness.contents("machine-1") == 1


@pytest.fixture
async def orderly(stage: Stage, harness: Harness) -> None:
    if not harness.engine.capabilities.planned_failover:
        await stage.refuses(Fence(orderly=True))
        pytest.skip("this engine fences at once only, and says so")


@pytest.mark.usefixtures("orderly")
async def test_an_orderly_fence_ends_the_source_with_its_last_write_on_the_replica(
    stage: Stage, harness: Harness
) -> None:
    await stage.replicate()
    for number in range(1, 4):
        await harness.write(number)
    with contextlib.suppress(Retry):
        await stage.perform(Fence(orderly=True))
    await harness.restart_engine()
    await stage.insist(Fence(orderly=True))
    source = await stage.source()
    assert (source.running, source.fenced) == (False, True)
    assert not await harness.start_source()
    await stage.insist(StopReplication(freeze_as="tip"))
    (point,) = (await stage.replica()).points
    assert point.problem is None
    await stage.launch("machine-1", "tip")
    assert await harness.contents("machine-1") == 3


@pytest.mark.usefixtures("orderly")
async def test_an_orderly_fence_waits_for_a_copy_that_is_interrupted(stage: Stage, harness: Harness) -> None:
    await stage.replicate()
    await harness.cut_link()
    await harness.write(1)
    await stage.reaches(ReplicaState.INTERRUPTED)
    reasons: list[str] = []
    for _ in range(5):
        with pytest.raises(Retry) as caught:
            await stage.perform(Fence(orderly=True))
        reasons.append(str(caught.value))
        await stage.pause()
    assert all(reasons)
    source = await stage.source()
    assert (source.running, source.fenced) == (True, True), "fenced, and not ended before its last write is safe"
    await harness.restore_link()
    if harness.engine.capabilities.delta_resync:
        await stage.insist(ResumeReplication())
    else:
        await stage.perform(stage.copy(run=2))
    await stage.insist(Fence(orderly=True))
    assert not (await stage.source()).running
    await stage.insist(StopReplication(freeze_as="tip"))
    await stage.launch("machine-1", "tip")
    assert await harness.contents("machine-1") == 1


@pytest.mark.usefixtures("orderly")
async def test_an_orderly_fence_is_lifted_at_any_moment(stage: Stage, harness: Harness) -> None:
    await stage.replicate()
    await harness.cut_link()
    await harness.write(1)
    with pytest.raises(Retry):
        await stage.perform(Fence(orderly=True))
    await harness.restart_engine()
    await stage.insist(Unfence())
    source = await stage.source()
    assert (source.running, source.fenced) == (True, False)
    await harness.restore_link()
    await harness.write(2)
    await stage.replicate(run=2)
    await stage.insist(Fence(orderly=True))
    await stage.insist(Unfence())
    source = await stage.source()
    assert (source.running, source.fenced) == (True, False)


@pytest.mark.usefixtures("orderly")
async def test_an_orderly_fence_of_a_source_that_is_not_replicated_ends_it(stage: Stage, harness: Harness) -> None:
    await harness.write(1)
    await stage.insist(Fence(orderly=True))
    source = await stage.source()
    assert (source.running, source.fenced) == (False, True)


@pytest.mark.guest
@pytest.mark.usefixtures("orderly")
async def test_an_orderly_fence_shuts_the_guest_down_cleanly(stage: Stage, harness: Harness) -> None:
    await harness.settle(lambda facts: known(facts.source).agent_connected)
    await stage.replicate()
    await harness.write(1)
    reasons = await stage.insist(Fence(orderly=True))
    assert any("shutting down" in reason for reason in reasons), reasons
    await stage.insist(StopReplication(freeze_as="tip"))
    await stage.launch("machine-1", "tip")
    assert await harness.contents("machine-1") == 1


@pytest.mark.guest
async def test_a_restart_gives_the_source_a_later_boot_time(stage: Stage, harness: Harness) -> None:
    await harness.settle(lambda facts: known(facts.source).agent_connected)
    before = (await stage.source()).boot_time
    assert before is not None
    await stage.pause()
    await stage.perform(Restart())
    facts = await harness.settle(
        lambda facts: known(facts.source).agent_connected and known(facts.source).boot_time != before
    )
    after = known(facts.source).boot_time
    assert after is not None
    assert after > before


async def test_a_later_leader_takes_the_fence_out_of_an_older_ones_hand(stage: Stage, harness: Harness) -> None:
    await stage.perform(Fence(), term=1)
    await stage.record(Ledger(harness.server_id), term=2)
    with pytest.raises(StaleTerm):
        await stage.perform(Unfence(), term=1)
    assert (await stage.source()).fenced
    await stage.perform(Unfence(), term=2)
    assert not (await stage.source()).fenced
