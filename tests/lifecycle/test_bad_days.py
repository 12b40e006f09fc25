"""Bad days: what goes wrong in between, in the order in which it does, and what must not come of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from lifeboat.api.protectedserver import ProtectedServerPhase
from lifeboat.engines.facts import Known, MachineState, Replica, ReplicaState
from lifeboat.engines.ledger import DrillStage, FailoverStage
from lifeboat.engines.verbs import Fence, ResumeReplication, StartReplication
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.decide import decide
from lifeboat.lifecycle.report import report
from lifeboat.lifecycle.report.events import mended
from lifeboat.lifecycle.view import DRILL, FAILOVER, PROTECTED_SERVER, Action, Notice, Subject
from tests.lifecycle.cluster import SERVER, Cluster

CHECK = [{"name": "answers", "tcpSocket": {"port": 80}}]
MINUTE = timedelta(minutes=1)


def failed_over(cluster: Cluster | None = None) -> Cluster:
    cluster = cluster or Cluster()
    cluster.replicating()
    cluster.failover("disaster", checks=CHECK)
    cluster.until("FailedOver")
    return cluster


def test_the_link_breaks_first_and_then_the_zone_burns_and_latest_has_everything() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.run(30 * MINUTE, by=MINUTE)
    held = cluster.world.write(SERVER)
    cluster.world.cut_link()
    cluster.run(timedelta(seconds=10))
    cluster.world.kill_source(SERVER)
    cluster.world.silence("zone-a")
    cluster.failover("disaster", recoveryPoint="latest", checks=CHECK)
    cluster.until("FailedOver")
    assert cluster.world.contents(SERVER, "failover-1-1") == held


def test_nothing_is_accepted_for_a_server_that_is_being_deleted() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.failover("disaster")
    cluster.delete(PROTECTED_SERVER, SERVER)
    cluster.run(MINUTE)
    cluster.objects.pop((FAILOVER, "disaster"), None)
    cluster.protect()
    cluster.run(5 * MINUTE)
    assert cluster.world.running(SERVER)
    assert cluster.ledger.failover is None
    assert not [verb for _, verb in cluster.world.performed if isinstance(verb, Fence)]


def test_the_object_that_fences_is_not_let_go_before_the_fence_stands() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.world.silence("zone-a")
    cluster.failover("disaster")
    cluster.until("FailedOver")
    cluster.delete(PROTECTED_SERVER, SERVER)
    cluster.run(MINUTE)
    assert cluster.condition(PROTECTED_SERVER, SERVER, "Ready")["reason"] == reasons.FENCE_PENDING
    cluster.world.answer("zone-a")
    cluster.run(MINUTE)
    assert not cluster.world.running(SERVER)
    assert (PROTECTED_SERVER, SERVER) not in cluster.objects


def test_a_dead_server_is_not_committed_and_not_called_ready() -> None:
    cluster = failed_over()
    cluster.world.fail_machine(SERVER, "failover-1-1", "killed")
    cluster.edit(FAILOVER, "disaster", commit=True)
    cluster.run(MINUTE)
    assert cluster.ledger.failover is not None
    assert cluster.ledger.failover.stage.value == "AwaitingCommit"
    for kind, name in ((FAILOVER, "disaster"), (PROTECTED_SERVER, SERVER)):
        ready = cluster.condition(kind, name, "Ready")
        assert ready["reason"] == reasons.MACHINE_STOPPED
        assert "start it in its zone" in ready["message"]  # nothing in the Failover may be edited any more
    assert cluster.status(PROTECTED_SERVER, SERVER)["activeSite"] == "None"


def test_a_server_that_dies_during_the_commit_is_started_again() -> None:
    cluster = failed_over()
    cluster.edit(FAILOVER, "disaster", commit=True)
    while cluster.ledger.failover is None or cluster.ledger.failover.stage.value != "Committing":
        cluster.step()
    cluster.world.fail_machine(SERVER, "failover-1-1", "killed")
    cluster.until("Committed")
    assert cluster.machines["failover-1-1"].state is MachineState.RUNNING


def test_a_machine_that_is_started_again_within_one_look_is_told() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.drill("rehearsal", checks=CHECK)
    while not cluster.ledger.drills or cluster.ledger.drills[0].stage is not DrillStage.VERIFYING:
        cluster.step()
    cluster.step()
    cluster.events.clear()
    cluster.world.fail_machine(SERVER, "drill-rehearsal", "killed")
    cluster.settle()
    assert cluster.machines["drill-rehearsal"].state is MachineState.RUNNING
    told = [event for event in cluster.events if event.reason == reasons.MACHINE_STOPPED]
    assert [(event.subject, event.warning) for event in told] == [(Subject(DRILL, "rehearsal"), True)]
    assert "stopped by itself: killed; it was started again" in told[0].message


def test_a_retry_that_fails_does_not_hide_what_an_interruption_means() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.world.cut_link()
    cluster.run(timedelta(seconds=5))
    view = cluster.view()
    assert view is not None
    for trouble, reason in (
        (Notice(reasons.ENGINE_ERROR, "no answer", stalled=False), reasons.INTERRUPTED),
        (Notice(reasons.NO_SPACE, "there is no room", stalled=False), reasons.NO_SPACE),
        (Notice(reasons.ENGINE_ERROR, "no answer", stalled=True), reasons.ENGINE_ERROR),
    ):
        said = report(replace(view, troubles={view.subject: trouble}), decide(view)).statuses[view.subject]
        ready = next(each for each in said["conditions"] if each["type"] == "Ready")
        assert said["phase"] == "Interrupted"
        assert ready["reason"] == reason
        assert ("goes on unharmed" in ready["message"]) is not trouble.stalled
        assert (trouble.message in ready["message"]) is (reason == trouble.reason)


def test_an_interruption_that_is_over_within_one_look_is_told() -> None:
    cluster = Cluster()
    cluster.replicating()
    whole = cluster.view()
    assert whole is not None
    resume = Action(whole.subject, ResumeReplication())
    interrupted = Replica(ReplicaState.INTERRUPTED, reason="the link is gone", resumable=True)
    view = replace(whole, facts=replace(whole.facts, forward=replace(whole.way, replica=Known(interrupted))))
    event = mended(view, resume)
    assert event is not None
    assert (event.warning, event.message) == (True, "replication was interrupted: the link is gone; it goes on")
    status = view.server.status.model_copy(update={"phase": ProtectedServerPhase.INTERRUPTED})
    told = replace(view, server=view.server.model_copy(update={"status": status}))
    assert mended(told, resume) is None, "its phase told it"
    assert mended(whole, resume) is None, "nothing was interrupted"


def test_a_commit_asked_for_too_early_frees_nothing_when_the_checks_fail() -> None:
    cluster = Cluster(checks_pass=False)
    cluster.replicating()
    cluster.failover("disaster", checks=CHECK)
    cluster.step()
    cluster.step()
    cluster.edit(FAILOVER, "disaster", commit=True)
    cluster.run(MINUTE)
    assert cluster.condition(FAILOVER, "disaster", "Stalled")["reason"] == reasons.COMMIT_TOO_EARLY
    assert cluster.status(PROTECTED_SERVER, SERVER)["recoveryPointCount"] > 0
    cluster.delete(FAILOVER, "disaster")
    cluster.failover("carry-on", checks=CHECK)
    cluster.run(timedelta(seconds=5))
    cluster.edit(FAILOVER, "carry-on", commit=True)
    cluster.until("Committed")


def test_the_age_of_the_tip_is_told_as_it_is() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.edit(PROTECTED_SERVER, SERVER, replication={"enabled": False})
    cluster.run(timedelta(days=1), by=timedelta(hours=1))
    cluster.failover("disaster", recoveryPoint="latest")
    cluster.until("FailedOver")
    age = cluster.status(FAILOVER, "disaster")["recoveryPoint"]["ageSeconds"]
    assert abs(age - 86400) < 3700


def test_two_drills_that_ask_for_any_elastic_ip_get_two() -> None:
    cluster = Cluster()
    cluster.replicating()
    for name in ("one", "two"):
        cluster.drill(name, instance={"elasticIP": "auto"})
    cluster.run(timedelta(seconds=20))
    given = {cluster.status(DRILL, name)["instance"]["elasticIP"] for name in ("one", "two")}
    assert given == {"127.0.10.5", "127.0.10.6"}


def test_an_heir_without_an_instance_restarts_nothing() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.failover("disaster", checks=CHECK, instance={"cpu": 4})
    cluster.until("FailedOver")
    cluster.delete(FAILOVER, "disaster")
    cluster.failover("carry-on", checks=CHECK)
    cluster.run(MINUTE)
    assert list(cluster.machines) == ["failover-1-1"]
    assert cluster.status(FAILOVER, "carry-on")["phase"] == "AwaitingCommit"


def test_the_fence_is_not_called_standing_where_it_cannot_be_seen() -> None:
    cluster = failed_over()
    assert cluster.condition(FAILOVER, "disaster", "SourceFenced")["status"] == "True"
    cluster.world.silence("zone-a")
    cluster.run(timedelta(seconds=5))
    assert cluster.condition(FAILOVER, "disaster", "SourceFenced")["status"] == "Unknown"


def test_points_go_on_when_the_client_is_silent() -> None:
    cluster = Cluster()
    tiers = [{"every": "10s", "for": "5m", "applicationConsistent": True}]
    cluster.replicating(recoveryPoints=tiers)
    cluster.world.set_agent(SERVER, connected=False)
    before = cluster.status(PROTECTED_SERVER, SERVER)["latestRecoveryPointTime"]
    cluster.run(MINUTE)
    assert cluster.status(PROTECTED_SERVER, SERVER)["latestRecoveryPointTime"] > before


def test_a_drill_whose_object_vanished_does_not_hold_its_server_for_good() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.drill("rehearsal")
    cluster.run(timedelta(seconds=10))
    del cluster.objects[DRILL, "rehearsal"]
    cluster.delete(PROTECTED_SERVER, SERVER)
    cluster.run(MINUTE)
    assert (PROTECTED_SERVER, SERVER) not in cluster.objects
    assert not cluster.machines


def test_a_start_that_was_cut_short_is_asked_for_again_until_data_is_copied() -> None:
    cluster = Cluster()
    cluster.protect(enabled=True)
    while not [verb for _, verb in cluster.world.performed if isinstance(verb, StartReplication)]:
        cluster.step()
    cluster.crash()
    cluster.step()
    assert cluster.phase == "StartingReplication"
    assert cluster.last_plan is not None
    assert [action for action in cluster.last_plan.actions if isinstance(action.step, StartReplication)]
    cluster.until("Replicating")


def test_a_recovered_server_on_a_full_disk_says_so_and_goes_on_once_there_is_room() -> None:
    cluster = failed_over()
    cluster.world.fill_disk("zone-b")
    cluster.world.run_out_of_space(SERVER, "failover-1-1")
    cluster.edit(FAILOVER, "disaster", commit=True)
    cluster.run(MINUTE)
    for kind, name in ((FAILOVER, "disaster"), (PROTECTED_SERVER, SERVER)):
        told = cluster.condition(kind, name, "Ready")
        assert (told["status"], told["reason"]) == ("False", reasons.NO_SPACE)
        assert "the disk of zone zone-b is full; make room there, and it goes on by itself" in told["message"]
    assert cluster.condition(FAILOVER, "disaster", "Stalled")["status"] == "False"
    assert cluster.ledger.failover is not None
    assert cluster.ledger.failover.stage is FailoverStage.AWAITING_COMMIT, "what stands still is not committed"
    cluster.world.free_disk("zone-b")
    cluster.run(MINUTE)
    assert cluster.phase == "Committed"
    assert not cluster.machines["failover-1-1"].out_of_space


def test_a_drills_server_on_a_full_disk_goes_on_once_there_is_room() -> None:
    cluster = Cluster()
    cluster.replicating()
    cluster.run(2 * MINUTE)
    cluster.drill("friday", checks=CHECK)
    cluster.run(MINUTE)
    assert cluster.status(DRILL, "friday")["phase"] == "Running"
    cluster.world.fill_disk("zone-b")
    cluster.world.run_out_of_space(SERVER, "drill-friday")
    cluster.run(MINUTE)
    told = cluster.condition(DRILL, "friday", "Ready")
    assert (told["status"], told["reason"]) == ("False", reasons.NO_SPACE)
    cluster.world.free_disk("zone-b")
    cluster.run(MINUTE)
    assert cluster.condition(DRILL, "friday", "Ready")["status"] == "True"
    assert not cluster.machines["drill-friday"].out_of_space


def test_a_commit_that_waits_for_room_says_so() -> None:
    cluster = failed_over()
    cluster.world.fill_disk("zone-b")
    cluster.edit(FAILOVER, "disaster", commit=True)
    cluster.run(MINUTE)
    told = cluster.condition(FAILOVER, "disaster", "Ready")
    assert (told["status"], told["reason"]) == ("False", reasons.NO_SPACE)
    cluster.world.free_disk("zone-b")
    cluster.run(MINUTE)
    assert cluster.phase == "Committed"
