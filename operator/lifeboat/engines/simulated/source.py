"""The verbs of the source server, whichever machine that is."""

from __future__ import annotations

from lifeboat.engines.contract import Refused, Retry, Underway
from lifeboat.engines.facts import MachineState
from lifeboat.engines.simulated import power, replication
from lifeboat.engines.simulated.state import Model, Track
from lifeboat.engines.verbs import Fence, Register


def restart(model: Model, track: Track) -> None:
    """Restart the source; one that is booting anyway is left to it."""
    source = track.source()
    if source.fenced:
        raise Refused(f"{source.user} is fenced")
    if not source.running:
        raise Refused(f"{source.user} does not run")
    if source.agent_due is None:
        power.boot(model, source)


def fence(model: Model, track: Track, verb: Fence) -> None:
    """Stop the source for good: at once, or once it is shut down and the replica holds its last write."""
    source = track.source()
    if not source.fenced:
        source.fenced, source.stopped_by_fence = True, source.running
        model.touch_server(source)
    if not source.running:
        return
    if verb.orderly:
        power.shut_down(model, source)
        if not source.down:
            raise Underway(f"{source.user} is shutting down")
        if why := replication.undrained(track, source):
            raise Retry(f"{source.user} is down and waits for its last writes to be copied: {why}")
        source.drained = True
    reason = "the source is fenced: a new copy starts from the beginning"
    power.end(model, source, MachineState.HALTED, copies_end=reason)


def unfence(model: Model, track: Track) -> None:
    """Let the source start again, and start it if the fence was what stopped it."""
    source = track.source()
    if source.fenced and source.stopped_by_fence:
        power.boot(model, source)
    source.fenced = source.stopped_by_fence = source.drained = False


def register(model: Model, track: Track, verb: Register) -> None:
    """Let a machine in the source zone be the server there, instead of whoever was."""
    zone, server_id = track.source_zone, track.server_id
    zone.need_answer()
    opposite = model.opposite(track)
    machine = opposite.machines.get(verb.machine) if opposite else None
    if machine is None:
        raise Refused(f"{zone.name} has no machine {verb.machine} of {server_id}")
    before = zone.server(server_id)
    if before is machine:
        return
    if before is not None:
        if before.running:
            raise Refused(f"{before.user} still runs in {zone.name}: there must not be two servers {server_id}")
        for copy in model.copies(before):
            replication.interrupt(model, copy, f"{machine.user} is the server now", resumable=False)
    zone.registered[server_id] = machine
    model.touch_server(machine)
