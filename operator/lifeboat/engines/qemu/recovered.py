"""Machines that are started from recovery points: a drill's or a failover's server.

Each runs on throw-away overlays over a point's files, so the point stays as it is and starting takes no copy. Nothing
here asks the primary zone anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import shutil

from lifeboat.engines.contract import NoSpace, Refused, Retry
from lifeboat.engines.facts import Machine, MachineState
from lifeboat.engines.qemu import images, layers, site_server
from lifeboat.engines.qemu.independence import Independence, is_independent
from lifeboat.engines.qemu.records import (
    MachineRecord,
    ReplicaRecord,
    all_machines,
    layer_file,
    load_machine,
    machine_disk,
    machines,
    save_machine,
)
from lifeboat.engines.qemu.servers import Servers
from lifeboat.engines.qemu.zones import Zone
from lifeboat.engines.verbs import Launch
from lifeboat.host import files, forwards, machine, power
from lifeboat.host.fences import check_start
from lifeboat.host.guest import Guests
from lifeboat.host.inventory import NetworkSpec, address_problem
from lifeboat.host.qmp import CommandFailed, Monitors, Silent
from lifeboat.host.records import Wanted, is_fenced, load_registration, save_registration

_ROOM_TO_GO_ON = 1 << 20
"""Less is used up by the next few writes: an image grows by 64 KiB, and its tables by as much."""


class Recovered:
    """The launched machines of all servers."""

    def __init__(self, monitors: Monitors, guests: Guests, servers: Servers) -> None:
        self._monitors = monitors
        self._guests = guests
        self._servers = servers
        self._independence = Independence(monitors)

    async def launch(self, zone: Zone, server_id: str, verb: Launch) -> None:
        """Start a machine from a point or on another one's kept disks, or see that it runs.

        Raises:
            Refused: point, size, network or address are not to be had.
            Retry: it does not start.
            NoSpace: the zone's disk is full.
        """
        folder = zone.machine_folder(server_id, verb.machine)
        record = load_machine(zone, server_id, verb.machine)
        if machine.running(folder) is None or record is None:
            check_start(f"machine {verb.machine}", folder)
            record = await self._prepare(zone, server_id, verb, record)
        await self._servers.start_machine(zone, record)

    async def halt(self, zone: Zone, server_id: str, name: str) -> None:
        """Stop a machine and keep its disks."""
        record = load_machine(zone, server_id, name)
        if record is None:
            return
        if record.wanted is not Wanted.HALTED:
            save_machine(zone, record.model_copy(update={"wanted": Wanted.HALTED}))
        await machine.stop(self._monitors, zone.machine_folder(server_id, name))

    async def go_on(self, zone: Zone, server_id: str, name: str) -> None:
        """Let a machine go on that stands still since the zone's disk was full.

        Raises:
            Refused: there is no such machine.
            Retry: it does not run.
            NoSpace: there is no room yet.
        """
        record = self.present(zone, server_id, name)
        folder = zone.machine_folder(server_id, name)
        if machine.running(folder) is None:
            raise Retry(f"machine {name} does not run")
        if zone.free_bytes(use_ssd=record.ssd) < _ROOM_TO_GO_ON:
            raise NoSpace(_full(zone))
        await power.go_on(self._monitors, folder)

    async def remove(self, zone: Zone, server_id: str, name: str) -> None:
        """Stop a machine and delete its disks, unless another machine runs on them.

        One that is registered is the server of its zone no longer, and its fence goes with it.
        """
        folder = zone.machine_folder(server_id, name)
        record = load_machine(zone, server_id, name)
        await machine.stop(self._monitors, folder)
        if load_registration(zone, server_id) == name:
            save_registration(zone, server_id, None)
        if record is not None:
            others = [each for each in machines(zone, server_id) if each.name != name]
            if not any(each.disks_owner == record.disks_owner and each.ssd == record.ssd for each in others):
                for index in range(len(record.disks)):
                    files.remove(machine_disk(zone, record, index))
                with contextlib.suppress(OSError):
                    machine_disk(zone, record, 0).parent.rmdir()
        if folder.exists():
            await asyncio.to_thread(shutil.rmtree, folder)

    async def move_elastic_ip(self, zone: Zone, server_id: str, name: str, elastic_ip: str | None) -> None:
        """Give a running machine another elastic IP, or none.

        Raises:
            Refused: the address is not in the pool, or taken.
            Retry: the machine does not run.
        """
        record = self.present(zone, server_id, name)
        folder = zone.machine_folder(server_id, name)
        if machine.running(folder) is None:
            raise Retry(f"machine {name} does not run")
        self._check_elastic_ip(zone, user(record), elastic_ip)
        if record.elastic_ip != elastic_ip:
            record = save_machine(zone, record.model_copy(update={"elastic_ip": elastic_ip}))
        await forwards.ensure_elastic_ip(self._monitors, folder, elastic_ip, record.address, record.ports)

    async def make_independent(self, zone: Zone, server_id: str, name: str) -> None:
        """Copy into a machine's disks what they still read from points, in the background.

        Raises:
            Retry: it does not run.
        """
        record = self.present(zone, server_id, name)
        if is_independent(zone, record):
            return
        if machine.running(zone.machine_folder(server_id, name)) is None:
            raise Retry(f"machine {name} does not run: its disks are made independent while it does")
        await self._independence.start(zone, record)

    async def observe(self, zone: Zone, record: MachineRecord) -> Machine:
        """What a machine does now. One whose launch got nowhere is halted: it holds its point and its address."""
        folder = zone.machine_folder(record.server_id, record.name)
        independent = is_independent(zone, record)
        if machine.running(folder) is None:
            match record.wanted:
                case _ if is_fenced(folder):
                    return Machine(record.name, MachineState.HALTED, record.name, independent=independent)
                case Wanted.STARTING | Wanted.HALTED:
                    return Machine(record.name, MachineState.HALTED, record.name, independent=independent)
                case Wanted.RUNNING:
                    said = files.last_lines(folder / machine.LOG) or "the guest switched itself off, or was killed"
                    return Machine(record.name, MachineState.FAILED, record.name, f"the machine ended: {said}")
        pulse = await self._guests.pulse(folder / machine.AGENT)
        reason, url, out_of_space = "", None, False
        port = record.url_port()
        with contextlib.suppress(Silent, CommandFailed):
            async with self._monitors.session(machine.socket(folder), 1.0) as session:
                if port is not None:
                    route = await forwards.find_route(session, port)
                    url = _url(record, port, route)
                status = await session.run("query-status")
                # QEMU hands every other error to the guest.
                out_of_space = status["status"] == "io-error"
                if out_of_space:
                    reason = _full(zone)
                elif not status["running"]:
                    reason = f"the machine's processors stand still: {status['status']}"
                independent = not await self._independence.look(zone, record, session) and independent
        return Machine(
            name=record.name,
            state=MachineState.RUNNING,
            instance_id=record.name,
            reason=reason,
            agent_connected=pulse.answers,
            addresses=(record.address,),
            elastic_ip=record.elastic_ip,
            url=url,
            independent=independent,
            out_of_space=out_of_space,
        )

    async def close(self) -> None:
        """Leave what is under way to the next engine."""
        await self._independence.close()

    def present(self, zone: Zone, server_id: str, name: str) -> MachineRecord:
        """A machine's record.

        Raises:
            Refused: there is no such machine.
        """
        record = load_machine(zone, server_id, name)
        if record is None:
            raise Refused(f"server {server_id} has no machine {name} in zone {zone.name}")
        return record

    def addresses(self, zone: Zone, network: str) -> dict[str, str]:
        """The addresses in a network that machines have which are not cut off from it."""
        return {each.address: user(each) for each in self._using(zone) if each.network == network and not each.isolated}

    def elastic_ips(self, zone: Zone) -> dict[str, str]:
        """The elastic IPs that launched machines have."""
        return {each.elastic_ip: user(each) for each in self._using(zone) if each.elastic_ip is not None}

    def _using(self, zone: Zone) -> tuple[MachineRecord, ...]:
        """The launched machines that run or are being started: two that start at once must not get one address."""
        return tuple(
            record
            for record in all_machines(zone)
            if record.wanted is Wanted.STARTING
            or machine.running(zone.machine_folder(record.server_id, record.name)) is not None
        )

    async def _prepare(self, zone: Zone, server_id: str, verb: Launch, record: MachineRecord | None) -> MachineRecord:
        """Check everything, then write down what is started and make its disks."""
        shape = verb.shape
        if shape.cpu > zone.cpu():
            raise Refused(f"{shape.cpu} CPUs are more than the {zone.cpu()} of zone {zone.name}")
        if shape.memory_bytes > zone.memory_bytes():
            raise Refused(f"{shape.memory_bytes} bytes of memory are more than zone {zone.name} has")
        zone.tier(shape.use_ssd)
        network = zone.network(shape.network)
        self._check_elastic_ip(zone, f"{server_id}/{verb.machine}", shape.elastic_ip)
        replica = await layers.load(self._monitors, zone, server_id)
        base = self._disks(zone, server_id, verb, record, replica)
        address = self._address(zone, server_id, verb, network, replica)
        changes = {
            "cpu": shape.cpu,
            "memory_bytes": shape.memory_bytes,
            "network": shape.network,
            "address": address,
            "elastic_ip": shape.elastic_ip,
            "isolated": shape.isolated,
            "display_name": shape.name,
            "wanted": Wanted.STARTING if record is None or record.wanted is Wanted.STARTING else record.wanted,
        }
        fresh = save_machine(zone, base.model_copy(update=changes))
        if not fresh.disks_ready:
            if replica is None:
                raise Refused(f"server {server_id} has no replica in zone {zone.name}")
            await layers.settle(self._monitors, zone, replica)
            await self._make_disks(zone, replica, fresh)
            fresh = save_machine(zone, fresh.model_copy(update={"disks_ready": True}))
        return fresh

    def _disks(
        self, zone: Zone, server_id: str, verb: Launch, record: MachineRecord | None, replica: ReplicaRecord | None
    ) -> MachineRecord:
        if record is not None:
            return record
        if verb.disks_of is not None and verb.disks_of != verb.machine:
            other = self.present(zone, server_id, verb.disks_of)
            for each in machines(zone, server_id):
                shared = each.disks_owner == other.disks_owner
                if shared and machine.running(zone.machine_folder(server_id, each.name)) is not None:
                    raise Retry(f"machine {each.name} still runs on these disks")
            return other.model_copy(update={"name": verb.machine, "wanted": Wanted.STARTING})
        layer = None if replica is None else replica.point_layer(verb.point)
        if replica is None or layer is None or layer.point is None:
            raise Refused(f"server {server_id} has no point {verb.point} in zone {zone.name}")
        if layer.point.problem is not None:
            raise Refused(f"point {verb.point} cannot be used: {layer.point.problem}")
        return MachineRecord(
            name=verb.machine,
            server_id=server_id,
            point=verb.point,
            layer=layer.number,
            disks_owner=verb.machine,
            disks=layer.disks,
            ssd=verb.shape.use_ssd,
            cpu=verb.shape.cpu,
            memory_bytes=verb.shape.memory_bytes,
            network=verb.shape.network,
            address="",
            ports=replica.ports,
        )

    async def _make_disks(self, zone: Zone, replica: ReplicaRecord, record: MachineRecord) -> None:
        layer = replica.layer(record.layer)
        with files.disk_errors(zone.name):
            for index in range(len(record.disks)):
                path = machine_disk(zone, record, index)
                await asyncio.to_thread(files.make_folder, path.parent)
                base = layer_file(zone, replica, layer, index)
                try:
                    await images.create(path, images.look(base).size_bytes, base)
                except NoSpace as error:
                    raise NoSpace(_full(zone)) from error

    def _address(
        self, zone: Zone, server_id: str, verb: Launch, network: NetworkSpec, replica: ReplicaRecord | None
    ) -> str:
        taken = {} if verb.shape.isolated else self._taken(zone, network.name, f"{server_id}/{verb.machine}")
        wanted = verb.shape.ip_address
        if wanted is not None:
            try:
                problem = address_problem(network, wanted)
            except ipaddress.AddressValueError:
                problem = f"{wanted} is not an IPv4 address"
            if problem is None and wanted in taken:
                problem = f"{wanted} is taken by {taken[wanted]}"
            if problem is not None:
                raise Refused(problem)
            return wanted
        # By DHCP: the address that the server had, here before or where its data is from, if this network has it to
        # give, else the first free one.
        before = site_server.find(zone, server_id)
        had: list[str] = [] if before is None else [before.address]
        had += [] if replica is None else replica.addresses
        for address in (*had, *(str(host) for host in network.net.hosts())):
            if address_problem(network, address) is None and address not in taken:
                return address
        raise Refused(f"network {network.name} has no free address")

    def _taken(self, zone: Zone, network: str, name: str) -> dict[str, str]:
        taken = self._servers.addresses(zone, network) | self.addresses(zone, network)
        return {address: holder for address, holder in taken.items() if holder != name}

    def _check_elastic_ip(self, zone: Zone, name: str, elastic_ip: str | None) -> None:
        if elastic_ip is None:
            return
        if elastic_ip not in zone.inventory.elastic_ips:
            raise Refused(f"{elastic_ip} is not an elastic IP of zone {zone.name}")
        holder = (self._servers.elastic_ips(zone) | self.elastic_ips(zone)).get(elastic_ip)
        if holder is not None and holder != name:
            raise Refused(f"elastic IP {elastic_ip} is in use by {holder}")


def _full(zone: Zone) -> str:
    return f"the disk of zone {zone.name} is full"


def user(record: MachineRecord) -> str:
    """Who an address is taken by, in the words of the facts."""
    return f"{record.server_id}/{record.name}"


def _url(record: MachineRecord, port: int, route: tuple[str, int] | None) -> str | None:
    if record.elastic_ip is not None:
        return f"http://{record.elastic_ip}/" if port == 80 else f"http://{record.elastic_ip}:{port}/"
    return None if route is None else f"http://{route[0]}:{route[1]}/"
