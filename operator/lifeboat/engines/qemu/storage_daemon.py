"""The process that holds a replica's disks: one qemu-storage-daemon per server.

It opens the chain of layers that the tip stands on and offers the tip over NBD on the replication network. Opening and
offering are two steps: while the disks are open and not offered, nothing can write to them, which is when the last
consistent state of an interrupted replica is frozen.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lifeboat.engines.contract import Retry
from lifeboat.engines.qemu.records import Layer, ReplicaRecord, layer_file, save_replica
from lifeboat.engines.qemu.zones import Zone
from lifeboat.host import files, processes
from lifeboat.host.qmp import CommandFailed, Monitors, Session, Silent

SOCKET = "qsd.sock"
PID = "qsd.pid"
LOG = "qsd.log"
_START = 10.0


def monitor(zone: Zone, server_id: str) -> Path:
    """The daemon's monitor."""
    return zone.replica_folder(server_id) / SOCKET


def running(zone: Zone, server_id: str) -> int | None:
    """The daemon's pid, or None when it does not run."""
    return processes.find(zone.replica_folder(server_id) / PID)


def node(index: int, layer: Layer) -> str:
    """The block node of a disk in a layer."""
    return f"d{index}l{layer.number}"


async def ensure_open(monitors: Monitors, zone: Zone, record: ReplicaRecord) -> None:
    """Let the daemon run with the tip's chain open, or see that it does.

    Raises:
        Retry: it does not start, or cannot open an image.
    """
    folder = zone.replica_folder(record.server_id)
    if running(zone, record.server_id) is None:
        argv = ["qemu-storage-daemon", "--pidfile", str(folder / PID)]
        argv += ["--chardev", f"socket,id=monitor,path={SOCKET},server=on,wait=off", "--monitor", "chardev=monitor"]
        files.remove(folder / LOG)
        pid = await asyncio.to_thread(processes.spawn, argv, folder, folder / LOG)
        await processes.wait_ready(pid, folder / PID, folder / LOG, _START)
    if record.tip is None:
        return
    chain = record.chain(record.tip)
    async with monitors.session(folder / SOCKET, 10.0) as session:
        there = await nodes(session)
        for index in range(len(record.disks)):
            below: str | None = None
            for layer in chain:
                name = node(index, layer)
                if name not in there:
                    path = layer_file(zone, record, layer, index)
                    writable = layer.number == record.tip
                    await session.run("blockdev-add", image_node(name, path, below, writable=writable))
                below = name


def image_node(name: str, path: Path, backing: str | None, *, writable: bool) -> dict[str, object]:
    """The description of an image for `blockdev-add`; its backing file is never taken from its header."""
    return {
        "driver": "qcow2",
        "node-name": name,
        "read-only": not writable,
        "discard": "unmap",
        "backing": backing,
        # Without a word on writing: a merge opens a lower layer for writing, and the file follows its image.
        "file": {"driver": "file", "filename": str(path), "discard": "unmap"},
    }


async def nodes(session: Session) -> Mapping[str, Mapping[str, Any]]:
    """The block nodes of a process by name."""
    answer = await session.run("query-named-block-nodes", {"flat": True})
    return {str(found["node-name"]): found for found in answer}


async def below(session: Session, edge: str = "backing") -> Mapping[str, str | None]:
    """For each block node the name of the node that it stands on now, None where it stands on nothing.

    Neither headers nor file names tell that: a header has a backing file before its node has one, and the names become
    JSON, cut off at 4096 bytes, where the two differ. The graph is QEMU's debugging aid, and exact.
    """
    graph = await session.run("x-debug-query-block-graph")
    names = {found["id"]: str(found["name"]) for found in graph["nodes"] if found["type"] == "block-driver"}
    found: dict[str, str | None] = dict.fromkeys(names.values())
    for each in graph["edges"]:
        if each["name"] == edge and each["parent"] in names:
            found[names[each["parent"]]] = names.get(each["child"])
    return found


async def ensure_offered(monitors: Monitors, zone: Zone, record: ReplicaRecord) -> ReplicaRecord:
    """Offer the tip's disks over NBD, or see that they are; the record that comes back knows the port.

    Writing through means that a write which the source was told is done is on the replica's disk: the guest's own
    flushes do not come this far.

    Raises:
        Retry: the port that the source knows is in use by another program.
    """
    address = zone.network(record.network).address
    if record.port is None:
        record = save_replica(zone, record.model_copy(update={"port": _free_port(address)}))
    async with monitors.session(monitor(zone, record.server_id)) as session:
        listen = {"type": "inet", "data": {"host": address, "port": str(record.port)}}
        try:
            await session.run("nbd-server-start", {"addr": listen})
        except CommandFailed as error:
            if "already running" not in error.description:
                raise Retry(f"{address} port {record.port}: {error.description}") from error
        offered = await _exports(session)
        assert record.tip is not None  # noqa: S101  # only a replica with a tip is offered
        for index, disk in enumerate(record.disks):
            if _export(index) not in offered:
                export = {
                    "type": "nbd",
                    "id": _export(index),
                    "name": disk.name,
                    "node-name": node(index, record.layer(record.tip)),
                    "writable": True,
                    "writethrough": True,
                }
                await session.run("block-export-add", export)
    return record


async def answers(monitors: Monitors, zone: Zone, server_id: str) -> bool:
    """Whether the daemon answers within a second."""
    try:
        await monitors.run(monitor(zone, server_id), "query-version", seconds=1.0)
    except Silent:
        return False
    return True


async def is_offered(monitors: Monitors, zone: Zone, record: ReplicaRecord) -> bool:
    """Whether every disk of the replica can be written to by the source; a daemon that does not answer offers none."""
    if running(zone, record.server_id) is None:
        return False
    try:
        async with monitors.session(monitor(zone, record.server_id), 1.0) as session:
            return len(await _exports(session)) >= len(record.disks)
    except Silent:
        return False


async def stop(monitors: Monitors, zone: Zone, server_id: str) -> None:
    """End the daemon with its images closed cleanly, or see that it does not run. Nothing can be written afterwards.

    One that does not answer is killed at once: what the source was told is done is on the disk.
    """
    pid = running(zone, server_id)
    if pid is None:
        return
    answered = await monitors.quit(monitor(zone, server_id), 1.0)
    if not answered or not await processes.wait_gone(pid, 1.5):
        await processes.kill(zone.replica_folder(server_id) / PID)


async def _exports(session: Session) -> tuple[str, ...]:
    return tuple(str(export["id"]) for export in await session.run("query-block-exports"))


def _export(index: int) -> str:
    return f"disk-{index}"


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
