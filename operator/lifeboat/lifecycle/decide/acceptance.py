"""Whether a failover may begin: everything that can be checked is checked before replication is stopped.

`PRECONDITIONS` is the list, in order, that reads as the specification. Whether a Failover could be accepted now is also
what the condition FailoverReady and `allowedOperations` say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lifeboat.api.common import Instance
from lifeboat.api.failover import Failover, FailoverType
from lifeboat.api.names import CURRENT
from lifeboat.engines.facts import Known, ReplicaState, Unknown
from lifeboat.engines.ledger import Attempt, Direction, FailoverStage, Ledger
from lifeboat.engines.verbs import Shape
from lifeboat.lifecycle import machines, points, reasons
from lifeboat.lifecycle.shapes import fingerprint
from lifeboat.lifecycle.view import FAILOVER, Notice, Subject, View, known


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a failover that has not begun; `name` None asks whether one could begin at all."""

    view: View
    ledger: Ledger
    recovery_point: str = CURRENT
    instance: Instance = field(default_factory=Instance)
    name: str | None = None
    planned: bool = False
    commit: bool = False
    rollback: bool = False
    failback: bool = False


def request_of(view: View, ledger: Ledger, failover: Failover) -> Request:
    """The request that a Failover object makes."""
    spec = failover.spec
    return Request(
        view,
        ledger,
        spec.recovery_point,
        spec.instance,
        failover.metadata.name,
        # A failback stops the recovered server first and loses nothing, as a planned failover does.
        planned=spec.planned or spec.type is FailoverType.FAILBACK,
        commit=spec.commit,
        rollback=spec.rollback,
        failback=spec.type is FailoverType.FAILBACK,
    )


def no_other_failover(request: Request) -> Notice | None:
    """One failover at a time, until it is committed or rolled back. This refusal is for good."""
    record = request.ledger.failover
    if record is not None and record.stage is not FailoverStage.COMMITTED:
        return Notice(
            reasons.FAILOVER_EXISTS,
            f"Failover {record.name} of this server is not committed yet ({record.stage}); edit, commit or roll back "
            "that one",
        )
    return None


def server_stays(request: Request) -> Notice | None:
    """Nothing is begun for a server whose ProtectedServer is being deleted."""
    if request.view.server.metadata.deletion_timestamp is not None:
        return Notice(
            reasons.DELETING,
            "its ProtectedServer is being deleted; create it anew, it adopts what is kept",
            stalled=False,
        )
    return None


def phase_allows(request: Request) -> Notice | None:
    """A failover goes to the recovery site, a failback to the primary one, and each needs a replica there."""
    forward = request.ledger.direction is Direction.FORWARD
    if request.failback and forward:
        return Notice(reasons.PHASE_DOES_NOT_ALLOW, "type: Failback is possible in ReverseReplicating only")
    if request.ledger.failover is not None:
        where = "recovery" if forward else "primary"
        return Notice(reasons.PHASE_DOES_NOT_ALLOW, f"the server is served from the {where} site already")
    if not request.failback and not forward:
        return Notice(
            reasons.PHASE_DOES_NOT_ALLOW,
            "the server is served from the recovery site already; to bring it home, set type: Failback",
        )
    if request.ledger.run == 0:
        return Notice(
            reasons.PHASE_DOES_NOT_ALLOW,
            "the server was never replicated: set spec.replication.enabled: true on its ProtectedServer first",
        )
    return None


def not_decided_beforehand(request: Request) -> Notice | None:
    """Commit and rollback are decided by a person who has seen the recovered server."""
    if request.commit or request.rollback:
        return Notice(
            reasons.COMMIT_TOO_EARLY,
            "create the Failover without commit and rollback; set commit: true once the recovered server is right",
        )
    return None


def planned_possible(request: Request) -> Notice | None:
    """A planned failover stops the source, so the source has to answer, and the engine has to be able to."""
    if not request.planned:
        return None
    if not request.view.capabilities.planned_failover:
        return Notice(reasons.NOT_SUPPORTED, "this engine cannot stop a source cleanly; leave planned out")
    if isinstance(request.view.way.source, Unknown):
        reason = request.view.way.source.reason
        if request.failback:
            message = f"a failback stops the recovered server first, and it does not answer: {reason}"
            return Notice(reasons.SITE_SILENT, message, stalled=False)
        return Notice(
            reasons.SITE_SILENT,
            f"a planned failover stops the source, and the source does not answer ({reason}); "
            "for a disaster create a Failover without planned",
        )
    replica = known(request.view.way.replica)
    in_sync = request.ledger.synced and replica is not None and replica.state is ReplicaState.SYNCED
    if not request.view.way.source.value.running or not in_sync:
        if request.failback:
            return Notice(
                reasons.PHASE_DOES_NOT_ALLOW,
                "a failback loses nothing, so the recovered server has to run and be ReverseReplicating; set "
                "direction: Reverse and enabled: true on the ProtectedServer and wait for that",
                stalled=False,
            )
        return Notice(
            reasons.PHASE_DOES_NOT_ALLOW,
            "a planned failover loses nothing, so the server has to run and be Replicating; "
            "for a disaster create a Failover without planned",
            stalled=False,
        )
    return None


def original_fenced(request: Request) -> Notice | None:
    """A failback starts a server beside the original one, which must not serve: its own fence comes after it."""
    fence = request.ledger.fence
    if not request.failback or fence is None:
        return None
    original = known(request.view.facts.way(fence.direction).source)
    if fence.confirmed_at is not None and (original is None or not original.running):
        return None
    return Notice(
        reasons.FENCE_PENDING,
        "the original server may still be serving, and a failback would start another one beside it; waiting for its "
        f"fence{f': {fence.problem}' if fence.problem else ''}",
        stalled=False,
    )


def replica_seen(request: Request) -> Notice | None:
    """The site to start at and the replica answer: an unplanned failover depends on nothing else."""
    if isinstance(request.view.target, Unknown):
        return request.view.target_silent(request.view.target.reason)
    if isinstance(request.view.way.replica, Unknown):
        return Notice(
            reasons.SITE_SILENT, f"the replica cannot be seen: {request.view.way.replica.reason}", stalled=False
        )
    return None


def point_readable(request: Request) -> Notice | None:
    """The recovery point exists and can be used."""
    resolved = _resolve(request)
    return resolved if isinstance(resolved, Notice) else None


def machine_possible(request: Request) -> Notice | None:
    """CPU, memory, disk space, network and addresses are there."""
    shape = _shape(request)
    return shape if isinstance(shape, Notice) else None


def script_readable(request: Request) -> Notice | None:
    """The script after the switch can be read."""
    return request.view.scripts.get(Subject(FAILOVER, request.name)) if request.name else None


PRECONDITIONS: tuple[Callable[[Request], Notice | None], ...] = (
    server_stays,
    no_other_failover,
    phase_allows,
    not_decided_beforehand,
    planned_possible,
    original_fenced,
    replica_seen,
    point_readable,
    machine_possible,
    script_readable,
)


def refusal(request: Request) -> Notice | None:
    """The first reason why the failover may not begin now, or None."""
    return next((notice for check in PRECONDITIONS if (notice := check(request))), None)


def first_attempt(request: Request) -> Attempt | Notice:
    """The attempt that an accepted failover begins with."""
    resolved, shape = _resolve(request), _shape(request)
    if isinstance(resolved, Notice):
        return resolved
    if isinstance(shape, Notice):
        return shape
    replica = known(request.view.way.replica)
    lag = replica.lag_seconds if replica is not None and replica.lag_seconds else 0.0
    return Attempt(
        number=1,
        requested=request.recovery_point,
        point=resolved.point,
        point_time=resolved.time if not resolved.current else points.minus(resolved.time, lag),
        application_consistent=resolved.application_consistent,
        shape=shape,
        accepted_at=request.view.now,
        disks_of=1,
        asked=fingerprint(request.instance),
    )


def _resolve(request: Request) -> points.Resolved | Notice:
    match request.view.way.replica:
        case Known(replica) if replica.state is not ReplicaState.ABSENT:
            return points.resolve_for_failover(request.recovery_point, replica, request.ledger, None, request.view.now)
        case _:
            return Notice(
                reasons.NO_RECOVERY_POINT, f"there is no replica of this server in zone {request.view.target_site.zone}"
            )


def _shape(request: Request) -> Shape | Notice:
    names = [machines.first_machine(request.ledger)]
    return machines.shape_for(request.view, request.instance, names, isolated=False)
