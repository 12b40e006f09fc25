"""The servers of a zone: the machines that are protected, as their owner starts and stops them.

Which machine that is, `site_server` says. Whoever starts servers in this zone goes through `start`, which refuses while
a fence is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from lifeboat.engines.contract import Refused
from lifeboat.engines.facts import Source
from lifeboat.engines.qemu import images, site_server
from lifeboat.engines.qemu.inventory import ServerSpec
from lifeboat.engines.qemu.records import (
    MachineRecord,
    load_machine,
    save_machine,
)
from lifeboat.engines.qemu.site_server import SiteServer
from lifeboat.engines.qemu.zones import Zone
from lifeboat.host import files, forwards, machine, power
from lifeboat.host.fences import check_start
from lifeboat.host.guest import Guests
from lifeboat.host.qmp import Monitors
from lifeboat.host.records import Wanted, load_registration, save_registration


class Servers:
    """Starting, stopping and looking at the servers of zones."""

    def __init__(self, monitors: Monitors, guests: Guests, clock: Callable[[], datetime]) -> None:
        self._monitors = monitors
        self._guests = guests
        self._clock = clock

    async def start(self, server: SiteServer, *, lifting: bool = False) -> None:
        """Start a server, or see that it runs. `lifting` is for the fence's own end.

        Raises:
            Refused: it is fenced, or its disks were given up.
            Retry: it does not start.
        """
        check_start(f"server {server.server_id}", server.folder, lifting=lifting)
        if isinstance(server.what, MachineRecord):
            await self.start_machine(server.zone, server.what)
            return
        with files.disk_errors(server.zone.name):
            await asyncio.to_thread(files.make_folder, server.folder)
            for disk, path in zip(server.what.disks, server.disk_files(), strict=True):
                if not path.exists():
                    if disk.size is None:
                        raise Refused(f"server {server.server_id}: disk {disk.name} has no file {path} and no size")
                    await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
                    await images.create(path, disk.size, raw=disk.format == "raw")
                elif disk.format == "qcow2" and images.look(path).format == "raw":
                    raise Refused(
                        f"server {server.server_id}: disk {disk.name} is no qcow2 image; "
                        f"write `format: raw` beside its file in the inventory of zone {server.zone.name}"
                    )
        if machine.running(server.folder) is None:
            await self._boot(server.spec())
        else:
            await power.go_on(self._monitors, server.folder)
        ip, ports = server.what.elastic_ip, server.what.ports
        await forwards.ensure_elastic_ip(self._monitors, server.folder, ip, server.address, ports)

    async def start_machine(self, zone: Zone, record: MachineRecord) -> None:
        """Start a launched machine on its disks, or see that it runs, with its ways in."""
        folder = zone.machine_folder(record.server_id, record.name)
        if machine.running(folder) is None:
            await self._boot(site_server.machine_spec(zone, record))
        else:
            await power.go_on(self._monitors, folder)
        await forwards.ensure_elastic_ip(self._monitors, folder, record.elastic_ip, record.address, record.ports)
        port = record.url_port()
        if port is not None:
            await forwards.ensure_route(self._monitors, folder, record.address, port)
        if record.wanted is not Wanted.RUNNING:
            save_machine(zone, record.model_copy(update={"wanted": Wanted.RUNNING}))

    async def stop(self, server: SiteServer) -> None:
        """Stop a server as if its power was cut, its images closed cleanly, or see that it does not run."""
        if isinstance(server.what, MachineRecord) and server.what.wanted is not Wanted.HALTED:
            save_machine(server.zone, server.what.model_copy(update={"wanted": Wanted.HALTED}))
        await machine.stop(self._monitors, server.folder)

    async def restart(self, server: SiteServer) -> None:
        """Boot a server anew inside its running machine: by its agent, or by a reset where that does not answer.

        The machine's process goes on, so replication does not have to copy everything again.
        """
        if machine.running(server.folder) is None:
            await self.start(server)
            return
        await power.reboot(self._monitors, self._guests, server.folder, self._clock())

    def register(self, zone: Zone, server_id: str, name: str, *, registered_only: bool) -> None:
        """Let a launched machine be the server of its zone from now on, or see that it is.

        Raises:
            Refused: there is no such machine, or another server of this id runs or is not ours to replace.
        """
        record = load_machine(zone, server_id, name)
        if record is None:
            raise Refused(f"zone {zone.name} has no machine {name!r} of server {server_id}")
        if load_registration(zone, server_id) == name:
            return
        if record.isolated:
            raise Refused(f"machine {name} is isolated: a drill's machine serves nobody")
        if registered_only and zone.inventory.server(server_id) is not None:
            raise Refused(f"zone {zone.name} has a server {server_id} of its own: machine {name} cannot be it as well")
        before = site_server.find(zone, server_id)
        if before is not None and machine.running(before.folder) is not None:
            raise Refused(f"the server {server_id} that zone {zone.name} has now still runs")
        with files.disk_errors(zone.name):
            save_registration(zone, server_id, name)

    async def source(self, server: SiteServer) -> Source:
        """What a server does now."""
        return await power.look(self._guests, server.folder, server.machine)

    def elastic_ips(self, zone: Zone) -> dict[str, str]:
        """The elastic IPs that running servers of the inventory have."""
        return {server.elastic_ip: server.id for server in _running(zone) if server.elastic_ip is not None}

    def addresses(self, zone: Zone, network: str) -> dict[str, str]:
        """The addresses in a network that running servers of the inventory have."""
        return {
            SiteServer(zone, server.id, server).address: server.id
            for server in _running(zone)
            if server.network == network
        }

    async def _boot(self, spec: machine.MachineSpec) -> None:
        await machine.start(self._monitors, spec)
        self._guests.forget(spec.folder / machine.AGENT)


def _running(zone: Zone) -> tuple[ServerSpec, ...]:
    """The inventory's own servers that run; registered machines are counted as the machines that they are."""
    return tuple(
        server for server in zone.inventory.servers if machine.running(zone.server_folder(server.id)) is not None
    )
