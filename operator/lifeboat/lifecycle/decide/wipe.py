"""Wiping the original machine: the one step that destroys what nobody can bring back, so it needs all of this.

A spec left at Reverse after the failback, a lost status or a cluster rebuilt from Git must never wipe anything: the
ledger knows whether this epoch's consent was spent, and everything else is a fact seen just now.
"""

from __future__ import annotations

from lifeboat.engines.facts import Known, Unknown
from lifeboat.engines.ledger import ActiveSite, Direction, Ledger
from lifeboat.lifecycle import reasons
from lifeboat.lifecycle.view import Notice, View


def wipes(view: View, ledger: Ledger) -> bool:
    """Whether the next copy would wipe the original machine."""
    asked = bool(view.server.spec.replication.original_machine)
    return asked and ledger.direction is Direction.REVERSE and ledger.wiped != ledger.epoch


def wipe_refusal(view: View, ledger: Ledger) -> Notice | None:
    """Why the original machine may not be wiped now, the first reason of a list; None where it may, or need not."""
    if not wipes(view, ledger):
        return None
    server_id = view.server.spec.server_id
    if view.server.spec.replication.confirm_wipe != server_id:
        return _refused(f"confirmWipe has to repeat serverId: write {server_id!r}, or leave originalMachine out")
    if ledger.active_site is not ActiveSite.RECOVERY or ledger.failover is not None:
        return _refused("the workload is not known to be served from the recovery site")
    match view.way.source:
        case Unknown(reason):
            return _refused(f"the recovered server cannot be seen: {reason}", stalled=False)
        case Known(source) if not source.running or source.machine != ledger.registered:
            return _refused("the recovered server does not run; start it in its zone", stalled=False)
        case _:
            pass
    if ledger.fence is None or ledger.fence.confirmed_at is None:
        return _refused("the original machine is not known to be fenced; its fence is confirmed once its site answers")
    match view.facts.forward.source:
        case Unknown(reason):
            return _refused(f"the original machine cannot be seen: {reason}", stalled=False)
        case Known(original) if original.running or not original.fenced:
            return _refused("the original machine is not stopped and fenced yet", stalled=False)
        case _:
            return None


def _refused(why: str, *, stalled: bool = True) -> Notice:
    return Notice(reasons.WIPE_REFUSED, f"the original machine is not wiped: {why}", stalled)
