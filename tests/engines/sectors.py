"""Numbers on the virtual disks of a machine that boots nothing, written and read through its owner's monitor."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

from lifeboat.host import machine
from lifeboat.host.qmp import Monitors

SECTOR = 512


async def io(monitors: Monitors, folder: Path, disk: int, *commands: str) -> None:
    """Let QEMU do something to a disk as its guest would."""
    async with monitors.session(folder / machine.OWNER_QMP, 30.0) as session:
        for command in commands:
            said = await session.human(f'qemu-io -d vd{disk}/virtio-backend "{command}"')
            assert not said, said


async def put(monitors: Monitors, folder: Path, disk: int, sector: int, data: bytes) -> None:
    """Write a sector, durably."""
    file = folder / "sector-to-write"
    file.write_bytes(data.ljust(SECTOR, b"\0"))
    await io(monitors, folder, disk, f"write -s {file} {sector * SECTOR} {SECTOR}", "flush")


async def get(monitors: Monitors, folder: Path, disks: int, sector: int, parse: Callable[[bytes], int]) -> list[int]:
    """What a sector of each disk of a running machine holds; the machine offers them for that moment."""
    async with monitors.session(folder / machine.OWNER_QMP, 30.0) as session:
        await session.run("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "offer.sock"}}})
        try:
            for disk in range(disks):
                export = {"type": "nbd", "id": f"offer{disk}", "name": str(disk), "node-name": machine.node(disk)}
                await session.run("block-export-add", export)
            return [parse(await asyncio.to_thread(_read, folder, disk, sector)) for disk in range(disks)]
        finally:
            await session.run("nbd-server-stop")


async def press_key(monitors: Monitors, folder: Path) -> None:
    """Press a key of a machine, and let it go."""
    async with monitors.session(folder / machine.OWNER_QMP, 30.0) as session:
        await session.run("send-key", {"keys": [{"type": "qcode", "data": "a"}]})


def _read(folder: Path, disk: int, sector: int) -> bytes:
    # Relative to the folder: a socket's path may have 108 bytes.
    file = folder / "sector-read"
    file.unlink(missing_ok=True)
    offer = f"if=nbd+unix:///{disk}?socket=offer.sock"
    # Of `count` qemu-img takes away what it skips.
    what = ["-f", "raw", offer, "-O", "raw", f"of={file.name}", f"bs={SECTOR}", f"skip={sector}", f"count={sector + 1}"]
    subprocess.run(["qemu-img", "dd", *what], cwd=folder, check=True, timeout=30)
    found = file.read_bytes()
    assert len(found) == SECTOR
    return found
