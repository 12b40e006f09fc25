"""Opening, finding and ending a server's line (`lifeboat.line`), the one way from its QEMU to its replica.

A line lies in the folder of the machine whose disks are copied, and outlives the operator. Each has a number, and a
socket of that number: whatever in QEMU still looks for an earlier line finds nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from lifeboat import line
from lifeboat.engines.contract import Retry
from lifeboat.host import files, processes

PID = "line.pid"
LOG = "line.log"
END = "line-end.json"
_NUMBER = "line-number"
_START = 5.0
_PROGRAM = Path(line.__file__).with_name("__main__.py")


def socket(number: int) -> str:
    """The socket of a line, relative to the machine's folder: QEMU runs there, and a longer path may be too long."""
    return f"line-{number}.sock"


def running(folder: Path) -> int | None:
    """The number of the line that is open, or None."""
    return _number(folder) if processes.find(folder / PID) is not None else None


def reason(folder: Path, zone: str) -> str:
    """Why the last line ended, in words. `zone` is the replica's."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(json.loads((folder / END).read_bytes())["reason"])
    return f"the process that carries the copy to zone {zone} has ended"


async def open_line(
    folder: Path, address: str, port: int, connections: int, zone: str, held: Mapping[str, Path]
) -> int:
    """End the line that there is, if any, and open a new one to the replica there; returns its number.

    `held` are the fingerprints of what the replica's disks hold already, by the names of the disks.

    Raises:
        Retry: the replica is not reached, with the reason in words.
    """
    await end(folder)
    number = _number(folder) + 1
    await asyncio.to_thread(files.remove, folder / LOG)
    await asyncio.to_thread(files.write_atomically, folder / _NUMBER, str(number).encode())
    argv = [sys.executable, "-I", "-S", str(_PROGRAM), "--pidfile", str(folder / PID), "--end", str(folder / END)]
    argv += ["--socket", socket(number), "--address", address, "--port", str(port)]
    argv += ["--connections", str(connections), "--zone", zone]
    for disk, path in held.items():
        argv += ["--held", disk, str(path)]
    pid = await asyncio.to_thread(processes.spawn, argv, folder, folder / LOG)
    try:
        await processes.wait_ready(pid, folder / PID, folder / LOG, _START)
    except BaseException as error:
        processes.kill_child(pid)
        if isinstance(error, Retry) and (folder / END).exists():
            raise Retry(reason(folder, zone)) from error
        raise
    return number


async def end(folder: Path, why: str = "") -> None:
    """End the line, or see that there is none; nothing of the source reaches the replica afterwards.

    `why` is what people are told until there is another one.

    Raises:
        Retry: it does not end.
    """
    await processes.kill(folder / PID)
    for name in (PID, END):
        await asyncio.to_thread(files.remove, folder / name)
    for path in await asyncio.to_thread(lambda: list(folder.glob("line-*.sock"))):
        await asyncio.to_thread(files.remove, path)
    if why:
        await asyncio.to_thread(files.write_atomically, folder / END, json.dumps({"reason": why}).encode())


def _number(folder: Path) -> int:
    try:
        return int((folder / _NUMBER).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
