"""Decide: from a view to a plan, in one ordered list of small steps. Nothing here does anything."""

from lifeboat.engines.facts import Unknown
from lifeboat.engines.ledger import Ledger
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.decide.claim import decide_claim
from lifeboat.lifecycle.decide.deletion import decide_deletion
from lifeboat.lifecycle.decide.drills import decide_drills
from lifeboat.lifecycle.decide.failovers import decide_failovers, expire_failovers
from lifeboat.lifecycle.decide.fence import decide_fence
from lifeboat.lifecycle.decide.replication import decide_replication
from lifeboat.lifecycle.decide.space import decide_space
from lifeboat.lifecycle.decide.turn import decide_turn
from lifeboat.lifecycle.view import (
    DRILL,
    FAILOVER,
    Draft,
    DropFinalizer,
    Notice,
    Plan,
    View,
    subject_of,
)

__all__ = ["decide"]


def decide(view: View) -> Plan:
    """What the ledger of this server should hold now, what to do, and what to tell people.

    The order is the order of importance: a failover goes before a drill, and both go before replication.
    """
    if isinstance(view.facts.ledger, Unknown):
        return _without_ledger(view, view.facts.ledger.reason)
    draft = Draft(view.facts.ledger.value)
    if not decide_claim(view, draft):
        return draft.plan()
    decide_fence(view, draft)
    decide_failovers(view, draft)
    decide_drills(view, draft)
    decide_space(view, draft)
    decide_turn(view, draft)
    if draft.ledger.direction is view.direction:
        # What was looked at is not the source any more once the server has turned.
        decide_replication(view, draft)
    decide_deletion(view, draft)
    return draft.plan()


def _without_ledger(view: View, reason: str) -> Plan:
    """Nothing is decided where the ledger cannot be read: not even a deletion may wait for a site that burned."""
    draft = Draft(Ledger(view.facts.server_id))
    silent = Notice(reasons.SITE_SILENT, f"the ledger cannot be read: {reason}", stalled=False)
    draft.note(view.subject, silent)
    for drill in view.drills:
        draft.note(subject_of(DRILL, drill.metadata), silent)
    expire_failovers(view, draft)
    for failover in view.failovers:
        draft.note(subject_of(FAILOVER, failover.metadata), silent)
    if view.server.metadata.deletion_timestamp and view.server.spec.deletion_policy == "Retain":
        draft.act(view.subject, DropFinalizer())
    return draft.plan()
