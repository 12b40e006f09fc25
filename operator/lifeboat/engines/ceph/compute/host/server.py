"""Which machine is the server of a zone on this host: one of the inventory, or a launched one that is registered as it.

Whoever fences, starts, restarts or copies a server asks here, so that a recovered server is one like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lifeboat.engines.ceph.compute import Disk, Made
from lifeboat.engines.ceph.compute.host import addresses
from lifeboat.engines.ceph.compute.host.records import MachineRecord, Zone, load_machine, machines
from lifeboat.engines.contract import Refused
from lifeboat.host import machine
from lifeboat.host.inventory import ServerSpec
from lifeboat.host.records import Wanted, is_fenced, load_registration, save_registration


@dataclass(frozen=True, slots=True)
class Server:
    """The server that a zone has under an id."""

    zone: Zone
    server_id: str
    what: ServerSpec | MachineRecord

    @property
    def machine(self) -> str | None:
        """The launched machine that it is, None for one of the inventory."""
        return self.what.name if isinstance(self.what, MachineRecord) else None

    @property
    def folder(self) -> Path:
        """Where it runs."""
        if self.machine is not None:
            return self.zone.machine_folder(self.server_id, self.machine)
        return self.zone.server_folder(self.server_id)

    def made(self) -> Made:
        """What it is made of."""
        if isinstance(self.what, MachineRecord):
            record = self.what
            own = (record.address,)
            return Made(record.cpu, record.memory_bytes, own, record.ports, record.name, record.images())
        return Made(self.what.cpu, self.what.memory, (addresses.own(self.zone, self.what),), self.what.ports)


def find(zone: Zone, server_id: str) -> Server | None:
    """The server that a zone has under an id, or None."""
    registered = load_registration(zone, server_id)
    if registered is not None:
        record = load_machine(zone, server_id, registered)
        if record is not None:
            return Server(zone, server_id, record)
    own = zone.inventory.server(server_id)
    return None if own is None else Server(zone, server_id, own)


def present(zone: Zone, server_id: str) -> Server:
    """The server that a zone has under an id.

    Raises:
        Refused: it has none.
    """
    found = find(zone, server_id)
    if found is None:
        raise Refused(f"zone {zone.name} has no server {server_id!r}")
    return found


def to_start(zone: Zone, server_id: str) -> Server:
    """The server that its owner means who starts it again after a power cut.

    Once a failover has brought it here and until it is registered, that is the machine that was launched and is to run.

    Raises:
        Refused: there is none.
    """
    recovered = [
        Server(zone, server_id, record)
        for record in machines(zone, server_id)
        if record.wanted is Wanted.RUNNING and not record.isolated
    ]
    unfenced = [server for server in recovered if not is_fenced(server.folder)]
    return unfenced[0] if len(unfenced) == 1 else present(zone, server_id)


def register(zone: Zone, server_id: str, name: str) -> None:
    """Let a launched machine be the server of its zone from now on, or see that it is.

    Raises:
        Refused: there is no such machine, or another server of this id runs.
    """
    record = load_machine(zone, server_id, name)
    if record is None:
        raise Refused(f"zone {zone.name} has no machine {name!r} of server {server_id}")
    if load_registration(zone, server_id) == name:
        return
    if record.isolated:
        raise Refused(f"machine {name} is isolated: a drill's machine serves nobody")
    before = find(zone, server_id)
    if before is not None and machine.running(before.folder) is not None:
        raise Refused(f"the server {server_id} that zone {zone.name} has now still runs")
    save_registration(zone, server_id, name)


def check_given_up(server: Server) -> None:
    """See that a server's disks may be given up.

    Raises:
        Refused: it is not known to serve nobody, or another machine runs on its disks.
    """
    who = f"the server {server.server_id} of zone {server.zone.name}"
    if machine.running(server.folder) is not None:
        raise Refused(f"{who} runs: its disks are not given up")
    if not is_fenced(server.folder):
        raise Refused(f"{who} is not fenced: its disks are not given up")
    mine: set[Disk] = set(server.made().disks)
    for other in machines(server.zone, server.server_id):
        folder = server.zone.machine_folder(server.server_id, other.name)
        if mine & set(other.images()) and machine.running(folder) is not None:
            raise Refused(f"machine {other.name} runs on the disks of {who}: they are not given up")
