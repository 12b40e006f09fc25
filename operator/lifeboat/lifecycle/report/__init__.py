"""Report: from a view and its plan to what people see, status by status. Pure: it says, and does nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from lifeboat.api.sitepair import SitePair, SitePairStatus
from lifeboat.api.protectedserver import ProtectedServer
from lifeboat.engines.facts import Fact, SiteFacts
from lifeboat.lifecycle.report.values import Event, Report
from lifeboat.lifecycle.view import Notice, Plan, Subject, View

__all__ = ["Event", "Report", "report", "report_orphan", "report_pair"]


def report(view: View, plan: Plan) -> Report:
    """The statuses of the server, its drills and its failovers, and the events of what has just changed."""
    raise NotImplementedError


def report_orphan(resource: object, notice: Notice, now: datetime) -> Report:
    """The status of an object that has nothing to work on: its server, or its site pair, does not exist."""
    raise NotImplementedError


def report_pair(
    pair: SitePair,
    now: datetime,
    primary: Fact[SiteFacts],
    recovery: Fact[SiteFacts],
    servers: Sequence[ProtectedServer],
) -> Report:
    """The status of a site pair; `servers` are its ProtectedServers with the statuses just reported."""
    raise NotImplementedError
