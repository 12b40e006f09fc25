"""Names of machines and the steps of an attempt that a drill and a failover have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from lifeboat.api.common import Check, Instance, Result
from lifeboat.api.names import AUTO
from lifeboat.engines import verbs
from lifeboat.engines.facts import Machine, MachineState, Unknown
from lifeboat.engines.ledger import Attempt, Direction, FailoverRecord, FailoverStage, Ledger
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.shapes import ShapeRequest, shape
from lifeboat.lifecycle.view import Draft, Notice, Subject, Verify, View, known

# How long a machine without checks may take until its client answers; then it counts as started all the same.
BOOT_PATIENCE = timedelta(minutes=5)


def drill_machine(name: str) -> str:
    """The machine of the drill of that name."""
    return f"drill-{name}"


def failover_machine(ledger: Ledger, number: int) -> str:
    """The machine of that attempt of the failover, or failback, that began this epoch."""
    return _name(ledger.direction, ledger.epoch, number)


def first_machine(ledger: Ledger) -> str:
    """The machine that the next failover, or failback, begins with."""
    return _name(ledger.direction, ledger.epoch + 1, 1)


def _name(direction: Direction, epoch: int, number: int) -> str:
    return f"{'failover' if direction is Direction.FORWARD else 'failback'}-{epoch}-{number}"


def attempt_machines(ledger: Ledger, record: FailoverRecord) -> dict[str, Attempt]:
    """The machines of all attempts of a failover, by name."""
    return {failover_machine(ledger, attempt.number): attempt for attempt in record.attempts}


def was_launched(name: str) -> bool:
    """Whether a machine was launched by a failover or a failback, and not by a drill."""
    return name.startswith(("failover-", "failback-"))


def shape_for(
    view: View,
    instance: Instance,
    names: Iterable[str],
    *,
    isolated: bool,
    elastic_ip_now: str | None = None,
    promised: frozenset[str] = frozenset(),
) -> verbs.Shape | Notice:
    """The machine that this instance block means at the target site, or why it cannot be started.

    `names` are the machines whose addresses it may take over: its own, and earlier attempts'.
    """
    if isinstance(view.target, Unknown):
        return view.target_silent(view.target.reason)
    if isinstance(view.way.hardware, Unknown):
        return Notice(reasons.SITE_SILENT, f"the server's size is not known: {view.way.hardware.reason}", stalled=False)
    if instance.elastic_ip is not None and not view.capabilities.elastic_ips:
        return Notice(reasons.NOT_SUPPORTED, "this engine has no elastic IPs; leave elasticIP out")
    if instance.use_ssd is None:
        instance = instance.model_copy(update={"use_ssd": bool(view.server.spec.replication.use_ssd)})
    site = view.target_site
    return shape(
        ShapeRequest(
            instance=instance,
            hardware=view.way.hardware.value,
            default_network=view.server.spec.replication.recovery_network or site.recovery_network or site.network,
            site=view.target.value,
            isolated=isolated,
            owners=frozenset(f"{view.facts.server_id}/{name}" for name in names),
            elastic_ip_now=elastic_ip_now,
            promised=promised,
        )
    )


def verify(
    view: View,
    draft: Draft,
    subject: Subject,
    machine: Machine,
    attempt: Attempt,
    checks: tuple[Check, ...],
    *,
    has_script: bool,
) -> Attempt | None:
    """The attempt once script and checks have ended, or None while they run; starts them where they do not."""
    run_script = has_script and attempt.disks_of == attempt.number
    if not run_script and not checks:
        if machine.agent_connected:
            return replace(attempt, verified=True, ready_at=view.now)
        if attempt.launched_at is not None and view.now - attempt.launched_at >= BOOT_PATIENCE:
            return replace(attempt, verified=True)
        return None
    seen = view.verifications.get(machine.name)
    if seen is None:
        draft.act(subject, Verify(machine.name, checks, run_script))
        return None
    if not seen.done:
        return None
    script_passed = seen.script is None or seen.script.exit_code == 0
    passed = script_passed and all(check.passed for check in seen.checks)
    return replace(
        attempt,
        verified=True,
        script=seen.script,
        checks=seen.checks,
        ready_at=seen.ready_at if passed else None,
        result=(Result.PASSED if passed else Result.FAILED).value,
    )


def running(view: View, name: str) -> Machine | None:
    """The machine of that name, where it runs."""
    machine = (known(view.way.machines) or {}).get(name)
    return machine if machine is not None and machine.state is MachineState.RUNNING else None


def not_serving(view: View, ledger: Ledger) -> Notice | None:
    """Why the recovered server of a failover is not known to serve, or None where it does."""
    record = ledger.failover
    if record is None:
        return None
    if isinstance(view.way.machines, Unknown):
        return Notice(
            reasons.SITE_SILENT, f"the recovered server cannot be seen: {view.way.machines.reason}", stalled=False
        )
    machine = view.way.machines.value.get(failover_machine(ledger, record.attempts[-1].number))
    if machine is not None and machine.state is MachineState.RUNNING and not machine.reason:
        return None
    if machine is not None and machine.out_of_space:
        message = f"the recovered server stands still: {machine.reason}; make room there, and it goes on by itself"
        return Notice(reasons.NO_SPACE, message, stalled=False)
    why = f": {machine.reason}" if machine is not None and machine.reason else ""
    cure = (
        "start it in its zone"
        if record.stage is FailoverStage.COMMITTED
        else "start it in its zone, edit spec.instance or spec.recoveryPoint of the Failover to start it anew, or set "
        "rollback: true"
    )
    return Notice(reasons.MACHINE_STOPPED, f"the recovered server does not serve{why}; {cure}")


def with_free_elastic_ip(view: View, attempt: Attempt, names: Iterable[str]) -> Attempt | None:
    """The attempt with another elastic IP, where `auto` was asked for and somebody took the address meanwhile."""
    target, wanted = known(view.target), attempt.shape.elastic_ip
    if target is None or wanted is None or attempt.launched_at is not None:
        return None
    if Instance.model_validate_json(attempt.asked).elastic_ip != AUTO:
        return None
    owners = {f"{view.facts.server_id}/{name}" for name in names}
    if target.elastic_ips.get(wanted) in (None, *owners):
        return None
    other = next((ip for ip, user in sorted(target.elastic_ips.items()) if user is None), None)
    return replace(attempt, shape=replace(attempt.shape, elastic_ip=other)) if other is not None else None


def note_failed(view: View, draft: Draft, subject: Subject, name: str) -> None:
    """Say that a machine stopped by itself and is started again."""
    machine = (known(view.way.machines) or {}).get(name)
    if machine is not None and machine.state is MachineState.FAILED:
        message = (
            f"the server stopped by itself{': ' + machine.reason if machine.reason else ''}; it is started again; "
            "if that does not help, change spec.instance or the recovery point, or give up"
        )
        draft.note(subject, Notice(reasons.LAUNCH_FAILED, message))


def launched(attempt: Attempt, now: datetime) -> Attempt:
    """The attempt once its machine runs."""
    return replace(attempt, launched_at=attempt.launched_at or now)
