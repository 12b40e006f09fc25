"""What the disks under a new copy hold already: fingerprints of it, so that only what differs is sent.

Nothing is believed about the original's disks. They are read where they lie, once the replica's process has them open
for itself alone, and the line (`lifeboat.line`) leaves out a block only where what is to be written has the fingerprint
of what is there. So the copy is right whatever the disks hold; they can only make it shorter.

The fingerprints lie beside the replica, named after the process they were read through: another process may have been
written to. They are deleted before the first byte is sent, and whoever comes after a crash reads again.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lifeboat import line
from lifeboat.engines.contract import Underway
from lifeboat.engines.qemu import storage_daemon
from lifeboat.engines.qemu.records import ReplicaRecord, layer_file
from lifeboat.engines.qemu.zones import Zone
from lifeboat.host import files, processes
from lifeboat.line import fingerprints

PID = "reading.pid"
LOG = "reading.log"
_PREFIX = "fingerprints-"
_HANDED = "held-"
_PROGRAM = Path(line.__file__).with_name("reading.py")
# Small disks are read within the call that begins it.
_PATIENCE = 2.0


class Unreadable(Exception):
    """Raised when it cannot be found out what the disks hold; the message says why."""


async def begin(target: Zone, record: ReplicaRecord) -> None:
    """Begin to read the disks that the replica's process offers; what was read before counts no more."""
    await end(target, record.server_id)
    folder = target.replica_folder(record.server_id)
    paths = _paths(target, record)
    assert paths is not None and record.tip is not None and record.port is not None  # noqa: S101, PT018  # it is offered
    argv = [sys.executable, "-I", "-S", str(_PROGRAM), "--pidfile", str(folder / PID)]
    argv += ["--address", target.network(record.network).address, "--port", str(record.port)]
    tip = record.layer(record.tip)
    for index, disk in enumerate(record.disks):
        argv += ["--disk", disk.name, str(layer_file(target, record, tip, index)), str(paths[index])]
    with files.disk_errors(target.name):
        pid = await asyncio.to_thread(processes.spawn, argv, folder, folder / LOG)
    try:
        # It may be done already: then its pid file leads to nobody.
        while processes.alive(pid) and processes.find(folder / PID) is None:  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0.02)
    except BaseException:
        processes.kill_child(pid)
        raise


async def look(target: Zone, record: ReplicaRecord) -> Sequence[Path] | None:
    """The fingerprints of every disk, None where nobody has begun to read them.

    Raises:
        Underway: they are being read.
        Unreadable: they cannot be.
    """
    paths = _paths(target, record)
    if paths is None:
        return None
    folder = target.replica_folder(record.server_id)
    deadline = asyncio.get_running_loop().time() + _PATIENCE
    while processes.find(folder / PID) is not None:
        if asyncio.get_running_loop().time() > deadline:
            raise Underway("the disks of the original are being read, so that only what differs is copied")
        await asyncio.sleep(0.02)
    if all(path.exists() for path in paths):
        return paths
    why = files.last_lines(folder / LOG)
    if why:
        raise Unreadable(why)
    return None


async def end(target: Zone, server_id: str) -> None:
    """Stop reading, and forget what was read."""
    folder = target.replica_folder(server_id)
    await processes.kill(folder / PID)
    for path in [folder / PID, folder / LOG, *folder.glob(f"{_PREFIX}*")]:
        files.remove(path)


async def hand_over(found: Sequence[Path], source: Path, run: int) -> None:
    """Give the line of that run fingerprints of its own."""
    for index, path in enumerate(found):
        # Written out in full, so that no place is missing later.
        await asyncio.to_thread(shutil.copyfile, path, held(source, run, index))


async def use_up(found: Sequence[Path]) -> None:
    """See that nobody takes these for true again: from here on the disks change."""
    for path in found:
        files.remove(path)
    for folder in {path.parent for path in found}:
        await asyncio.to_thread(files.sync_folder, folder)


def held(source: Path, run: int, index: int) -> Path:
    """Where the line finds the fingerprints of a disk in the folder of the machine that is copied."""
    return source / f"{_HANDED}r{run}-{index}"


def left_out(source: Path, run: int, index: int) -> int:
    """How many bytes of a disk were not sent, since the replica had them."""
    return fingerprints.left_out(held(source, run, index))


def drop(source: Path) -> None:
    """Forget what was handed over."""
    for path in source.glob(f"{_HANDED}r*"):
        files.remove(path)


def _paths(target: Zone, record: ReplicaRecord) -> Sequence[Path] | None:
    """Where the fingerprints are that are read through the process that runs now; None where none runs."""
    folder = target.replica_folder(record.server_id)
    pid = storage_daemon.running(target, record.server_id)
    if pid is None:
        return None
    # The process writes its pid file when it starts, so the file's time tells it from one that had the pid before.
    mark = f"{_PREFIX}{pid}-{(folder / storage_daemon.PID).stat().st_mtime_ns}"
    return tuple(folder / f"{mark}-{index}" for index in range(len(record.disks)))
