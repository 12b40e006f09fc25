"""The engine contract in code: the other direction, from a failover back home and forward again."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from lifeboat.engines.contract import Retry
from lifeboat.engines.facts import Known, MachineState, ReplicaState, Unknown
from lifeboat.engines.ledger import Direction
from lifeboat.engines.verbs import (
    Fence,
    Halt,
    Launch,
    MakeIndependent,
    Register,
    ReleaseReplica,
    RemoveMachine,
    StopReplication,
    TakePoint,
    Unfence,
    Verb,
)
from tests.engines.harness import Harness, Stage, known


class Story(Stage):
    """A stage on which every engine dies after every verb, and the next one is told the same again."""

    async def step(self, *verbs: Verb) -> None:
        for verb in verbs:
            await self.insist(verb)
            await self.harness.restart_engine()
            await self.insist(verb)

    def turn(self, direction: Direction) -> None:
        self.harness.direction = direction

    async def start(self, machine: str, point: str) -> None:
        await self.step(Launch(machine, point, self.shape()))
        await self.up(machine)

    async def settle_down(self, machine: str) -> None:
        """What a commit does: the machine needs no replica any more, and the replica goes."""
        await self.step(MakeIndependent(machine))
        await self.harness.settle(lambda facts: known(facts.machines)[machine].independent)
        await self.step(ReleaseReplica())
        assert (await self.replica()).state is ReplicaState.ABSENT

    async def reverse(self, run: int) -> None:
        """Register the recovered server and copy from it."""
        self.turn(Direction.REVERSE)
        await self.step(Register("failover-1-1"), self.copy(run))
        await self.reaches(ReplicaState.SYNCED)


@pytest.fixture
async def story(harness: Harness) -> Story:
    """A server that was failed over for good: its machine at the recovery site holds write 1."""
    story = Story(harness)
    if not harness.engine.capabilities.reverse_replication:
        story.turn(Direction.REVERSE)
        await story.refuses(Register("failover-1-1"))
        pytest.skip("this engine has no way back, and says so")
    await story.replicate()
    await harness.write(1)
    await story.step(Fence(), StopReplication(freeze_as="tip-1"))
    await story.start("failover-1-1", "tip-1")
    await story.settle_down("failover-1-1")
    return story


async def test_the_way_back_and_forth(story: Story, harness: Harness) -> None:
    addresses = known((await story.server()).hardware).addresses
    story.turn(Direction.REVERSE)
    before = await story.server()
    assert before.exists == Known(value=False)
    assert isinstance(before.source, Unknown)
    assert before.source.reason

    await story.step(Register("failover-1-1"))
    source = await story.source()
    assert (source.machine, source.running, source.fenced) == ("failover-1-1", True, False)
    assert known((await story.server()).exists)
    assert [disk.name for disk in known((await story.server()).hardware).disks]
    await harness.write(2)
    await story.step(story.copy(run=2))
    await story.reaches(ReplicaState.SYNCED)
    await story.step(TakePoint("rp-1"))
    await harness.write(3)
    await story.start("drill-1", "rp-1")
    assert await harness.contents("drill-1") == 2
    await story.step(RemoveMachine("drill-1"))
    assert (await story.replica()).state is ReplicaState.SYNCED

    await story.step(Fence(orderly=True))
    source = await story.source()
    assert (source.running, source.fenced) == (False, True)
    assert not await harness.start_source()
    await story.step(StopReplication(freeze_as="tip-2"))
    await story.start("failback-2-1", "tip-2")
    assert await harness.contents("failback-2-1") == 3
    assert (await story.machines())["failback-2-1"].addresses == addresses, "by DHCP the server has its address again"
    await story.settle_down("failback-2-1")

    story.turn(Direction.FORWARD)
    assert (await story.source()).machine is None
    await story.step(Register("failback-2-1"))
    source = await story.source()
    assert (source.machine, source.running, source.fenced) == ("failback-2-1", True, False)
    await harness.write(4)
    await story.replicate(run=3)
    halted = (await story.machines())["failover-1-1"]
    assert halted.state is MachineState.HALTED
    await story.step(RemoveMachine("failover-1-1"))
    assert await story.machines() == {}
    story.turn(Direction.REVERSE)
    assert (await story.server()).exists == Known(value=False)
    assert list(await story.machines()) == ["failback-2-1"], "a registered machine stays a machine too"

    story.turn(Direction.FORWARD)
    await story.step(Fence(), StopReplication(freeze_as="tip-3"))
    assert not await harness.start_source()
    await story.start("failover-3-1", "tip-3")
    assert await harness.contents("failover-3-1") == 4


async def test_a_registered_machine_is_started_and_stopped_as_the_server_and_keeps_its_data(
    story: Story, harness: Harness
) -> None:
    story.turn(Direction.REVERSE)
    await story.perform(Register("failover-1-1"))
    await harness.write(2)
    await harness.kill_source()
    assert not (await story.source()).running
    await harness.restart_engine()
    assert await harness.start_source()
    await harness.settle(lambda facts: known(facts.source).running)
    story.turn(Direction.FORWARD)
    await story.up("failover-1-1")
    assert await harness.contents("failover-1-1") == 2


async def test_a_failback_is_rolled_back_to_the_recovered_server(story: Story, harness: Harness) -> None:
    await story.reverse(run=2)
    await harness.write(2)
    await story.step(Fence(orderly=True), StopReplication(freeze_as="tip-2"))
    await story.start("failback-2-1", "tip-2")
    await story.step(Halt("failback-2-1"), Unfence())
    source = await story.source()
    assert (source.machine, source.running, source.fenced) == ("failover-1-1", True, False)
    await harness.write(3)
    await story.replicate(run=3)
    await story.step(TakePoint("rp-1"))
    await story.start("drill-1", "rp-1")
    assert await harness.contents("drill-1") == 3


async def test_what_is_no_machine_is_not_registered(story: Story) -> None:
    story.turn(Direction.REVERSE)
    await story.refuses(Register("no-such-machine"))
    assert (await story.server()).exists == Known(value=False)


async def test_the_original_stays_as_it_was_unless_it_is_given_up(story: Story, harness: Harness) -> None:
    await story.reverse(run=2)
    await harness.write(2)
    assert (await story.replica()).basis == ""
    await story.step(Fence(), StopReplication(freeze_as="tip-2"))
    await story.start("failback-2-1", "tip-2")
    assert await harness.original() == 1
    await story.step(Halt("failback-2-1"))
    story.turn(Direction.FORWARD)
    await story.perform(Unfence())
    await harness.settle(lambda facts: known(facts.source).running)
    await story.refuses(Register("failback-2-1"))
    assert (await story.source()).machine is None


async def test_the_original_is_wiped_only_when_it_is_stopped_and_fenced(story: Story, harness: Harness) -> None:
    story.turn(Direction.REVERSE)
    await story.step(Register("failover-1-1"))
    story.turn(Direction.FORWARD)
    await story.perform(Unfence())
    await harness.settle(lambda facts: known(facts.source).running)
    story.turn(Direction.REVERSE)
    await story.refuses(story.copy(run=2, onto_original=True))
    story.turn(Direction.FORWARD)
    await harness.kill_source()
    story.turn(Direction.REVERSE)
    await story.refuses(story.copy(run=2, onto_original=True))
    assert (await story.replica()).state is ReplicaState.ABSENT
    assert await harness.original() == 1


async def test_the_original_is_wiped_once_for_a_copy_onto_it(story: Story, harness: Harness) -> None:
    story.turn(Direction.REVERSE)
    await story.step(Register("failover-1-1"))
    await harness.write(2)
    await story.refuses(replace(story.copy(run=2, onto_original=True), replication_network="no-such-network"))
    assert await harness.original() == 1, "what is refused wipes nothing"
    await story.step(story.copy(run=2, onto_original=True))
    replica = await story.reaches(ReplicaState.SYNCED)
    assert replica.basis
    assert await harness.original() is None
    await harness.write(3)
    await story.step(story.copy(run=2, onto_original=True))
    assert (await story.replica()).state is ReplicaState.SYNCED
    story.turn(Direction.FORWARD)
    assert not await harness.start_source()
    story.turn(Direction.REVERSE)
    await story.step(Fence(orderly=True), StopReplication(freeze_as="tip-2"))
    await story.start("failback-2-1", "tip-2")
    assert await harness.contents("failback-2-1") == 3


async def test_a_silent_site_makes_both_directions_unknown_and_verbs_wait(story: Story, harness: Harness) -> None:
    await story.reverse(run=2)
    await harness.silence(harness.pair.primary_zone)
    seen = await story.server()
    assert isinstance(seen.replica, Unknown)
    assert isinstance(seen.machines, Unknown)
    assert known(seen.source).machine == "failover-1-1"
    with pytest.raises(Retry):
        await story.perform(TakePoint("rp-1"))
    await harness.answer(harness.pair.primary_zone)
    await harness.silence(harness.pair.recovery_zone)
    seen = await story.server()
    assert isinstance(seen.source, Unknown)
    assert known(seen.replica).state is not ReplicaState.SYNCED
    with pytest.raises(Retry):
        await story.perform(TakePoint("rp-1"))
    await harness.answer(harness.pair.recovery_zone)
    with contextlib.suppress(Retry):
        await story.perform(TakePoint("rp-1"))
    await story.reaches(ReplicaState.SYNCED)
