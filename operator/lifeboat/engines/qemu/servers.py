"""The servers of a zone: the machines that are protected, as their owner starts and stops them.

A fence is a file in the server's folder. Whoever starts servers in this zone goes through `start`, which refuses while
the file is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from lifeboat.engines.contract import Refused, Retry, Unreachable
from lifeboat.engines.facts import Disk, Hardware, Source
from lifeboat.engines.qemu import files, forwards, images, machine, processes
from lifeboat.engines.qemu.guest import Guests
from lifeboat.engines.qemu.inventory import ServerSpec
from lifeboat.engines.qemu.qmp import CommandFailed, Monitors, Silent
from lifeboat.engines.qemu.zones import Zone

FENCE = "fence.json"
RESET = "reset.json"
_FENCE_SECONDS = 3.0


class Servers:
    """Starting, stopping, fencing and looking at the servers of zones."""

    def __init__(self, monitors: Monitors, guests: Guests, clock: Callable[[], datetime]) -> None:
        self._monitors = monitors
        self._guests = guests
        self._clock = clock

    async def start(self, zone: Zone, server_id: str, *, lifting: bool = False) -> None:
        """Start a server, or see that it runs. `lifting` is for the fence's own end.

        Raises:
            Refused: it is fenced, or not in the inventory.
            Retry: it does not start.
        """
        server = zone.server(server_id)
        folder = zone.server_folder(server_id)
        if is_fenced(folder) and not lifting:
            raise Refused(
                f"server {server_id} is fenced: it was failed over to another zone and must not serve beside its "
                f"recovered copy; a rollback or a failback lifts the fence ({folder / FENCE})"
            )
        with files.disk_errors(zone.name):
            await asyncio.to_thread(files.make_folder, folder)
            for index, disk in enumerate(server.disks):
                path = zone.disk_file(server, index)
                if not path.exists():
                    if disk.size is None:
                        raise Refused(f"server {server_id}: disk {disk.name} has no file {path} and no size")
                    await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
                    await images.create(path, disk.size)
        address = own_address(zone, server)
        spec = machine.MachineSpec(
            name=server_id,
            folder=folder,
            cpu=server.cpu,
            memory_bytes=server.memory,
            disks=tuple(
                machine.MachineDisk(disk.name, zone.disk_file(server, index)) for index, disk in enumerate(server.disks)
            ),
            network=zone.network(server.network),
            address=address,
        )
        await machine.start(self._monitors, spec)
        await forwards.ensure_elastic_ip(self._monitors, folder, server.elastic_ip, address, server.ports)
        self._guests.forget(folder / machine.AGENT)

    async def stop(self, zone: Zone, server_id: str) -> None:
        """Stop a server as if its power was cut, its images closed cleanly, or see that it does not run."""
        zone.server(server_id)
        await machine.stop(self._monitors, zone.server_folder(server_id))

    async def restart(self, zone: Zone, server_id: str) -> None:
        """Boot a server anew inside its running machine: by its agent, or by a reset where that does not answer.

        The machine's process goes on, so replication does not have to copy everything again.
        """
        zone.server(server_id)
        folder = zone.server_folder(server_id)
        if machine.running(folder) is None:
            await self.start(zone, server_id)
            return
        agent = folder / machine.AGENT
        try:
            async with self._guests.conversation(agent, 3.0) as guest:
                await guest.run("guest-ping")
                guest.tell("guest-shutdown", {"mode": "reboot"})
        except (Silent, CommandFailed):
            await self._monitors.run(machine.socket(folder), "system_reset")
            moment = json.dumps({"at": self._clock().isoformat()}).encode()
            await asyncio.to_thread(files.write_atomically, folder / RESET, moment)
        self._guests.forget(agent)

    async def fence(self, zone: Zone, server_id: str) -> None:
        """Keep a server from serving: first the order that outlives everything, then its end, all within 3 s.

        Its file systems are frozen first where the agent answers at once, so what its applications wrote reaches the
        replica before it ends.

        Raises:
            Unreachable: it could not be done in that time.
        """
        zone.server(server_id)
        folder = zone.server_folder(server_id)
        try:
            async with asyncio.timeout(_FENCE_SECONDS):
                if not is_fenced(folder):
                    order = {"at": self._clock().isoformat(), "was_running": machine.running(folder) is not None}
                    with files.disk_errors(zone.name):
                        await asyncio.to_thread(files.make_folder, folder)
                        await asyncio.to_thread(files.write_atomically, folder / FENCE, json.dumps(order).encode())
                if machine.running(folder) is None:
                    return
                if (await self._guests.pulse(folder / machine.AGENT)).answers:
                    with contextlib.suppress(Silent, CommandFailed):
                        await self._guests.freeze(folder / machine.AGENT, 0.8)
                await machine.stop(self._monitors, folder, 1.0)
        except TimeoutError as error:
            raise Unreachable(f"server {server_id} could not be fenced within {_FENCE_SECONDS:g} s") from error
        except Retry as error:
            raise Unreachable(f"server {server_id} could not be fenced: {error}") from error
        self._guests.forget(folder / machine.AGENT)

    async def unfence(self, zone: Zone, server_id: str) -> None:
        """Lift a fence, and start the server again if the fence stopped it."""
        folder = zone.server_folder(server_id)
        try:
            order = json.loads((folder / FENCE).read_bytes())
        except FileNotFoundError:
            return
        except ValueError:
            order = {}
        # Started before the order goes: a crash in between leaves an order that can be lifted again.
        if order.get("was_running"):
            await self.start(zone, server_id, lifting=True)
        files.remove(folder / FENCE)

    async def source(self, zone: Zone, server_id: str) -> Source:
        """What a server does now."""
        folder = zone.server_folder(server_id)
        fenced = is_fenced(folder)
        pid = machine.running(folder)
        if pid is None:
            return Source(running=False, agent_connected=False, fenced=fenced)
        pulse = await self._guests.pulse(folder / machine.AGENT)
        boot_time = pulse.boot_time if pulse.answers else _machine_boot_time(folder, pid)
        return Source(running=True, agent_connected=pulse.answers, boot_time=boot_time, fenced=fenced)

    def elastic_ips(self, zone: Zone) -> dict[str, str]:
        """The elastic IPs that running servers of the inventory have."""
        return {server.elastic_ip: server.id for server in self.running(zone) if server.elastic_ip is not None}

    def addresses(self, zone: Zone, network: str) -> dict[str, str]:
        """The addresses in a network that running servers of the inventory have."""
        return {own_address(zone, each): each.id for each in self.running(zone) if each.network == network}

    def running(self, zone: Zone) -> tuple[ServerSpec, ...]:
        """The servers of the inventory that run."""
        return tuple(
            server for server in zone.inventory.servers if machine.running(zone.server_folder(server.id)) is not None
        )


def is_fenced(folder: Path) -> bool:
    """Whether a fence keeps the server in this folder from starting."""
    return (folder / FENCE).exists()


def own_address(zone: Zone, server: ServerSpec) -> str:
    """The address that a server has in its network: its own, or one by its place in the inventory."""
    if server.ip_address is not None:
        return server.ip_address
    network = zone.network(server.network)
    fixed = {each.ip_address for each in zone.inventory.servers}
    free = (str(host) for host in network.net.hosts() if str(host) not in network.reserved())
    unfixed = [each.id for each in zone.inventory.servers if each.ip_address is None and each.network == server.network]
    candidates = (host for host in free if host not in fixed)
    for _ in range(unfixed.index(server.id)):
        next(candidates, None)
    address = next(candidates, None)
    if address is None:
        raise Refused(f"network {network.name} has no address left for server {server.id}")
    return address


def hardware(zone: Zone, server: ServerSpec) -> Hardware:
    """What a server is made of. Blocking, but short: the headers of its images are read."""
    disks = []
    for index, disk in enumerate(server.disks):
        try:
            image = images.look(zone.disk_file(server, index))
            disks.append(Disk(disk.name, image.size_bytes, image.allocated_bytes))
        except FileNotFoundError:
            disks.append(Disk(disk.name, disk.size or 0, 0))
    return Hardware(server.cpu, server.memory, tuple(disks), (own_address(zone, server),))


def _machine_boot_time(folder: Path, pid: int) -> datetime | None:
    """When a machine whose agent is silent last booted, as far as seen from outside: its start, or our last reset."""
    started = processes.started_at(pid)
    with contextlib.suppress(OSError, ValueError, KeyError):
        reset = datetime.fromisoformat(json.loads((folder / RESET).read_bytes())["at"])
        return max(started or datetime.min.replace(tzinfo=UTC), reset)
    return started
