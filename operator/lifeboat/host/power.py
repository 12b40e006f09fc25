"""Machines that run: let go on, reset, and seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path

from lifeboat.engines.facts import Source
from lifeboat.host import files, machine, processes
from lifeboat.host.guest import Guests
from lifeboat.host.qmp import CommandFailed, Monitors, Silent
from lifeboat.host.records import is_fenced, load_fence

RESET = "reset.json"


async def go_on(monitors: Monitors, folder: Path) -> None:
    """Let a machine go on that stands still since its disk was full: QEMU does not try again by itself."""
    async with monitors.session(machine.socket(folder)) as session:
        if (await session.run("query-status"))["status"] == "io-error":
            await session.run("cont")


async def reset(monitors: Monitors, folder: Path, now: datetime) -> None:
    """Reset a running machine as its button does, and note the moment: it is a boot that no agent may tell of."""
    await monitors.run(machine.socket(folder), "system_reset")
    moment = json.dumps({"at": now.isoformat()}).encode()
    await asyncio.to_thread(files.write_atomically, folder / RESET, moment)


async def reboot(monitors: Monitors, guests: Guests, folder: Path, now: datetime) -> None:
    """Boot a server anew inside its running machine: by its agent, or by a reset where that does not answer.

    The machine's process goes on, so replication does not have to copy everything again.
    """
    agent = folder / machine.AGENT
    try:
        async with guests.conversation(agent, 3.0) as guest:
            await guest.run("guest-ping")
            guest.tell("guest-shutdown", {"mode": "reboot"})
    except (Silent, CommandFailed):
        await reset(monitors, folder, now)
    guests.forget(agent)


async def look(guests: Guests, folder: Path, name: str | None = None) -> Source:
    """What the server in a folder does now; `name` is the machine that it is, None for the inventory's own."""
    fenced = is_fenced(folder)
    pid = machine.running(folder)
    if pid is None:
        order = load_fence(folder)
        drained = order is not None and order.drained
        return Source(running=False, agent_connected=False, fenced=fenced, machine=name, drained=drained)
    pulse = await guests.pulse(folder / machine.AGENT)
    boot_time = pulse.boot_time if pulse.answers else _boot_time(folder, pid)
    return Source(running=True, agent_connected=pulse.answers, boot_time=boot_time, fenced=fenced, machine=name)


def _boot_time(folder: Path, pid: int) -> datetime | None:
    """When a machine whose agent is silent last booted, as far as seen from outside: its start, or our last reset."""
    started = processes.started_at(pid)
    with contextlib.suppress(OSError, ValueError, KeyError):
        reset_at = datetime.fromisoformat(json.loads((folder / RESET).read_bytes())["at"])
        return max(started or datetime.min.replace(tzinfo=UTC), reset_at)
    return started
