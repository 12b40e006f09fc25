"""Edits of a failover before it is committed: another point, another instance, another elastic IP."""

from __future__ import annotations

from dataclasses import replace

from lifeboat.api.common import Instance
from lifeboat.api.failover import Failover
from lifeboat.api.names import CURRENT
from lifeboat.engines import verbs
from lifeboat.engines.facts import Unknown
from lifeboat.engines.ledger import FailoverRecord, FailoverStage, RefusedEdit
from lifeboat.lifecycle import machines, points
from lifeboat.lifecycle.shapes import fingerprint, same_but_elastic_ip
from lifeboat.lifecycle.view import Draft, Notice, Subject, View


def decide_edit(view: View, draft: Draft, subject: Subject, record: FailoverRecord, failover: Failover) -> bool:
    """Follow an edit of recoveryPoint or instance, or refuse it and leave the running server alone.

    True where the ledger moves on. A refused edit is remembered, so that it never comes true by itself hours later.
    """
    spec, attempt = failover.spec, record.attempts[-1]
    asked = fingerprint(spec.instance)
    same_point = spec.recovery_point == attempt.requested or (record.inherited and spec.recovery_point == CURRENT)
    if record.inherited and spec.instance == Instance():
        asked = attempt.asked
    if same_point and asked == attempt.asked:
        if record.refused is not None:
            draft.ledger = replace(draft.ledger, failover=replace(record, refused=None))
            return True
        return False
    refused = record.refused
    if refused is not None and (refused.requested, refused.asked) == (spec.recovery_point, asked):
        draft.note(subject, Notice(refused.reason, refused.message))
        return False
    decided = _decide(view, draft, record, failover, same_point=same_point)
    if isinstance(decided, Notice):
        draft.note(subject, decided)
        if not decided.stalled:
            return False
        refused = RefusedEdit(spec.recovery_point, asked, decided.reason, decided.message)
        draft.ledger = replace(draft.ledger, failover=replace(record, refused=refused))
        return True
    if decided is None:
        return False
    draft.ledger = replace(draft.ledger, failover=replace(decided, refused=None))
    return True


def _decide(
    view: View, draft: Draft, record: FailoverRecord, failover: Failover, *, same_point: bool
) -> FailoverRecord | Notice | None:
    spec, attempt = failover.spec, record.attempts[-1]
    machine = machines.failover_machine(draft.ledger, attempt.number)
    number = record.attempts[-1].number + 1
    shape = machines.shape_for(
        view,
        spec.instance,
        machines.attempt_machines(draft.ledger, record),
        isolated=False,
        elastic_ip_now=attempt.shape.elastic_ip,
    )
    if isinstance(shape, Notice):
        return shape
    asked = fingerprint(spec.instance)
    resolved: points.Resolved | None = None
    if not same_point:
        if isinstance(view.way.replica, Unknown):
            return view.target_silent(view.way.replica.reason)
        replica = view.way.replica.value
        found = points.resolve_for_failover(spec.recovery_point, replica, draft.ledger, record, view.now)
        if isinstance(found, Notice):
            return found
        resolved = found
    moves = resolved is not None and (
        resolved.point != attempt.point or (resolved.disks_of is not None and resolved.disks_of != attempt.disks_of)
    )
    alike = asked == attempt.asked or same_but_elastic_ip(attempt.asked, spec.instance)
    # What does not run is started anew by any edit: that is what a person wants who edits it.
    if not moves and alike and machines.running(view, machine) is not None:
        if shape.elastic_ip != attempt.shape.elastic_ip and not _has(view, machine, shape.elastic_ip):
            draft.act(Subject("Failover", record.name), verbs.MoveElasticIP(machine, shape.elastic_ip))
            return None
        # The string changed and means the same: that is recorded, and nothing is restarted.
        in_use = replace(attempt.shape, elastic_ip=shape.elastic_ip)
        same = replace(attempt, requested=spec.recovery_point, asked=asked, shape=in_use)
        return replace(record, attempts=(*record.attempts[:-1], same))
    if moves and resolved is not None:
        disks_of = resolved.disks_of or number
        target = (resolved.point, resolved.time, resolved.application_consistent)
    else:
        # What was never started has no disks to go on with.
        fresh = attempt.launched_at is None and attempt.disks_of == attempt.number
        disks_of = number if fresh else attempt.disks_of
        target = (attempt.point, attempt.point_time, attempt.application_consistent)
    point, point_time, frozen = target
    following = replace(
        attempt,
        number=number,
        requested=spec.recovery_point,
        point=point,
        point_time=point_time,
        application_consistent=frozen,
        shape=shape,
        accepted_at=view.now,
        disks_of=disks_of,
        asked=asked,
        launched_at=None,
        ready_at=None,
        ended_at=None,
        verified=False,
        script=None,
        checks=(),
        result=None,
    )
    return replace(
        record,
        stage=FailoverStage.CHANGING_RECOVERY_POINT,
        attempts=(*record.attempts, following),
        current_used=record.current_used or point == record.tip,
    )


def _has(view: View, machine: str, elastic_ip: str | None) -> bool:
    found = machines.running(view, machine)
    return found is not None and found.elastic_ip == elastic_ip
