"""Replication in the direction that the server is registered for: start, resume, points, pruning, stop, restart."""

from __future__ import annotations

from dataclasses import replace

from lifeboat.api import values
from lifeboat.api.names import RESTARTED_AT
from lifeboat.engines import verbs
from lifeboat.engines.facts import Known, Replica, ReplicaState, Unknown
from lifeboat.engines.ledger import Direction, Ledger
from lifeboat.lifecycle import points, reasons
from lifeboat.lifecycle.decide.fence import last_writes_awaited
from lifeboat.lifecycle.decide.stages import leftovers_seen
from lifeboat.lifecycle.decide.turn import asked_direction
from lifeboat.lifecycle.decide.wipe import wipe_refusal, wipes
from lifeboat.lifecycle.view import Draft, Notice, View, known

_AT_REST = (ReplicaState.ABSENT, ReplicaState.STOPPED)
# A start that was cut short looks like one that is under way: it is asked for until data is copied.
_TO_START = (*_AT_REST, ReplicaState.STARTING)


def decide_replication(view: View, draft: Draft) -> None:
    """Bring replication to what spec asks, unless a failover has the server; one that is to lose nothing needs it."""
    _note_client(view, draft)
    _restart(view, draft)
    if last_writes_awaited(draft.ledger):
        _bring_last_writes(view, draft)
        return
    if draft.ledger.failover is not None or view.server.metadata.deletion_timestamp:
        return
    match view.way.replica:
        case Unknown(reason):
            draft.note(
                view.subject, Notice(reasons.SITE_SILENT, f"the replica cannot be seen: {reason}", stalled=False)
            )
        case Known(replica) if enabled(view, draft.ledger):
            _replicate(view, draft, replica)
        case Known(replica):
            _stop(view, draft, replica)


def enabled(view: View, ledger: Ledger) -> bool:
    """Whether spec asks for replication. Where it asks for a direction that is refused, what is goes on as it is."""
    if asked_direction(view) is ledger.direction or ledger.direction is Direction.FORWARD:
        return view.server.spec.replication.enabled
    return ledger.replicating


def _note_client(view: View, draft: Draft) -> None:
    source = known(view.way.source)
    if source is None or source.machine != draft.ledger.registered:
        return
    if source.agent_connected and not draft.ledger.initialized:
        draft.ledger = replace(draft.ledger, initialized=True)


def _restart(view: View, draft: Draft) -> None:
    """Restart the server where the annotation is later than its boot, so that doing it twice does it once."""
    text = view.server.metadata.annotations.get(RESTARTED_AT)
    if text is None or draft.ledger.failover is not None:
        return
    try:
        asked = values.parse_time(text)
    except ValueError as error:
        draft.note(view.subject, Notice(reasons.INVALID_VALUE, f"annotation {RESTARTED_AT}: {error}"))
        return
    source = known(view.way.source)
    if source is not None and source.running and source.boot_time is not None and source.boot_time < asked <= view.now:
        draft.act(view.subject, verbs.Restart())


def _stop(view: View, draft: Draft, replica: Replica) -> None:
    if draft.ledger.replicating:
        draft.ledger = replace(draft.ledger, replicating=False)
    elif replica.state not in _AT_REST:
        # Starting again begins a copy of its own, so what is whole now is kept as a point.
        whole = f"stopped-{draft.ledger.run}" if replica.consistent else None
        draft.act(view.subject, verbs.StopReplication(whole))


def _replicate(view: View, draft: Draft, replica: Replica) -> None:
    ledger = draft.ledger
    if view.way.exists == Known(value=False):
        draft.note(view.subject, _gone(view))
    if replica.run < ledger.run or not ledger.replicating or replica.state in _TO_START:
        _start(view, draft, replica)
        return
    match replica.state:
        case ReplicaState.SYNCED:
            if not ledger.synced:
                draft.ledger = replace(ledger, synced=True, first_point=points.name_for(view.now))
            _keep_points(view, draft, replica)
        case ReplicaState.INTERRUPTED:
            _repair(view, draft, replica)
        case ReplicaState.COPYING:
            limit = view.server.spec.replication.bandwidth_limit
            if replica.bandwidth_limit != limit:
                draft.act(view.subject, verbs.LimitBandwidth(limit))
        case _:
            pass


def _start(view: View, draft: Draft, replica: Replica) -> None:
    """Start a full copy: first in the ledger, which also says that the replica holds nothing usable from here on."""
    ledger, replication = draft.ledger, view.server.spec.replication
    if notice := start_refusal(view, draft):
        draft.note(view.subject, notice)
        return
    if not ledger.replicating:
        again = replica.state is not ReplicaState.ABSENT
        draft.ledger = replace(
            ledger,
            replicating=True,
            run=ledger.run + 1,
            resyncs=0,
            synced=False,
            rolled_back=False,
            # The consent to wipe is spent before anything is wiped.
            wiped=ledger.epoch if wipes(view, ledger) else ledger.wiped,
            onto_original=wipes(view, ledger) or ledger.onto_original,
            full_copy_reason="replication was stopped, and what changed meanwhile is not known" if again else "",
        )
        return
    network = replication.replication_network or view.target_site.replication_network
    if network is not None:
        limit = replication.bandwidth_limit
        verb = verbs.StartReplication(ledger.run, network, bool(replication.use_ssd), limit, ledger.onto_original)
        draft.act(view.subject, verb)


def start_refusal(view: View, draft: Draft) -> Notice | None:
    """Why replication cannot start now, the first reason of an ordered list; None where it can."""
    replication = view.server.spec.replication
    target = known(view.target)
    match view.way.exists:
        case Known(False):
            return _gone(view)
        case _:
            pass
    if isinstance(view.way.source, Unknown):
        return Notice(
            reasons.SITE_SILENT,
            f"the server in zone {view.source_site.zone} does not answer: {view.way.source.reason}",
            stalled=False,
        )
    source = view.way.source.value
    if source.machine != draft.ledger.registered:
        trouble = view.troubles.get(view.subject)
        return trouble or Notice(reasons.IN_PROGRESS, "the server that serves is being registered", stalled=False)
    if not source.running:
        return Notice(
            reasons.SOURCE_DOWN,
            f"the server is not running in zone {view.source_site.zone}; start it there",
            stalled=False,
        )
    if not draft.ledger.initialized:
        return Notice(
            reasons.INSTALLING_AGENT,
            "waiting for the client in the server; if it does not come up, restart the server: "
            f"kubectl annotate ps {view.server.metadata.name} lifeboat.dev/restartedAt=$(date -u +%FT%TZ) --overwrite",
            stalled=False,
        )
    if target is None:
        return view.target_silent()
    network = replication.replication_network or view.target_site.replication_network
    if network is None:
        return Notice(
            reasons.NETWORK_MISSING,
            "no replication network is named: set spec.replication.replicationNetwork, or replicationNetwork on the "
            f"SitePair's site {view.target_site.zone}",
        )
    if target.network(network) is None:
        return Notice(
            reasons.UNKNOWN_NETWORK,
            f"zone {target.zone} has no network {network!r}; it has: "
            f"{', '.join(sorted(n.name for n in target.networks)) or 'none'}",
        )
    if replication.use_ssd and target.ssd is None:
        return Notice(reasons.NO_SSD, f"zone {target.zone} has no SSD tier; leave useSSD out")
    if replication.bandwidth_limit is not None and not view.capabilities.bandwidth_limit:
        return Notice(reasons.NOT_SUPPORTED, "this engine has no bandwidth limit; leave bandwidthLimit out")
    return wipe_refusal(view, draft.ledger)


def _gone(view: View) -> Notice:
    return Notice(
        reasons.UNKNOWN_SERVER,
        f"server {view.server.spec.server_id} is no longer in zone {view.source_site.zone}; its replica and "
        "points are kept and can be failed over to; delete this object, or put the server back into the inventory",
    )


def _repair(view: View, draft: Draft, replica: Replica) -> None:
    """Resume an interrupted copy, or begin a new one where the engine lost track of what changed."""
    ledger = draft.ledger
    if replica.resumable:
        if isinstance(view.way.source, Unknown):
            # Nothing can be copied from a silent site, so nothing is written over what is whole: a failover at
            # `current` stays possible.
            return
        if ledger.synced:
            # The last whole state is kept first, so that `latest` has it whatever burns next. Until a resync really
            # begins it is the tip as well, and `current` has it too.
            kept = f"before-resync-{ledger.run}-{ledger.resyncs + 1}"
            if any(point.name == kept for point in replica.points):
                draft.ledger = replace(ledger, synced=False, resyncs=ledger.resyncs + 1)
            else:
                draft.act(view.subject, verbs.TakePoint(kept))
            return
        freeze_as = f"before-resync-{ledger.run}-{ledger.resyncs}" if ledger.resyncs else None
        draft.act(view.subject, verbs.ResumeReplication(freeze_as))
        return
    if start_refusal(view, draft) is None:
        kept = f"before-copy-{ledger.run + 1}"
        if replica.consistent and not any(point.name == kept for point in replica.points):
            draft.act(view.subject, verbs.TakePoint(kept))
            return
        draft.ledger = replace(
            ledger, run=ledger.run + 1, resyncs=0, synced=False, full_copy_reason=replica.reason or "the copy was lost"
        )


def _bring_last_writes(view: View, draft: Draft) -> None:
    """Resume a copy that broke before the source's last writes had arrived: without them its fence never stands.

    One that cannot be resumed is left as it is: a copy of everything takes longer than nobody may serve, so that a
    person has to decide.
    """
    match view.way.replica:
        case Known(replica) if replica.state is ReplicaState.INTERRUPTED and replica.resumable:
            _repair(view, draft, replica)
        case _:
            pass


def _keep_points(view: View, draft: Draft, replica: Replica) -> None:
    tiers = view.server.spec.replication.tiers
    if any(tier.application_consistent for tier in tiers) and not view.capabilities.application_consistent_points:
        draft.note(
            view.subject,
            Notice(
                reasons.NOT_SUPPORTED,
                "this engine takes no application-consistent points; leave applicationConsistent out",
            ),
        )
    first = draft.ledger.first_point
    if first is not None:
        # A copy that has just become whole is kept at once, not at the next full hour.
        if any(point.name == first for point in replica.points):
            draft.ledger = replace(draft.ledger, first_point=None)
        else:
            draft.act(view.subject, verbs.TakePoint(first, _frozen(view, replica)))
        return
    if points.due(tiers, replica.points, view.now):
        draft.act(view.subject, verbs.TakePoint(points.name_for(view.now), _frozen(view, replica)))
        return
    accepted = frozenset(drill.attempt.point for drill in draft.ledger.drills)
    if surplus := points.surplus(tiers, replica.points, accepted):
        draft.act(view.subject, verbs.PrunePoints(surplus))
    if draft.ledger.tested:
        _forget_tested(draft, replica)
    if draft.ledger.leftovers:
        _clear_leftovers(view, draft)


def _frozen(view: View, replica: Replica) -> bool:
    """Whether the guest's file systems are to be frozen for the point that is taken now.

    A client that does not answer, or a guest that does not freeze in time, costs the point its frozen file systems, not
    its existence.
    """
    source = known(view.way.source)
    return (
        view.capabilities.application_consistent_points
        and source is not None
        and source.agent_connected
        and view.subject not in view.troubles
        and points.wants_application_consistency(view.server.spec.replication.tiers, replica.points, view.now)
    )


def _forget_tested(draft: Draft, replica: Replica) -> None:
    names = {point.name for point in replica.points}
    tested = {point: drill for point, drill in draft.ledger.tested.items() if point in names}
    if tested != draft.ledger.tested:
        draft.ledger = replace(draft.ledger, tested=tested)


def _clear_leftovers(view: View, draft: Draft) -> None:
    """Delete the disks that a rollback or a failback kept: the server is protected again, with a point of its own."""
    if any(isinstance(view.facts.way(direction).machines, Unknown) for direction in Direction):
        return
    present = leftovers_seen(view, draft.ledger)
    for direction, name in present:
        draft.act(view.subject, verbs.RemoveMachine(name), direction)
    names = {name for _, name in present}
    if names != set(draft.ledger.leftovers):
        draft.ledger = replace(draft.ledger, leftovers=tuple(n for n in draft.ledger.leftovers if n in names))
