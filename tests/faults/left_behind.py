"""What is in the zones' folders that nobody has: processes, ports, machines and images without an owner.

Owners are what the ledgers, the replicas' records and the machines' records name, and the primary zone's inventory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from lifeboat.engines.ledger import Ledger
from lifeboat.engines.qemu import inventory, machine, storage_daemon
from lifeboat.engines.qemu.layers import layer_files
from lifeboat.engines.qemu.ledgers import Ledgers
from lifeboat.engines.qemu.records import MachineRecord, Wanted, all_machines, load_replica, machine_disk
from lifeboat.engines.qemu.zones import INVENTORY, Zone
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
    yield from _machines(recovery)
    yield from _images(recovery)
    yield from _fences(primary, recovery)


def ledger_of(recovery: Zone, server_id: str) -> Ledger:
    """The newest ledger of a server."""
    return Ledgers().load(recovery, server_id)


def _owned_machines(ledger: Ledger) -> set[str]:
    """The machines that a ledger knows."""
    drills = {drill_machine(drill.name) for drill in ledger.drills}
    attempts = attempt_machines(ledger, ledger.failover) if ledger.failover is not None else {}
    return drills | set(attempts) | set(ledger.leftovers)


def _processes(zones: Path, primary: Zone, recovery: Zone) -> Iterator[str]:
    ports = {}
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        command, cwd = process.info["cmdline"] or [], process.info["cwd"] or ""
        inside = [word for word in (*command, cwd) if f"{zones}/" in word]
        if not inside or process.pid == psutil.Process().pid:
            continue
        pid_file = next((path for path in zones.rglob("*.pid") if _pid(path) == process.pid), None)
        if pid_file is None:
            yield f"process {process.pid} ({' '.join(command)[:120]}) has no pid file"
            continue
        why = _unowned(pid_file, primary, recovery)
        if why is not None:
            yield f"process {process.pid} ({pid_file.relative_to(zones)}) runs although {why}"
            continue
        ports[pid_file] = process
    yield from _ports(ports, recovery)


def _unowned(pid_file: Path, primary: Zone, recovery: Zone) -> str | None:
    """Why nobody wants the process of this pid file, or None where somebody does."""
    folder = pid_file.parent
    if folder.parent.name == "servers":
        server_id = folder.name
        if primary.inventory.server(server_id) is None:
            return "the inventory has no such server"
        if pid_file.name == machine.PID:
            return None
        return None if _replicates(recovery, server_id) else "the server is not replicated"
    if pid_file.name == storage_daemon.PID:
        return None if _replicates(recovery, folder.name) else "the replica is not written to"
    record = next((each for each in all_machines(recovery) if recovery.machine_folder(*_key(each)) == folder), None)
    if record is None:
        return "it has no machine record"
    return "the machine was halted" if record.wanted is Wanted.HALTED else None


def _replicates(recovery: Zone, server_id: str) -> bool:
    record = load_replica(recovery, server_id)
    return record is not None and record.replicating


def _key(record: MachineRecord) -> tuple[str, str]:
    return record.server_id, record.name


def _ports(processes: dict[Path, psutil.Process], recovery: Zone) -> Iterator[str]:
    """Ports of replicas that are not the ones the records name, and elastic IPs that the machine does not have."""
    pool = set(recovery.inventory.elastic_ips)
    for pid_file, process in processes.items():
        try:
            listens = [c.laddr for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        except psutil.NoSuchProcess:
            continue
        if pid_file.name == storage_daemon.PID:
            record = load_replica(recovery, pid_file.parent.name)
            wrong = [a for a in listens if record is None or a.port != record.port]
        else:
            machines = {recovery.machine_folder(*_key(each)): each for each in all_machines(recovery)}
            owner = machines.get(pid_file.parent)
            wrong = [a for a in listens if a.ip in pool and (owner is None or owner.elastic_ip != a.ip)]
        for address in wrong:
            yield f"port {address.ip}:{address.port} of {pid_file.parent.name}/{pid_file.name} is nobody's"


def _machines(recovery: Zone) -> Iterator[str]:
    for record in all_machines(recovery):
        if record.name not in _owned_machines(ledger_of(recovery, record.server_id)):
            yield f"machine {record.server_id}/{record.name} is in no ledger"
    for folder in (recovery.folder / "machines").glob("*/*"):
        if not (folder / "machine.json").exists():
            yield f"folder {folder.relative_to(recovery.folder)} has no machine record"


def _images(recovery: Zone) -> Iterator[str]:
    wanted: set[Path] = set()
    for folder in (recovery.folder / "replicas").glob("*"):
        record = load_replica(recovery, folder.name)
        if record is not None:
            layers = (*record.layers, *((record.pending.layer,) if record.pending else ()))
            wanted.update(path for layer in layers for path in layer_files(recovery, record, layer))
    for each in all_machines(recovery):
        wanted.update(machine_disk(recovery, each, index) for index in range(len(each.disks)))
    for image in (recovery.folder / "storage").rglob("*.qcow2"):
        if image not in wanted:
            yield f"image {image.relative_to(recovery.folder)} belongs to no replica and no machine"


def _fences(primary: Zone, recovery: Zone) -> Iterator[str]:
    for fence in (primary.folder / "servers").glob("*/fence.json"):
        if ledger_of(recovery, fence.parent.name).fence is None:
            yield f"server {fence.parent.name} is fenced and its ledger orders no fence"


def _pid(pid_file: Path) -> int | None:
    try:
        return int(pid_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
