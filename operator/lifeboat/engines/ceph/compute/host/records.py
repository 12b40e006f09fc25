"""What is written down beside the machines of a zone on this host."""

from __future__ import annotations

from typing import TypeAlias

from lifeboat.engines.ceph.compute import Disk
from lifeboat.host import zones
from lifeboat.host.inventory import Inventory, ServerSpec
from lifeboat.host.records import Record, Wanted, load, save

MACHINE = "machine.json"

Zone: TypeAlias = zones.Zone[Inventory[ServerSpec]]


class DiskRecord(Record):
    """A disk: an image in a pool."""

    name: str
    pool: str
    image: str


class MachineRecord(Record):
    """A machine that was launched."""

    name: str
    server_id: str
    disks: tuple[DiskRecord, ...]
    cpu: int
    memory_bytes: int
    network: str
    address: str
    elastic_ip: str | None = None
    isolated: bool = False
    ports: tuple[int, ...] = ()
    wanted: Wanted = Wanted.STARTING
    display_name: str | None = None

    @property
    def user(self) -> str:
        """Who its addresses are taken by, in the words of the facts."""
        return f"{self.server_id}/{self.name}"

    def images(self) -> tuple[Disk, ...]:
        """Its disks."""
        return tuple(Disk(disk.name, disk.pool, disk.image) for disk in self.disks)

    def url_port(self) -> int | None:
        """The port that the machine's link leads to."""
        return 80 if 80 in self.ports else next(iter(self.ports), None)


def load_machine(zone: Zone, server_id: str, name: str) -> MachineRecord | None:
    """A machine's record, or None where there is no such machine."""
    return load(zone.machine_folder(server_id, name) / MACHINE, MachineRecord)


def save_machine(zone: Zone, record: MachineRecord) -> MachineRecord:
    """Write a machine's record durably."""
    return save(zone, zone.machine_folder(record.server_id, record.name) / MACHINE, record)


def machines(zone: Zone, server_id: str) -> tuple[MachineRecord, ...]:
    """The machines that were launched for a server."""
    found = (load(path, MachineRecord) for path in sorted(zone.machines_folder(server_id).glob(f"*/{MACHINE}")))
    return tuple(record for record in found if record is not None)


def all_machines(zone: Zone) -> tuple[MachineRecord, ...]:
    """The machines that were launched in a zone."""
    found = (load(path, MachineRecord) for path in sorted((zone.folder / "machines").glob(f"*/*/{MACHINE}")))
    return tuple(record for record in found if record is not None)
