"""What is in the zones' folders that nobody has: processes, ports, machines and images without an owner.

Owners are what the ledgers, the replicas' records and the machines' records name, and the primary zone's inventory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from lifeboat.engines.ledger import Direction, Ledger
from lifeboat.engines.qemu import inventory, storage_daemon
from lifeboat.engines.qemu.layers import layer_files
from lifeboat.engines.qemu.ledgers import Ledgers
from lifeboat.engines.qemu.records import MachineRecord, all_machines, load_replica, machine_disk
from lifeboat.engines.qemu.zones import Zone
from lifeboat.host import machine
from lifeboat.host.records import Wanted
from lifeboat.host.zones import INVENTORY
from lifeboat.lifecycle.machines import attempt_machines, drill_machine


def zone_at(folder: Path) -> Zone:
    """A zone, whether or not it answers."""
    return Zone(folder, inventory.load(folder / INVENTORY))


def left_behind(zones: Path, *, seconds: float = 0.0) -> list[str]:
    """What has no owner, in words; what is being cleared gets so many seconds to be gone."""
    deadline = time.monotonic() + seconds
    while (found := sorted(_found(zones))) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _found(zones: Path) -> Iterator[str]:
    primary, recovery = (zone_at(zones / name) for name in ("zone-a", "zone-b"))
    yield from _processes(zones, primary, recovery)
    for zone in (primary, recovery):
        yield from _machines(zone, recovery)
        yield from _images(zone)
    yield from _fences(primary, recovery)


def ledger_of(recovery: Zone, server_id: str) -> Ledger:
    """The newest ledger of a server."""
    return Ledgers().load(recovery, server_id)


def _owned_machines(ledger: Ledger) -> set[str]:
    """The machines that a ledger knows."""
    drills = {drill_machine(drill.name) for drill in ledger.drills}
    attempts = attempt_machines(ledger, ledger.failover) if ledger.failover is not None else {}
    registered = {ledger.registered} if ledger.registered is not None else set()
    return drills | set(attempts) | set(ledger.leftovers) | registered


def _processes(zones: Path, primary: Zone, recovery: Zone) -> Iterator[str]:
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        command, cwd = process.info["cmdline"] or [], process.info["cwd"] or ""
        inside = [word for word in (*command, cwd) if f"{zones}/" in word]
        if not inside or process.pid == psutil.Process().pid:
            continue
        pid_file = next((path for path in zones.rglob("*.pid") if _pid(path) == process.pid), None)
        if pid_file is None:
            yield f"process {process.pid} ({' '.join(command)[:120]}) has no pid file"
            continue
        zone = primary if pid_file.is_relative_to(primary.folder) else recovery
        why = _unowned(pid_file, zone, recovery if zone is primary else primary)
        if why is not None:
            yield f"process {process.pid} ({pid_file.relative_to(zones)}) runs although {why}"
            continue
        yield from _ports(pid_file, process, zone)


def _unowned(pid_file: Path, zone: Zone, other: Zone) -> str | None:
    """Why nobody wants the process of this pid file, or None where somebody does."""
    folder = pid_file.parent
    if pid_file.name == storage_daemon.PID:
        return None if _replicates(zone, folder.name) else "the replica is not written to"
    server_id = folder.name if folder.parent.name == "servers" else folder.parent.name
    if pid_file.name != machine.PID and not _replicates(other, server_id):
        return "the server is not replicated"
    if folder.parent.name == "servers":
        return None if zone.inventory.server(server_id) is not None else "the inventory has no such server"
    record = next((each for each in all_machines(zone) if zone.machine_folder(*_key(each)) == folder), None)
    if record is None:
        return "it has no machine record"
    return "the machine was halted" if record.wanted is Wanted.HALTED else None


def _replicates(zone: Zone, server_id: str) -> bool:
    record = load_replica(zone, server_id)
    return record is not None and record.replicating


def _key(record: MachineRecord) -> tuple[str, str]:
    return record.server_id, record.name


def _ports(pid_file: Path, process: psutil.Process, zone: Zone) -> Iterator[str]:
    """Ports of a replica that are not the one that its record names, and elastic IPs that a machine does not have."""
    try:
        listens = [c.laddr for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    except psutil.NoSuchProcess:
        return
    if pid_file.name == storage_daemon.PID:
        replica = load_replica(zone, pid_file.parent.name)
        wrong = [a for a in listens if replica is None or a.port != replica.port]
    elif pid_file.parent.parent.name == "servers":
        wrong = []
    else:
        machines = {zone.machine_folder(*_key(each)): each for each in all_machines(zone)}
        owner = machines.get(pid_file.parent)
        pool = set(zone.inventory.elastic_ips)
        wrong = [a for a in listens if a.ip in pool and (owner is None or owner.elastic_ip != a.ip)]
    for address in wrong:
        yield f"port {address.ip}:{address.port} of {pid_file.parent.name}/{pid_file.name} is nobody's"


def _machines(zone: Zone, recovery: Zone) -> Iterator[str]:
    for record in all_machines(zone):
        if record.name not in _owned_machines(ledger_of(recovery, record.server_id)):
            yield f"machine {record.server_id}/{record.name} is in no ledger"
    for folder in (zone.folder / "machines").glob("*/*"):
        if not (folder / "machine.json").exists():
            yield f"folder {folder.relative_to(zone.folder.parent)} has no machine record"


def _images(zone: Zone) -> Iterator[str]:
    wanted = {zone.disk_file(server, i) for server in zone.inventory.servers for i in range(len(server.disks))}
    for folder in (zone.folder / "replicas").glob("*"):
        record = load_replica(zone, folder.name)
        if record is not None:
            layers = (*record.layers, *((record.pending.layer,) if record.pending else ()))
            wanted.update(path for layer in layers for path in layer_files(zone, record, layer))
    for each in all_machines(zone):
        wanted.update(machine_disk(zone, each, index) for index in range(len(each.disks)))
    for image in (zone.folder / "storage").rglob("*.qcow2"):
        if image not in wanted:
            yield f"image {image.relative_to(zone.folder.parent)} belongs to no replica and no machine"


def _fences(primary: Zone, recovery: Zone) -> Iterator[str]:
    for fence in (primary.folder / "servers").glob("*/fence.json"):
        ledger = ledger_of(recovery, fence.parent.name)
        # Once the server has failed over for good, its original stays fenced until its disks are given up.
        if ledger.fence is None and ledger.direction is Direction.FORWARD and ledger.registered is None:
            yield f"server {fence.parent.name} is fenced and its ledger orders no fence"


def _pid(pid_file: Path) -> int | None:
    try:
        return int(pid_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
