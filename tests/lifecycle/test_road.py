"""The forward half of the product on the simulated world, step by step, as a person would see it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lifeboat.engines.contract import Refused
from lifeboat.engines.verbs import Launch
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.view import DRILL, FAILOVER, PROTECTED_SERVER
from tests.lifecycle.cluster import HARDWARE, SERVER, Cluster, world

CHECK = [{"name": "answers", "tcpSocket": {"port": 80}}]
MINUTE = timedelta(minutes=1)


def test_a_server_goes_from_registered_to_replicating_with_a_first_point() -> None:
    cluster = Cluster()
    cluster.protect(enabled=True)
    cluster.until("Replicating")
    cluster.run(timedelta(seconds=2))
    assert cluster.phases == ["InstallingAgent", "StartingReplication", "FullSync", "Replicating"] or cluster.phases[
        -3:
    ] == ["StartingReplication", "FullSync", "Replicating"]
    status = cluster.status(PROTECTED_SERVER, SERVER)
    assert status["recoveryPointCount"] == 1
    assert status["progress"]["percent"] == 100
    assert status["activeSite"] == "Primary"
    assert cluster.condition(PROTECTED_SERVER, SERVER, "Ready")["status"] == "True"
    assert cluster.condition(PROTECTED_SERVER, SERVER, "FailoverReady")["status"] == "True"


def test_registered_only_is_ready_and_starts_nothing() -> None:
    cluster = Cluster()
    cluster.protect()
    cluster.run(MINUTE)
    assert cluster.phase == "Initialized"
    assert cluster.condition(PROTECTED_SERVER, SERVER, "Ready")["status"] == "True"
    assert not cluster.world.performed


def test_points_are_taken_on_the_slot_and_pruned_to_the_policy() -> None:
    cluster = Cluster()
    cluster.replicating(recoveryPoints=[{"every": "10s", "for": "60s"}])
    cluster.run(3 * MINUTE)
    points = cluster.status(PROTECTED_SERVER, SERVER)["recoveryPoints"]
    assert 6 <= len(points) <= 7
    assert points == sorted(points, key=lambda point: str(point["time"]), reverse=True)


def test_old_points_are_kept_while_new_ones_cannot_be_taken() -> None:
    cluster = Cluster()
    cluster.replicating(recoveryPoints=[{"every": "10s", "for": "60s"}])
    cluster.run(2 * MINUTE)
    before = cluster.status(PROTECTED_SERVER, SERVER)["recoveryPoints"]
    cluster.world.cut_link()
    cluster.run(10 * MINUTE)
    assert cluster.phase == "Interrupted"
    kept = {point["name"] for point in cluster.status(PROTECTED_SERVER, SERVER)["recoveryPoints"]}
    assert {point["name"] for point in before} <= kept
    assert cluster.condition(PROTECTED_SERVER, SERVER, "RecoveryPointsCurrent")["status"] == "False"


def test_a_server_that_stopped_is_not_said_to_go_on() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.world.kill_source(SERVER)
    cluster.run(timedelta(seconds=5))
    said = cluster.condition(PROTECTED_SERVER, SERVER, "Ready")["message"]
    assert cluster.phase == "Interrupted"
    assert "Start the server at its site and all data is copied again, or create a Failover" in said
    assert "unharmed" not in said


def test_after_an_interruption_only_what_changed_is_copied_and_the_last_state_is_kept() -> None:
    cluster = Cluster()
    cluster.replicating()
    held = cluster.world.write(SERVER)
    cluster.world.cut_link()
    cluster.run(timedelta(seconds=5))
    assert cluster.phase == "Interrupted"
    cluster.world.write(SERVER)
    cluster.world.restore_link()
    cluster.until("Resyncing")
    assert cluster.world.point_contents(SERVER, "before-resync-1-1") == held
    assert cluster.condition(PROTECTED_SERVER, SERVER, "FailoverReady")["status"] == "True"
    cluster.until("Replicating")
    assert cluster.ledger.run == 1


def test_a_drill_runs_beside_replication_and_is_cleared() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.drill("rehearsal", checks=CHECK)
    cluster.run(timedelta(seconds=10))
    status = cluster.status(DRILL, "rehearsal")
    assert (status["phase"], status["result"]) == ("Running", "Passed")
    assert cluster.condition(DRILL, "rehearsal", "Ready")["status"] == "True"
    assert cluster.phase == "Replicating"
    point = cluster.status(PROTECTED_SERVER, SERVER)["recoveryPoints"][0]
    assert (point["state"], point["testedBy"]) == ("InUse", "rehearsal")
    cluster.edit(DRILL, "rehearsal", running=False)
    cluster.run(timedelta(seconds=5))
    assert cluster.status(DRILL, "rehearsal")["phase"] == "CleanedUp"
    assert cluster.status(DRILL, "rehearsal")["result"] == "Passed"
    assert not cluster.machines


def test_without_checks_a_drill_has_no_result_and_proves_no_point() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.drill("rehearsal")
    cluster.run(timedelta(seconds=10))
    status = cluster.status(DRILL, "rehearsal")
    assert status["phase"] == "Running"
    assert "result" not in status
    assert "testedBy" not in cluster.status(PROTECTED_SERVER, SERVER)["recoveryPoints"][0]


def test_a_failed_check_needs_a_person_and_the_drill_stays_up() -> None:
    cluster = Cluster(checks_pass=False)
    cluster.replicating()
    cluster.drill("rehearsal", checks=CHECK)
    cluster.run(timedelta(seconds=10))
    assert cluster.status(DRILL, "rehearsal")["result"] == "Failed"
    assert cluster.condition(DRILL, "rehearsal", "Stalled")["status"] == "True"
    assert cluster.status(DRILL, "rehearsal")["phase"] == "Running"


def test_a_drill_waits_for_the_first_point_and_then_goes_on_by_itself() -> None:
    cluster = Cluster()
    cluster.protect(enabled=True)
    cluster.until("FullSync")
    cluster.drill("early")
    cluster.settle()
    assert cluster.status(DRILL, "early")["phase"] == "Pending"
    assert cluster.condition(DRILL, "early", "Ready")["reason"] == reasons.NO_RECOVERY_POINT
    cluster.until("Replicating")
    cluster.run(timedelta(seconds=10))
    assert cluster.status(DRILL, "early")["phase"] == "Running"


def test_points_are_taken_with_frozen_file_systems_where_a_tier_asks_and_the_client_answers() -> None:
    cluster = Cluster()
    cluster.replicating(recoveryPoints=[{"every": "10s", "for": "10m", "applicationConsistent": True}])
    assert [p["consistency"] for p in cluster.status(PROTECTED_SERVER, SERVER)["recoveryPoints"]] == ["Application"]
    cluster.world.set_agent(SERVER, connected=False)
    cluster.run(timedelta(seconds=10))
    newest, first = cluster.status(PROTECTED_SERVER, SERVER)["recoveryPoints"]
    assert (newest["consistency"], first["consistency"]) == ("Crash", "Application")
    cluster.drill("frozen", recoveryPoint="latest-application-consistent")
    cluster.run(timedelta(seconds=1))
    assert cluster.status(DRILL, "frozen")["recoveryPoint"]["name"] == first["name"]


def test_a_drill_from_a_frozen_point_waits_for_one() -> None:
    cluster = Cluster()
    cluster.replicating(recoveryPoints=[{"every": "10s", "for": "10m"}])
    cluster.drill("frozen", recoveryPoint="latest-application-consistent")
    cluster.run(MINUTE)
    ready = cluster.condition(DRILL, "frozen", "Ready")
    assert (ready["status"], ready["reason"]) == ("False", reasons.NO_RECOVERY_POINT)
    assert "application-consistent" in ready["message"]


def test_a_drill_ends_with_its_ttl() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.drill("short", ttl="1m")
    cluster.run(timedelta(seconds=30))
    assert cluster.status(DRILL, "short")["phase"] == "Running"
    cluster.run(MINUTE)
    assert cluster.status(DRILL, "short")["phase"] == "CleanedUp"
    assert cluster.condition(DRILL, "short", "Ready")["reason"] == reasons.CLEANED_UP


def test_deleting_a_drill_clears_it_first() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.drill("rehearsal")
    cluster.run(timedelta(seconds=10))
    cluster.delete(DRILL, "rehearsal")
    assert (DRILL, "rehearsal") in cluster.objects
    cluster.run(timedelta(seconds=5))
    assert (DRILL, "rehearsal") not in cluster.objects
    assert not cluster.machines


def fail_over(cluster: Cluster, **spec: object) -> None:
    cluster.failover("disaster", checks=CHECK, **spec)
    cluster.until("FailedOver")


def test_a_failover_at_current_loses_nothing() -> None:
    cluster = Cluster()
    cluster.replicating()
    for _ in range(5):
        cluster.world.write(SERVER)
    cluster.world.kill_source(SERVER)
    fail_over(cluster)
    assert cluster.world.lost(SERVER, "failover-1-1") == 0
    status = cluster.status(FAILOVER, "disaster")
    assert (status["phase"], status["result"]) == ("AwaitingCommit", "Passed")
    assert cluster.condition(FAILOVER, "disaster", "SourceFenced")["status"] == "True"
    assert cluster.status(PROTECTED_SERVER, SERVER)["activeSite"] == "Recovery"
    assert cluster.status(PROTECTED_SERVER, SERVER)["allowedOperations"] == [
        "ChangeRecoveryPoint",
        "Commit",
        "Drill",
        "Rollback",
    ]


def test_a_living_source_is_fenced_before_anything_else() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.world.write(SERVER)
    fail_over(cluster)
    assert not cluster.world.running(SERVER)
    verbs = [type(verb).__name__ for _, verb in cluster.world.performed]
    assert verbs.index("Fence") < verbs.index("StopReplication") < verbs.index("Launch")


def test_a_silent_source_delays_nothing_and_is_fenced_when_it_answers() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.world.silence("zone-a")
    began = cluster.world.now
    cluster.failover("disaster")
    cluster.settle()
    assert "failover-1-1" in cluster.machines
    assert cluster.world.now == began
    cluster.run(timedelta(seconds=10))
    assert cluster.condition(FAILOVER, "disaster", "SourceFenced")["status"] == "Unknown"
    assert "may still be serving" in cluster.condition(FAILOVER, "disaster", "Ready")["message"]
    cluster.world.answer("zone-a")
    cluster.settle()
    assert not cluster.world.running(SERVER)
    assert cluster.condition(FAILOVER, "disaster", "SourceFenced")["status"] == "True"


def test_a_source_silent_for_a_while_can_still_be_failed_over_at_current() -> None:
    cluster = Cluster()
    cluster.replicating()
    held = cluster.world.write(SERVER)
    cluster.world.cut_link()
    cluster.world.silence("zone-a")
    cluster.run(MINUTE)
    assert cluster.phase == "Interrupted"
    said = cluster.condition(PROTECTED_SERVER, SERVER, "Ready")["message"]
    assert "once the site answers; if the site is lost, create a Failover" in said
    assert cluster.status(PROTECTED_SERVER, SERVER)["activeSite"] == "Unknown"
    fail_over(cluster)
    assert cluster.world.contents(SERVER, "failover-1-1") == held


def test_a_failover_that_cannot_launch_is_cured_by_an_edit() -> None:
    cluster = Cluster()
    cluster.replicating()
    held = cluster.world.write(SERVER)
    for _ in range(3):
        cluster.world.fail_next(Launch, Refused("this machine type is gone"))
    cluster.failover("disaster", checks=CHECK)
    for _ in range(8):
        cluster.step()
    assert cluster.status(FAILOVER, "disaster")["phase"] == "Launching"
    assert cluster.condition(FAILOVER, "disaster", "Stalled")["status"] == "True"
    assert "Rollback" in cluster.status(PROTECTED_SERVER, SERVER)["allowedOperations"]
    cluster.edit(FAILOVER, "disaster", instance={"cpu": 1})
    cluster.until("FailedOver")
    assert cluster.status(FAILOVER, "disaster")["history"][-1]["attempt"] == 2
    assert cluster.world.contents(SERVER, "failover-1-2") == held


def test_a_rollback_says_so_where_the_source_does_not_run() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.world.kill_source(SERVER)
    fail_over(cluster)
    cluster.edit(FAILOVER, "disaster", rollback=True)
    cluster.run(timedelta(seconds=5))
    assert "does not run" in cluster.condition(FAILOVER, "disaster", "Ready")["message"]
    assert cluster.phase == "Initialized"
    assert cluster.status(PROTECTED_SERVER, SERVER)["activeSite"] == "None"
    cluster.world.start_source(SERVER)
    cluster.until("Replicating")
    assert cluster.status(PROTECTED_SERVER, SERVER)["activeSite"] == "Primary"


def test_the_point_is_changed_and_changed_back_with_the_old_disks_kept() -> None:
    cluster = Cluster()
    cluster.replicating(recoveryPoints=[{"every": "10s", "for": "10m"}])
    older = cluster.status(PROTECTED_SERVER, SERVER)["recoveryPoints"][0]["name"]
    cluster.world.write(SERVER)
    cluster.run(timedelta(seconds=30))
    cluster.world.write(SERVER)
    fail_over(cluster)
    cluster.world.write_in(SERVER, "failover-1-1", 40)
    cluster.edit(FAILOVER, "disaster", recoveryPoint=older)
    cluster.run(timedelta(seconds=10))
    assert cluster.world.contents(SERVER, "failover-1-2") == 0
    assert [m.name for m in cluster.machines.values() if m.state == "Running"] == ["failover-1-2"]
    cluster.edit(FAILOVER, "disaster", recoveryPoint="tip-1")
    cluster.run(timedelta(seconds=10))
    assert cluster.world.contents(SERVER, "failover-1-3") == 2
    cluster.edit(FAILOVER, "disaster", recoveryPoint="attempt-1")
    cluster.run(timedelta(seconds=10))
    assert cluster.world.contents(SERVER, "failover-1-4") == 40
    history = cluster.status(FAILOVER, "disaster")["history"]
    assert [entry["recoveryPoint"] for entry in history] == ["current", older, "tip-1", "attempt-1"]
    assert "ChangingRecoveryPoint" in cluster.phases


def test_current_can_be_used_once() -> None:
    cluster = Cluster()
    cluster.replicating()
    fail_over(cluster)
    older = cluster.status(PROTECTED_SERVER, SERVER)["recoveryPoints"][-1]["name"]
    cluster.edit(FAILOVER, "disaster", recoveryPoint=older)
    cluster.run(timedelta(seconds=10))
    cluster.edit(FAILOVER, "disaster", recoveryPoint="current")
    cluster.run(timedelta(seconds=10))
    assert cluster.condition(FAILOVER, "disaster", "Stalled")["reason"] == reasons.CURRENT_USED
    assert cluster.machines["failover-1-2"].state == "Running"
    cluster.edit(FAILOVER, "disaster", recoveryPoint=older)
    cluster.run(timedelta(seconds=2))
    assert cluster.condition(FAILOVER, "disaster", "Ready")["status"] == "True"


def test_the_same_point_by_another_name_restarts_nothing() -> None:
    cluster = Cluster()
    cluster.replicating()
    fail_over(cluster)
    cluster.edit(FAILOVER, "disaster", recoveryPoint="tip-1")
    cluster.run(timedelta(seconds=5))
    assert list(cluster.machines) == ["failover-1-1"]
    assert cluster.status(FAILOVER, "disaster")["recoveryPoint"]["spec"] == "tip-1"


def test_an_instance_edit_restarts_the_same_disks_and_an_elastic_ip_moves_without() -> None:
    cluster = Cluster()
    cluster.replicating()
    fail_over(cluster)
    cluster.edit(FAILOVER, "disaster", instance={"elasticIP": "127.0.10.5"})
    cluster.run(timedelta(seconds=5))
    assert cluster.status(FAILOVER, "disaster")["instance"]["elasticIP"] == "127.0.10.5"
    assert list(cluster.machines) == ["failover-1-1"]
    cluster.world.write_in(SERVER, "failover-1-1", 77)
    cluster.edit(FAILOVER, "disaster", instance={"elasticIP": "127.0.10.5", "cpu": 4})
    cluster.run(timedelta(seconds=10))
    assert cluster.world.contents(SERVER, "failover-1-2") == 77
    assert cluster.status(FAILOVER, "disaster")["phase"] == "AwaitingCommit"
    assert cluster.status(FAILOVER, "disaster")["instance"]["elasticIP"] == "127.0.10.5"


def test_a_refused_edit_leaves_the_server_alone_and_never_comes_true_by_itself() -> None:
    cluster = Cluster()
    cluster.replicating()
    fail_over(cluster)
    cluster.edit(FAILOVER, "disaster", instance={"network": "elsewhere"})
    cluster.run(timedelta(seconds=5))
    assert cluster.condition(FAILOVER, "disaster", "Stalled")["reason"] == reasons.UNKNOWN_NETWORK
    assert cluster.machines["failover-1-1"].state == "Running"
    cluster.world.add_network("zone-b", "elsewhere", "10.9.0.0/24")
    cluster.run(MINUTE)
    assert list(cluster.machines) == ["failover-1-1"]


def test_commit_makes_the_server_independent_and_frees_the_points() -> None:
    cluster = Cluster()
    cluster.replicating()
    fail_over(cluster)
    cluster.edit(FAILOVER, "disaster", commit=True)
    cluster.until("Committed")
    assert cluster.status(FAILOVER, "disaster")["phase"] == "Committed"
    assert cluster.machines["failover-1-1"].independent
    assert cluster.status(PROTECTED_SERVER, SERVER)["recoveryPointCount"] == 0
    cluster.run(MINUTE)
    assert cluster.condition(PROTECTED_SERVER, SERVER, "Ready")["reason"] == reasons.SERVED_FROM_RECOVERY


def test_a_point_held_by_a_drill_goes_when_the_drill_is_cleared() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.drill("rehearsal", recoveryPoint="latest")
    cluster.run(timedelta(seconds=10))
    fail_over(cluster)
    cluster.edit(FAILOVER, "disaster", commit=True)
    cluster.until("Committed")
    assert cluster.machines["drill-rehearsal"].state == "Running"
    assert cluster.status(PROTECTED_SERVER, SERVER)["recoveryPointCount"] == 1
    cluster.edit(DRILL, "rehearsal", running=False)
    cluster.run(timedelta(seconds=10))
    assert cluster.status(PROTECTED_SERVER, SERVER)["recoveryPointCount"] == 0
    assert list(cluster.machines) == ["failover-1-1"]


def test_rollback_goes_back_to_the_source_and_copies_anew() -> None:
    cluster = Cluster()
    cluster.replicating()
    fail_over(cluster)
    cluster.edit(FAILOVER, "disaster", rollback=True)
    cluster.run(timedelta(seconds=3))
    assert cluster.status(FAILOVER, "disaster")["phase"] == "RolledBack"
    assert cluster.world.running(SERVER)
    assert cluster.status(PROTECTED_SERVER, SERVER)["activeSite"] == "Primary"
    cluster.until("Replicating")
    cluster.run(timedelta(seconds=10))
    assert cluster.ledger.run == 2
    assert not cluster.machines, "the kept disks go once the server is protected again"


def test_rollback_to_a_silent_source_waits_while_the_recovered_server_serves() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.world.silence("zone-a")
    fail_over(cluster)
    cluster.edit(FAILOVER, "disaster", rollback=True)
    cluster.run(timedelta(seconds=10))
    assert cluster.status(FAILOVER, "disaster")["phase"] == "AwaitingCommit"
    assert cluster.machines["failover-1-1"].state == "Running"
    assert cluster.condition(FAILOVER, "disaster", "Ready")["reason"] == reasons.SITE_SILENT
    cluster.world.answer("zone-a")
    cluster.run(timedelta(seconds=10))
    assert cluster.status(FAILOVER, "disaster")["phase"] == "RolledBack"


def test_a_second_failover_is_refused_for_good() -> None:
    cluster = Cluster()
    cluster.replicating()
    fail_over(cluster)
    cluster.failover("second")
    cluster.settle()
    assert cluster.status(FAILOVER, "second")["phase"] == "Failed"
    assert cluster.condition(FAILOVER, "second", "Stalled")["reason"] == reasons.FAILOVER_EXISTS
    cluster.edit(FAILOVER, "disaster", rollback=True)
    cluster.run(MINUTE)
    assert cluster.status(FAILOVER, "second")["phase"] == "Failed"
    assert cluster.ledger.epoch == 1


def test_a_failover_that_cannot_start_in_time_never_starts() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.failover("disaster", instance={"network": "elsewhere"}, startDeadline="1m")
    cluster.run(timedelta(seconds=30))
    assert cluster.status(FAILOVER, "disaster")["phase"] == "Pending"
    assert cluster.condition(FAILOVER, "disaster", "Stalled")["reason"] == reasons.UNKNOWN_NETWORK
    cluster.run(MINUTE)
    assert cluster.status(FAILOVER, "disaster")["phase"] == "Failed"
    assert cluster.condition(FAILOVER, "disaster", "Ready")["reason"] == reasons.NOT_ACCEPTED
    cluster.world.add_network("zone-b", "elsewhere", "10.9.0.0/24")
    cluster.rebuild()
    cluster.run(MINUTE)
    assert cluster.status(FAILOVER, "disaster")["phase"] == "Failed"
    assert cluster.phase == "Replicating"


def test_a_failover_while_the_recovery_site_is_silent_is_no_time_bomb() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.world.silence("zone-b")
    cluster.failover("disaster", startDeadline="1m")
    cluster.run(2 * MINUTE)
    assert cluster.status(FAILOVER, "disaster")["phase"] == "Failed"
    cluster.world.answer("zone-b")
    cluster.run(MINUTE)
    assert cluster.status(FAILOVER, "disaster")["phase"] == "Failed"
    assert cluster.phase == "Replicating"


def test_a_new_failover_carries_on_where_the_old_object_was_deleted() -> None:
    cluster = Cluster()
    cluster.replicating()
    fail_over(cluster)
    cluster.delete(FAILOVER, "disaster")
    cluster.run(MINUTE)
    assert cluster.phase == "FailedOver"
    cluster.failover("carry-on", checks=CHECK)
    cluster.run(timedelta(seconds=5))
    assert cluster.status(FAILOVER, "carry-on")["phase"] == "AwaitingCommit"
    assert list(cluster.machines) == ["failover-1-1"]
    cluster.edit(FAILOVER, "carry-on", commit=True)
    cluster.until("Committed")


@pytest.mark.parametrize("committed", [False, True])
def test_losing_every_status_and_object_changes_nothing_but_statuses(*, committed: bool) -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.drill("rehearsal", checks=CHECK)
    cluster.run(timedelta(seconds=10))
    cluster.edit(DRILL, "rehearsal", running=False)
    cluster.run(timedelta(seconds=5))
    fail_over(cluster)
    if committed:
        cluster.edit(FAILOVER, "disaster", commit=True)
        cluster.until("Committed")
    cluster.run(timedelta(seconds=10))
    statuses = {key: body["status"]["phase"] for key, body in cluster.objects.items()}
    performed = len(cluster.world.performed)
    machines = cluster.machines
    cluster.crash()
    cluster.rebuild()
    cluster.run(MINUTE)
    assert {key: body["status"]["phase"] for key, body in cluster.objects.items()} == statuses
    assert len(cluster.world.performed) == performed
    assert cluster.machines == machines


def test_a_restart_is_done_once_and_completes_the_client() -> None:
    made = world()
    made.remove_server(SERVER)
    made.add_server(SERVER, HARDWARE, agent_after_reboot=True)
    cluster = Cluster(made)
    cluster.protect(enabled=True)
    cluster.run(MINUTE)
    assert cluster.phase == "InstallingAgent"
    metadata = cluster.objects[PROTECTED_SERVER, SERVER]["metadata"]
    metadata["annotations"] = {"lifeboat.dev/restartedAt": made.now.strftime("%Y-%m-%dT%H:%M:%SZ")}
    cluster.until("Replicating")
    restarts = [verb for _, verb in made.performed if type(verb).__name__ == "Restart"]
    assert len(restarts) == 1


def test_disabling_keeps_points_and_enabling_says_why_it_copies_all() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"enabled": False})
    cluster.run(timedelta(seconds=5))
    assert cluster.phase == "Stopped"
    newest = cluster.status(PROTECTED_SERVER, SERVER)["recoveryPoints"][0]
    assert newest["name"] == "stopped-1", "what was whole when it was stopped is kept"
    assert cluster.condition(PROTECTED_SERVER, SERVER, "Ready")["status"] == "True"
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"enabled": True})
    cluster.until("FullSync")
    assert "what changed meanwhile is not known" in cluster.condition(PROTECTED_SERVER, SERVER, "Ready")["message"]
    cluster.until("Replicating")


def test_a_dead_source_copies_all_again_and_keeps_its_points() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.world.kill_source(SERVER)
    cluster.run(timedelta(seconds=5))
    assert cluster.phase == "Interrupted"
    assert cluster.condition(PROTECTED_SERVER, SERVER, "FailoverReady")["status"] == "True"
    cluster.world.start_source(SERVER)
    cluster.until("Replicating")
    cluster.run(timedelta(seconds=5))
    assert cluster.ledger.run == 2
    assert cluster.status(PROTECTED_SERVER, SERVER)["recoveryPointCount"] == 2


def test_a_server_removed_under_the_operator_is_told_and_can_still_be_failed_over() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.world.write(SERVER)
    cluster.world.remove_server(SERVER)
    cluster.run(timedelta(seconds=5))
    assert cluster.condition(PROTECTED_SERVER, SERVER, "Stalled")["reason"] == reasons.UNKNOWN_SERVER
    fail_over(cluster)
    assert cluster.world.lost(SERVER, "failover-1-1") == 0


def test_retain_keeps_what_a_new_object_adopts() -> None:
    cluster = Cluster()
    cluster.replicating()
    points = cluster.status(PROTECTED_SERVER, SERVER)["recoveryPoints"]
    cluster.delete(PROTECTED_SERVER, SERVER)
    cluster.run(timedelta(seconds=5))
    assert (PROTECTED_SERVER, SERVER) not in cluster.objects
    assert cluster.ledger.claim is None
    cluster.protect()
    cluster.run(timedelta(seconds=5))
    assert cluster.phase == "Stopped"
    kept = {p["name"] for p in cluster.status(PROTECTED_SERVER, SERVER)["recoveryPoints"]}
    assert kept == {p["name"] for p in points} | {"stopped-1"}


def test_delete_removes_replica_and_points_and_not_the_source() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.edit(PROTECTED_SERVER, SERVER, deletionPolicy="Delete")
    cluster.delete(PROTECTED_SERVER, SERVER)
    cluster.run(timedelta(seconds=10))
    assert (PROTECTED_SERVER, SERVER) not in cluster.objects
    assert cluster.world.running(SERVER)
    assert cluster.world.replica_contents(SERVER) is None


def test_delete_waits_while_the_only_copy_may_be_the_replica() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.edit(PROTECTED_SERVER, SERVER, deletionPolicy="Delete")
    cluster.world.kill_source(SERVER)
    cluster.delete(PROTECTED_SERVER, SERVER)
    cluster.run(timedelta(seconds=10))
    assert cluster.condition(PROTECTED_SERVER, SERVER, "Ready")["reason"] == reasons.SOURCE_DOWN
    metadata = cluster.objects[PROTECTED_SERVER, SERVER]["metadata"]
    metadata["annotations"] = {"lifeboat.dev/discard": SERVER}
    cluster.run(timedelta(seconds=10))
    assert (PROTECTED_SERVER, SERVER) not in cluster.objects


def test_a_silent_recovery_site_does_not_block_a_deletion_that_retains() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.world.silence("zone-b")
    cluster.run(timedelta(seconds=2))
    assert cluster.condition(PROTECTED_SERVER, SERVER, "ReplicationHealthy")["status"] == "Unknown"
    cluster.delete(PROTECTED_SERVER, SERVER)
    cluster.settle()
    assert (PROTECTED_SERVER, SERVER) not in cluster.objects


def test_a_drill_that_is_being_launched_yields_to_a_failover() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.drill("rehearsal")
    cluster.step()
    cluster.step()
    assert cluster.ledger.drill("rehearsal") is not None
    cluster.failover("disaster")
    cluster.run(timedelta(seconds=10))
    assert cluster.status(DRILL, "rehearsal")["phase"] == "Failed"
    assert cluster.condition(DRILL, "rehearsal", "Ready")["reason"] == reasons.YIELDED
    assert cluster.phase == "FailedOver"


def test_a_failover_that_asks_for_its_own_commit_is_refused() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.failover("disaster", commit=True)
    cluster.settle()
    assert cluster.status(FAILOVER, "disaster")["phase"] == "Failed"
    assert cluster.condition(FAILOVER, "disaster", "Ready")["reason"] == reasons.COMMIT_TOO_EARLY
    assert cluster.phase == "Replicating"


@pytest.mark.parametrize(
    ("instance", "reason"),
    [
        ({"ipAddress": "10.9.9.9"}, reasons.ADDRESS_OUTSIDE_NETWORK),
        ({"network": "nowhere"}, reasons.UNKNOWN_NETWORK),
        ({"memory": "512Gi"}, reasons.TOO_LARGE),
        ({"cpu": 65}, reasons.TOO_LARGE),
        ({"elasticIP": "127.0.99.1"}, reasons.ELASTIC_IP_UNAVAILABLE),
    ],
)
def test_what_cannot_be_started_is_refused_before_anything_is_stopped(instance: dict[str, object], reason: str) -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.failover("disaster", instance=instance)
    cluster.drill("rehearsal", instance=instance)
    cluster.run(timedelta(seconds=5))
    for kind, name in ((FAILOVER, "disaster"), (DRILL, "rehearsal")):
        assert cluster.status(kind, name)["phase"] == "Pending"
        assert cluster.condition(kind, name, "Stalled")["reason"] == reason
        told = [event for event in cluster.events if event.subject.name == name and event.reason == reason]
        assert len(told) == 1
    assert cluster.phase == "Replicating"


def test_current_is_refused_while_the_replica_is_not_consistent_and_a_point_still_works() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.world.kill_source(SERVER)
    cluster.world.start_source(SERVER)
    cluster.until("FullSync")
    cluster.failover("disaster")
    cluster.settle()
    assert cluster.condition(FAILOVER, "disaster", "Ready")["reason"] == reasons.NOT_CONSISTENT
    cluster.edit(FAILOVER, "disaster", recoveryPoint="latest")
    cluster.until("FailedOver")


def test_a_point_that_cannot_be_read_is_shown_and_refused() -> None:
    cluster = Cluster()
    cluster.replicating()
    point = cluster.status(PROTECTED_SERVER, SERVER)["recoveryPoints"][0]["name"]
    cluster.world.spoil_point(SERVER, point, "a layer is missing")
    cluster.drill("rehearsal", recoveryPoint=point)
    cluster.run(timedelta(seconds=5))
    shown = cluster.status(PROTECTED_SERVER, SERVER)["recoveryPoints"][0]
    assert (shown["state"], shown["reason"]) == ("Unusable", "a layer is missing")
    assert cluster.condition(DRILL, "rehearsal", "Stalled")["reason"] == reasons.POINT_UNUSABLE


def test_a_spent_drill_name_shows_its_outcome_and_never_acts_again() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.drill("rehearsal", checks=CHECK)
    cluster.run(timedelta(seconds=10))
    cluster.delete(DRILL, "rehearsal")
    cluster.run(timedelta(seconds=5))
    launches = sum(type(verb).__name__ == "Launch" for _, verb in cluster.world.performed)
    cluster.drill("rehearsal", checks=CHECK)
    cluster.run(MINUTE)
    assert cluster.status(DRILL, "rehearsal")["phase"] == "CleanedUp"
    assert cluster.status(DRILL, "rehearsal")["result"] == "Passed"
    assert sum(type(verb).__name__ == "Launch" for _, verb in cluster.world.performed) == launches
