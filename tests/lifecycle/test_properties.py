"""Random histories: edits, disasters, lost statuses and crashes in any order, and what must hold after each of them."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lifeboat.api.protectedserver import ProtectedServerPhase as Phase
from lifeboat.engines import verbs
from lifeboat.engines.contract import NoSpace, Refused, Retry, Unreachable
from lifeboat.engines.facts import Known, MachineState
from lifeboat.engines.ledger import ActiveSite, Direction, FailoverRecord, FailoverStage, Ledger
from lifeboat.lifecycle.machines import was_launched
from lifeboat.lifecycle.phases import TRANSITIONS
from lifeboat.lifecycle.view import DRILL, FAILOVER, PROTECTED_SERVER, DropFinalizer, KeepFinalizer, Verify
from tests.lifecycle.cluster import SERVER, Cluster

POLICY = [{"every": "10s", "for": "60s"}]
ONTO_ORIGINAL = {"direction": "Reverse", "originalMachine": True, "confirmWipe": SERVER}
NAMES = st.sampled_from(["a", "b", "c"])
POINTS = st.sampled_from(["current", "latest", "attempt-1", "attempt-2", "tip-1", "2026-01-01T00:01:00Z", "nonsense"])
DRILL_POINTS = st.sampled_from(["latest", "tip-1", "2026-01-01T00:01:00Z", "nonsense"])
INSTANCES = st.sampled_from(
    [
        {},
        {"cpu": 4},
        {"elasticIP": "auto"},
        {"elasticIP": "127.0.10.5"},
        {"ipAddress": "10.2.0.20"},
        {"network": "elsewhere"},
    ]
)
CHECKS = st.sampled_from([[], [{"name": "answers", "tcpSocket": {"port": 80}}]])
ZONES = st.sampled_from(["zone-a", "zone-b"])
FAULTY = st.sampled_from(
    [Ledger, verbs.Launch, verbs.StopReplication, verbs.Fence, verbs.TakePoint, verbs.MakeIndependent, verbs.Halt]
)
ERRORS = st.sampled_from([Retry("not now"), Unreachable("no answer"), NoSpace("full")])
MOVING = (
    FailoverStage.STOPPING_REPLICATION,
    FailoverStage.LAUNCHING,
    FailoverStage.CHANGING_RECOVERY_POINT,
    FailoverStage.ROLLING_BACK,
    FailoverStage.COMMITTING,
)
# What a drill may do. Nothing of it pauses, slows or ends replication.
OF_A_DRILL = (verbs.Launch, verbs.RemoveMachine, Verify, KeepFinalizer, DropFinalizer)


class Histories(RuleBasedStateMachine):
    """One server, three drill and failover names each, two zones, and everything that may happen to them."""

    @initialize(start=st.sampled_from(["Registered", "Enabled", "Replicating", "Committed", "ReverseReplicating"]))
    def begin(self, *, start: str) -> None:
        self.cluster = Cluster()
        self.acted = 0
        self.seen_spent: dict[tuple[str, str], int] = {}
        self.phases_checked = 0
        self.cluster.protect(enabled=start != "Registered", recoveryPoints=POLICY)
        if start in ("Registered", "Enabled"):
            return
        self.cluster.until("Replicating")
        self.cluster.run(timedelta(seconds=2))
        if start == "Replicating":
            return
        self.cluster.failover("first")
        self.cluster.until("FailedOver")
        self.cluster.edit(FAILOVER, "first", commit=True)
        self.cluster.until("Committed")
        if start == "ReverseReplicating":
            replication = {"enabled": True, "direction": "Reverse", "recoveryPoints": POLICY}
            self.cluster.edit(PROTECTED_SERVER, SERVER, replication=replication)
            self.cluster.until("ReverseReplicating")
            self.cluster.run(timedelta(seconds=2))

    # --- Time, and the operator ------------------------------------------------------------------------------

    @rule(seconds=st.integers(1, 90))
    def time_passes(self, seconds: int) -> None:
        self.cluster.run(timedelta(seconds=seconds), by=timedelta(seconds=max(1, seconds // 5)))

    @rule()
    def settle(self) -> None:
        self.cluster.settle()

    @rule(steps=st.integers(0, 3), stop_after=st.integers(0, 3))
    def operator_dies(self, steps: int, stop_after: int) -> None:
        for _ in range(steps):
            self.cluster.step()
        self.cluster.step(stop_after=stop_after)
        self.cluster.crash()

    @rule()
    def a_new_leader(self) -> None:
        self.cluster.term += 1
        self.cluster.crash()

    @rule(verb=FAULTY, error=ERRORS, after_effect=st.booleans())
    def an_engine_error_is_coming(self, verb: Any, error: Retry, *, after_effect: bool) -> None:
        self.cluster.world.fail_next(verb, error, after_effect=after_effect)

    # --- Disasters ---------------------------------------------------------------------------------------------

    @rule()
    def write(self) -> None:
        if self.cluster.world.running(SERVER):
            self.cluster.world.write(SERVER)

    @rule()
    def source_dies(self) -> None:
        self.cluster.world.kill_source(SERVER)

    @rule()
    def source_is_started_by_its_owner(self) -> None:
        try:
            self.cluster.world.start_source(SERVER)
        except Refused:
            note("the fence holds")

    @rule(zone=ZONES)
    def zone_falls_silent(self, zone: str) -> None:
        self.cluster.world.silence(zone)

    @rule(zone=ZONES)
    def zone_answers(self, zone: str) -> None:
        self.cluster.world.answer(zone)

    @rule()
    def link_is_cut(self) -> None:
        self.cluster.world.cut_link()

    @rule()
    def link_is_mended(self) -> None:
        self.cluster.world.restore_link()

    @rule(full=st.booleans())
    def disk(self, *, full: bool) -> None:
        if full:
            self.cluster.world.fill_disk("zone-b")
        else:
            self.cluster.world.free_disk("zone-b")

    @rule(data=st.data())
    def a_machine_dies(self, data: st.DataObject) -> None:
        running = [m.name for m in self.cluster.machines.values() if m.state is MachineState.RUNNING]
        if running:
            self.cluster.world.fail_machine(SERVER, data.draw(st.sampled_from(running)), "killed")

    # --- People and Git ------------------------------------------------------------------------------------------

    @precondition(lambda self: (PROTECTED_SERVER, SERVER) in self.cluster.objects)
    @rule(enabled=st.booleans(), direction=st.sampled_from([{}, {"direction": "Reverse"}, ONTO_ORIGINAL]))
    def switch_replication(self, *, enabled: bool, direction: dict[str, Any]) -> None:
        replication = {"enabled": enabled, "recoveryPoints": POLICY, **direction}
        self.cluster.edit(PROTECTED_SERVER, SERVER, replication=replication)

    @rule(name=NAMES, point=DRILL_POINTS, instance=INSTANCES, checks=CHECKS)
    def apply_drill(self, name: str, point: str, instance: dict[str, Any], checks: list[Any]) -> None:
        if (DRILL, name) not in self.cluster.objects:
            self.cluster.drill(name, recoveryPoint=point, instance=instance, checks=checks)

    @rule(name=NAMES)
    def clear_drill(self, name: str) -> None:
        if (DRILL, name) in self.cluster.objects:
            self.cluster.edit(DRILL, name, running=False)

    @rule(name=NAMES, kind=st.sampled_from([DRILL, FAILOVER]))
    def delete(self, name: str, kind: str) -> None:
        if (kind, name) in self.cluster.objects:
            self.cluster.delete(kind, name)

    @rule(name=NAMES, point=POINTS, instance=INSTANCES, checks=CHECKS)
    def apply_failover(self, name: str, point: str, instance: dict[str, Any], checks: list[Any]) -> None:
        if (FAILOVER, name) not in self.cluster.objects:
            self.cluster.failover(name, recoveryPoint=point, instance=instance, checks=checks, startDeadline="2m")

    @rule(name=NAMES, asked=st.sampled_from([{"planned": True}, {"type": "Failback"}]), checks=CHECKS)
    def apply_failover_that_loses_nothing(self, name: str, asked: dict[str, Any], checks: list[Any]) -> None:
        if (FAILOVER, name) not in self.cluster.objects:
            self.cluster.failover(name, **asked, checks=checks, startDeadline="2m")

    @rule(passed=st.booleans())
    def checks_will(self, *, passed: bool) -> None:
        self.cluster.checks_pass = passed

    @rule(name=NAMES, point=POINTS, instance=INSTANCES)
    def edit_failover(self, name: str, point: str, instance: dict[str, Any]) -> None:
        body = self.cluster.objects.get((FAILOVER, name))
        if body is not None and not body["spec"].get("commit"):
            self.cluster.edit(FAILOVER, name, recoveryPoint=point, instance=instance)

    @rule(name=NAMES)
    def commit(self, name: str) -> None:
        body = self.cluster.objects.get((FAILOVER, name))
        if body is not None and not body["spec"].get("rollback"):
            self.cluster.edit(FAILOVER, name, commit=True)

    @rule(name=NAMES, undo=st.booleans())
    def roll_back(self, name: str, *, undo: bool) -> None:
        body = self.cluster.objects.get((FAILOVER, name))
        if body is not None and not body["spec"].get("commit"):
            self.cluster.edit(FAILOVER, name, rollback=not undo)

    @rule()
    def statuses_are_lost(self) -> None:
        self.cluster.lose_statuses()

    @rule()
    def cluster_is_rebuilt(self) -> None:
        self.cluster.rebuild()

    @rule(policy=st.sampled_from(["Retain", "Delete"]))
    def protected_server_is_deleted_and_applied_again(self, policy: str) -> None:
        if (PROTECTED_SERVER, SERVER) in self.cluster.objects:
            self.cluster.edit(PROTECTED_SERVER, SERVER, deletionPolicy=policy)
            self.cluster.delete(PROTECTED_SERVER, SERVER)
            self.cluster.settle()
        if (PROTECTED_SERVER, SERVER) not in self.cluster.objects:
            self.cluster.protect(enabled=True, recoveryPoints=POLICY)

    # --- What must hold --------------------------------------------------------------------------------------------

    @invariant()
    def never_two_that_serve_without_a_fence(self) -> None:
        serving = [
            m for m in self.cluster.machines.values() if m.state is MachineState.RUNNING and was_launched(m.name)
        ]
        fence, record = self.cluster.ledger.fence, self.cluster.ledger.failover
        if record is not None and record.stage is FailoverStage.ROLLING_BACK:
            return  # a person had the source started although the other site was silent
        # A server that is not fenced yet may go on beside the one that was started: its fence is ordered then.
        assert len(serving) <= (1 if fence is None or fence.confirmed_at is not None else 2), serving
        if serving and self.cluster.world.running(SERVER):
            assert fence is not None or self.cluster.ledger.registered is not None

    @invariant()
    def a_machine_never_loses_the_point_it_stands_on(self) -> None:
        track = self.cluster.world._track(SERVER)
        for machine in track.machines.values():
            if machine.disks.point is not None:
                assert machine.disks.point in track.points.values()

    @invariant()
    def the_original_is_wiped_only_with_a_consent_of_this_epoch(self) -> None:
        ledger = self.cluster.ledger
        for target, act in self.cluster.world.journal[self.acted :]:
            if isinstance(act, verbs.StartReplication) and act.onto_original:
                assert target.direction is Direction.REVERSE
                assert ledger.wiped is not None
                assert ledger.active_site is not ActiveSite.PRIMARY or ledger.epoch > ledger.wiped

    @invariant()
    def current_is_used_once(self) -> None:
        record = self.cluster.ledger.failover
        if record is not None:
            used = [a for a in record.attempts if a.requested == "current" and a.disks_of == a.number]
            assert len(used) <= 1
            assert not used or record.current_used

    @invariant()
    def what_is_spent_never_acts(self) -> None:
        journal = self.cluster.world.journal
        for _, act in journal[self.acted :]:
            match act:
                case verbs.Launch(machine=machine):
                    drill = machine.removeprefix("drill-")
                    assert (DRILL, drill) not in self.seen_spent or not machine.startswith("drill-")
                case _:
                    pass
        self.acted = len(journal)
        for spent in self.cluster.ledger.spent:
            self.seen_spent.setdefault((spent.kind, spent.name), self.acted)

    @invariant()
    def each_name_is_spent_once(self) -> None:
        names = [(spent.kind, spent.name) for spent in self.cluster.ledger.spent]
        assert len(names) == len(set(names))

    @invariant()
    def drills_touch_nothing_but_their_machines(self) -> None:
        plan = self.cluster.last_plan
        if plan is not None:
            for action in plan.actions:
                assert action.subject.kind != DRILL or isinstance(action.step, OF_A_DRILL)

    @invariant()
    def phases_follow_the_table(self) -> None:
        told = self.cluster.phases
        for before, after in zip(told[self.phases_checked :], told[self.phases_checked + 1 :], strict=False):
            # Nothing follows from a phase that was lost, or never told.
            if before and after:
                assert Phase(after) in TRANSITIONS[Phase(before)], (before, after)
        self.phases_checked = max(0, len(told) - 1)

    @invariant()
    def conditions_do_not_contradict_each_other(self) -> None:
        for body in self.cluster.objects.values():
            states = {c["type"]: c["status"] for c in body.get("status", {}).get("conditions", ())}
            if states.get("Ready") == "True":
                assert states["Stalled"] == "False"
                assert states["Reconciling"] == "False"

    @invariant()
    def a_consistent_replica_holds_what_was_acknowledged(self) -> None:
        """While the replica is called consistent, its contents are; a torn one must never be called so."""
        way = self.cluster.way
        if isinstance(way.replica, Known) and way.replica.value.consistent:
            assert self.cluster.world.replica_contents(SERVER, self.cluster.ledger.direction) is not None

    def needs_a_person(self, record: FailoverRecord) -> bool:
        """Whether a failover was to lose nothing, and its source ended before its last write had arrived."""
        source = self.cluster.way.source
        ended = isinstance(source, Known) and source.value.fenced and not source.value.running
        return record.planned and record.stage is FailoverStage.STOPPING_REPLICATION and ended

    def teardown(self) -> None:
        """When everything answers again, every step that was begun ends by itself."""
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        for zone in ("zone-a", "zone-b"):
            cluster.world.answer(zone)
        cluster.world.restore_link()
        cluster.world.free_disk("zone-b")
        cluster.world._faults.clear()
        if (PROTECTED_SERVER, SERVER) not in cluster.objects:
            return
        cluster.run(timedelta(minutes=10), by=timedelta(seconds=10))
        record = cluster.ledger.failover
        assert record is None or record.stage not in MOVING or self.needs_a_person(record), record
        for drill in cluster.ledger.drills:
            assert drill.stage.value != "CleaningUp"
        self.never_two_that_serve_without_a_fence()


Histories.TestCase.settings = settings(
    max_examples=int(os.environ.get("LIFEBOAT_HISTORIES", "50")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    print_blob=True,
)
TestHistories = Histories.TestCase
