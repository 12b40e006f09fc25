"""The status of a ProtectedServer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from lifeboat.api import protectedserver as api
from lifeboat.api.common import ActiveSite
from lifeboat.api.protectedserver import ProtectedServerPhase as Phase
from lifeboat.engines import ledger as ledgers
from lifeboat.engines.facts import Known, Machine, MachineState, Point, Replica, ReplicaState, Unknown
from lifeboat.engines.ledger import FailoverStage, Ledger
from lifeboat.lifecycle import machines, points, reasons
from lifeboat.lifecycle.conditions import State, conditions, readiness
from lifeboat.lifecycle.decide.endings import PROTECT_AGAIN
from lifeboat.lifecycle.operations import allowed_operations, failover_refusal
from lifeboat.lifecycle.phases import server_phase
from lifeboat.lifecycle.view import Notice, Plan, View, known

_BUSY = {
    Phase.INSTALLING_AGENT: (reasons.INSTALLING_AGENT, "waiting for the client in the server to answer"),
    Phase.STARTING_REPLICATION: (reasons.IN_PROGRESS, "replication is starting: disks are scanned"),
    Phase.FULL_SYNC: (reasons.COPYING, "all data is being copied"),
    Phase.RESYNCING: (reasons.RESYNCING, "what changed during the interruption is being copied"),
    Phase.FAILING_OVER: (reasons.IN_PROGRESS, "a failover is under way"),
    Phase.CHANGING_RECOVERY_POINT: (reasons.IN_PROGRESS, "the recovered server is being started anew"),
    Phase.ROLLING_BACK: (reasons.IN_PROGRESS, "the failover is being rolled back"),
    Phase.COMMITTING: (reasons.IN_PROGRESS, "the recovered server is being made independent"),
    Phase.REVERSE_REGISTERING: (reasons.INSTALLING_AGENT, "waiting for the client in the recovered server to answer"),
    Phase.STARTING_REVERSE_REPLICATION: (reasons.IN_PROGRESS, "reverse replication is starting: disks are scanned"),
    Phase.REVERSE_FULL_SYNC: (reasons.COPYING, "data is being copied to the primary site"),
    Phase.REVERSE_RESYNCING: (reasons.RESYNCING, "only what differs is being copied to the primary site"),
    Phase.FAILING_BACK: (reasons.IN_PROGRESS, "a failback is under way"),
    Phase.REGISTERING: (reasons.INSTALLING_AGENT, "waiting for the client in the server to answer"),
}

# What is tried again while a copy is interrupted.
_RETRIED = {reasons.ENGINE_ERROR, reasons.NO_SPACE, reasons.IN_PROGRESS}

# What a copy says of itself, whichever way it goes.
_COPIED = {
    Phase.FULL_SYNC,
    Phase.RESYNCING,
    Phase.REPLICATING,
    Phase.INTERRUPTED,
    Phase.REVERSE_FULL_SYNC,
    Phase.REVERSE_RESYNCING,
    Phase.REVERSE_REPLICATING,
    Phase.REVERSE_INTERRUPTED,
}
_IN_STEP = {Phase.REPLICATING, Phase.REVERSE_REPLICATING}
_LAGGING = _COPIED - {Phase.FULL_SYNC, Phase.REVERSE_FULL_SYNC}

# A lag is told in these steps (seconds), so that a status is written when it matters to a reader; the exact figure is
# a metric.
_LAG_STEPS = (0, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400)


def server_status(view: View, plan: Plan) -> api.ProtectedServerStatus:
    """What is to be told about the server now."""
    before = view.server.status
    ledger = known(view.facts.ledger)
    if ledger is None or not _ours(view, ledger):
        return _unknown(view, plan)
    phase = server_phase(view, ledger)
    replica = known(view.way.replica)
    states = _readiness(view, plan, ledger, phase) | _aspects(view, ledger, phase)
    newest = max((point.time for point in replica.points), default=None) if replica else None
    return api.ProtectedServerStatus(
        observed_generation=view.server.metadata.generation,
        phase=phase,
        direction=api.Direction(ledger.direction.value),
        active_site=_active_site(view, ledger),
        server=_hardware(view) or before.server,
        progress=_progress(before, phase, replica),
        lag_seconds=_lag(replica, phase),
        recovery_points=_points(ledger, replica) if replica else before.recovery_points,
        recovery_point_count=len(replica.points) if replica else before.recovery_point_count,
        latest_recovery_point_time=newest if replica else before.latest_recovery_point_time,
        recovered_server=_recovered(view, ledger),
        allowed_operations=tuple(operation.value for operation in allowed_operations(view, ledger)),
        conditions=conditions(states, before.conditions, view.server.metadata.generation, view.now),
    )


def _ours(view: View, ledger: Ledger) -> bool:
    metadata, claim = view.server.metadata, ledger.claim
    return claim is not None and (claim.namespace, claim.name) == (metadata.namespace, metadata.name)


def _unknown(view: View, plan: Plan) -> api.ProtectedServerStatus:
    """What is told while the ledger cannot be read, or the server is refused: what was known stays."""
    before = view.server.status
    notice = plan.notices.get(view.subject) or Notice(reasons.NOT_YET, "nothing is known yet", stalled=False)
    states = readiness(ready=False, notice=notice, reason=notice.reason, message=notice.message)
    if not notice.stalled:
        for aspect in ("AgentConnected", "ReplicationHealthy", "RecoveryPointsCurrent", "FailoverReady"):
            states[aspect] = State("Unknown", notice.reason, notice.message)
    return before.model_copy(
        update={
            "observed_generation": view.server.metadata.generation,
            "active_site": before.active_site or ActiveSite.UNKNOWN,
            "allowed_operations": (),
            "lag_seconds": None,
            "conditions": conditions(states, before.conditions, view.server.metadata.generation, view.now),
        }
    )


def _readiness(view: View, plan: Plan, ledger: Ledger, phase: Phase) -> dict[str, State]:
    notice = plan.notices.get(view.subject) or view.troubles.get(view.subject)
    replication, replica = view.server.spec.replication, known(view.way.replica)
    enabled = replication.enabled
    if view.server.metadata.deletion_timestamp is not None and notice is None:
        notice = Notice(reasons.DELETING, "the object is being deleted", stalled=False)
    match phase:
        case Phase.REPLICATING:
            return readiness(enabled, notice, reasons.REPLICATING, "every write reaches the replica")
        case Phase.INITIALIZED:
            return readiness(not enabled, notice, reasons.INITIALIZED, "registered; replication is not enabled")
        case Phase.STOPPED:
            return readiness(
                not enabled, notice, reasons.STOPPED, "replication is stopped; replica and points are kept"
            )
        case Phase.REVERSE_REPLICATING:
            message = f"every write reaches zone {view.target_site.zone}; a failback brings the server home"
            return readiness(enabled, notice, reasons.REPLICATING, message)
        case Phase.REVERSE_REGISTERED:
            message = "registered to be replicated back; set enabled: true for that"
            return readiness(not enabled, notice, reasons.REVERSE_REGISTERED, message)
        case Phase.FAILED_BACK:
            notice = notice or machines.not_serving(view, ledger)
            message = f"served from zone {view.target_site.zone} again; {PROTECT_AGAIN}"
            return readiness(ready=True, notice=notice, reason=reasons.SERVED_FROM_PRIMARY, message=message)
        case Phase.FAILED_OVER | Phase.COMMITTED:
            notice = notice or machines.not_serving(view, ledger)
            message = f"served from zone {view.target_site.zone}"
            return readiness(ready=True, notice=notice, reason=reasons.SERVED_FROM_RECOVERY, message=message)
        case Phase.INTERRUPTED | Phase.REVERSE_INTERRUPTED:
            # That a retry failed is no news while the copy is retried; what that means for the server is.
            retried = notice is None or (notice.reason in _RETRIED and not notice.stalled)
            told = _interrupted(view, notice) if retried else notice
            return readiness(ready=False, notice=told, reason="", message="")
        case Phase.FULL_SYNC | Phase.REVERSE_FULL_SYNC if ledger.full_copy_reason:
            message = f"all data is being copied: {ledger.full_copy_reason}"
            return readiness(ready=False, notice=notice, reason=reasons.COPYING, message=message)
        case _:
            reason, message = _BUSY.get(phase, (reasons.IN_PROGRESS, ""))
            if replica is not None and replica.basis and phase in _COPIED:
                message = f"{message}: {replica.basis}"
            return readiness(ready=False, notice=notice, reason=reason, message=message)


def _interrupted(view: View, trouble: Notice | None) -> Notice:
    """What was interrupted, what becomes of the server and of the copy, and what a person may do."""
    replica = known(view.way.replica)
    why = replica.reason if replica and replica.reason else "the copy does not proceed"
    reason = reasons.INTERRUPTED
    if trouble is not None and trouble.reason == reasons.NO_SPACE:
        reason, why = trouble.reason, trouble.message
    # On the way back there is nothing to fail over to: what is whole is at the site that the server is copied from.
    forward = view.direction is ledgers.Direction.FORWARD
    match view.way.source:
        case Known(source) if source.running:
            then = "The server goes on unharmed, what it writes now is not yet protected, and the copy is retried"
        case Known(_):
            then = "Start the server at its site and all data is copied again"
            then += ", or create a Failover" if forward else ""
        case Unknown(_):
            then = "The copy is retried once the site answers"
            then += "; if the site is lost, create a Failover" if forward else ""
    message = f"replication is interrupted: {why}. {then}; recovery points are kept"
    return Notice(reason, message, stalled=False)


def _aspects(view: View, ledger: Ledger, phase: Phase) -> dict[str, State]:
    return {
        "AgentConnected": _agent(view),
        "ReplicationHealthy": _health(view, ledger, phase),
        "RecoveryPointsCurrent": _points_current(view, ledger),
        "FailoverReady": _failover_ready(view, ledger),
        "SourceFenced": fence_state(view, ledger),
    }


def _agent(view: View) -> State:
    match view.way.source:
        case Unknown(reason):
            return State("Unknown", reasons.SITE_SILENT, reason)
        case Known(source) if source.agent_connected:
            return State("True", reasons.AGENT_ANSWERS, "the client in the server answers")
        case Known(source) if not source.running:
            return State("False", reasons.SOURCE_DOWN, "the server is not running")
        case _:
            return State("False", reasons.AGENT_SILENT, "the client in the server does not answer")


def _health(view: View, ledger: Ledger, phase: Phase) -> State:
    if ledger.failover is not None or not ledger.replicating:
        return State("False", reasons.STOPPED, "replication is stopped")
    match view.way.replica:
        case Unknown(reason):
            return State("Unknown", reasons.SITE_SILENT, reason)
        case Known(_) if phase in _IN_STEP:
            return State("True", reasons.REPLICATING, "every write reaches the replica")
        case Known(replica) if replica.state is ReplicaState.INTERRUPTED:
            return State("False", reasons.INTERRUPTED, replica.reason or "replication is interrupted")
        case _:
            return State("False", reasons.COPYING, "the replica is being brought up to date")


def _points_current(view: View, ledger: Ledger) -> State:
    if isinstance(view.way.replica, Unknown):
        return State("Unknown", reasons.SITE_SILENT, view.way.replica.reason)
    if ledger.failover is not None or not ledger.replicating:
        return State("False", reasons.STOPPED, "no points are taken while replication is stopped")
    kept = view.way.replica.value.points
    if not kept:
        return State("False", reasons.NO_RECOVERY_POINT, "there is no recovery point yet")
    newest = max(point.time for point in kept)
    every = points.finest(view.server.spec.replication.tiers)
    if view.now - newest > 2 * every + timedelta(seconds=5):
        return State("False", reasons.POINTS_LATE, f"the newest point is of {newest:%Y-%m-%dT%H:%M:%SZ}")
    return State("True", reasons.POINTS_CURRENT, "points are taken in time")


def _failover_ready(view: View, ledger: Ledger) -> State:
    notice = failover_refusal(view, ledger)
    if notice is None:
        back = ledger.direction is ledgers.Direction.REVERSE
        return State("True", reasons.AS_ASKED, f"a {'failback' if back else 'failover'} can start now")
    unknown = isinstance(view.target, Unknown) or isinstance(view.way.replica, Unknown)
    return State("Unknown" if unknown else "False", notice.reason, notice.message)


def fence_state(view: View, ledger: Ledger) -> State:
    """Whether the source is known to be stopped and kept from starting."""
    fence = ledger.fence
    home = ledger.failover is None and ledger.direction is ledgers.Direction.FORWARD
    if fence is None or home:
        # Home again, a fence still keeps the recovered server down, which is not the source any more.
        return State("False", reasons.NOT_FENCED, "nothing has failed over")
    way = view.facts.way(fence.direction)
    if fence.confirmed_at is not None:
        match way.source:
            case Known(source) if source.running:
                return State(
                    "False", reasons.FENCE_PENDING, "the source runs although it was fenced; it is fenced again"
                )
            case Unknown(reason) if way.exists != Known(value=False):
                message = (
                    f"it was fenced at {fence.confirmed_at:%Y-%m-%dT%H:%M:%SZ}; its site does not answer now: {reason}"
                )
                return State("Unknown", reasons.SITE_SILENT, message)
            case _:
                return State("True", reasons.FENCED, "the source is stopped and cannot be started in its zone")
    status: State = State(
        "Unknown" if isinstance(way.source, Unknown) else "False",
        reasons.FENCE_PENDING,
        f"the source may still be serving: {fence.problem or 'its fence is not confirmed yet'}; "
        "it is fenced first thing when its site answers",
    )
    return status


def _active_site(view: View, ledger: Ledger) -> ActiveSite:
    record = ledger.failover
    if record is None:
        source = known(view.way.source)
        if source is None:
            return ActiveSite.NONE if view.way.exists == Known(value=False) else ActiveSite.UNKNOWN
        served_from = ActiveSite.PRIMARY if ledger.direction is ledgers.Direction.FORWARD else ActiveSite.RECOVERY
        return served_from if source.running else ActiveSite.NONE
    starting = (FailoverStage.STOPPING_REPLICATION, FailoverStage.LAUNCHING)
    if record.stage in starting and ledger.active_site is ledgers.ActiveSite.UNKNOWN:
        fenced = ledger.fence is not None and ledger.fence.confirmed_at is not None
        return ActiveSite.NONE if fenced else ActiveSite.UNKNOWN
    if ledger.active_site is not ledgers.ActiveSite.UNKNOWN:
        found = known(view.way.machines)
        if found is None:
            return ActiveSite.UNKNOWN
        if not any(machine.state is MachineState.RUNNING for machine in _own(ledger, found)):
            return ActiveSite.NONE
    return ActiveSite(ledger.active_site.value)


def _own(ledger: Ledger, found: Mapping[str, Machine]) -> list[Machine]:
    """The machines of the failover that the server is in."""
    record = ledger.failover
    names = machines.attempt_machines(ledger, record) if record is not None else {}
    return [machine for name, machine in found.items() if name in names]


def _hardware(view: View) -> api.ServerFacts | None:
    found = known(view.way.hardware)
    if found is None:
        return None
    return api.ServerFacts(
        cpu=found.cpu,
        memory=found.memory_bytes,
        disks=tuple(api.Disk(name=disk.name, size_bytes=disk.size_bytes) for disk in found.disks),
        addresses=found.addresses,
    )


def _progress(before: api.ProtectedServerStatus, phase: Phase, replica: Replica | None) -> api.Progress | None:
    """The progress of a copy, written anew for each percent."""
    if replica is None:
        return before.progress
    if phase not in _COPIED:
        return None
    total = replica.total_bytes
    percent = 100 if phase in _IN_STEP else min(99, replica.copied_bytes * 100 // total) if total else 0
    if before.progress is not None and before.progress.percent == percent and before.phase == phase:
        return before.progress
    if phase in _IN_STEP:
        return api.Progress(percent=100, copied_bytes=total, total_bytes=total)
    rate = int(replica.bytes_per_second)
    left = (total - replica.copied_bytes) // rate if rate > 0 else None
    return api.Progress(
        percent=percent,
        copied_bytes=replica.copied_bytes,
        total_bytes=total,
        bytes_per_second=rate,
        seconds_left=left,
    )


def _lag(replica: Replica | None, phase: Phase) -> int | None:
    if replica is None or replica.lag_seconds is None:
        return None
    if phase not in _LAGGING:
        return None
    return max(step for step in _LAG_STEPS if step <= replica.lag_seconds)


def _points(ledger: Ledger, replica: Replica) -> tuple[api.RecoveryPoint, ...]:
    return tuple(_point(ledger, point) for point in sorted(replica.points, key=lambda p: p.time, reverse=True))


def _point(ledger: Ledger, point: Point) -> api.RecoveryPoint:
    state, reason = api.PointState.AVAILABLE, None
    if point.problem is not None:
        state, reason = api.PointState.UNUSABLE, point.problem
    elif point.used_by:
        state, reason = api.PointState.IN_USE, ", ".join(point.used_by)
    return api.RecoveryPoint(
        name=point.name,
        time=point.time,
        consistency=api.Consistency.APPLICATION if point.application_consistent else api.Consistency.CRASH,
        state=state,
        reason=reason,
        tested_by=ledger.tested.get(point.name),
    )


def _recovered(view: View, ledger: Ledger) -> api.RecoveredServer | None:
    """The server that a failover or a failback started, until the server is registered at home again."""
    record = ledger.failover
    if record is not None:
        name, found, zone = (
            machines.failover_machine(ledger, record.attempts[-1].number),
            known(view.way.machines),
            view.target_site.zone,
        )
    elif ledger.direction is ledgers.Direction.REVERSE and ledger.registered is not None:
        name, found, zone = ledger.registered, known(view.facts.forward.machines), view.source_site.zone
    else:
        return None
    if found is None:
        return view.server.status.recovered_server
    machine = found.get(name)
    if machine is None or machine.state is not MachineState.RUNNING:
        return None
    return api.RecoveredServer(id=machine.instance_id, zone=zone, addresses=machine.addresses)


def point_age(point_time: datetime, accepted_at: datetime) -> int:
    """How old a point was when it was chosen, in whole seconds."""
    return max(0, int((accepted_at - point_time).total_seconds()))
