"""Bad days on the way back: what is asked, deleted or lost in the middle of it, and who serves afterwards."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from lifeboat.engines import verbs
from lifeboat.engines.contract import Retry, Unreachable
from lifeboat.engines.facts import MachineState, Unknown
from lifeboat.engines.ledger import ActiveSite, Direction, Ledger
from lifeboat.lifecycle.decide import decide
from lifeboat.lifecycle.phases import server_phase
from lifeboat.lifecycle.view import FAILOVER, PROTECTED_SERVER
from tests.lifecycle.cluster import SERVER, Cluster, world
from tests.lifecycle.test_way_back import POLICY, ask, committed, committed_in_silence, replicating_back


def at_home_again(**replication: Any) -> Cluster:
    """A server that was failed back and is not registered at home yet."""
    cluster = replicating_back(**replication)
    cluster.failover("home", type="Failback")
    cluster.until("FailedBack")
    return cluster


def unfenced() -> Cluster:
    """A server that is replicated back while the original's fence fails, and the original runs."""
    cluster = committed_in_silence()
    for _ in range(1000):
        cluster.world.fail_next(verbs.Fence, Unreachable("its process does not end"))
    cluster.world.answer("zone-a")
    return cluster


def test_a_failback_waits_for_the_fence_of_the_original() -> None:
    cluster = unfenced()
    ask(cluster, direction="Reverse")
    cluster.until("ReverseReplicating")
    cluster.run(timedelta(seconds=12))
    cluster.failover("home", type="Failback")
    cluster.run(timedelta(seconds=10))
    assert cluster.world.running(SERVER)
    assert "failback-2-1" not in cluster.machines, "two servers would serve at the primary site"
    assert "Failback" not in cluster.status(PROTECTED_SERVER, SERVER)["allowedOperations"]
    cluster.world._faults.clear()
    cluster.until("FailedBack")
    assert not cluster.world.running(SERVER)


def test_a_turn_does_not_take_the_unfenced_original_for_the_recovered_server() -> None:
    cluster = unfenced()
    ask(cluster, direction="Reverse")
    begun = len(cluster.world.journal)
    cluster.until("ReverseReplicating")
    ledgers = (act for _, act in cluster.world.journal[begun:] if isinstance(act, Ledger))
    turned = next(ledger for ledger in ledgers if ledger.direction is Direction.REVERSE)
    assert not turned.initialized
    assert not turned.replicating


def test_a_deletion_on_the_way_back_waits_for_the_fence_of_the_original() -> None:
    cluster = unfenced()
    cluster.world.silence("zone-a")
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"direction": "Reverse"})
    cluster.run(timedelta(seconds=5))
    assert cluster.ledger.direction is Direction.REVERSE
    cluster.delete(PROTECTED_SERVER, SERVER)
    cluster.run(timedelta(seconds=5))
    assert (PROTECTED_SERVER, SERVER) in cluster.objects
    cluster.world._faults.clear()
    cluster.world.answer("zone-a")
    cluster.run(timedelta(seconds=5))
    assert not cluster.world.running(SERVER)
    assert (PROTECTED_SERVER, SERVER) not in cluster.objects


def test_an_original_that_vanishes_from_its_inventory_for_a_while_is_fenced_when_it_is_back() -> None:
    cluster = unfenced()
    ask(cluster, direction="Reverse")
    cluster.until("ReverseReplicating")
    inventory = cluster.world._model.zones["zone-a"].servers[SERVER]
    inventory.removed = True
    cluster.world._model.touch_server(inventory)
    cluster.run(timedelta(seconds=5))
    inventory.removed = False
    cluster.world._faults.clear()
    cluster.world._model.touch_server(inventory)
    cluster.run(timedelta(seconds=5))
    assert not cluster.world.running(SERVER)


def test_a_failback_that_is_given_up_unbegun_leaves_the_recovered_server_and_the_fence() -> None:
    cluster = replicating_back()
    cluster.failover("home", type="Failback")
    cluster.step()
    cluster.delete(PROTECTED_SERVER, SERVER)
    cluster.run(timedelta(seconds=10))
    assert (PROTECTED_SERVER, SERVER) not in cluster.objects
    assert cluster.ledger.failover is None
    spent = cluster.ledger.ended(FAILOVER, "home")
    assert spent is not None
    assert spent.phase == "Failed"
    assert cluster.ledger.active_site is ActiveSite.RECOVERY
    assert cluster.ledger.fence is not None
    assert cluster.ledger.fence.direction is Direction.FORWARD
    assert cluster.world.running(SERVER, Direction.REVERSE)


def test_a_planned_failover_whose_source_goes_down_already_is_not_given_up_as_unbegun() -> None:
    cluster = Cluster(world())
    cluster.replicating(recoveryPoints=POLICY)
    cluster.failover("moved", planned=True)
    cluster.step()
    cluster.step()
    assert cluster.ledger.fence is not None
    assert cluster.ledger.fence.tried_at is None
    cluster.delete(PROTECTED_SERVER, SERVER)
    cluster.run(timedelta(seconds=60))
    serving = [m.name for m in cluster.machines.values() if m.state.value == "Running"]
    assert cluster.world.running(SERVER) or serving, "somebody serves"


def test_the_turn_home_waits_until_all_machines_are_seen() -> None:
    cluster = at_home_again()
    ask(cluster, direction="Forward")
    view = cluster.view()
    assert view is not None
    forward = replace(view.facts.forward, machines=Unknown("it does not answer in time"))
    plan = decide(replace(view, facts=replace(view.facts, forward=forward)))
    assert plan.ledger is None, "the recovery side's disks would never be deleted"
    cluster.until("Replicating")
    cluster.run(timedelta(seconds=12))
    assert list(cluster.machines) == ["failback-2-1"]


def second_failback() -> Cluster:
    """A server that came home a second time and is registered; the disks of both rounds are still there."""
    cluster = at_home_again()
    ask(cluster, direction="Forward")
    cluster.until("Replicating")
    cluster.run(timedelta(seconds=12))
    cluster.failover("again")
    cluster.until("FailedOver")
    cluster.edit(FAILOVER, "again", commit=True)
    cluster.until("Committed")
    ask(cluster, direction="Reverse")
    cluster.until("ReverseReplicating")
    cluster.run(timedelta(seconds=12))
    cluster.failover("home-again", type="Failback")
    cluster.until("FailedBack")
    cluster.world.fail_next(verbs.TakePoint, Retry("not now"))
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"enabled": False, "direction": "Forward"})
    cluster.until("Initialized")
    assert cluster.ledger.leftovers == ("failback-2-1", "failover-3-1")
    return cluster


def test_deleted_with_all_it_leaves_no_machine_of_an_earlier_round_at_either_site() -> None:
    cluster = second_failback()
    cluster.edit(PROTECTED_SERVER, SERVER, deletionPolicy="Delete")
    cluster.delete(PROTECTED_SERVER, SERVER)
    cluster.run(timedelta(seconds=5))
    assert (PROTECTED_SERVER, SERVER) not in cluster.objects
    assert list(cluster.machines) == ["failback-4-1"]


def test_a_failover_before_the_old_disks_are_gone_forgets_none_of_them() -> None:
    cluster = second_failback()
    cluster.world.fail_next(verbs.TakePoint, Retry("not now"))
    ask(cluster, direction="Forward")
    for _ in range(200):
        if cluster.phase == "Replicating":
            break
        cluster.step()
        cluster.world.advance(timedelta(seconds=1))
    assert cluster.ledger.leftovers
    cluster.failover("third")
    cluster.until("FailedOver")
    cluster.edit(FAILOVER, "third", commit=True)
    cluster.until("Committed")
    ask(cluster, direction="Reverse")
    cluster.until("ReverseReplicating")
    cluster.run(timedelta(seconds=30))
    assert sorted(cluster.machines) == ["failback-4-1", "failover-5-1"]


def test_a_server_of_the_same_id_at_the_recovery_site_is_said_before_anything_turns() -> None:
    cluster = committed()
    zone = cluster.world._model.zones["zone-b"]
    zone.servers[SERVER] = replace(cluster.world._model.zones["zone-a"].servers[SERVER], zone=zone)
    zone.facts = None
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"direction": "Reverse"})
    cluster.run(timedelta(seconds=5))
    assert cluster.phase == "Committed"
    ready = cluster.condition(PROTECTED_SERVER, SERVER, "Ready")
    assert ready["reason"] == "InUse"
    assert "of its own" in ready["message"]


def test_home_again_nothing_says_that_the_source_is_fenced() -> None:
    cluster = at_home_again()
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"enabled": False, "direction": "Forward"})
    cluster.until("Initialized")
    assert cluster.ledger.fence is not None, "the recovered server is kept down until its disks go"
    assert cluster.condition(PROTECTED_SERVER, SERVER, "SourceFenced")["status"] == "False"


def test_a_replica_that_is_not_seen_after_the_turn_leaves_no_phase_of_before() -> None:
    cluster = at_home_again()
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"enabled": False, "direction": "Forward"})
    while cluster.ledger.direction is Direction.REVERSE:
        cluster.step()
    view = cluster.view()
    assert view is not None
    assert view.server.status.phase == "FailedBack"
    forward = replace(view.facts.forward, replica=Unknown("it does not answer in time"))
    view = replace(view, facts=replace(view.facts, forward=forward))
    assert server_phase(view, cluster.ledger) == "Registering"


def test_a_failback_whose_target_burns_before_anything_is_started_there_can_be_rolled_back() -> None:
    cluster = replicating_back()
    cluster.failover("home", type="Failback")
    for _ in range(3):
        cluster.step()
    cluster.world.silence("zone-a")
    cluster.run(timedelta(seconds=5))
    assert not cluster.world.running(SERVER, Direction.REVERSE)
    cluster.edit(FAILOVER, "home", rollback=True)
    cluster.run(timedelta(seconds=10))
    assert cluster.world.running(SERVER, Direction.REVERSE), "nobody would serve until the primary site answers"
    cluster.world.answer("zone-a")
    cluster.until("ReverseReplicating")


def test_a_deletion_in_the_middle_of_a_rollback_waits_until_the_source_serves_again() -> None:
    cluster = replicating_back()
    cluster.checks_pass = False
    cluster.failover("home", type="Failback", checks=[{"name": "up", "tcpSocket": {"port": 80}}])
    cluster.run(timedelta(seconds=30))
    cluster.edit(FAILOVER, "home", rollback=True)
    while cluster.machines["failback-2-1"].state is MachineState.RUNNING:
        cluster.step()
    cluster.delete(PROTECTED_SERVER, SERVER)
    cluster.run(timedelta(seconds=30))
    assert (PROTECTED_SERVER, SERVER) not in cluster.objects
    assert cluster.world.running(SERVER, Direction.REVERSE)


def test_a_recovered_server_that_died_is_halted_by_a_rollback_so_that_its_owner_cannot_start_it() -> None:
    cluster = Cluster(world())
    cluster.replicating(recoveryPoints=POLICY)
    cluster.failover("disaster")
    cluster.until("FailedOver")
    cluster.world.fail_machine(SERVER, "failover-1-1", "killed")
    cluster.edit(FAILOVER, "disaster", rollback=True)
    for _ in range(50):
        if cluster.ledger.failover is None:
            break
        cluster.step()
    assert cluster.ledger.leftovers == ("failover-1-1",)
    assert cluster.machines["failover-1-1"].state is MachineState.HALTED


def test_a_primary_that_burns_after_the_failback_started_there_can_be_left_again() -> None:
    cluster = replicating_back()
    cluster.checks_pass = False
    cluster.failover("home", type="Failback", checks=[{"name": "up", "tcpSocket": {"port": 80}}])
    cluster.run(timedelta(seconds=30))
    assert cluster.status(FAILOVER, "home")["phase"] == "AwaitingCommit"
    cluster.world.silence("zone-a")
    cluster.edit(FAILOVER, "home", rollback=True)
    cluster.run(timedelta(seconds=30))
    assert cluster.world.running(SERVER, Direction.REVERSE), "the recovered server serves again"
    assert "may still be serving" in cluster.condition(FAILOVER, "home", "Ready")["message"]
    cluster.world.answer("zone-a")
    cluster.until("ReverseReplicating")
    running = [m.name for m in cluster.machines.values() if m.state is MachineState.RUNNING]
    assert running == ["failover-1-1"]
