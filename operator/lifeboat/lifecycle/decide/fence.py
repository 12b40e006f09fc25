"""The fence: repeated until it is confirmed, first thing when the source's site answers again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from lifeboat.engines import verbs
from lifeboat.engines.facts import Known, Unknown
from lifeboat.engines.ledger import Direction, FailoverStage, Fence, Ledger
from lifeboat.lifecycle.view import FAILOVER, Draft, Subject, View

# How long a failover waits for the fence of a source that answers. A silent one is not waited for at all.
FENCE_PATIENCE = timedelta(seconds=3)


def decide_fence(view: View, draft: Draft) -> None:
    """Raise the fence where the ledger orders it and the source's site answers; drop it with what it was about."""
    fence, record = draft.ledger.fence, draft.ledger.failover
    if fence is None or (record is not None and record.stage is FailoverStage.ROLLING_BACK):
        return
    way = view.facts.way(fence.direction)
    subject = Subject(FAILOVER, record.name) if record is not None else view.subject
    match way.source:
        case Known(source) if source.fenced and not source.running:
            if fence.confirmed_at is None and (source.drained or not last_writes_awaited(draft.ledger)):
                _confirm(view, draft, fence)
        case Known(_):
            draft.act(subject, verbs.Fence(orderly=last_writes_awaited(draft.ledger)), fence.direction)
        case Unknown(reason):
            match way.exists:
                case Known(False) if fence.direction is Direction.REVERSE and view.direction is Direction.FORWARD:
                    # Home again, the recovered server was removed with its disks: there is nothing left to fence.
                    draft.ledger = replace(draft.ledger, fence=None)
                case Known(False):
                    # The server is gone from its site's inventory: there is nothing left that could serve.
                    if fence.confirmed_at is None:
                        _confirm(view, draft, fence)
                case _ if fence.tried_at is None:
                    draft.ledger = replace(draft.ledger, fence=replace(fence, tried_at=view.now, problem=reason))
                case _:
                    pass


def last_writes_awaited(ledger: Ledger) -> bool:
    """Whether a failover is to lose nothing, and goes on only once the source's last write has arrived."""
    record, fence = ledger.failover, ledger.fence
    if record is None or not record.planned or record.stage is not FailoverStage.STOPPING_REPLICATION:
        return False
    return fence is None or fence.confirmed_at is None


def fence_waited_for(view: View, fence: Fence | None) -> bool:
    """Whether a failover may go on: the fence stands, or it was tried as long as it is worth."""
    if fence is None or fence.confirmed_at is not None or fence.tried_at is not None:
        return True
    return view.now - fence.ordered_at >= FENCE_PATIENCE


def _confirm(view: View, draft: Draft, fence: Fence) -> None:
    draft.ledger = replace(
        draft.ledger,
        fence=replace(fence, tried_at=fence.tried_at or view.now, confirmed_at=view.now, problem=""),
    )
