"""The phases of a protected server: computed from what is, and the table of which may follow which.

A phase is never stored and read back: it is a function of ledger and facts. `TRANSITIONS` is what a person may rely on;
tests hold every computed change against it, and that each phase is reached and has a way out.
"""

from __future__ import annotations

from collections.abc import Mapping

from lifeboat.api.protectedserver import ProtectedServerPhase as Phase
from lifeboat.engines.facts import Known, Replica, ReplicaState, Unknown
from lifeboat.engines.ledger import Direction, FailoverRecord, FailoverStage, Ledger
from lifeboat.lifecycle.view import View

_BY_STAGE: Mapping[FailoverStage, Phase] = {
    FailoverStage.STOPPING_REPLICATION: Phase.FAILING_OVER,
    FailoverStage.LAUNCHING: Phase.FAILING_OVER,
    FailoverStage.VERIFYING: Phase.FAILING_OVER,
    FailoverStage.AWAITING_COMMIT: Phase.FAILED_OVER,
    FailoverStage.CHANGING_RECOVERY_POINT: Phase.CHANGING_RECOVERY_POINT,
    FailoverStage.ROLLING_BACK: Phase.ROLLING_BACK,
    FailoverStage.COMMITTING: Phase.COMMITTING,
    FailoverStage.COMMITTED: Phase.COMMITTED,
}

_BY_REPLICA: Mapping[ReplicaState, Phase] = {
    ReplicaState.ABSENT: Phase.STARTING_REPLICATION,
    ReplicaState.STARTING: Phase.STARTING_REPLICATION,
    ReplicaState.STOPPED: Phase.STARTING_REPLICATION,
    ReplicaState.COPYING: Phase.FULL_SYNC,
    ReplicaState.INTERRUPTED: Phase.INTERRUPTED,
    ReplicaState.RESYNCING: Phase.RESYNCING,
    ReplicaState.SYNCED: Phase.REPLICATING,
}

_BACK: Mapping[Phase, Phase] = {
    Phase.INSTALLING_AGENT: Phase.REVERSE_REGISTERING,
    Phase.INITIALIZED: Phase.REVERSE_REGISTERED,
    Phase.STOPPED: Phase.REVERSE_REGISTERED,
    Phase.STARTING_REPLICATION: Phase.STARTING_REVERSE_REPLICATION,
    Phase.FULL_SYNC: Phase.REVERSE_FULL_SYNC,
    Phase.REPLICATING: Phase.REVERSE_REPLICATING,
    Phase.INTERRUPTED: Phase.REVERSE_INTERRUPTED,
    Phase.RESYNCING: Phase.REVERSE_RESYNCING,
}
"""What a phase of forward replication is called on the way back."""

_COPIES = {Phase.STARTING_REPLICATION, Phase.FULL_SYNC, Phase.REPLICATING, Phase.INTERRUPTED, Phase.RESYNCING}
_COPIES_BACK = {_BACK[phase] for phase in _COPIES}

TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    Phase.INSTALLING_AGENT: frozenset({Phase.INITIALIZED, Phase.STARTING_REPLICATION, Phase.FULL_SYNC}),
    Phase.INITIALIZED: frozenset(_COPIES),
    Phase.STARTING_REPLICATION: frozenset(_COPIES | {Phase.STOPPED, Phase.INITIALIZED, Phase.FAILING_OVER}),
    Phase.FULL_SYNC: frozenset(_COPIES | {Phase.STOPPED, Phase.FAILING_OVER}),
    Phase.REPLICATING: frozenset(_COPIES | {Phase.STOPPED, Phase.FAILING_OVER}),
    Phase.INTERRUPTED: frozenset(_COPIES | {Phase.STOPPED, Phase.FAILING_OVER}),
    Phase.RESYNCING: frozenset(_COPIES | {Phase.STOPPED, Phase.FAILING_OVER}),
    Phase.STOPPED: frozenset(_COPIES | {Phase.FAILING_OVER, Phase.INITIALIZED}),
    Phase.FAILING_OVER: frozenset(
        {Phase.FAILED_OVER, Phase.CHANGING_RECOVERY_POINT, Phase.ROLLING_BACK, Phase.COMMITTING}
    ),
    Phase.FAILED_OVER: frozenset({Phase.CHANGING_RECOVERY_POINT, Phase.COMMITTING, Phase.ROLLING_BACK}),
    Phase.CHANGING_RECOVERY_POINT: frozenset({Phase.FAILED_OVER, Phase.ROLLING_BACK, Phase.COMMITTING}),
    Phase.ROLLING_BACK: frozenset(
        _COPIES | _COPIES_BACK | {Phase.INITIALIZED, Phase.STOPPED, Phase.REVERSE_REGISTERED}
    ),
    Phase.COMMITTING: frozenset({Phase.COMMITTED}),
    Phase.COMMITTED: frozenset(_COPIES_BACK | {Phase.REVERSE_REGISTERING, Phase.REVERSE_REGISTERED}),
    Phase.REVERSE_REGISTERING: frozenset(_COPIES_BACK | {Phase.REVERSE_REGISTERED}),
    Phase.REVERSE_REGISTERED: frozenset(_COPIES_BACK),
    Phase.STARTING_REVERSE_REPLICATION: frozenset(_COPIES_BACK | {Phase.REVERSE_REGISTERED}),
    Phase.REVERSE_FULL_SYNC: frozenset(_COPIES_BACK | {Phase.REVERSE_REGISTERED}),
    Phase.REVERSE_REPLICATING: frozenset(_COPIES_BACK | {Phase.REVERSE_REGISTERED, Phase.FAILING_BACK}),
    Phase.REVERSE_INTERRUPTED: frozenset(_COPIES_BACK | {Phase.REVERSE_REGISTERED}),
    Phase.REVERSE_RESYNCING: frozenset(_COPIES_BACK | {Phase.REVERSE_REGISTERED}),
    # Where the manifest asks for the next round already, the one ends and the other begins in one step.
    Phase.FAILING_BACK: frozenset({Phase.FAILED_BACK, Phase.REGISTERING, Phase.ROLLING_BACK}),
    Phase.FAILED_BACK: frozenset(_COPIES | {Phase.REGISTERING, Phase.INITIALIZED}),
    Phase.REGISTERING: frozenset(_COPIES | {Phase.INITIALIZED}),
}


def server_phase(view: View, ledger: Ledger) -> Phase:
    """The phase of the server as it is now. Where the replica cannot be seen, the phase last told stays."""
    record = ledger.failover
    if record is not None and record.failback:
        return _failback_phase(record)
    if record is not None:
        later = len(record.attempts) > 1 and record.stage in (FailoverStage.LAUNCHING, FailoverStage.VERIFYING)
        return Phase.CHANGING_RECOVERY_POINT if later else _BY_STAGE[record.stage]
    match view.way.replica:
        case Known(replica):
            phase = _with_replica(ledger, replica)
        case Unknown():
            told = view.server.status.phase
            if told is not None and told in (_BACK.values() if ledger.direction is Direction.REVERSE else _BACK):
                return told
            phase = _at_rest(ledger, has_replica=ledger.replicating)
    return _BACK[phase] if ledger.direction is Direction.REVERSE else phase


def _failback_phase(record: FailoverRecord) -> Phase:
    match record.stage:
        case FailoverStage.ROLLING_BACK:
            return Phase.ROLLING_BACK
        case FailoverStage.COMMITTED:
            return Phase.FAILED_BACK
        case _:
            return Phase.FAILING_BACK


def _with_replica(ledger: Ledger, replica: Replica) -> Phase:
    if not ledger.replicating and ledger.rolled_back:
        return Phase.INITIALIZED
    if not ledger.replicating:
        return _at_rest(ledger, has_replica=replica.state is not ReplicaState.ABSENT)
    if replica.run < ledger.run:
        return Phase.STARTING_REPLICATION
    if replica.state is ReplicaState.SYNCED and not ledger.synced:
        return Phase.RESYNCING if ledger.resyncs else Phase.FULL_SYNC
    return _BY_REPLICA[replica.state]


def _at_rest(ledger: Ledger, *, has_replica: bool) -> Phase:
    if has_replica and ledger.failover is None:
        return Phase.STOPPED
    if ledger.initialized:
        return Phase.INITIALIZED
    forth = ledger.direction is Direction.FORWARD
    return Phase.REGISTERING if forth and ledger.registered is not None else Phase.INSTALLING_AGENT
