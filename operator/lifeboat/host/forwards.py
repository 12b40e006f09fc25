"""Ways into a machine: ports of this host that QEMU forwards to the guest.

An elastic IP is a loopback address whose ports lead to a machine's; a private route is a port on 127.0.0.1. Both are
read back from QEMU itself, so nothing has to be remembered and asking twice changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lifeboat.engines.contract import Retry
from lifeboat.host import machine
from lifeboat.host.qmp import Monitors, Session

PRIVATE = "127.0.0.1"
# A guest that listens accepts within milliseconds; a busy host is given a little more. Each look takes from the guest.
_ACCEPT_PAUSES = (0.02, 0.08, 0.2)


@dataclass(frozen=True, slots=True)
class Forward:
    """One port of this host that leads to a port of the guest."""

    host: str
    host_port: int
    guest_port: int


async def read(session: Session) -> tuple[Forward, ...]:
    """The forwards of a machine."""
    found = []
    for line in (await session.human("info usernet")).splitlines():
        words = line.split()
        # TCP[HOST_FORWARD]  15      127.0.10.5    80       10.0.1.15    80     0     0
        if len(words) >= 6 and words[0] == "TCP[HOST_FORWARD]":
            found.append(Forward(words[2], int(words[3]), int(words[5])))
    return tuple(found)


async def ensure_elastic_ip(
    monitors: Monitors, folder: Path, elastic_ip: str | None, address: str, ports: Collection[int]
) -> None:
    """Let exactly this elastic IP lead to the machine, or none.

    Raises:
        Retry: an address and port are in use by another program, or not to be had on this host.
    """
    async with monitors.session(machine.socket(folder)) as session:
        wanted = {(elastic_ip, port) for port in ports} if elastic_ip is not None else set()
        there = {(forward.host, forward.host_port) for forward in await read(session) if forward.host != PRIVATE}
        for host, port in sorted(there - wanted):
            await session.human(f"hostfwd_remove {machine.NIC} tcp:{host}:{port}")
        for host, port in sorted((str(host), port) for host, port in wanted - there):
            said = await session.human(f"hostfwd_add {machine.NIC} tcp:{host}:{port}-{address}:{port}")
            if said:
                raise Retry(f"elastic IP {host}, port {port}: in use by another program, or not allowed on this host")


async def ensure_route(monitors: Monitors, folder: Path, address: str, port: int) -> tuple[str, int]:
    """The private address and port that lead to a port of the machine, made when it is not there yet.

    Raises:
        Retry: QEMU does not make it.
    """
    async with monitors.session(machine.socket(folder)) as session:
        for _ in range(2):
            for forward in await read(session):
                if forward.host == PRIVATE and forward.guest_port == port:
                    return forward.host, forward.host_port
            # Port 0: the kernel chooses a free one.
            said = await session.human(f"hostfwd_add {machine.NIC} tcp:{PRIVATE}:0-{address}:{port}")
            if said:
                break
        raise Retry(f"no private route to port {port}: {said}")


async def until_accepted(monitors: Monitors, folder: Path, route: tuple[str, int], port: int) -> None:
    """See that something in the guest accepts connections at a route. That the route itself does proves nothing.

    QEMU accepts for the guest before it asks it; how far the guest's own end of the connection is stands in its list.

    Raises:
        Retry: nothing there accepts, or not at once.
    """
    _, writer = await asyncio.open_connection(*route)
    try:
        for pause in _ACCEPT_PAUSES:
            await asyncio.sleep(pause)
            async with monitors.session(machine.socket(folder)) as session:
                table = await session.human("info usernet")
            if _established(table, route):
                return
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    raise Retry(f"port {port} accepts no connections")


def _established(table: str, route: tuple[str, int]) -> bool:
    """Whether QEMU's list has a connection through the route whose end in the guest was accepted."""
    lines = (line.split() for line in table.splitlines())
    return any(
        len(words) >= 4 and words[0] == "TCP[ESTABLISHED]" and (words[2], words[3]) == (route[0], str(route[1]))
        for words in lines
    )


async def find_route(session: Session, port: int) -> tuple[str, int] | None:
    """The private route to a port of the machine, when there is one."""
    for forward in await read(session):
        if forward.host == PRIVATE and forward.guest_port == port:
            return forward.host, forward.host_port
    return None
