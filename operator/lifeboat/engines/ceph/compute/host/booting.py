"""Machines on librbd disks: how they are put together, and what they are given to reach their cluster by.

A machine outlives the operator, so what it needs lies in its folder: a ceph.conf without secrets, and the key in a file
that only the operator's user reads. QEMU is told where that is, not what it holds.
"""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

from lifeboat.engines.ceph.compute import Disk
from lifeboat.engines.ceph.connection import Connection
from lifeboat.host import files, machine
from lifeboat.host.inventory import NetworkSpec
from lifeboat.host.machine import MachineDisk, MachineSpec
from lifeboat.host.qmp import Monitors

_CONF = "ceph.conf"
_KEY = "ceph.key"
_SECRET = "ceph"  # noqa: S105 - the name by which QEMU knows the file
# How soon the journal says up to where it was written: the lag that is told is as exact as that.
_MORE = "rbd_journal_commit_age = 1\nadmin_socket =\nlog_file =\nlog_to_stderr = false\n"


async def boot(monitors: Monitors, spec: MachineSpec, access: Connection) -> None:
    """Start a machine, or see that it runs."""
    if machine.running(spec.folder) is None:
        await asyncio.to_thread(_write_access, spec.folder, access)
        await machine.start(monitors, spec)


def spec(
    *,
    name: str,
    hostname: str,
    folder: Path,
    cpu: int,
    memory_bytes: int,
    disks: tuple[Disk, ...],
    network: NetworkSpec,
    address: str,
    access: Connection,
) -> MachineSpec:
    """What a machine is made of."""
    return MachineSpec(
        name=name,
        hostname=hostname,
        folder=folder,
        cpu=cpu,
        memory_bytes=memory_bytes,
        disks=tuple(_disk(disk, folder, access) for disk in disks),
        network=network,
        address=address,
    )


def _disk(disk: Disk, folder: Path, access: Connection) -> MachineDisk:
    block = {
        "driver": "rbd",
        "pool": disk.pool,
        "image": disk.image,
        "conf": str(folder / _CONF),
        "user": access.user,
        "key-secret": _SECRET,
        "discard": "unmap",
    }
    return MachineDisk(disk.name, block, {_SECRET: folder / _KEY})


def _write_access(folder: Path, access: Connection) -> None:
    files.make_folder(folder)
    files.write_atomically(folder / _CONF, f"{access.conf_text()}{_MORE}".encode())
    files.write_atomically(folder / _KEY, base64.b64decode(access.key))
