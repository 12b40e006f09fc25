"""Where servers run: the seam between the engine, which has their disks, and whatever starts them.

A compute knows servers, machines, networks and addresses, and takes disks as images of a pool. It knows nothing of
replicas and points. There is one that starts QEMU on the operator's host (`host`), and one that hands machines to
KubeVirt (`kubevirt`); which one a site of a pair has is said in `computes`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from lifeboat.engines.ceph.connection import Connection
from lifeboat.engines.contract import ExecResult, Script
from lifeboat.engines.facts import Machine, Network, Source
from lifeboat.engines.ledger import ScriptOutcome
from lifeboat.engines.verbs import Shape


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a server or machine: an image in a pool of its site's cluster. Its size is told, and is not it."""

    name: str
    pool: str
    image: str
    size_bytes: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Made:
    """What a server is made of.

    `machine` and `disks` are of a launched machine that is registered as the server; the disks of any other one are
    told by the images themselves. `known` is false where what it is made of cannot be told while it does not run.
    """

    cpu: int
    memory_bytes: int
    addresses: tuple[str, ...]
    ports: tuple[int, ...] = ()
    machine: str | None = None
    disks: tuple[Disk, ...] = ()
    known: bool = True


@dataclass(frozen=True, slots=True)
class Offer:
    """What a zone has to run servers with."""

    namespaces: tuple[str, ...]
    networks: tuple[Network, ...]
    elastic_ips: Mapping[str, str | None]
    cpu: int
    memory_bytes: int
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """A machine to start. `had` are addresses that its server had before, to be had again where that is possible."""

    server_id: str
    name: str
    shape: Shape
    disks: tuple[Disk, ...]
    ports: tuple[int, ...] = ()
    had: tuple[str, ...] = ()


class Hold(Protocol):
    """A server that stands still."""

    async def kept(self) -> bool:
        """Let it go on; whether it stood still all the time until now."""
        ...


class Compute(Protocol):
    """What runs the servers of zones. A zone that does not answer raises `Unreachable` everywhere."""

    async def offer(self, zone: str) -> Offer:
        """What the zone has."""
        ...

    async def made(self, zone: str, server_id: str) -> Made | None:
        """What the zone's server of that id is made of, None where it has none."""
        ...

    async def source(self, zone: str, server_id: str) -> Source:
        """What the zone's server does now."""
        ...

    async def start(self, zone: str, server_id: str, disks: tuple[Disk, ...], access: Connection) -> None:
        """Start the zone's server, or see that it runs; `Refused` while it is fenced."""
        ...

    async def stop(self, zone: str, server_id: str) -> None:
        """Stop the zone's server as if its power was cut."""
        ...

    async def restart(self, zone: str, server_id: str) -> None:
        """Boot the zone's server anew, in the process that it has."""
        ...

    async def fence(self, zone: str, server_id: str) -> None:
        """Stop the zone's server, and refuse its start from now on; in less than 3 s or `Unreachable`."""
        ...

    async def fence_orderly(self, zone: str, server_id: str, drain: Callable[[], Awaitable[None]]) -> None:
        """Fence the zone's server and let its guest end in an orderly way; its process ends once `drain` returns.

        Raises:
            Retry: it is not at its end yet; the message says what is waited for.
        """
        ...

    async def unfence(self, zone: str, server_id: str, disks: tuple[Disk, ...], access: Connection) -> None:
        """Lift the fence, and start what it stopped."""
        ...

    async def register(self, zone: str, server_id: str, name: str) -> None:
        """Let a machine that was launched be the zone's server from now on.

        Raises:
            Refused: there is no such machine, or what is the server now runs.
        """
        ...

    async def check_given_up(self, zone: str, server_id: str) -> None:
        """See that the disks of the zone's server may be given up.

        Raises:
            Refused: it is not known to be stopped and fenced, or another machine runs on them.
        """
        ...

    async def give_up(self, zone: str, server_id: str, run: int) -> None:
        """Write down that they are given up for the copy of a run: the server is never started again."""
        ...

    def hold(self, zone: str, server_id: str) -> AbstractAsyncContextManager[Hold]:
        """Let the zone's server stand still for a moment; it goes on by itself after that, whoever dies."""
        ...

    async def machines(self, zone: str, server_id: str) -> dict[str, Machine]:
        """The machines that were started for a server, by name."""
        ...

    async def disks(self, zone: str, server_id: str) -> dict[str, tuple[Disk, ...]]:
        """The disks of these machines, by machine."""
        ...

    async def check(self, zone: str, order: Order) -> None:
        """See that the machine could be started; `Refused` where it could not. It leaves nothing behind."""
        ...

    async def launch(self, zone: str, order: Order, access: Connection) -> None:
        """Start a machine, or see that it runs."""
        ...

    async def halt(self, zone: str, server_id: str, name: str) -> None:
        """Stop a machine and keep its disks."""
        ...

    async def go_on(self, zone: str, server_id: str, name: str) -> None:
        """Let a machine go on that stands still for want of space."""
        ...

    async def move_elastic_ip(self, zone: str, server_id: str, name: str, elastic_ip: str | None) -> None:
        """Give a running machine another elastic IP, or none."""
        ...

    async def remove(self, zone: str, server_id: str, name: str) -> None:
        """Stop a machine and forget it, or see that there is none. A registered one is the server no longer."""
        ...

    async def route(self, zone: str, server_id: str, name: str, port: int) -> tuple[str, int]:
        """A private address and port that lead to a port of a machine."""
        ...

    async def execute(self, zone: str, server_id: str, name: str, argv: Collection[str], seconds: float) -> ExecResult:
        """Run a program in a machine's guest."""
        ...

    async def run_script(self, zone: str, server_id: str, name: str, script: Script, seconds: float) -> ScriptOutcome:
        """Run a script in a machine's guest, once for each key."""
        ...

    async def close(self) -> None:
        """Let go of connections; what runs goes on."""
        ...
