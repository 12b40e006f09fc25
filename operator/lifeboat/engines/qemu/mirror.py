"""The source's side of replication: QEMU's mirror jobs, one per disk, which write into the replica.

A job copies what holds data, then sends every write to both sides before the guest is told that it is done. All jobs
of a server write through one line (`lifeboat.line`). When that breaks the jobs stand still, the guest goes on, and the
jobs remember what changed, for as long as the machine's process lives.

A job's target is a node that can be put over another line, for all disks at one instant (`reconnect`, `switch`). QEMU's
own reconnecting is never used: it comes when it wants, up to 16 s later, and for each disk by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from lifeboat.engines.contract import Retry
from lifeboat.engines.qemu import holdings, lines
from lifeboat.engines.qemu.records import ReplicaRecord
from lifeboat.engines.qemu.storage_daemon import below, nodes
from lifeboat.host import machine
from lifeboat.host.qmp import CommandFailed, Monitors, Session
from lifeboat.line.fingerprints import BLOCK

_PREFIX = "lifeboat-"
_CLIENT_DASHES = 3
# What a copy has under way at once, in 16 requests. The replica's disk has each of these safe before it answers, so
# fewer and larger ones are faster: QEMU's own 16 MiB take half as long again.
_UNDER_WAY = 32 << 20


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
    `lengths` of the disks, is a guest's write that it has not been told of yet, or the last of a resync. `dirty_bytes`
    are those that are marked. What the replica held already, `left_out` bytes, is not counted as copied.
    """

    progress: Progress
    reason: str = ""
    copied_bytes: int = 0
    total_bytes: int = 0
    dirty_bytes: int = 0
    left_out: int = 0
    clean: bool = False
    offsets: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()


def job(disk: str) -> str:
    """The name of a disk's job."""
    return f"{_PREFIX}{disk}"


def target(run: int, index: int) -> str:
    """The source's block node that a job writes to; the run in it tells a leftover job from a present one."""
    return f"{_PREFIX}r{run}-{index}"


def client(run: int, index: int, number: int) -> str:
    """The block node under a target: the NBD client at the line of that number."""
    return f"{target(run, index)}-{number}"


async def look(monitors: Monitors, folder: Path, record: ReplicaRecord, zone: str) -> Mirror:
    """See how far the copy is. `zone` is the replica's, for the reason.

    A job is in step for certain when four things hold: it is ready, does not stand still, has nothing under way (offset
    equals length), and its dirty bitmap is empty. Right after a resume the first three look well while the last does
    not. Under a guest that writes all the time the third hardly ever holds: `InStep` judges that.
    """
    async with monitors.session(machine.socket(folder)) as session:
        jobs = {str(found["device"]): found for found in await session.run("query-block-jobs")}
        block_nodes = await nodes(session)
        stands_on = await below(session, "file")
    number = lines.running(folder)
    offsets: list[int] = []
    lengths: list[int] = []
    changed = left_out = 0
    clean = True
    worst = Progress.SYNCED
    reason = ""
    for index, disk in enumerate(record.disks):
        found = jobs.get(job(disk.name))
        if found is None or target(record.run, index) not in block_nodes:
            return Mirror(Progress.GONE, f"the copy of disk {disk.name} has ended: what changed since is not known")
        offsets.append(int(found["offset"]))
        lengths.append(int(found["len"]))
        left_out += holdings.left_out(folder, record.run, index) if record.held else 0
        bitmaps = block_nodes.get(machine.node(index), {}).get("dirty-bitmaps", ())
        # The job's own bitmap has no name; others are the owner's, for backups.
        dirty = sum(int(bitmap["count"]) for bitmap in bitmaps if "name" not in bitmap)
        changed += dirty
        progress = Progress.COPYING
        if number is None:
            progress, reason = Progress.INTERRUPTED, lines.reason(folder, zone)
        elif (
            found["io-status"] != "ok"
            or (found["paused"] and found["status"] in {"paused", "standby"})
            or stands_on.get(target(record.run, index)) != client(record.run, index, number)
        ):
            progress, reason = Progress.INTERRUPTED, f"the copy to zone {zone} has not been resumed yet"
        elif not found["ready"] and int(found["len"]) == 0:
            progress = Progress.STARTING
        elif found["ready"] and found["offset"] == found["len"] and dirty == 0:
            progress = Progress.SYNCED
        clean = clean and bool(found["ready"]) and dirty == 0
        worst = min(worst, progress, key=lambda each: each.value)
    # What the line has just left out may not have reached the jobs' own count.
    copied = max(0, sum(offsets) - left_out)
    total = max(copied, sum(lengths) - left_out)
    return Mirror(worst, reason, copied, total, changed, left_out, clean, tuple(offsets), tuple(lengths))


async def start(
    monitors: Monitors, folder: Path, record: ReplicaRecord, address: str, zone: str, found: Sequence[Path] = ()
) -> None:
    """Start the copy of every disk anew; what there is of an earlier copy ends. `zone` is the replica's, for reasons.

    `found` are the fingerprints of what the replica's disks hold already; without them they are known to be empty.

    Raises:
        Retry: an earlier copy does not end, or the replica cannot be reached from the source.
    """
    await clean(monitors, folder)
    await holdings.hand_over(found, folder, record.run)
    number = await reconnect(monitors, folder, record, address, zone)
    await holdings.use_up(found)
    async with monitors.session(machine.socket(folder), 10.0) as session:
        stands_on = await below(session)
        for index, disk in enumerate(record.disks):
            await session.run("blockdev-add", _target(record.run, index, number, discard=not found))
            # Of a disk that stands on nothing its top is all there is. QEMU clears a target of a `full` copy first,
            # which takes an empty one seconds for each few GiB, and copies then what holds data, as of a `top`.
            whole = not found and stands_on[machine.node(index)] is None
            mirror = {
                "job-id": job(disk.name),
                "device": machine.node(index),
                "target": target(record.run, index),
                "sync": "top" if whole else "full",
                "copy-mode": "write-blocking",
                "on-target-error": "stop",
                "on-source-error": "report",
                "speed": share(record),
                "buf-size": _UNDER_WAY,
            }
            if record.bandwidth_limit is not None:
                # With more under way a slow copy moves in bursts, many seconds apart.
                mirror["buf-size"] = min(max(share(record) // 4, 256 << 10), _UNDER_WAY)
            if found:
                mirror["granularity"] = BLOCK
            await session.run("blockdev-mirror", mirror)
        if found:
            # Once a job knows what there is to do, the guest's discards may pass as well.
            while not all(int(each["len"]) for each in await _copies(session)):  # noqa: ASYNC110  # QEMU is asked
                await asyncio.sleep(0.02)
            targets = [_target(record.run, index, number) for index in range(len(record.disks))]
            await session.run("blockdev-reopen", {"options": targets})


async def reconnect(monitors: Monitors, folder: Path, record: ReplicaRecord, address: str, zone: str) -> int:
    """Open a new line and connect every disk to it; nothing is written until `switch`. Returns the line's number.

    Raises:
        Retry: the replica cannot be reached from the source.
    """
    assert record.port is not None  # noqa: S101  # the replica was offered
    places = {disk.name: holdings.held(folder, record.run, index) for index, disk in enumerate(record.disks)}
    held = {disk: path for disk, path in places.items() if path.exists()}
    number = await lines.open_line(folder, address, record.port, len(record.disks), zone, held)
    try:
        async with monitors.session(machine.socket(folder), 10.0) as session:
            for index, disk in enumerate(record.disks):
                nbd = {
                    "driver": "nbd",
                    "node-name": client(record.run, index, number),
                    "server": {"type": "unix", "path": lines.socket(number)},
                    "export": disk.name,
                    # A guest's write must not wait for a line that is no more.
                    "reconnect-delay": 0,
                    "open-timeout": 0,
                    "discard": "unmap",
                }
                await session.run("blockdev-add", nbd)
    except CommandFailed as error:
        raise Retry(f"the source cannot connect to zone {zone}: {error.description}") from error
    return number


async def switch(monitors: Monitors, folder: Path, record: ReplicaRecord, number: int) -> None:
    """Let every disk's job write to the line of that number, all from one instant on, and go on with what changed.

    Raises:
        Retry: QEMU refuses.
    """
    async with monitors.session(machine.socket(folder), 10.0) as session:
        targets = [_target(record.run, index, number) for index in range(len(record.disks))]
        await session.run("blockdev-reopen", {"options": targets})
        for found in await session.run("query-block-jobs"):
            if found["io-status"] != "ok" or found["status"] in {"paused", "standby"}:
                try:
                    await session.run("block-job-resume", {"device": found["device"]})
                except CommandFailed as error:
                    if "not paused" not in error.description:
                        raise
        used = {client(record.run, index, number) for index in range(len(record.disks))}
        for name in await nodes(session):
            if name.startswith(f"{_PREFIX}r") and name.count("-") == _CLIENT_DASHES and name not in used:
                await session.run("blockdev-del", {"node-name": name})


def _target(run: int, index: int, number: int, *, discard: bool = True) -> dict[str, object]:
    """What a job writes to. With `discard` a `full` job clears it first, and then copies only what holds data."""
    node: dict[str, object] = {"driver": "raw", "node-name": target(run, index), "file": client(run, index, number)}
    return {**node, "discard": "unmap" if discard else "ignore"}


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


async def clean(monitors: Monitors, folder: Path, seconds: float = 3.0) -> None:
    """End the line and the copies, and forget their targets.

    Raises:
        Retry: a copy does not end.
    """
    await lines.end(folder)
    holdings.drop(folder)
    async with monitors.session(machine.socket(folder), seconds) as session:
        for name in await _jobs(session):
            await session.run("block-job-cancel", {"device": name, "force": True})
        while await _jobs(session):  # noqa: ASYNC110  # QEMU is asked: short connections see no events
            await asyncio.sleep(0.02)
        there = [name for name in await nodes(session) if name.startswith(f"{_PREFIX}r")]
        # Targets before the clients that they stand on.
        for name in sorted(there, key=lambda each: each.count("-")):
            await session.run("blockdev-del", {"node-name": name})


async def _jobs(session: Session) -> Sequence[str]:
    return [str(found["device"]) for found in await _copies(session)]


async def _copies(session: Session) -> Sequence[Mapping[str, Any]]:
    answer = await session.run("query-block-jobs")
    return [found for found in answer if str(found["device"]).startswith(_PREFIX)]
