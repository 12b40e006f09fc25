"""The way back in the simulated world: its registered machines, its fences, and the data that goes round with them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lifeboat.engines.contract import Capabilities, Refused, Retry, StaleTerm, Target, Underway, Unreachable
from lifeboat.engines.facts import (
    Disk,
    Hardware,
    Known,
    Machine,
    MachineState,
    Replica,
    ReplicaState,
    ServerFacts,
    Source,
    Unknown,
)
from lifeboat.engines.ledger import Direction, Ledger
from lifeboat.engines.simulated.world import ALL, World
from lifeboat.engines.verbs import (
    Fence,
    Halt,
    Launch,
    MakeIndependent,
    MoveElasticIP,
    Register,
    ReleaseReplica,
    RemoveMachine,
    Restart,
    ResumeReplication,
    Shape,
    StartReplication,
    StopReplication,
    TakePoint,
    Unfence,
    Verb,
)

GIB = 1 << 30
FORWARD, REVERSE = Direction.FORWARD, Direction.REVERSE
DISKS = (Disk("system", 40 * GIB, GIB), Disk("data", 100 * GIB, GIB))
RECOVERED, FAILED_BACK = "failover-1-1", "failback-2-1"
THERE = Shape(cpu=4, memory_bytes=8 * GIB, network="recovery", elastic_ip="192.0.2.1")
HERE = Shape(cpu=2, memory_bytes=4 * GIB, network="net")


class Story:
    """A world with one server, and the steps that its way there and back is made of."""

    def __init__(self, capabilities: Capabilities = ALL) -> None:
        self.world = World(datetime(2026, 1, 1, tzinfo=UTC), capabilities=capabilities)
        self.world.add_network("zone-a", "net", "10.0.1.0/24")
        self.world.add_network("zone-b", "recovery", "10.0.2.0/24")
        self.world.add_elastic_ip("zone-b", "192.0.2.1")
        self.world.add_server("web", Hardware(2, 4 * GIB, DISKS, ("10.0.1.7",)))

    def do(self, direction: Direction, *verbs: Verb, term: int = 1) -> None:
        for verb in verbs:
            self.world.perform(Target(self.world.pair, "web", term, direction), verb)

    def wait(self, seconds: float = 60) -> None:
        self.world.advance(timedelta(seconds=seconds))

    def see(self) -> ServerFacts:
        return self.world.observe(self.world.pair, ["web"]).servers["web"]

    def source(self, direction: Direction) -> Source:
        fact = self.see().way(direction).source
        assert isinstance(fact, Known), fact
        return fact.value

    def replica(self, direction: Direction) -> Replica:
        fact = self.see().way(direction).replica
        assert isinstance(fact, Known), fact
        return fact.value

    def machine(self, direction: Direction, name: str) -> Machine:
        fact = self.see().way(direction).machines
        assert isinstance(fact, Known), fact
        return fact.value[name]

    def free(self, zone: str) -> int:
        seen = self.world.observe(self.world.pair, [])
        site = seen.primary if zone == "zone-a" else seen.recovery
        assert isinstance(site, Known)
        return site.value.standard.free_bytes

    def taken(self, zone: str, network: str) -> dict[str, str]:
        seen = self.world.observe(self.world.pair, [])
        site = seen.primary if zone == "zone-a" else seen.recovery
        assert isinstance(site, Known)
        found = site.value.network(network)
        assert found is not None
        return dict(found.taken)

    def copy(self, direction: Direction, run: int = 1, *, onto_original: bool = False) -> None:
        network = "recovery" if direction is FORWARD else "net"
        self.do(direction, StartReplication(run, network, onto_original=onto_original))
        self.wait()
        assert self.replica(direction).state is ReplicaState.SYNCED

    def switch(self, direction: Direction, name: str, tip: str, shape: Shape) -> None:
        """From the frozen tip to a machine that is committed."""
        self.do(direction, StopReplication(freeze_as=tip), Launch(name, tip, shape), MakeIndependent(name))
        self.wait()
        assert self.machine(direction, name).independent
        self.do(direction, ReleaseReplica())

    def fence_in_order(self, direction: Direction) -> None:
        with pytest.raises(Underway, match="shutting down"):
            self.do(direction, Fence(orderly=True))
        self.wait(2)
        self.do(direction, Fence(orderly=True))

    def fail_over(self) -> None:
        self.copy(FORWARD)
        self.world.write("web", 10)
        self.do(FORWARD, Fence())
        self.switch(FORWARD, RECOVERED, "tip-1", THERE)

    def turn(self) -> None:
        """Failed over and committed; what was recovered is registered."""
        self.fail_over()
        self.do(REVERSE, Register(RECOVERED))


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def turned(story: Story) -> Story:
    story.turn()
    return story


def test_before_anything_is_registered_all_servers_share_one_way_back(story: Story) -> None:
    story.world.add_server("db", Hardware(1, GIB, DISKS))
    story.copy(FORWARD)
    seen = story.world.observe(story.world.pair, ["web", "db"]).servers
    back = seen["web"].reverse
    assert back is seen["db"].reverse
    assert back.exists == Known(value=False)
    assert isinstance(back.source, Unknown)
    assert "registered" in back.source.reason
    assert (back.replica, back.machines) == (Known(Replica(ReplicaState.ABSENT)), Known({}))
    story.world.silence("zone-b")
    assert isinstance(story.see().reverse.exists, Unknown)
    assert isinstance(story.see().reverse.replica, Known), "the primary zone answers and has none"
    with pytest.raises(Unreachable):
        story.do(REVERSE, Register(RECOVERED))


def test_a_registered_machine_is_the_server_and_stays_a_machine(story: Story) -> None:
    story.fail_over()
    with pytest.raises(Refused, match="no server"):
        story.do(REVERSE, Fence())
    with pytest.raises(Refused, match="no machine"):
        story.do(REVERSE, Register("failover-9-9"))
    story.do(REVERSE, Register(RECOVERED), Register(RECOVERED))
    source = story.source(REVERSE)
    assert (source.machine, source.running, source.agent_connected, source.fenced) == (RECOVERED, True, True, False)
    assert story.see().reverse.exists == Known(value=True)
    machine = story.machine(FORWARD, RECOVERED)
    assert machine.elastic_ip == "192.0.2.1"
    assert story.see().reverse.hardware == Known(Hardware(4, 8 * GIB, DISKS, machine.addresses))
    assert story.source(FORWARD).machine is None
    assert story.source(FORWARD).fenced, "each source has a fence of its own"


def test_the_data_goes_round_and_no_write_is_lost(turned: Story) -> None:
    world = turned.world
    world.write("web", 20, REVERSE)
    assert world.contents("web", RECOVERED) == 20
    turned.copy(REVERSE)
    world.write_in("web", RECOVERED, 21)
    assert world.replica_contents("web", REVERSE) == 21
    turned.do(REVERSE, TakePoint("rp-1"), Launch("drill-x", "rp-1", replace(HERE, isolated=True)))
    world.write("web", 22, REVERSE)
    assert world.contents("web", "drill-x", REVERSE) == 21
    assert world.original_contents("web") == 10, "nothing touched the original"
    turned.do(REVERSE, RemoveMachine("drill-x"))
    turned.fence_in_order(REVERSE)
    assert turned.machine(FORWARD, RECOVERED).state is MachineState.HALTED
    turned.switch(REVERSE, FAILED_BACK, "tip-2", HERE)
    assert world.lost("web", FAILED_BACK, REVERSE) == 0
    assert turned.machine(REVERSE, FAILED_BACK).addresses == ("10.0.1.7",), "the address that the original had"

    turned.do(FORWARD, Register(FAILED_BACK))
    source = turned.source(FORWARD)
    assert (source.machine, source.running, source.fenced) == (FAILED_BACK, True, False)
    turned.copy(FORWARD, run=2)
    world.write("web", 30)
    assert world.replica_contents("web") == world.contents("web", FAILED_BACK, REVERSE) == 30
    turned.do(FORWARD, RemoveMachine(RECOVERED), RemoveMachine(RECOVERED))
    assert turned.see().reverse.exists == Known(value=False)
    assert turned.see().forward.machines == Known({})
    assert world.original_contents("web") == 10

    turned.do(FORWARD, Fence())
    turned.switch(FORWARD, "failover-3-1", "tip-3", THERE)
    turned.do(REVERSE, Register("failover-3-1"))
    turned.copy(REVERSE, run=2, onto_original=True)
    with pytest.raises(Refused, match="not there any more"):
        turned.do(REVERSE, Launch(FAILED_BACK, "tip-2", HERE))
    assert world.contents("web", FAILED_BACK, REVERSE) == 0, "the original of the second round is what failed back"
    assert world.original_contents("web") == 10


def test_a_machine_that_is_registered_takes_the_place_of_the_one_before_only_when_that_is_down(turned: Story) -> None:
    turned.copy(REVERSE)
    elsewhere = replace(HERE, ip_address="10.0.1.8")
    turned.do(REVERSE, StopReplication(freeze_as="tip-2"), Launch(FAILED_BACK, "tip-2", elsewhere))
    turned.do(FORWARD, Unfence())
    with pytest.raises(Refused, match="still runs"):
        turned.do(FORWARD, Register(FAILED_BACK))
    turned.do(FORWARD, Fence(), Register(FAILED_BACK))
    turned.do(REVERSE, RemoveMachine(FAILED_BACK))
    assert turned.source(FORWARD).machine is None, "without a registration the inventory's own is seen"
    assert turned.source(FORWARD).fenced


def test_the_original_is_wiped_once_and_only_when_it_is_stopped_and_fenced(turned: Story) -> None:
    world = turned.world
    wipe = StartReplication(1, "net", onto_original=True)
    turned.do(FORWARD, Unfence())
    with pytest.raises(Refused, match="fenced"):
        turned.do(REVERSE, wipe)
    world.kill_source("web")
    with pytest.raises(Refused, match="fenced"):
        turned.do(REVERSE, wipe)
    assert world.original_contents("web") == 10
    turned.do(FORWARD, Fence())
    world.silence("zone-a")
    with pytest.raises(Unreachable):
        turned.do(REVERSE, wipe)
    world.answer("zone-a")
    world.fill_disk("zone-a")
    with pytest.raises(Retry):
        turned.do(REVERSE, wipe)
    assert world.original_contents("web") == 10, "nothing is wiped for a copy that cannot start"
    world.free_disk("zone-a")
    turned.do(REVERSE, wipe, wipe)
    assert world.original_contents("web") is None
    assert turned.replica(REVERSE).basis.startswith("all is copied: ")
    turned.wait()
    turned.do(REVERSE, wipe)
    assert turned.replica(REVERSE).state is ReplicaState.SYNCED, "the run that is there is left as it is"
    turned.do(FORWARD, Unfence())
    with pytest.raises(Refused, match="given up"):
        world.start_source("web")


def test_wiping_a_machine_that_was_registered_frees_its_space(turned: Story) -> None:
    turned.copy(REVERSE)
    turned.fence_in_order(REVERSE)
    turned.switch(REVERSE, FAILED_BACK, "tip-2", HERE)
    turned.do(FORWARD, Register(FAILED_BACK))
    turned.copy(FORWARD, run=2)
    turned.do(FORWARD, RemoveMachine(RECOVERED), Fence())
    turned.switch(FORWARD, "failover-3-1", "tip-3", THERE)
    turned.do(REVERSE, Register("failover-3-1"))
    before = turned.free("zone-a")
    turned.copy(REVERSE, run=2, onto_original=True)
    assert turned.free("zone-a") == before
    turned.fence_in_order(REVERSE)
    turned.do(REVERSE, StopReplication(freeze_as="tip-4"), ReleaseReplica(), RemoveMachine(FAILED_BACK))
    assert turned.free("zone-a") == before + 2 * GIB


def test_an_orderly_fence_drains_before_the_process_ends(turned: Story) -> None:
    world = turned.world
    turned.copy(REVERSE)
    with pytest.raises(Underway, match="shutting down"):
        turned.do(REVERSE, Fence(orderly=True))
    assert turned.source(REVERSE).fenced, "the order holds from the start"
    assert world.write("web", 25, REVERSE) == 25, "what goes down writes to its last moment"
    turned.wait(1)
    with pytest.raises(Underway, match="shutting down"):
        turned.do(REVERSE, Fence(orderly=True))
    world.cut_link()
    world.write("web", 26, REVERSE)
    turned.wait(1)
    with pytest.raises(ValueError, match="does not run"):
        world.write("web", direction=REVERSE)
    for _ in range(2):
        with pytest.raises(Retry, match="do not reach"):
            turned.do(REVERSE, Fence(orderly=True))
    source = turned.source(REVERSE)
    assert (source.running, source.fenced, source.agent_connected) == (True, True, False)
    assert not world.running("web", REVERSE)
    machine = turned.machine(FORWARD, RECOVERED)
    assert (machine.state, machine.reason != "") == (MachineState.RUNNING, True), "it is there, and does not serve"
    with pytest.raises(Refused, match="fenced"):
        turned.do(REVERSE, Restart())
    world.restore_link()
    turned.do(REVERSE, ResumeReplication(freeze_as="before-resync"))
    with pytest.raises(Retry, match="everything"):
        turned.do(REVERSE, Fence(orderly=True))
    turned.wait(1)
    turned.do(REVERSE, Fence(orderly=True), Fence(orderly=True), StopReplication(freeze_as="tip-2"))
    assert not turned.source(REVERSE).running
    assert world.point_contents("web", "before-resync", REVERSE) == 25
    assert world.point_contents("web", "tip-2", REVERSE) == 26


@pytest.mark.parametrize("direction", [FORWARD, REVERSE])
def test_a_guest_that_does_not_go_down_stands_still_where_it_is(story: Story, direction: Direction) -> None:
    if direction is FORWARD:
        story.copy(FORWARD)
    else:
        story.turn()
        story.copy(REVERSE)
    story.world.ignore_shutdown("web", direction)
    with pytest.raises(Retry):
        story.do(direction, Fence(orderly=True))
    story.wait(59)
    with pytest.raises(Underway, match="shutting down"):
        story.do(direction, Fence(orderly=True))
    story.wait(1)
    story.do(direction, Fence(orderly=True))
    assert not story.source(direction).running


def test_a_silent_client_or_a_stopped_copy_is_not_waited_for(turned: Story) -> None:
    turned.copy(REVERSE)
    turned.world.set_agent("web", REVERSE, connected=False)
    turned.do(REVERSE, Fence(orderly=True))
    assert not turned.source(REVERSE).running
    turned.do(REVERSE, Unfence(), StopReplication())
    turned.do(REVERSE, Fence(orderly=True))
    assert not turned.source(REVERSE).running


def test_lifting_an_orderly_fence_starts_the_server_again_at_any_moment(turned: Story) -> None:
    turned.copy(REVERSE)
    with pytest.raises(Retry):
        turned.do(REVERSE, Fence(orderly=True))
    turned.do(REVERSE, Unfence())
    turned.wait()
    assert turned.source(REVERSE).agent_connected, "a shutdown that was called off"
    turned.fence_in_order(REVERSE)
    machine = turned.machine(FORWARD, RECOVERED)
    assert (machine.state, machine.elastic_ip) == (MachineState.HALTED, None)
    with pytest.raises(Refused, match="fenced"):
        turned.world.start_source("web", REVERSE)
    with pytest.raises(Refused, match="fenced"):
        turned.do(FORWARD, Launch(RECOVERED, "tip-1", THERE))
    turned.do(REVERSE, Unfence(), Unfence())
    turned.wait()
    again = turned.machine(FORWARD, RECOVERED)
    assert (again.state, again.elastic_ip, again.addresses) == (MachineState.RUNNING, "192.0.2.1", machine.addresses)
    assert turned.source(REVERSE).agent_connected


def test_a_plain_fence_ends_at_once_what_an_orderly_one_waits_for(turned: Story) -> None:
    turned.copy(REVERSE)
    with pytest.raises(Retry):
        turned.do(REVERSE, Fence(orderly=True))
    turned.do(REVERSE, Fence())
    assert not turned.source(REVERSE).running


def test_what_happens_to_the_machine_happens_to_the_server(turned: Story) -> None:
    world = turned.world
    turned.copy(REVERSE)
    turned.do(FORWARD, MoveElasticIP(RECOVERED, None))
    before = turned.source(REVERSE).boot_time
    assert before is not None
    turned.do(REVERSE, Restart())
    assert turned.replica(REVERSE).state is ReplicaState.SYNCED, "a restart breaks no copy"
    after = turned.source(REVERSE).boot_time
    assert after is not None
    assert after > before
    turned.wait()
    world.kill_source("web", REVERSE)
    broken = turned.replica(REVERSE)
    assert (broken.state, broken.resumable) == (ReplicaState.INTERRUPTED, False)
    assert turned.machine(FORWARD, RECOVERED).state is MachineState.FAILED
    world.start_source("web", REVERSE)
    turned.wait()
    assert turned.source(REVERSE).agent_connected
    assert turned.machine(FORWARD, RECOVERED).elastic_ip is None, "it comes back as it was"
    turned.copy(REVERSE, run=2)
    world.fail_machine("web", RECOVERED, "kernel panic")
    assert not turned.source(REVERSE).running
    assert turned.replica(REVERSE).state is ReplicaState.INTERRUPTED
    world.start_source("web", REVERSE)
    turned.copy(REVERSE, run=3)
    turned.do(FORWARD, Halt(RECOVERED))
    assert not turned.source(REVERSE).running
    assert turned.replica(REVERSE).state is ReplicaState.INTERRUPTED


def test_a_full_primary_zone_breaks_the_copy_back_and_it_resumes(turned: Story) -> None:
    turned.copy(REVERSE)
    turned.world.fill_disk("zone-a")
    turned.world.write("web", 40, REVERSE)
    broken = turned.replica(REVERSE)
    assert (broken.state, broken.resumable, broken.reason) == (ReplicaState.INTERRUPTED, True, "zone-a is full")
    turned.world.free_disk("zone-a")
    turned.do(REVERSE, ResumeReplication())
    turned.wait()
    assert turned.world.replica_contents("web", REVERSE) == 40


def test_a_silent_primary_hides_the_copy_back_and_nothing_of_its_source(turned: Story) -> None:
    turned.copy(REVERSE)
    turned.world.silence("zone-a")
    way = turned.see().reverse
    assert isinstance(way.replica, Unknown)
    assert isinstance(way.machines, Unknown)
    assert turned.source(REVERSE).running
    for verb in (TakePoint("rp-1"), StopReplication(), Launch("drill-x", "rp-1", HERE), ReleaseReplica()):
        with pytest.raises(Unreachable):
            turned.do(REVERSE, verb)
    with pytest.raises(Unreachable):
        turned.do(FORWARD, Register(FAILED_BACK))
    with pytest.raises(Unreachable):
        turned.world.visit(Target(turned.world.pair, "web", 1, REVERSE), "drill-x")
    turned.do(REVERSE, Restart(), Fence())
    assert turned.source(REVERSE).fenced


def test_a_silent_recovery_zone_has_the_ledger_and_the_source_of_the_way_back(turned: Story) -> None:
    turned.copy(REVERSE)
    turned.do(REVERSE, TakePoint("rp-1"))
    turned.world.silence("zone-b")
    seen = turned.see()
    assert isinstance(seen.ledger, Unknown)
    assert isinstance(seen.reverse.source, Unknown)
    assert isinstance(seen.reverse.exists, Unknown)
    assert isinstance(seen.reverse.hardware, Known), "recorded beside the replica"
    replica = turned.replica(REVERSE)
    assert (replica.state, replica.resumable) == (ReplicaState.INTERRUPTED, True)
    for verb in (Fence(), TakePoint("rp-2"), Launch("drill-x", "rp-1", HERE)):
        with pytest.raises(Unreachable):
            turned.do(REVERSE, verb)


def test_the_ledger_has_one_home_and_its_term_binds_both_directions(turned: Story) -> None:
    stored = turned.world.record(Target(turned.world.pair, "web", 2, REVERSE), Ledger("web", direction=REVERSE))
    assert turned.see().ledger == Known(stored)
    for direction in Direction:
        with pytest.raises(StaleTerm):
            turned.do(direction, Fence(), term=1)
    assert not turned.source(REVERSE).fenced


def test_an_engine_that_cannot_go_back_says_so() -> None:
    story = Story(Capabilities(elastic_ips=True))
    story.fail_over()
    for direction, verb in (
        (REVERSE, Register(RECOVERED)),
        (FORWARD, Register(RECOVERED)),
        (REVERSE, StartReplication(1, "net")),
        (FORWARD, Fence(orderly=True)),
    ):
        with pytest.raises(Refused, match="this engine"):
            story.do(direction, verb)


def test_a_server_that_is_down_has_no_address_and_gets_its_own_back(turned: Story) -> None:
    assert turned.taken("zone-a", "net") == {}
    assert list(turned.taken("zone-b", "recovery").values()) == [f"web/{RECOVERED}"]
    turned.copy(REVERSE)
    turned.do(REVERSE, TakePoint("rp-1"), Launch(FAILED_BACK, "rp-1", HERE))
    assert turned.taken("zone-a", "net") == {"10.0.1.7": f"web/{FAILED_BACK}"}
    with pytest.raises(Refused, match="taken"):
        turned.do(FORWARD, Unfence())
    assert turned.source(FORWARD).fenced, "a fence that cannot be lifted holds"
    turned.do(REVERSE, RemoveMachine(FAILED_BACK))
    turned.do(FORWARD, Unfence())
    assert turned.taken("zone-a", "net") == {"10.0.1.7": "web"}
