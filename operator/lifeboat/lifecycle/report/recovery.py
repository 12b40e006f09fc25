"""What the statuses of a Drill and a Failover have in common: the point, the machine, the checks, the timings."""

from __future__ import annotations

from typing import Any

from lifeboat.api import common
from lifeboat.api.common import Check, PostScript
from lifeboat.engines.facts import Machine, MachineState
from lifeboat.engines.ledger import Attempt
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.conditions import State
from lifeboat.lifecycle.report.server import point_age
from lifeboat.lifecycle.view import Verification, View, known


def common_status(
    view: View, attempt: Attempt | None, machine_name: str, checks: tuple[Check, ...], script: PostScript | None
) -> dict[str, Any]:
    """The fields of `RecoveryStatus` that an attempt fills, by attribute name."""
    if attempt is None:
        return {}
    machine = (known(view.way.machines) or {}).get(machine_name)
    seen = view.verifications.get(machine_name) if not attempt.verified else None
    return {
        "result": common.Result(attempt.result) if attempt.result else None,
        "recovery_point": common.ResolvedPoint(
            spec=attempt.requested,
            name=attempt.point,
            time=attempt.point_time,
            age_seconds=point_age(attempt.point_time, attempt.accepted_at),
        ),
        "instance": _instance(attempt, machine),
        "checks": _checks(attempt, seen, checks),
        "post_script": _script(attempt, seen, script),
        "timings": common.Timings(
            accepted_at=attempt.accepted_at,
            launched_at=attempt.launched_at,
            ready_at=attempt.ready_at,
            rto_seconds=_rto(attempt),
        ),
    }


def _rto(attempt: Attempt) -> float | None:
    return round((attempt.ready_at - attempt.accepted_at).total_seconds(), 3) if attempt.ready_at else None


def verified_state(attempt: Attempt | None) -> State:
    """The condition Verified: what the declared checks have proved."""
    if attempt is None or not attempt.verified:
        return State("Unknown", reasons.NOT_YET, "the checks have not ended")
    if attempt.result is None:
        return State("Unknown", reasons.NO_CHECKS, "no checks are declared, so nothing is proved; add spec.checks")
    if attempt.result == common.Result.PASSED:
        return State("True", reasons.CHECKS_PASSED, "every check passed")
    return State("False", reasons.CHECKS_FAILED, failed_checks(attempt))


def failed_checks(attempt: Attempt) -> str:
    """Which checks failed and what they saw."""
    failed = [f"{check.name}: {check.message}" for check in attempt.checks if not check.passed]
    if attempt.script is not None and attempt.script.exit_code != 0:
        code = attempt.script.exit_code
        ended = f"ended with exit code {code}" if code is not None else "did not end"
        failed.insert(0, f"the script after the switch {ended}")
    return "; ".join(failed)


def launched_state(attempt: Attempt | None) -> State:
    """The condition Launched: whether a server was started."""
    if attempt is not None and attempt.launched_at is not None:
        return State("True", reasons.RUNNING, "the server was started")
    return State("False", reasons.NOT_YET, "the server is not started")


def _instance(attempt: Attempt, machine: Machine | None) -> common.RunningInstance | None:
    if machine is None or machine.state is not MachineState.RUNNING or attempt.launched_at is None:
        return None
    return common.RunningInstance(
        id=machine.instance_id,
        ip_address=machine.addresses[0] if machine.addresses else None,
        elastic_ip=machine.elastic_ip,
        url=machine.url,
    )


def _checks(attempt: Attempt, seen: Verification | None, asked: tuple[Check, ...]) -> tuple[common.CheckStatus, ...]:
    ended = {check.name: check for check in attempt.checks}
    if seen is not None:
        ended |= {check.name: check for check in seen.checks}
    names = [check.name for check in asked] or list(ended)
    statuses = []
    for name in names:
        outcome = ended.get(name)
        if outcome is None:
            statuses.append(common.CheckStatus(name=name))
            continue
        result = common.Result.PASSED if outcome.passed else common.Result.FAILED
        statuses.append(common.CheckStatus(name=name, result=result, message=outcome.message[:1024]))
    return tuple(statuses)


def _script(attempt: Attempt, seen: Verification | None, asked: PostScript | None) -> common.PostScriptStatus | None:
    outcome = attempt.script or (seen.script if seen else None)
    if outcome is None:
        return None
    secret = asked is not None and asked.secret_key_ref is not None
    return common.PostScriptStatus(exit_code=outcome.exit_code, output=None if secret else outcome.output[-1024:])
