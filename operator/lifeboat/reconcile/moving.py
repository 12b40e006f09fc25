"""What of a server moves by itself just now, and is looked at more often; what rests, and is left alone for a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from lifeboat.engines.facts import Fact, Known, ReplicaState, ServerFacts, SiteFacts, Way
from lifeboat.engines.ledger import DrillStage, FailoverStage
from lifeboat.lifecycle import machines
from lifeboat.lifecycle.view import DRILL, FAILOVER, Plan, Subject, View

LONGEST_REST: Final = timedelta(minutes=5)
"""What rests is gone through again after this long, whatever was missed."""
PATIENCE: Final = timedelta(seconds=30)
"""What has not moved for this long is no longer looked at more often."""

_RESTING = (FailoverStage.AWAITING_COMMIT, FailoverStage.COMMITTED)


def is_moving(view: View) -> bool:
    """Whether a machine boots, is verified or cleared, a copy starts, or a failover is between two rests."""
    ledger, replica = view.facts.ledger, view.way.replica
    if isinstance(ledger, Known):
        failover = ledger.value.failover
        if failover is not None and failover.stage not in _RESTING:
            return True
        if any(drill.stage is not DrillStage.RUNNING for drill in ledger.value.drills):
            return True
    return isinstance(replica, Known) and replica.value.state is ReplicaState.STARTING


def rest_of(view: View, plan: Plan) -> timedelta:
    """How long nothing can come due by the clock alone, where nothing is seen to change: zero while anything is on.

    What comes due are recovery points; a tenth of their distance is late enough for them.
    """
    ledger = view.facts.ledger
    if plan.ledger is not None or plan.actions or view.troubles or not isinstance(ledger, Known) or is_moving(view):
        return timedelta()
    for drill in view.drills:
        record = ledger.value.drill(drill.metadata.name)
        ended = ledger.value.ended(DRILL, drill.metadata.name) is not None
        if drill.metadata.deletion_timestamp or not (ended or (record is not None and drill.spec.ttl is None)):
            return timedelta()
    for failover in view.failovers:
        ended = ledger.value.ended(FAILOVER, failover.metadata.name) is not None
        record_name = ledger.value.failover.name if ledger.value.failover is not None else None
        if not ended and record_name != failover.metadata.name:
            return timedelta()
    return min(LONGEST_REST, min(tier.every for tier in view.server.spec.replication.tiers) / 10)


def same(facts: ServerFacts, before: ServerFacts) -> bool:
    """Whether nothing was seen to change but the fraction of a second of the lag."""
    return facts is before or _coarse(facts) == _coarse(before)


def same_site(site: Fact[SiteFacts], before: Fact[SiteFacts]) -> bool:
    """Whether nothing was seen to change at a site that concerns a server at rest.

    What is free there and who has which address changes with every other server, and concerns those that start.
    """
    if not isinstance(site, Known) or not isinstance(before, Known):
        return site == before
    now, then = site.value, before.value
    return now is then or (
        (now.namespaces, now.servers) == (then.namespaces, then.servers)
        and [(each.name, each.cidr) for each in now.networks] == [(each.name, each.cidr) for each in then.networks]
    )


def same_objects(now: Sequence[object], before: Sequence[object]) -> bool:
    """Whether these are the very same objects: the world keeps each until it changes."""
    return len(now) == len(before) and all(each is other for each, other in zip(now, before, strict=True))


def _coarse(facts: ServerFacts) -> ServerFacts:
    return replace(facts, forward=_coarse_way(facts.forward), reverse=_coarse_way(facts.reverse))


def _coarse_way(way: Way) -> Way:
    if not isinstance(way.replica, Known) or way.replica.value.lag_seconds is None:
        return way
    lag = float(int(way.replica.value.lag_seconds))
    return replace(way, replica=Known(replace(way.replica.value, lag_seconds=lag)))


def launched_at(view: View, subject: Subject, machine: str) -> datetime | None:
    """When the machine of this drill or failover was launched, as the ledger says."""
    if not isinstance(view.facts.ledger, Known):
        return None
    ledger = view.facts.ledger.value
    if subject.kind == DRILL:
        record = ledger.drill(subject.name)
        return record.attempt.launched_at if record is not None else None
    if ledger.failover is None:
        return None
    attempt = machines.attempt_machines(ledger, ledger.failover).get(machine)
    return attempt.launched_at if attempt is not None else None
