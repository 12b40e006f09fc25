"""What is written beside a replica and a launched machine, so that nothing needs to be remembered.

A record says what was decided; what runs and what was copied is read from processes and images. Records are replaced
atomically, so a reader sees one state or the next.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from lifeboat.engines.qemu.zones import Zone
from lifeboat.host.records import Record, Wanted, load, save

REPLICA = "replica.json"
MACHINE = "machine.json"


class DiskRecord(Record):
    """A disk of the source, as it was when its copy began."""

    name: str
    size_bytes: int


class PointRecord(Record):
    """A recovery point: what its layer is called. `problem` says why it cannot be used."""

    name: str
    time: datetime
    application_consistent: bool = False
    problem: str | None = None


class Layer(Record):
    """One file per disk. A layer that is a `base` stands on nothing; any other one on the layer before it.

    A layer without a point is the tip, or left over and waiting to be merged or deleted.
    """

    number: int
    disks: tuple[str, ...]
    ssd: bool = False
    base: bool = False
    point: PointRecord | None = None


class Pending(Record):
    """A layer that is about to be put on the tip, which becomes this point."""

    layer: Layer
    point: PointRecord


class ReplicaRecord(Record):
    """All that has to be known about a replica when source and operator are gone.

    `tip` is the layer that is written to. `mirrored`: every disk's copy was started in this run. `synced`: the replica
    held every write at least once in this run. `offered`: a line was let in since the daemon began, so that the source
    can write to the tip. `torn`: a resync has begun, so that the tip may hold newer writes without older ones until it
    ends. `frozen`: the guest's file systems were to be frozen for a point, and may still be. `released`: points go as
    soon as nothing stands on them. `basis`: what a copy onto the original began from, in words. `held`: the base
    is the original's disks as they were, so that only what differs has to be copied.
    """

    server_id: str
    cpu: int
    memory_bytes: int
    disks: tuple[DiskRecord, ...]
    addresses: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    run: int = 0
    network: str = ""
    port: int | None = None
    ssd: bool = False
    bandwidth_limit: int | None = None
    replicating: bool = False
    mirrored: bool = False
    synced: bool = False
    offered: bool = False
    torn: bool = False
    frozen: bool = False
    released: bool = False
    basis: str = ""
    held: bool = False
    synced_at: datetime | None = None
    layers: tuple[Layer, ...] = ()
    tip: int | None = None
    pending: Pending | None = None
    next_layer: int = 1

    def layer(self, number: int) -> Layer:
        """The layer of that number."""
        return next(layer for layer in self.layers if layer.number == number)

    def point_layer(self, name: str) -> Layer | None:
        """The layer that holds the point of that name."""
        return next((layer for layer in self.layers if layer.point is not None and layer.point.name == name), None)

    def chain(self, number: int) -> tuple[Layer, ...]:
        """The layers that a layer stands on, oldest first, itself last."""
        found: list[Layer] = []
        for layer in self.layers:
            if layer.base:
                found = []
            found.append(layer)
            if layer.number == number:
                break
        return tuple(found)

    def above(self, number: int) -> Layer | None:
        """The layer that stands on a layer."""
        index = next(i for i, layer in enumerate(self.layers) if layer.number == number) + 1
        return self.layers[index] if index < len(self.layers) and not self.layers[index].base else None

    def consistent(self) -> bool:
        """Whether the tip is a state that the source's disks really had."""
        return self.synced and not self.torn


class MachineRecord(Record):
    """A machine that was launched. `disks_owner` names the machine in whose folder its disks lie."""

    name: str
    server_id: str
    point: str
    layer: int
    disks_owner: str
    disks: tuple[str, ...]
    disks_ready: bool = False
    ssd: bool = False
    cpu: int
    memory_bytes: int
    network: str
    address: str
    elastic_ip: str | None = None
    isolated: bool = False
    ports: tuple[int, ...] = ()
    wanted: Wanted = Wanted.STARTING
    display_name: str | None = None

    def url_port(self) -> int | None:
        """The port that the machine's link leads to."""
        return 80 if 80 in self.ports else next(iter(self.ports), None)


def layer_file(zone: Zone, record: ReplicaRecord, layer: Layer, index: int) -> Path:
    """The image file of a disk in a layer."""
    folder = zone.tier(layer.ssd) / "replicas" / record.server_id
    return folder / f"{layer.disks[index]}.{layer.number}.qcow2"


def machine_disk(zone: Zone, record: MachineRecord, index: int) -> Path:
    """The image file of a launched machine's disk."""
    return zone.tier(record.ssd) / "machines" / record.server_id / record.disks_owner / f"{record.disks[index]}.qcow2"


def load_replica(zone: Zone, server_id: str) -> ReplicaRecord | None:
    """The replica's record, or None where there is no replica."""
    return load(zone.replica_folder(server_id) / REPLICA, ReplicaRecord)


def save_replica(zone: Zone, record: ReplicaRecord) -> ReplicaRecord:
    """Write a replica's record durably."""
    return save(zone, zone.replica_folder(record.server_id) / REPLICA, record)


def load_machine(zone: Zone, server_id: str, name: str) -> MachineRecord | None:
    """A launched machine's record, or None where there is no such machine."""
    return load(zone.machine_folder(server_id, name) / MACHINE, MachineRecord)


def save_machine(zone: Zone, record: MachineRecord) -> MachineRecord:
    """Write a launched machine's record durably."""
    return save(zone, zone.machine_folder(record.server_id, record.name) / MACHINE, record)


def machines(zone: Zone, server_id: str) -> tuple[MachineRecord, ...]:
    """The machines that were launched for a server."""
    found = (load(path, MachineRecord) for path in sorted(zone.machines_folder(server_id).glob(f"*/{MACHINE}")))
    return tuple(record for record in found if record is not None)


def all_machines(zone: Zone) -> tuple[MachineRecord, ...]:
    """The machines that were launched in a zone."""
    found = (load(path, MachineRecord) for path in sorted((zone.folder / "machines").glob(f"*/*/{MACHINE}")))
    return tuple(record for record in found if record is not None)
