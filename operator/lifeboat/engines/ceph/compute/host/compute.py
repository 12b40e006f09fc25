"""The compute that starts QEMU on the operator's host: each question and order of the seam, and who answers it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path

from lifeboat.engines.ceph.compute import Disk, Made, Offer, Order
from lifeboat.engines.ceph.compute.host import addresses, booting, holding
from lifeboat.engines.ceph.compute.host import server as servers
from lifeboat.engines.ceph.compute.host.machines import Machines
from lifeboat.engines.ceph.compute.host.records import MachineRecord, Zone
from lifeboat.engines.ceph.compute.host.server import Server
from lifeboat.engines.ceph.connection import Connection
from lifeboat.engines.contract import ExecResult, Refused, Retry, Script
from lifeboat.engines.facts import Machine, Network, Source
from lifeboat.engines.ledger import ScriptOutcome
from lifeboat.host import machine, power, zones
from lifeboat.host.fences import Fences, check_start
from lifeboat.host.guest import Guests
from lifeboat.host.inventory import Inventory, ServerSpec
from lifeboat.host.qmp import Monitors
from lifeboat.host.records import Wiped, is_fenced, load_registration, save_registration, save_wiped


class HostCompute:
    """Servers in the zones in `folder`, each a subfolder with an inventory of servers without disks."""

    def __init__(self, folder: Path, clock: Callable[[], datetime]) -> None:
        self._zones: zones.Zones[Inventory[ServerSpec], Zone] = zones.Zones(folder, Inventory[ServerSpec], zones.Zone)
        self._clock = clock
        self._monitors = Monitors()
        self._guests = Guests()
        self._fences = Fences(self._monitors, self._guests, clock)
        self._machines = Machines(self._monitors, self._guests)

    async def offer(self, zone: str) -> Offer:
        """What the zone has."""
        return await asyncio.to_thread(self._offer, zone)

    async def made(self, zone: str, server_id: str) -> Made | None:
        """What the zone's server of that id is made of, None where it has none."""
        return await asyncio.to_thread(self._made, zone, server_id)

    async def source(self, zone: str, server_id: str) -> Source:
        """What the zone's server does now."""
        server = self._server(zone, server_id)
        return await power.look(self._guests, server.folder, server.machine)

    async def start(self, zone: str, server_id: str, disks: tuple[Disk, ...], access: Connection) -> None:
        """Start the zone's server, or see that it runs; `Refused` while it is fenced."""
        await self._start(servers.to_start(self._zones.zone(zone), server_id), disks, access)

    async def stop(self, zone: str, server_id: str) -> None:
        """Stop the zone's server as if its power was cut."""
        server = self._server(zone, server_id)
        if server.machine is not None:
            await self._machines.halt(server.zone, server_id, server.machine)
        else:
            await machine.stop(self._monitors, server.folder)

    async def restart(self, zone: str, server_id: str) -> None:
        """Boot the zone's server anew, in the process that it has."""
        server = self._server(zone, server_id)
        if is_fenced(server.folder):
            raise Refused(f"server {server_id} is fenced")
        if machine.running(server.folder) is None:
            raise Retry(f"server {server_id} does not run: start it in its zone")
        await power.reboot(self._monitors, self._guests, server.folder, self._clock())

    async def fence(self, zone: str, server_id: str) -> None:
        """Stop the zone's server, and refuse its start from now on; in less than 3 s or `Unreachable`."""
        await self._fences.fence(self._server(zone, server_id))

    async def fence_orderly(self, zone: str, server_id: str, drain: Callable[[], Awaitable[None]]) -> None:
        """Fence the zone's server in an orderly way; its process ends once `drain` returns."""
        await self._fences.fence_orderly(self._server(zone, server_id), drain)

    async def unfence(self, zone: str, server_id: str, disks: tuple[Disk, ...], access: Connection) -> None:
        """Lift the fence, and start what it stopped."""
        server = self._server(zone, server_id)
        await self._fences.unfence(server, lambda: self._start(server, disks, access, lifting=True))

    async def register(self, zone: str, server_id: str, name: str) -> None:
        """Let a machine that was launched be the zone's server from now on."""
        await asyncio.to_thread(servers.register, self._zones.zone(zone), server_id, name)

    async def check_given_up(self, zone: str, server_id: str) -> None:
        """See that the disks of the zone's server may be given up."""
        await asyncio.to_thread(servers.check_given_up, self._server(zone, server_id))

    async def give_up(self, zone: str, server_id: str, run: int) -> None:
        """Write down that they are given up for the copy of a run: the server is never started again."""
        server = self._server(zone, server_id)
        await asyncio.to_thread(save_wiped, server.zone, server.folder, Wiped(run=run))

    def hold(self, zone: str, server_id: str) -> AbstractAsyncContextManager[holding.Held]:
        """Let the zone's server stand still for a moment; it goes on by itself after that, whoever dies."""
        return holding.hold(self._monitors, self._server(zone, server_id).folder)

    async def machines(self, zone: str, server_id: str) -> dict[str, Machine]:
        """The machines that were started for a server, by name."""
        return await self._machines.observe(self._zones.zone(zone), server_id)

    async def disks(self, zone: str, server_id: str) -> dict[str, tuple[Disk, ...]]:
        """The disks of these machines, by machine."""
        return await asyncio.to_thread(lambda: self._machines.disks(self._zones.zone(zone), server_id))

    async def check(self, zone: str, order: Order) -> None:
        """See that the machine could be started; `Refused` where it could not. It leaves nothing behind."""
        self._machines.check(self._zones.zone(zone), order)

    async def launch(self, zone: str, order: Order, access: Connection) -> None:
        """Start a machine, or see that it runs."""
        await self._machines.launch(self._zones.zone(zone), order, access)

    async def halt(self, zone: str, server_id: str, name: str) -> None:
        """Stop a machine and keep its disks."""
        await self._machines.halt(self._zones.zone(zone), server_id, name)

    async def go_on(self, zone: str, server_id: str, name: str) -> None:
        """Let a machine go on that stands still for want of space."""
        folder = self._running(zone, server_id, name)
        await power.go_on(self._monitors, folder)

    async def move_elastic_ip(self, zone: str, server_id: str, name: str, elastic_ip: str | None) -> None:
        """Give a running machine another elastic IP, or none."""
        self._running(zone, server_id, name)
        await self._machines.move_elastic_ip(self._zones.zone(zone), server_id, name, elastic_ip)

    async def remove(self, zone: str, server_id: str, name: str) -> None:
        """Stop a machine and forget it, or see that there is none. A registered one is the server no longer."""
        found = self._zones.zone(zone)
        folder = found.machine_folder(server_id, name)
        await machine.stop(self._monitors, folder)
        if load_registration(found, server_id) == name:
            await asyncio.to_thread(save_registration, found, server_id, None)
        with contextlib.suppress(FileNotFoundError):
            await asyncio.to_thread(shutil.rmtree, folder)

    async def route(self, zone: str, server_id: str, name: str, port: int) -> tuple[str, int]:
        """A private address and port that lead to a port of a machine."""
        folder = self._running(zone, server_id, name)
        return await self._machines.route(self._zones.zone(zone), server_id, name, folder, port)

    async def execute(self, zone: str, server_id: str, name: str, argv: Collection[str], seconds: float) -> ExecResult:
        """Run a program in a machine's guest."""
        if not argv:
            raise Refused("there is no program to run")
        return await self._guests.execute(self._running(zone, server_id, name) / machine.AGENT, argv, seconds)

    async def run_script(self, zone: str, server_id: str, name: str, script: Script, seconds: float) -> ScriptOutcome:
        """Run a script in a machine's guest, once for each key."""
        return await self._guests.run_script(self._running(zone, server_id, name) / machine.AGENT, script, seconds)

    async def close(self) -> None:
        """Stop asking guests; what runs goes on."""
        await self._guests.close()

    def _offer(self, zone: str) -> Offer:
        found = self._zones.zone(zone)
        pool: dict[str, str | None] = dict.fromkeys(found.inventory.elastic_ips)
        return Offer(
            namespaces=found.inventory.namespaces,
            networks=tuple(
                Network(each.name, each.cidr, each.reserved() | addresses.taken(found, each.name))
                for each in found.inventory.networks
            ),
            elastic_ips=pool | addresses.elastic_ips(found),
            cpu=found.cpu(),
            memory_bytes=found.memory_bytes(),
            servers=tuple(server.id for server in found.inventory.servers),
        )

    def _made(self, zone: str, server_id: str) -> Made | None:
        server = servers.find(self._zones.zone(zone), server_id)
        return None if server is None else server.made()

    async def _start(
        self, server: Server, disks: tuple[Disk, ...], access: Connection, *, lifting: bool = False
    ) -> None:
        check_start(f"server {server.server_id}", server.folder, lifting=lifting)
        if isinstance(server.what, MachineRecord):
            await self._machines.start(server.zone, server.what, access)
            return
        address = addresses.own(server.zone, server.what)
        spec = booting.spec(
            name=server.server_id,
            hostname=server.server_id,
            folder=server.folder,
            cpu=server.what.cpu,
            memory_bytes=server.what.memory,
            disks=disks,
            network=server.zone.network(server.what.network),
            address=address,
            access=access,
        )
        await booting.boot(self._monitors, spec, access)
        self._guests.forget(server.folder / machine.AGENT)
        await self._machines.ways_in(server.folder, server.what.elastic_ip, address, server.what.ports)

    def _server(self, zone: str, server_id: str) -> Server:
        return servers.present(self._zones.zone(zone), server_id)

    def _running(self, zone: str, server_id: str, name: str) -> Path:
        found = self._zones.zone(zone)
        self._machines.present(found, server_id, name)
        folder = found.machine_folder(server_id, name)
        if machine.running(folder) is None:
            raise Retry(f"machine {name} does not run")
        return folder
