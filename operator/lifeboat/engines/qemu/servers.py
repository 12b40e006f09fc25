"""The servers of a zone: the machines that are protected, as their owner starts and stops them.

Which machine that is, `site_server` says. Whoever starts servers in this zone goes through `start`, which refuses while
a fence is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from lifeboat.engines.contract import Refused
from lifeboat.engines.facts import Source
from lifeboat.engines.qemu import files, forwards, images, machine, processes, site_server
from lifeboat.engines.qemu.guest import Guests
from lifeboat.engines.qemu.inventory import ServerSpec
from lifeboat.engines.qemu.qmp import CommandFailed, Monitors, Silent
from lifeboat.engines.qemu.records import (
    FENCE,
    WIPED,
    MachineRecord,
    Wanted,
    load_fence,
    load_machine,
    load_registration,
    save_machine,
    save_registration,
)
from lifeboat.engines.qemu.site_server import SiteServer
from lifeboat.engines.qemu.zones import Zone

RESET = "reset.json"


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
            await self.go_on(server.folder)
        ip, ports = server.what.elastic_ip, server.what.ports
        await forwards.ensure_elastic_ip(self._monitors, server.folder, ip, server.address, ports)

    async def start_machine(self, zone: Zone, record: MachineRecord) -> None:
        """Start a launched machine on its disks, or see that it runs, with its ways in."""
        folder = zone.machine_folder(record.server_id, record.name)
        if machine.running(folder) is None:
            await self._boot(site_server.machine_spec(zone, record))
        else:
            await self.go_on(folder)
        await forwards.ensure_elastic_ip(self._monitors, folder, record.elastic_ip, record.address, record.ports)
        port = record.url_port()
        if port is not None:
            await forwards.ensure_route(self._monitors, folder, record.address, port)
        if record.wanted is not Wanted.RUNNING:
            save_machine(zone, record.model_copy(update={"wanted": Wanted.RUNNING}))

    async def go_on(self, folder: Path) -> None:
        """Let a machine go on that stands still since its disk was full: QEMU does not try again by itself."""
        async with self._monitors.session(machine.socket(folder)) as session:
            if (await session.run("query-status"))["status"] == "io-error":
                await session.run("cont")

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
        agent = server.folder / machine.AGENT
        try:
            async with self._guests.conversation(agent, 3.0) as guest:
                await guest.run("guest-ping")
                guest.tell("guest-shutdown", {"mode": "reboot"})
        except (Silent, CommandFailed):
            await self.reset(server)
        self._guests.forget(agent)

    async def reset(self, server: SiteServer) -> None:
        """Reset a running machine as its button does, and note the moment: it is a boot that no agent may tell of."""
        await self._monitors.run(machine.socket(server.folder), "system_reset")
        moment = json.dumps({"at": self._clock().isoformat()}).encode()
        await asyncio.to_thread(files.write_atomically, server.folder / RESET, moment)

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
        folder, fenced, name = server.folder, server.fenced, server.machine
        pid = machine.running(folder)
        if pid is None:
            order = load_fence(folder)
            drained = order is not None and order.drained
            return Source(running=False, agent_connected=False, fenced=fenced, machine=name, drained=drained)
        pulse = await self._guests.pulse(folder / machine.AGENT)
        boot_time = pulse.boot_time if pulse.answers else _machine_boot_time(folder, pid)
        return Source(running=True, agent_connected=pulse.answers, boot_time=boot_time, fenced=fenced, machine=name)

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


def check_start(who: str, folder: Path, *, lifting: bool = False) -> None:
    """See that what is in a folder may start; `lifting` is for the fence's own end.

    Raises:
        Refused: it is fenced, or its disks were given up.
    """
    if site_server.is_fenced(folder) and not lifting:
        raise Refused(
            f"{who} is fenced: it was failed over to another zone and must not serve beside its "
            f"recovered copy; a rollback or a failback lifts the fence ({folder / FENCE})"
        )
    if (folder / WIPED).exists():
        raise Refused(f"{who} has no disks: they were given up for a replica ({folder / WIPED})")


def _running(zone: Zone) -> tuple[ServerSpec, ...]:
    """The inventory's own servers that run; registered machines are counted as the machines that they are."""
    return tuple(
        server for server in zone.inventory.servers if machine.running(zone.server_folder(server.id)) is not None
    )


def _machine_boot_time(folder: Path, pid: int) -> datetime | None:
    """When a machine whose agent is silent last booted, as far as seen from outside: its start, or our last reset."""
    started = processes.started_at(pid)
    with contextlib.suppress(OSError, ValueError, KeyError):
        reset = datetime.fromisoformat(json.loads((folder / RESET).read_bytes())["at"])
        return max(started or datetime.min.replace(tzinfo=UTC), reset)
    return started
