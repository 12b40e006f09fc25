"""The server that a site has under an id: the one of its inventory, or a launched machine that was registered as it.

Whoever speaks of a server means the one of these that counts. Which that is stands in one small file in the zone, so it
holds whoever forgets what. A registered machine supersedes the inventory's server, which stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lifeboat.engines.contract import Refused, Retry
from lifeboat.engines.facts import Disk, Hardware
from lifeboat.engines.qemu import images
from lifeboat.engines.qemu.inventory import ServerSpec
from lifeboat.engines.qemu.records import (
    MachineRecord,
    layer_file,
    load_machine,
    load_replica,
    machine_disk,
    machines,
)
from lifeboat.engines.qemu.zones import Zone
from lifeboat.host.machine import MachineDisk, MachineSpec
from lifeboat.host.records import Wanted, is_fenced, load_registration, registrations


@dataclass(frozen=True, slots=True)
class SiteServer:
    """One server of a zone: `what` says which of the two sorts it is."""

    zone: Zone
    server_id: str
    what: ServerSpec | MachineRecord

    @property
    def machine(self) -> str | None:
        """The registered machine's name, None for the inventory's own server."""
        return self.what.name if isinstance(self.what, MachineRecord) else None

    @property
    def folder(self) -> Path:
        """Where it runs: its sockets, its pid file, its fence."""
        if isinstance(self.what, MachineRecord):
            return self.zone.machine_folder(self.server_id, self.what.name)
        return self.zone.server_folder(self.server_id)

    @property
    def fenced(self) -> bool:
        """Whether a fence keeps it from starting."""
        return is_fenced(self.folder)

    @property
    def memory_bytes(self) -> int:
        """The memory that its guest sees."""
        return self.what.memory_bytes if isinstance(self.what, MachineRecord) else self.what.memory

    @property
    def address(self) -> str:
        """The address that it has in its network."""
        return self.what.address if isinstance(self.what, MachineRecord) else _own_address(self.zone, self.what)

    @property
    def fixed_addresses(self) -> tuple[str, ...]:
        """The address that it has wherever it runs, where it has one."""
        found = self.what.address if isinstance(self.what, MachineRecord) else self.what.ip_address
        return () if found is None else (found,)

    @property
    def disk_names(self) -> tuple[str, ...]:
        """The names of its disks, the one to boot from first."""
        if isinstance(self.what, MachineRecord):
            return self.what.disks
        return tuple(disk.name for disk in self.what.disks)

    def disk_files(self) -> tuple[Path, ...]:
        """The image files of its disks."""
        if isinstance(self.what, MachineRecord):
            record = self.what
            return tuple(machine_disk(self.zone, record, index) for index in range(len(record.disks)))
        return tuple(self.zone.disk_file(self.what, index) for index in range(len(self.what.disks)))

    @property
    def raw_disks(self) -> tuple[bool, ...]:
        """Of each of its disks, whether the image is a raw one."""
        if isinstance(self.what, MachineRecord):
            return (False,) * len(self.what.disks)
        return tuple(disk.format == "raw" for disk in self.what.disks)

    def images(self) -> tuple[images.Image, ...]:
        """What its disks' images say of themselves. Blocking, but short.

        Raises:
            OSError: a disk is not there.
        """
        return tuple(images.look(path, raw=raw) for path, raw in zip(self.disk_files(), self.raw_disks, strict=True))

    def spec(self) -> MachineSpec:
        """What its machine is made of. Blocking, but short: the headers of its images are read.

        Raises:
            OSError: a disk is not there.
        """
        if isinstance(self.what, MachineRecord):
            return machine_spec(self.zone, self.what)
        return MachineSpec(
            name=self.server_id,
            hostname=self.server_id,
            folder=self.folder,
            cpu=self.what.cpu,
            memory_bytes=self.what.memory,
            disks=tuple(
                MachineDisk(disk.name, images.block(path, image_format=disk.format))
                for disk, path in zip(self.what.disks, self.disk_files(), strict=True)
            ),
            network=self.zone.network(self.what.network),
            address=self.address,
        )

    def hardware(self) -> Hardware:
        """What it is made of. Blocking, but short: the headers of its images are read."""
        sizes = [0] * len(self.disk_names)
        if isinstance(self.what, ServerSpec):
            sizes = [disk.size or 0 for disk in self.what.disks]
        disks = []
        for name, path, raw, size in zip(self.disk_names, self.disk_files(), self.raw_disks, sizes, strict=True):
            try:
                image = images.look(path, raw=raw)
                disks.append(Disk(name, image.size_bytes, image.allocated_bytes))
            except FileNotFoundError:
                disks.append(Disk(name, size, 0))
        return Hardware(self.what.cpu, self.memory_bytes, tuple(disks), (self.address,))


def find(zone: Zone, server_id: str, *, registered_only: bool = False) -> SiteServer | None:
    """The server that a zone has under an id, or None.

    `registered_only`: a server of the inventory that has this id by chance is another one, and not meant.
    """
    registered = load_registration(zone, server_id)
    if registered is not None:
        record = load_machine(zone, server_id, registered)
        if record is not None:
            return SiteServer(zone, server_id, record)
    own = None if registered_only else zone.inventory.server(server_id)
    return None if own is None else SiteServer(zone, server_id, own)


def present(zone: Zone, server_id: str, *, registered_only: bool = False) -> SiteServer:
    """The server that a zone has under an id.

    Raises:
        Refused: it has none.
    """
    found = find(zone, server_id, registered_only=registered_only)
    if found is None:
        raise Refused(absent(zone, server_id, registered_only=registered_only))
    return found


def to_start(zone: Zone, server_id: str) -> SiteServer:
    """The server that its owner means who starts it again after a power cut.

    Once a failover has brought it here and until it is registered, that is the machine that was launched and is to run.

    Raises:
        Refused: there is none.
    """
    recovered = [
        SiteServer(zone, server_id, record)
        for record in machines(zone, server_id)
        if record.wanted is Wanted.RUNNING and not record.isolated
    ]
    unfenced = [server for server in recovered if not server.fenced]
    return unfenced[0] if len(unfenced) == 1 else present(zone, server_id)


def absent(zone: Zone, server_id: str, *, registered_only: bool = False) -> str:
    """That a zone has no such server, in words."""
    if registered_only:
        return f"zone {zone.name} has no machine that is registered as server {server_id!r}"
    return f"zone {zone.name} has no server {server_id!r}"


def everyone(zone: Zone) -> tuple[SiteServer, ...]:
    """The servers of a zone: those of its inventory in their order, then those that are registered machines only."""
    names = dict.fromkeys([server.id for server in zone.inventory.servers])
    names |= dict.fromkeys(registrations(zone))
    found = (find(zone, name) for name in names)
    return tuple(server for server in found if server is not None)


def machine_spec(zone: Zone, record: MachineRecord) -> MachineSpec:
    """What a launched machine is made of, all that is below its disks included, by the replica's record.

    An image's header is no witness of what is below: a merge that was cut off has changed it before the merged data was
    safe.

    Raises:
        Retry: the point that it stands on is not there.
        OSError: a disk is not there.
    """
    replica = load_replica(zone, record.server_id)
    disks = []
    for index, name in enumerate(record.disks):
        file = machine_disk(zone, record, index)
        below: list[Path] = []
        if images.look(file).backing is not None:
            if replica is None or not any(layer.number == record.layer for layer in replica.layers):
                raise Retry(f"machine {record.name} stands on point {record.point}, which is not there")
            below = [layer_file(zone, replica, layer, index) for layer in replica.chain(record.layer)]
        disks.append(MachineDisk(name, images.block(file, below)))
    return MachineSpec(
        name=record.name,
        hostname=record.display_name or record.server_id,
        folder=zone.machine_folder(record.server_id, record.name),
        cpu=record.cpu,
        memory_bytes=record.memory_bytes,
        disks=tuple(disks),
        network=zone.network(record.network),
        address=record.address,
    )


def _own_address(zone: Zone, server: ServerSpec) -> str:
    """The address that a server of the inventory has: its own, or one by its place in there."""
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
