"""Fences: keeping a server from serving, at once or in an orderly way, and letting it serve again.

A fence is a file beside the server's process, written before anything is stopped. Whoever starts servers of this zone
sees it there.

The orderly way loses nothing: the guest is shut down by its agent, and stands still as it is where it does not go down;
its process goes on, and with it the copy. Only once the replica is known to hold the last write does the process end.
Each call does what can be done at once and raises `Retry` until the end is reached; how far it got is read from the
order and from QEMU, so that any engine goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from lifeboat.engines.contract import Refused, Retry, Underway, Unreachable
from lifeboat.host import files, machine, power
from lifeboat.host.guest import Guests
from lifeboat.host.qmp import CommandFailed, Monitors, Session, Silent
from lifeboat.host.records import FENCE, WIPED, FenceOrder, is_fenced, load_fence, save_fence
from lifeboat.host.zones import Zone

_SECONDS = 3.0
# An agent that does not answer within this time does not shut its guest down either.
_AGENT = 1.5
_SHUTDOWN = timedelta(seconds=60)


class Fenced(Protocol):
    """A server that is kept from serving."""

    @property
    def server_id(self) -> str:
        """Its id."""
        ...

    @property
    def zone(self) -> Zone[Any]:
        """Its zone."""
        ...

    @property
    def folder(self) -> Path:
        """Where it runs."""
        ...


class Fences:
    """The fences of all servers."""

    def __init__(self, monitors: Monitors, guests: Guests, clock: Callable[[], datetime]) -> None:
        self._monitors = monitors
        self._guests = guests
        self._clock = clock

    async def fence(self, server: Fenced) -> None:
        """Keep a server from serving: first the order that outlives everything, then its end, all within 3 s.

        Its file systems are frozen first where the agent answers at once, so what its applications wrote reaches the
        replica before it ends.

        Raises:
            Unreachable: it could not be done in that time.
        """
        folder = server.folder
        try:
            async with asyncio.timeout(_SECONDS):
                await self._order(server)
                if machine.running(folder) is None:
                    return
                if (await self._guests.pulse(folder / machine.AGENT)).answers:
                    with contextlib.suppress(Silent, CommandFailed):
                        await self._guests.freeze(folder / machine.AGENT, 0.8)
                await machine.stop(self._monitors, folder, 1.0)
        except TimeoutError as error:
            raise Unreachable(f"server {server.server_id} could not be fenced within {_SECONDS:g} s") from error
        except Retry as error:
            raise Unreachable(f"server {server.server_id} could not be fenced: {error}") from error
        self._guests.forget(folder / machine.AGENT)

    async def fence_orderly(self, server: Fenced, drain: Callable[[], Awaitable[None]]) -> None:
        """Keep a server from serving without losing a write; `drain` returns once the replica holds the last one.

        Raises:
            Retry: it is not at its end yet; the message says what is waited for.
        """
        folder = server.folder
        order = await self._order(server)
        if machine.running(folder) is None:
            return
        async with self._monitors.session(machine.socket(folder)) as session:
            running = await _running(session)
            if running:
                # Its process stays when the guest has gone down: the copy lives in there.
                await session.run("set-action", {"shutdown": "pause"})
        if running and not await self._down(server, order):
            raise Underway(f"server {server.server_id} is shutting down")
        await drain()
        # Written while the process is still there: whoever finds it gone knows then that nothing was lost.
        drained = (load_fence(folder) or order).model_copy(update={"drained": True})
        await asyncio.to_thread(save_fence, server.zone, folder, drained)
        await machine.stop(self._monitors, folder, 1.0)
        self._guests.forget(folder / machine.AGENT)

    async def unfence(self, server: Fenced, start: Callable[[], Awaitable[None]]) -> None:
        """Lift a fence, and let the server serve again by `start`, which does not mind the fence, if that stopped it.

        Raises:
            Retry: it does not start, or is still going down.
        """
        order = load_fence(server.folder)
        if order is None:
            return
        # Started before the order goes: a crash in between leaves an order that can be lifted again.
        if order.was_running:
            if machine.running(server.folder) is not None:
                await self._go_on(server, order)
            await start()
        files.remove(server.folder / FENCE)

    async def _order(self, server: Fenced) -> FenceOrder:
        """The order, durable."""
        order = load_fence(server.folder)
        if order is None:
            was_running = machine.running(server.folder) is not None
            order = FenceOrder(at=self._clock(), was_running=was_running)
            await asyncio.to_thread(save_fence, server.zone, server.folder, order)
        return order

    async def _down(self, server: Fenced, order: FenceOrder) -> bool:
        """Let a guest that runs go down; whether it stands still now."""
        if order.asked_at is None:
            asked = order.model_copy(update={"asked_at": self._clock()})
            await asyncio.to_thread(save_fence, server.zone, server.folder, asked)
            agent = server.folder / machine.AGENT
            # A look that asks this agent would be in the way.
            self._guests.forget(agent)
            with contextlib.suppress(Silent, CommandFailed):
                async with self._guests.conversation(agent, _AGENT) as guest:
                    await guest.run("guest-ping")
                    guest.tell("guest-shutdown", {"mode": "powerdown"})
                return False
        elif self._clock() - order.asked_at < _SHUTDOWN:
            return False
        await self._monitors.run(machine.socket(server.folder), "stop")
        return True

    async def _go_on(self, server: Fenced, order: FenceOrder) -> None:
        """Let a server go on whose process an orderly fence has not ended: a guest that went down boots anew.

        Raises:
            Retry: it is still going down.
        """
        socket = machine.socket(server.folder)
        async with self._monitors.session(socket) as session:
            running = await _running(session)
        if running and order.asked_at is not None and self._clock() - order.asked_at < _SHUTDOWN:
            raise Underway(f"server {server.server_id} is still shutting down: it is started when it is down")
        await self._monitors.run(socket, "set-action", {"shutdown": "poweroff"})
        if running:
            return
        async with self._monitors.session(socket) as session:
            down = (await session.run("query-status"))["status"] == "shutdown"
        if down:
            await power.reset(self._monitors, server.folder, self._clock())
        async with self._monitors.session(socket) as session:
            # The reset is on its way: QEMU lets no guest go on that has switched itself off.
            while (await session.run("query-status"))["status"] == "shutdown":  # noqa: ASYNC110  # QEMU is asked
                await asyncio.sleep(0.02)
            await session.run("cont")
        self._guests.forget(server.folder / machine.AGENT)


def check_start(who: str, folder: Path, *, lifting: bool = False) -> None:
    """See that what is in a folder may start; `lifting` is for the fence's own end.

    Raises:
        Refused: it is fenced, or its disks were given up.
    """
    if is_fenced(folder) and not lifting:
        raise Refused(
            f"{who} is fenced: it was failed over to another zone and must not serve beside its "
            f"recovered copy; a rollback or a failback lifts the fence ({folder / FENCE})"
        )
    if (folder / WIPED).exists():
        raise Refused(f"{who} has no disks: they were given up for a replica ({folder / WIPED})")


async def _running(session: Session) -> bool:
    return bool((await session.run("query-status"))["running"])
