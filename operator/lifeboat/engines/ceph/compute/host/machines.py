"""Machines that are started on this host on the disks that the engine hands over: a drill's or a failover's server."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

from lifeboat.engines.ceph.compute import Disk, Order
from lifeboat.engines.ceph.compute.host import addresses, booting
from lifeboat.engines.ceph.compute.host.records import (
    DiskRecord,
    MachineRecord,
    Zone,
    load_machine,
    machines,
    save_machine,
)
from lifeboat.engines.ceph.connection import Connection
from lifeboat.engines.contract import Refused
from lifeboat.engines.facts import Machine, MachineState
from lifeboat.host import files, forwards, machine
from lifeboat.host.fences import check_start
from lifeboat.host.guest import Guests
from lifeboat.host.qmp import CommandFailed, Monitors, Silent
from lifeboat.host.records import Wanted, is_fenced


class Machines:
    """The launched machines of all servers."""

    def __init__(self, monitors: Monitors, guests: Guests) -> None:
        self._monitors = monitors
        self._guests = guests

    def check(self, zone: Zone, order: Order) -> str:
        """See that a machine could be started; the answer is the address that it would have.

        Raises:
            Refused: it could not.
        """
        shape = order.shape
        if shape.cpu > zone.cpu():
            raise Refused(f"{shape.cpu} CPUs are more than the {zone.cpu()} of zone {zone.name}")
        if shape.memory_bytes > zone.memory_bytes():
            raise Refused(f"{shape.memory_bytes} bytes of memory are more than zone {zone.name} has")
        addresses.check_elastic_ip(zone, f"{order.server_id}/{order.name}", shape.elastic_ip)
        return addresses.choose(zone, order)

    async def launch(self, zone: Zone, order: Order, access: Connection) -> None:
        """Start a machine, or see that it runs, with its ways in.

        Raises:
            Refused: it cannot have what was asked for.
            Retry: it does not start.
        """
        folder = zone.machine_folder(order.server_id, order.name)
        record = load_machine(zone, order.server_id, order.name)
        if record is None or machine.running(folder) is None:
            check_start(f"machine {order.name}", folder)
            record = self._recorded(zone, order, record)
        await self.start(zone, record, access)

    async def start(self, zone: Zone, record: MachineRecord, access: Connection) -> None:
        """Start a launched machine on its disks, or see that it runs, with its ways in."""
        folder = zone.machine_folder(record.server_id, record.name)
        spec = booting.spec(
            name=record.name,
            hostname=record.display_name or record.server_id,
            folder=folder,
            cpu=record.cpu,
            memory_bytes=record.memory_bytes,
            disks=record.images(),
            network=zone.network(record.network),
            address=record.address,
            access=access,
        )
        if machine.running(folder) is None:
            await booting.boot(self._monitors, spec, access)
            self._guests.forget(folder / machine.AGENT)
        await self.ways_in(folder, record.elastic_ip, record.address, record.ports)
        port = record.url_port()
        if port is not None:
            await forwards.ensure_route(self._monitors, folder, record.address, port)
        if record.wanted is not Wanted.RUNNING:
            save_machine(zone, record.model_copy(update={"wanted": Wanted.RUNNING}))

    async def ways_in(self, folder: Path, elastic_ip: str | None, address: str, ports: Collection[int]) -> None:
        """Let exactly this elastic IP lead to the machine in a folder, or none."""
        await forwards.ensure_elastic_ip(self._monitors, folder, elastic_ip, address, ports)

    async def halt(self, zone: Zone, server_id: str, name: str) -> None:
        """Stop a machine and keep its disks."""
        record = load_machine(zone, server_id, name)
        if record is None:
            return
        if record.wanted is not Wanted.HALTED:
            save_machine(zone, record.model_copy(update={"wanted": Wanted.HALTED}))
        await machine.stop(self._monitors, zone.machine_folder(server_id, name))

    async def move_elastic_ip(self, zone: Zone, server_id: str, name: str, elastic_ip: str | None) -> None:
        """Give a running machine another elastic IP, or none."""
        record = self.present(zone, server_id, name)
        addresses.check_elastic_ip(zone, record.user, elastic_ip)
        if record.elastic_ip != elastic_ip:
            record = save_machine(zone, record.model_copy(update={"elastic_ip": elastic_ip}))
        await self.ways_in(zone.machine_folder(server_id, name), elastic_ip, record.address, record.ports)

    async def route(self, zone: Zone, server_id: str, name: str, folder: Path, port: int) -> tuple[str, int]:
        """A private address and port that lead to a port of a machine, once something there accepts connections."""
        record = self.present(zone, server_id, name)
        route = await forwards.ensure_route(self._monitors, folder, record.address, port)
        await forwards.until_accepted(self._monitors, folder, route, port)
        return route

    def present(self, zone: Zone, server_id: str, name: str) -> MachineRecord:
        """A machine's record.

        Raises:
            Refused: there is no such machine.
        """
        record = load_machine(zone, server_id, name)
        if record is None:
            raise Refused(f"server {server_id} has no machine {name} in zone {zone.name}")
        return record

    def disks(self, zone: Zone, server_id: str) -> dict[str, tuple[Disk, ...]]:
        """The disks of a server's machines, by machine."""
        return {record.name: record.images() for record in machines(zone, server_id)}

    async def observe(self, zone: Zone, server_id: str) -> dict[str, Machine]:
        """What a server's machines do now, by name."""
        records = machines(zone, server_id)
        found = await asyncio.gather(*(self._look(zone, record) for record in records))
        return {each.name: each for each in found}

    async def _look(self, zone: Zone, record: MachineRecord) -> Machine:
        folder = zone.machine_folder(record.server_id, record.name)
        if machine.running(folder) is None:
            if record.wanted is not Wanted.RUNNING or is_fenced(folder):
                return Machine(record.name, MachineState.HALTED, record.name)
            said = files.last_lines(folder / machine.LOG) or "the guest switched itself off, or was killed"
            return Machine(record.name, MachineState.FAILED, record.name, f"the machine ended: {said}")
        pulse = await self._guests.pulse(folder / machine.AGENT)
        reason, url, full = "", None, False
        try:
            async with self._monitors.session(machine.socket(folder)) as session:
                port = record.url_port()
                if port is not None:
                    url = _url(record, port, await forwards.find_route(session, port))
                status = await session.run("query-status")
                full = status["status"] == "io-error"
                if full:
                    reason = f"the Ceph cluster of zone {zone.name} is full"
                elif not status["running"]:
                    reason = f"the machine's processors stand still: {status['status']}"
        except (Silent, CommandFailed) as error:
            reason = str(error)
        return Machine(
            name=record.name,
            state=MachineState.RUNNING,
            instance_id=record.name,
            reason=reason,
            agent_connected=pulse.answers,
            addresses=(record.address,),
            elastic_ip=record.elastic_ip,
            url=url,
            out_of_space=full,
        )

    def _recorded(self, zone: Zone, order: Order, before: MachineRecord | None) -> MachineRecord:
        """Check everything, then write down what is started."""
        address = self.check(zone, order)
        shape = order.shape
        starting = before is None or before.wanted is Wanted.STARTING
        return save_machine(
            zone,
            MachineRecord(
                name=order.name,
                server_id=order.server_id,
                disks=tuple(DiskRecord(name=each.name, pool=each.pool, image=each.image) for each in order.disks),
                cpu=shape.cpu,
                memory_bytes=shape.memory_bytes,
                network=shape.network,
                address=address,
                elastic_ip=shape.elastic_ip,
                isolated=shape.isolated,
                ports=order.ports,
                wanted=Wanted.STARTING if starting or before is None else before.wanted,
                display_name=shape.name,
            ),
        )


def _url(record: MachineRecord, port: int, route: tuple[str, int] | None) -> str | None:
    if record.elastic_ip is not None:
        return f"http://{record.elastic_ip}/" if port == 80 else f"http://{record.elastic_ip}:{port}/"
    return None if route is None else f"http://{route[0]}:{route[1]}/"
