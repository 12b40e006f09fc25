"""How servers and machines start and end, and what time does to them meanwhile."""

from __future__ import annotations

from datetime import timedelta

from lifeboat.engines.contract import Refused
from lifeboat.engines.facts import MachineState
from lifeboat.engines.simulated import networks, replication
from lifeboat.engines.simulated.state import CRASHED, Model, ServerRecord

_PATIENCE = timedelta(seconds=60)


def boot(model: Model, server: ServerRecord) -> None:
    """Begin a boot at the model's time; the client comes up later, where it comes up at all."""
    if server.disks.given_up:
        raise Refused(f"the disks of {server.user} were given up for a replica")
    if not server.running:
        networks.join(server)
    server.state, server.reason, server.boot_time, server.agent = MachineState.RUNNING, "", model.now, False
    server.down, server.down_due = False, None
    server.agent_due = model.now + model.boot
    model.due[server] = None
    model.touch_server(server)


def shut_down(model: Model, server: ServerRecord) -> None:
    """Let the guest go down, or stand still where its client does not answer or it takes too long; its process stays.

    Idempotent.
    """
    if server.down or server.down_due is not None:
        return
    if server.agent:
        server.down_due = model.now + (_PATIENCE if server.ignores_shutdown else model.shutdown)
        model.due[server] = None
    else:
        _stand_still(server)
    model.touch_server(server)


def end(
    model: Model, server: ServerRecord, state: MachineState, reason: str = "", *, copies_end: str = CRASHED
) -> None:
    """End a process, whatever ended it, and every copy that ran in it."""
    networks.leave(server)
    if server.running and server.disks.merging is not None:
        server.zone.used_bytes -= server.disks.size
        server.disks.merging, server.disks.size = None, 0
    server.state, server.reason = state, reason
    server.agent, server.agent_due, server.down, server.down_due = False, None, False, None
    server.out_of_space = False
    model.due.pop(server, None)
    for copy in model.copies(server):
        replication.interrupt(model, copy, copies_end, resumable=False)
    model.touch_server(server)


def progress(model: Model) -> None:
    """Finish the boots and shutdowns that are over by now."""
    for server in list(model.due):
        if server.down_due is not None and server.down_due <= model.now:
            _stand_still(server)
        elif server.agent_due is not None and server.agent_due <= model.now:
            server.agent, server.agent_due = server.agent_starts, None
        if server.down_due is None and server.agent_due is None:
            del model.due[server]
        model.touch_server(server)


def _stand_still(server: ServerRecord) -> None:
    server.down, server.down_due, server.agent, server.agent_due = True, None, False, None
