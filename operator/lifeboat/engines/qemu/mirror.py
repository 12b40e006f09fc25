"""The source's side of replication: QEMU's mirror jobs, one per disk, which write into the replica.

A job copies what holds data, then sends every write to both sides before the guest is told that it is done. When the
replica goes away the job stands still, the guest goes on, and the job remembers what changed, for as long as the
machine's process lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from lifeboat.engines.contract import Retry
from lifeboat.engines.qemu import machine
from lifeboat.engines.qemu.qmp import CommandFailed, Monitors, Session
from lifeboat.engines.qemu.records import ReplicaRecord
from lifeboat.engines.qemu.storage_daemon import nodes

_PREFIX = "lifeboat-"


class Progress(Enum):
    """Where the copy of all disks stands, by the least of them."""

    GONE = 0
    INTERRUPTED = 1
    STARTING = 2
    COPYING = 3
    SYNCED = 4


@dataclass(frozen=True, slots=True)
class Mirror:
    """All jobs of a server in one view.

    `clean`: the jobs are ready and nothing is marked as changed; whatever is under way then, by `offsets` and
    `lengths` of the disks, is a guest's write that it has not been told of yet, or the last of a resync.
    """

    progress: Progress
    reason: str = ""
    copied_bytes: int = 0
    total_bytes: int = 0
    clean: bool = False
    offsets: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()


def job(disk: str) -> str:
    """The name of a disk's job."""
    return f"{_PREFIX}{disk}"


def target(run: int, index: int) -> str:
    """The source's block node that leads to the replica; the run in it tells a leftover job from a present one."""
    return f"{_PREFIX}r{run}-{index}"


async def look(monitors: Monitors, folder: Path, record: ReplicaRecord, zone: str) -> Mirror:
    """See how far the copy is. `zone` is the replica's, for the reason.

    A job is in step for certain when four things hold: it is ready, does not stand still, has nothing under way (offset
    equals length), and its dirty bitmap is empty. Right after a resume the first three look well while the last does
    not. Under a guest that writes all the time the third hardly ever holds: `InStep` judges that.
    """
    async with monitors.session(machine.socket(folder)) as session:
        jobs = {str(found["device"]): found for found in await session.run("query-block-jobs")}
        block_nodes = await nodes(session)
    offsets: list[int] = []
    lengths: list[int] = []
    clean = True
    worst = Progress.SYNCED
    reason = ""
    for index, disk in enumerate(record.disks):
        found = jobs.get(job(disk.name))
        if found is None or target(record.run, index) not in block_nodes:
            return Mirror(Progress.GONE, f"the copy of disk {disk.name} has ended: what changed since is not known")
        offsets.append(int(found["offset"]))
        lengths.append(int(found["len"]))
        bitmaps = block_nodes.get(machine.node(index), {}).get("dirty-bitmaps", ())
        # The job's own bitmap has no name; others are the owner's, for backups.
        dirty = sum(int(bitmap["count"]) for bitmap in bitmaps if "name" not in bitmap)
        progress = Progress.COPYING
        if found["io-status"] != "ok" or (found["paused"] and found["status"] in {"paused", "standby"}):
            progress = Progress.INTERRUPTED
            reason = (
                f"the disk of zone {zone} is full"
                if found["io-status"] == "nospace"
                else f"the replica in zone {zone} does not answer"
            )
        elif not found["ready"] and int(found["len"]) == 0:
            progress = Progress.STARTING
        elif found["ready"] and found["offset"] == found["len"] and dirty == 0:
            progress = Progress.SYNCED
        clean = clean and bool(found["ready"]) and dirty == 0
        worst = min(worst, progress, key=lambda each: each.value)
    return Mirror(worst, reason, sum(offsets), sum(lengths), clean, tuple(offsets), tuple(lengths))


async def start(monitors: Monitors, folder: Path, record: ReplicaRecord, address: str) -> None:
    """Start the copy of every disk that is not being copied in this run.

    Raises:
        Retry: an earlier copy does not end, or the replica cannot be reached from the source.
    """
    async with monitors.session(machine.socket(folder), 10.0) as session:
        there = await nodes(session)
        jobs = await _jobs(session)
        for index, disk in enumerate(record.disks):
            name = target(record.run, index)
            if job(disk.name) in jobs and name in there:
                continue
            if name not in there:
                client = {
                    "driver": "nbd",
                    "node-name": name,
                    "server": {"type": "inet", "host": address, "port": str(record.port)},
                    "export": disk.name,
                    # A guest's write must not wait for a dead replica.
                    "reconnect-delay": 0,
                    "open-timeout": 0,
                    # With it the job clears the target first and copies only what holds data.
                    "discard": "unmap",
                }
                await session.run("blockdev-add", client)
            mirror = {
                "job-id": job(disk.name),
                "device": machine.node(index),
                "target": name,
                "sync": "full",
                "copy-mode": "write-blocking",
                "on-target-error": "stop",
                "on-source-error": "report",
                "speed": share(record),
            }
            if record.bandwidth_limit is not None:
                # What is under way at once: with QEMU's own 16 MiB a slow copy moves in bursts, many seconds apart.
                mirror["buf-size"] = min(max(share(record) // 4, 256 << 10), 16 << 20)
            await session.run("blockdev-mirror", mirror)


def share(record: ReplicaRecord) -> int:
    """What one disk may copy per second; 0 is no limit."""
    if record.bandwidth_limit is None:
        return 0
    return max(1, record.bandwidth_limit // len(record.disks))


async def limit(monitors: Monitors, folder: Path, record: ReplicaRecord) -> None:
    """Set the record's bandwidth limit on the running copies. QEMU minds it until a copy is whole, not in a resync."""
    async with monitors.session(machine.socket(folder)) as session:
        for name in await _jobs(session):
            await session.run("block-job-set-speed", {"device": name, "speed": share(record)})


async def resume(monitors: Monitors, folder: Path, record: ReplicaRecord, seconds: float = 2.0) -> None:
    """Let interrupted copies go on. They stop again while QEMU is still connecting, so it is tried for a while.

    Raises:
        Retry: they have not gone on in that time.
    """
    wanted = [job(disk.name) for disk in record.disks]
    deadline = asyncio.get_running_loop().time() + seconds
    calm = 0
    while asyncio.get_running_loop().time() < deadline:
        async with monitors.session(machine.socket(folder)) as session:
            for index in range(len(record.disks)):
                # An unfinished connection is finished by a request; a flush needs no permission on the node.
                await session.human(f"qemu-io {target(record.run, index)} flush")
            stopped = [
                str(found["device"])
                for found in await session.run("query-block-jobs")
                if found["device"] in wanted
                and (found["io-status"] != "ok" or found["status"] in {"paused", "standby"})
            ]
            for name in stopped:
                try:
                    await session.run("block-job-resume", {"device": name})
                except CommandFailed as error:
                    if "not paused" not in error.description:
                        raise
        calm = 0 if stopped else calm + 1
        if calm == 2:
            return
        await asyncio.sleep(0.05)
    raise Retry("the source has not connected to the replica again yet")


async def clean(monitors: Monitors, folder: Path, seconds: float = 3.0, keep_run: int | None = None) -> None:
    """End the copies and forget their targets, except those of `keep_run`.

    Raises:
        Retry: a copy does not end.
    """
    async with monitors.session(machine.socket(folder), seconds) as session:
        there = [name for name in await nodes(session) if name.startswith(f"{_PREFIX}r")]
        kept = f"{_PREFIX}r{keep_run}-"
        leftovers = [name for name in there if not name.startswith(kept)]
        if keep_run is not None and not leftovers:
            return
        # A leftover target means that the job of that disk is a leftover too.
        for name in await _jobs(session):
            await session.run("block-job-cancel", {"device": name, "force": True})
        while await _jobs(session):  # noqa: ASYNC110  # QEMU is asked: short connections see no events
            await asyncio.sleep(0.02)
        for name in there:
            await session.run("blockdev-del", {"node-name": name})


async def _jobs(session: Session) -> Sequence[str]:
    answer = await session.run("query-block-jobs")
    return [str(found["device"]) for found in answer if str(found["device"]).startswith(_PREFIX)]
