"""Deletion of a ProtectedServer: keep what was copied, or free it where that destroys nothing that is needed."""

from __future__ import annotations

from dataclasses import replace

from lifeboat.api.names import DISCARD, FINALIZER
from lifeboat.api.protectedserver import DeletionPolicy
from lifeboat.engines import verbs
from lifeboat.engines.facts import Known, ReplicaState
from lifeboat.engines.ledger import FailoverStage, Spent
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.decide.stages import back_to_source, leftovers_seen
from lifeboat.lifecycle.view import Draft, DropFinalizer, Notice, View, known

# In these stages of a failover it may be that neither of the two servers runs.
_NOBODY_SERVES = (
    FailoverStage.STOPPING_REPLICATION,
    FailoverStage.LAUNCHING,
    FailoverStage.CHANGING_RECOVERY_POINT,
    FailoverStage.ROLLING_BACK,
)


def decide_deletion(view: View, draft: Draft) -> None:
    """Bring a deleted ProtectedServer to where its finalizer can go."""
    metadata = view.server.metadata
    if metadata.deletion_timestamp is None or FINALIZER not in metadata.finalizers:
        return
    delete = view.server.spec.deletion_policy is DeletionPolicy.DELETE
    if _give_up_unbegun(view, draft):
        return
    if notice := _obstacle(view, draft, delete=delete):
        draft.note(view.subject, notice)
        return
    if draft.ledger.failover is None:
        replica = known(view.way.replica)
        # What is about to be freed must not be taken for a usable replica, whenever the operator dies.
        if draft.ledger.replicating or (delete and draft.ledger.synced):
            draft.ledger = replace(draft.ledger, replicating=False, synced=draft.ledger.synced and not delete)
            return
        if replica is not None and replica.state not in (ReplicaState.STOPPED, ReplicaState.ABSENT):
            whole = f"stopped-{draft.ledger.run}" if replica.consistent else None
            draft.act(view.subject, verbs.StopReplication(whole))
            return
        if delete and not _released(view, draft):
            return
    if draft.ledger.claim is not None:
        draft.ledger = replace(draft.ledger, claim=None)
        return
    draft.act(view.subject, DropFinalizer())


def _give_up_unbegun(view: View, draft: Draft) -> bool:
    """Give up a failover that was accepted and has touched nothing yet: left in the ledger it would act much later."""
    record, fence = draft.ledger.failover, draft.ledger.fence
    if record is None or record.stage is not FailoverStage.STOPPING_REPLICATION:
        return False
    if fence is not None:
        source = known(view.facts.way(fence.direction).source)
        if fence.tried_at is not None or fence.confirmed_at is not None or source is None or source.fenced:
            return False
    message = "its ProtectedServer was deleted before it began; create both anew if a failover is still wanted"
    spent = Spent("Failover", record.name, "Failed", reasons.NOT_ACCEPTED, message, view.now, record.attempts)
    draft.ledger = back_to_source(draft.ledger, record, view.now).spend(spent)
    return True


def _obstacle(view: View, draft: Draft, *, delete: bool) -> Notice | None:
    if draft.ledger.drills:
        names = ", ".join(drill.name for drill in draft.ledger.drills)
        return Notice(reasons.IN_USE, f"waiting for drills to be cleared: {names}", stalled=False)
    record, fence = draft.ledger.failover, draft.ledger.fence
    if fence is not None and fence.confirmed_at is None:
        return Notice(
            reasons.FENCE_PENDING,
            "the source may still be serving, and this object is what fences it when its site answers; "
            "to give that up, take the finalizer lifeboat.dev/cleanup off by hand",
            stalled=False,
        )
    awaited = view.way.source if record is not None and record.stage is FailoverStage.ROLLING_BACK else view.target
    if record is not None and record.stage in _NOBODY_SERVES and isinstance(awaited, Known):
        return Notice(
            reasons.IN_PROGRESS,
            f"failover {record.name} is under way ({record.stage}), and nobody may serve until it got there; to end "
            "it, set rollback: true on it",
            stalled=False,
        )
    if not delete:
        return None
    if record is not None and record.stage is not FailoverStage.COMMITTED:
        return Notice(
            reasons.IN_USE,
            f"failover {record.name} is not committed, and its server stands on these points; commit it or roll it "
            "back",
            stalled=False,
        )
    if view.server.metadata.annotations.get(DISCARD) == view.server.spec.server_id or record is not None:
        return None
    match view.way.source:
        case Known(source) if source.running:
            return None
        case _:
            return Notice(
                reasons.SOURCE_DOWN,
                "the source is not known to be alive, so this may be the only copy of its data; start the source, or "
                f"annotate with {DISCARD}={view.server.spec.server_id} to delete the copy all the same",
            )


def _released(view: View, draft: Draft) -> bool:
    found, replica = known(view.way.machines), known(view.way.replica)
    if found is None or replica is None:
        draft.note(view.subject, view.target_silent())
        return False
    # At the other site as well where that answers: a round may have left machines there.
    leftovers = leftovers_seen(view, draft.ledger)
    for direction, name in leftovers:
        draft.act(view.subject, verbs.RemoveMachine(name), direction)
    if not leftovers and replica.state is not ReplicaState.ABSENT:
        draft.act(view.subject, verbs.ReleaseReplica())
    return not leftovers and replica.state is ReplicaState.ABSENT
