"""Report: from a view and its plan to what people see, status by status. Pure: it says, and does nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from lifeboat.api.drill import Drill, DrillPhase, DrillStatus
from lifeboat.api.failover import Failover, FailoverPhase, FailoverStatus
from lifeboat.api.protectedserver import ProtectedServer, ProtectedServerStatus
from lifeboat.api.sitepair import SitePair
from lifeboat.engines.facts import Fact, SiteFacts
from lifeboat.lifecycle.conditions import conditions, refused
from lifeboat.lifecycle.decide.failovers import expired, too_late
from lifeboat.lifecycle.report.drill import drill_status
from lifeboat.lifecycle.report.events import transitions
from lifeboat.lifecycle.report.failover import failover_status
from lifeboat.lifecycle.report.server import server_status
from lifeboat.lifecycle.report.sitepair import pair_status
from lifeboat.lifecycle.report.values import Event, Report
from lifeboat.lifecycle.view import DRILL, FAILOVER, SITE_PAIR, Notice, Plan, Subject, View, known, subject_of

__all__ = ["Event", "Report", "report", "report_orphan", "report_pair"]


def report(view: View, plan: Plan) -> Report:
    """The statuses of the server, its drills and its failovers, and the events of what has just changed."""
    ledger = known(view.facts.ledger)
    statuses: dict[Subject, dict[str, Any]] = {}
    events: list[Event] = []
    server = server_status(view, plan)
    statuses[view.subject] = server.as_dict()
    events += _events(view.subject, view.server, server)
    for drill in view.drills:
        subject, status = subject_of(DRILL, drill.metadata), drill_status(view, plan, ledger, drill)
        statuses[subject] = status.as_dict()
        events += _events(subject, drill, status)
    for failover in view.failovers:
        subject = subject_of(FAILOVER, failover.metadata)
        moved = failover_status(view, plan, ledger, failover)
        statuses[subject] = moved.as_dict()
        events += _events(subject, failover, moved)
    return Report(statuses, tuple(events))


def report_orphan(resource: ProtectedServer | Drill | Failover, notice: Notice, now: datetime) -> Report:
    """The status of an object that has nothing to work on: its server, or its site pair, does not exist.

    What was told before stays, but for the conditions: the missing object may come back.
    """
    subject = subject_of(resource.kind, resource.metadata)
    update: dict[str, Any] = {
        "observed_generation": resource.metadata.generation,
        "conditions": conditions(refused(notice), resource.status.conditions, resource.metadata.generation, now),
    }
    if isinstance(resource, Drill) and resource.status.phase is None:
        update["phase"] = DrillPhase.PENDING
    if isinstance(resource, Failover) and resource.status.phase in (None, FailoverPhase.PENDING):
        update["phase"] = FailoverPhase.PENDING
        if expired(resource, now):
            late = too_late(resource, notice.message)
            states = conditions(refused(late), resource.status.conditions, resource.metadata.generation, now)
            update |= {"phase": FailoverPhase.FAILED, "conditions": states}
    status = resource.status.model_copy(update=update)
    return Report({subject: status.as_dict()}, _events(subject, resource, status))


def report_pair(
    pair: SitePair,
    now: datetime,
    primary: Fact[SiteFacts],
    recovery: Fact[SiteFacts],
    servers: Sequence[ProtectedServer],
) -> Report:
    """The status of a site pair; `servers` are its ProtectedServers with the statuses just reported."""
    subject = subject_of(SITE_PAIR, pair.metadata)
    status = pair_status(pair, now, primary, recovery, servers)
    events = transitions(subject, (None, None), pair.status.conditions, status.conditions)
    return Report({subject: status.as_dict()}, events)


def _events(
    subject: Subject,
    resource: ProtectedServer | Drill | Failover,
    status: ProtectedServerStatus | DrillStatus | FailoverStatus,
) -> tuple[Event, ...]:
    phases = (resource.status.phase, status.phase)
    return transitions(subject, phases, resource.status.conditions, status.conditions)
