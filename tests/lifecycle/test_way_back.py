"""The way back: reverse register, reverse replication, failback and register, and what must not happen on it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from lifeboat.api.protectedserver import ProtectedServerPhase as Phase
from lifeboat.engines import verbs
from lifeboat.engines.contract import Retry
from lifeboat.engines.ledger import ActiveSite, Direction
from lifeboat.engines.simulated.world import ALL
from lifeboat.lifecycle.phases import TRANSITIONS
from lifeboat.lifecycle.view import DRILL, FAILOVER, PROTECTED_SERVER
from tests.lifecycle.cluster import SERVER, Cluster, world

POLICY = [{"every": "10s", "for": "60s"}]


def ask(cluster: Cluster, **replication: Any) -> None:
    """Edit the server's replication."""
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"enabled": True, "recoveryPoints": POLICY, **replication})


def committed_in_silence() -> Cluster:
    """A server that was failed over for a disaster and committed while its source's zone does not answer."""
    cluster = Cluster(world())
    cluster.replicating(recoveryPoints=POLICY)
    cluster.world.write(SERVER)
    cluster.world.silence("zone-a")
    cluster.failover("disaster")
    cluster.until("FailedOver")
    cluster.edit(FAILOVER, "disaster", commit=True)
    cluster.until("Committed")
    return cluster


def committed() -> Cluster:
    """The same, and the source's zone answers again."""
    cluster = committed_in_silence()
    cluster.world.answer("zone-a")
    cluster.run(timedelta(seconds=5))
    return cluster


def replicating_back(**replication: Any) -> Cluster:
    """A server whose recovered copy is replicated back, with a point."""
    cluster = committed()
    ask(cluster, direction="Reverse", **replication)
    cluster.until("ReverseReplicating")
    cluster.run(timedelta(seconds=12))
    return cluster


def performed(cluster: Cluster, kind: type[verbs.Verb], direction: Direction) -> list[verbs.Verb]:
    """The verbs of that kind that took effect in that direction."""
    return [
        verb for target, verb in cluster.world.performed if isinstance(verb, kind) and target.direction is direction
    ]


def test_the_whole_round_ends_where_it_began_and_can_be_gone_again() -> None:
    cluster = committed()
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"direction": "Reverse"})
    cluster.until("ReverseRegistered")
    assert cluster.status(PROTECTED_SERVER, SERVER)["direction"] == "Reverse"
    assert cluster.condition(PROTECTED_SERVER, SERVER, "Ready")["status"] == "True"
    ask(cluster, direction="Reverse")
    cluster.until("ReverseReplicating")
    cluster.run(timedelta(seconds=12))
    status = cluster.status(PROTECTED_SERVER, SERVER)
    assert status["activeSite"] == "Recovery"
    assert status["recoveryPointCount"] >= 1
    assert "Failback" in status["allowedOperations"]
    cluster.failover("home", type="Failback")
    cluster.until("FailedBack")
    assert cluster.status(FAILOVER, "home")["phase"] == "Completed"
    status = cluster.status(PROTECTED_SERVER, SERVER)
    assert status["activeSite"] == "Primary"
    assert "Register" in status["allowedOperations"]
    ask(cluster, direction="Forward")
    cluster.until("Replicating")
    cluster.run(timedelta(seconds=30))
    assert cluster.status(PROTECTED_SERVER, SERVER)["direction"] == "Forward"
    assert list(cluster.machines) == ["failback-2-1"], "the disks at the recovery site are gone"
    assert cluster.ledger.fence is None
    cluster.failover("again")
    cluster.until("FailedOver")
    assert cluster.condition(PROTECTED_SERVER, SERVER, "SourceFenced")["status"] == "True"


def test_a_drill_runs_at_the_primary_site_while_the_server_is_replicated_back() -> None:
    cluster = replicating_back()
    cluster.drill("look")
    cluster.run(timedelta(seconds=20))
    assert cluster.status(DRILL, "look")["phase"] == "Running"
    launches = performed(cluster, verbs.Launch, Direction.REVERSE)
    assert [launch.machine for launch in launches if isinstance(launch, verbs.Launch)] == ["drill-look"]
    assert cluster.phase == "ReverseReplicating"


def test_a_failback_waits_until_everything_has_arrived_and_stops_the_recovered_server_cleanly() -> None:
    cluster = replicating_back()
    cluster.failover("home", type="Failback")
    cluster.until("FailedBack")
    fences = performed(cluster, verbs.Fence, Direction.REVERSE)
    assert verbs.Fence(orderly=True) in fences


def test_a_failback_is_refused_in_any_other_phase() -> None:
    cluster = committed()
    cluster.failover("home", type="Failback")
    cluster.run(timedelta(seconds=5))
    assert cluster.condition(FAILOVER, "home", "Ready")["reason"] == "PhaseDoesNotAllow"
    cluster.run(timedelta(minutes=11))
    assert cluster.status(FAILOVER, "home")["phase"] == "Failed"


def test_a_failover_is_refused_while_the_server_is_replicated_back() -> None:
    cluster = replicating_back()
    cluster.failover("wrong")
    cluster.run(timedelta(seconds=5))
    ready = cluster.condition(FAILOVER, "wrong", "Ready")
    assert ready["reason"] == "PhaseDoesNotAllow"
    assert "type: Failback" in ready["message"]


def test_a_failback_that_is_rolled_back_leaves_the_recovered_server_serving() -> None:
    cluster = replicating_back()
    cluster.checks_pass = False
    cluster.failover("home", type="Failback", checks=[{"name": "up", "tcpSocket": {"port": 80}}])
    cluster.run(timedelta(seconds=30))
    assert cluster.status(FAILOVER, "home")["phase"] == "AwaitingCommit"
    assert cluster.condition(FAILOVER, "home", "Stalled")["status"] == "True"
    cluster.edit(FAILOVER, "home", rollback=True)
    cluster.until("ReverseReplicating")
    assert cluster.status(PROTECTED_SERVER, SERVER)["activeSite"] == "Recovery"
    assert cluster.ledger.fence is not None
    assert cluster.ledger.fence.direction is Direction.FORWARD
    assert not cluster.world.running(SERVER), "the original server stays fenced"


def test_whoever_asks_for_the_next_round_during_a_failback_gets_it_at_once() -> None:
    cluster = replicating_back()
    cluster.failover("home", type="Failback")
    cluster.until("FailingBack")
    ask(cluster, enabled=False)
    cluster.until("Initialized")
    told = cluster.phases[cluster.phases.index("FailingBack") :]
    assert told == ["FailingBack", "Registering", "Initialized"]
    for before, after in itertools.pairwise(told):
        assert Phase(after) in TRANSITIONS[Phase(before)]
    assert cluster.status(FAILOVER, "home")["phase"] == "Completed"


def test_reverse_left_over_from_an_earlier_round_starts_nothing() -> None:
    cluster = Cluster(world())
    cluster.replicating(recoveryPoints=POLICY)
    ask(cluster, direction="Reverse", originalMachine=True, confirmWipe=SERVER)
    cluster.run(timedelta(seconds=5))
    assert cluster.condition(PROTECTED_SERVER, SERVER, "Ready")["reason"] == "PhaseDoesNotAllow"
    cluster.failover("disaster")
    cluster.until("FailedOver")
    cluster.edit(FAILOVER, "disaster", commit=True)
    cluster.until("Committed")
    cluster.run(timedelta(minutes=1))
    assert cluster.phase == "Committed"
    assert "Forward and then Reverse" in cluster.condition(PROTECTED_SERVER, SERVER, "Ready")["message"]
    ask(cluster, direction="Forward")
    cluster.run(timedelta(seconds=5))
    ask(cluster, direction="Reverse")
    cluster.until("ReverseReplicating")


def test_the_original_machine_is_wiped_once_and_only_with_consent() -> None:
    cluster = replicating_back(originalMachine=True, confirmWipe=SERVER)
    # A start is asked for again until data is copied; an engine starts a run once.
    (start,) = set(starts := performed(cluster, verbs.StartReplication, Direction.REVERSE))
    assert isinstance(start, verbs.StartReplication)
    assert start.onto_original
    assert cluster.ledger.wiped == cluster.ledger.epoch
    written = next(
        index
        for index, (_, act) in enumerate(cluster.world.journal)
        if getattr(act, "wiped", None) == cluster.ledger.epoch
    )
    acted = next(index for index, (_, act) in enumerate(cluster.world.journal) if act is starts[0])
    assert written < acted, "the consent is spent before anything is wiped"


def test_the_original_machine_is_left_alone_without_being_asked_for() -> None:
    cluster = replicating_back()
    assert cluster.ledger.wiped is None
    starts = performed(cluster, verbs.StartReplication, Direction.REVERSE)
    assert not any(start.onto_original for start in starts if isinstance(start, verbs.StartReplication))


def test_the_original_machine_is_not_wiped_while_its_fence_is_not_confirmed() -> None:
    cluster = committed_in_silence()
    ask(cluster, direction="Reverse", originalMachine=True, confirmWipe=SERVER)
    cluster.run(timedelta(seconds=10))
    assert cluster.phase.startswith("ReverseRegister")
    assert not performed(cluster, verbs.StartReplication, Direction.REVERSE)
    assert cluster.ledger.wiped is None
    cluster.world.answer("zone-a")
    cluster.until("ReverseReplicating")


@pytest.mark.parametrize("lost", ["statuses", "objects"])
def test_a_spec_left_at_reverse_after_the_failback_never_wipes(lost: str) -> None:
    cluster = replicating_back(originalMachine=True, confirmWipe=SERVER)
    cluster.failover("home", type="Failback")
    cluster.until("FailedBack")
    begun = len(cluster.world.performed)
    if lost == "statuses":
        cluster.lose_statuses()
    else:
        cluster.rebuild()
    cluster.crash()
    cluster.run(timedelta(minutes=5), by=timedelta(seconds=5))
    assert cluster.phase == "FailedBack"
    later = [verb for _, verb in cluster.world.performed[begun:]]
    assert not any(isinstance(verb, verbs.StartReplication) for verb in later)
    assert cluster.ledger.active_site is ActiveSite.PRIMARY


def test_forward_is_refused_until_the_failback_and_reverse_replication_goes_on() -> None:
    cluster = replicating_back()
    ask(cluster, direction="Forward")
    cluster.run(timedelta(minutes=1))
    assert cluster.phase == "ReverseReplicating"
    assert cluster.condition(PROTECTED_SERVER, SERVER, "Ready")["reason"] == "PhaseDoesNotAllow"


def test_stopped_on_the_way_back_it_is_registered_and_starts_again() -> None:
    cluster = replicating_back()
    ask(cluster, direction="Reverse", enabled=False)
    cluster.until("ReverseRegistered")
    assert cluster.status(PROTECTED_SERVER, SERVER)["recoveryPointCount"] >= 1
    ask(cluster, direction="Reverse")
    cluster.until("ReverseReplicating")


def test_a_planned_failover_stops_the_source_cleanly_and_loses_nothing() -> None:
    cluster = Cluster(world())
    cluster.replicating(recoveryPoints=POLICY)
    for _ in range(3):
        cluster.world.write(SERVER)
    cluster.failover("moved", planned=True)
    cluster.until("FailedOver")
    assert performed(cluster, verbs.Fence, Direction.FORWARD)[0] == verbs.Fence(orderly=True)
    assert cluster.condition(FAILOVER, "moved", "SourceFenced")["status"] == "True"
    assert cluster.world.contents(SERVER, "failover-1-1") == 3


def test_a_planned_failover_is_refused_when_the_source_does_not_answer() -> None:
    cluster = Cluster(world())
    cluster.replicating(recoveryPoints=POLICY)
    cluster.world.silence("zone-a")
    cluster.failover("moved", planned=True)
    cluster.run(timedelta(seconds=5))
    ready = cluster.condition(FAILOVER, "moved", "Ready")
    assert ready["reason"] == "SiteSilent"
    assert "without planned" in ready["message"]


def test_a_planned_failover_whose_source_burns_in_the_middle_is_carried_on_by_an_unplanned_one() -> None:
    cluster = Cluster(world())
    cluster.replicating(recoveryPoints=POLICY)
    cluster.world.fail_next(verbs.Fence, Retry("the guest is shutting down"))
    cluster.failover("moved", planned=True)
    cluster.step()
    cluster.step()
    cluster.world.silence("zone-a")
    cluster.run(timedelta(seconds=5))
    assert cluster.phase == "FailingOver"
    assert "does not answer any more" in cluster.condition(FAILOVER, "moved", "Ready")["message"]
    cluster.delete(FAILOVER, "moved")
    cluster.failover("disaster")
    cluster.until("FailedOver")


def test_an_interruption_on_the_way_back_offers_no_failover() -> None:
    cluster = replicating_back()
    cluster.world.silence("zone-b")
    cluster.run(timedelta(seconds=5))
    assert "create a Failover" not in cluster.condition(PROTECTED_SERVER, SERVER, "Ready")["message"]
    cluster.world.answer("zone-b")
    cluster.world.cut_link()
    cluster.until("ReverseInterrupted")
    assert "create a Failover" not in cluster.condition(PROTECTED_SERVER, SERVER, "Ready")["message"]


def planned_over_a_link_that_breaks(cluster: Cluster) -> None:
    """Ask for a planned failover, and cut the link when the source is about to go down with a write on its way."""
    cluster.replicating(recoveryPoints=POLICY)
    cluster.failover("moved", planned=True)
    cluster.settle()
    cluster.world.cut_link()
    cluster.world.write(SERVER)
    cluster.run(timedelta(seconds=30))
    assert cluster.phase == "FailingOver"
    assert cluster.world.running(SERVER) is False, "the guest is down"


def test_a_planned_failover_goes_on_when_a_link_that_broke_in_the_middle_is_back() -> None:
    cluster = Cluster(world())
    planned_over_a_link_that_breaks(cluster)
    assert "do not reach each other" in cluster.condition(FAILOVER, "moved", "Ready")["message"]
    assert cluster.condition(FAILOVER, "moved", "Stalled")["status"] == "False"
    cluster.crash()
    cluster.world.restore_link()
    cluster.until("FailedOver", within=timedelta(minutes=1))
    assert cluster.world.contents(SERVER, "failover-1-1") == 1


def test_a_planned_failover_over_a_link_that_broke_can_still_be_rolled_back() -> None:
    cluster = Cluster(world())
    planned_over_a_link_that_breaks(cluster)
    cluster.edit(FAILOVER, "moved", rollback=True)
    cluster.run(timedelta(seconds=10))
    assert cluster.world.running(SERVER)
    cluster.world.restore_link()
    cluster.until("Replicating")


def test_a_planned_failover_whose_copy_cannot_be_resumed_asks_for_a_person() -> None:
    cluster = Cluster(world(capabilities=replace(ALL, delta_resync=False)))
    planned_over_a_link_that_breaks(cluster)
    cluster.world.restore_link()
    cluster.run(timedelta(seconds=30))
    stalled = cluster.condition(FAILOVER, "moved", "Stalled")
    assert stalled["status"] == "True"
    assert "last writes cannot arrive" in stalled["message"]
    assert "rollback: true" in stalled["message"]


def test_a_planned_failover_whose_source_ends_too_early_stops_and_says_so() -> None:
    cluster = Cluster(world())
    planned_over_a_link_that_breaks(cluster)
    cluster.world.kill_source(SERVER)
    cluster.run(timedelta(seconds=30))
    assert cluster.phase == "FailingOver"
    stalled = cluster.condition(FAILOVER, "moved", "Stalled")
    assert stalled["status"] == "True"
    assert "ended before its last writes had arrived" in stalled["message"]
    cluster.delete(FAILOVER, "moved")
    cluster.failover("all-the-same")
    cluster.until("FailedOver")


def test_the_machine_whose_disks_the_recovered_one_took_over_goes_with_the_commit() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.failover("disaster")
    cluster.until("FailedOver")
    held = cluster.world.contents(SERVER, "failover-1-1")
    cluster.edit(FAILOVER, "disaster", instance={"cpu": 1})
    cluster.run(timedelta(seconds=10))
    cluster.edit(FAILOVER, "disaster", commit=True)
    cluster.until("Committed")
    assert set(cluster.machines) == {"failover-1-2"}
    assert cluster.world.contents(SERVER, "failover-1-2") == held
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"direction": "Reverse", "enabled": True})
    cluster.until("ReverseReplicating")
    assert cluster.ledger.registered == "failover-1-2"
    assert cluster.ledger.leftovers == ()
