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
from collections.abc import Callable
from datetime import datetime, timedelta

from lifeboat.engines.contract import Retry, Underway, Unreachable
from lifeboat.engines.qemu import files, machine, mirror, storage_daemon
from lifeboat.engines.qemu.guest import Guests
from lifeboat.engines.qemu.instep import InStep
from lifeboat.engines.qemu.qmp import CommandFailed, Monitors, Session, Silent
from lifeboat.engines.qemu.records import FENCE, FenceOrder, load_fence, load_replica, save_fence
from lifeboat.engines.qemu.servers import Servers
from lifeboat.engines.qemu.site_server import SiteServer
from lifeboat.engines.qemu.zones import Zone

_SECONDS = 3.0
# An agent that does not answer within this time does not shut its guest down either.
_AGENT = 1.5
_SHUTDOWN = timedelta(seconds=60)


class Fences:
    """The fences of all servers."""

    def __init__(
        self,
        monitors: Monitors,
        guests: Guests,
        servers: Servers,
        instep: InStep,
        clock: Callable[[], datetime],
    ) -> None:
        self._monitors = monitors
        self._guests = guests
        self._servers = servers
        self._instep = instep
        self._clock = clock

    async def fence(self, server: SiteServer) -> None:
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

    async def fence_orderly(self, server: SiteServer, target: Zone | None) -> None:
        """Keep a server from serving without losing a write; `target` is where its replica is, None while silent.

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
        await self._drain(server, target)
        # Written while the process is still there: whoever finds it gone knows then that nothing was lost.
        drained = (load_fence(folder) or order).model_copy(update={"drained": True})
        await asyncio.to_thread(save_fence, server.zone, folder, drained)
        await machine.stop(self._monitors, folder, 1.0)
        self._guests.forget(folder / machine.AGENT)

    async def unfence(self, server: SiteServer) -> None:
        """Lift a fence, and let the server serve again if the fence stopped it.

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
            await self._servers.start(server, lifting=True)
        files.remove(server.folder / FENCE)

    async def _order(self, server: SiteServer) -> FenceOrder:
        """The order, durable."""
        order = load_fence(server.folder)
        if order is None:
            was_running = machine.running(server.folder) is not None
            order = FenceOrder(at=self._clock(), was_running=was_running)
            await asyncio.to_thread(save_fence, server.zone, server.folder, order)
        return order

    async def _down(self, server: SiteServer, order: FenceOrder) -> bool:
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

    async def _drain(self, server: SiteServer, target: Zone | None) -> None:
        """See that the replica holds all that a server which stands still has written.

        Raises:
            Retry: it does not, or that is not known.
        """
        waits = f"server {server.server_id} is down and waits for its last writes to be copied"
        if target is None:
            raise Retry(f"{waits}: the zone of its replica does not answer")
        record = load_replica(target, server.server_id)
        if record is None or not record.replicating:
            return
        seen = await mirror.look(self._monitors, server.folder, record, target.name)
        # Nothing is under way in a guest that stands still, so the strict view is the right one.
        if seen.progress is not mirror.Progress.SYNCED:
            if seen.reason:
                raise Retry(f"{waits}: {seen.reason}")
            raise Underway(waits)
        if not record.offered or not await storage_daemon.is_offered(self._monitors, target, record):
            raise Retry(f"{waits}: the replica in zone {target.name} does not take them")
        self._instep.note(target, record)

    async def _go_on(self, server: SiteServer, order: FenceOrder) -> None:
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
            await self._servers.reset(server)
        async with self._monitors.session(socket) as session:
            # The reset is on its way: QEMU lets no guest go on that has switched itself off.
            while (await session.run("query-status"))["status"] == "shutdown":  # noqa: ASYNC110  # QEMU is asked
                await asyncio.sleep(0.02)
            await session.run("cont")
        self._guests.forget(server.folder / machine.AGENT)


async def _running(session: Session) -> bool:
    return bool((await session.run("query-status"))["running"])
