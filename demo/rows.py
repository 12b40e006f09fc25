"""The client outside both zones: it commits rows all the time and remembers each one that was acknowledged.

What is in its log was promised to somebody; what a recovery does not have of it is what was lost. Run as
`python -m demo.rows HOST PORT LOG`, ended by SIGTERM; a database that goes away ends the writing, not the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import asyncpg

# A row that was committed and not acknowledged before a crash is there already.
_INSERT = "insert into rows (id, payload) values ($1, $2) on conflict (id) do nothing"
# What a lost server shows itself by: a refused or broken connection, or no answer at all.
LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)


async def connect(host: str, port: int, seconds: float = 60.0) -> asyncpg.Connection:
    """Connect to the example's database, trying for so long."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            async with asyncio.timeout(5):
                return await asyncpg.connect(host=host, port=port, user="app", database="app", ssl=False)
        except LOST:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.2)


async def write(host: str, port: int, log: Path) -> None:
    """Commit rows one after the other until the database is gone, noting each acknowledgement durably."""
    first = last_acknowledged(log) + 1
    with log.open("a", encoding="ascii") as acknowledged, contextlib.suppress(*LOST):
        connection = await connect(host, port)
        try:
            for number in range(first, 10**9):
                async with asyncio.timeout(10):
                    await connection.execute(_INSERT, number, "x" * 64)
                _note(acknowledged, number)
        finally:
            connection.terminate()


async def present(host: str, port: int) -> set[int]:
    """The numbers of all rows that a database has."""
    connection = await connect(host, port)
    try:
        async with asyncio.timeout(60):
            return {int(row["id"]) for row in await connection.fetch("select id from rows")}
    finally:
        await connection.close(timeout=5)


def acknowledged(log: Path) -> dict[int, datetime]:
    """The rows of a log and when each was acknowledged. A line that was cut short by a crash was not."""
    if not log.exists():
        return {}
    lines = (line.split() for line in log.read_text(encoding="ascii").splitlines(keepends=True) if line[-1] == "\n")
    return {int(number): datetime.fromisoformat(time) for number, time in lines}


def last_acknowledged(log: Path) -> int:
    """The number of the last acknowledged row, 0 where there is none."""
    return max(acknowledged(log), default=0)


def _note(log: IO[str], number: int) -> None:
    log.write(f"{number} {datetime.now(UTC).isoformat()}\n")
    log.flush()
    os.fdatasync(log.fileno())


async def _main(host: str, port: int, log: Path) -> None:
    task = asyncio.create_task(write(host, port, log))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def main(arguments: Sequence[str]) -> None:
    """Write until the database is gone, or SIGTERM."""
    host, port, log = arguments
    asyncio.run(_main(host, int(port), Path(log)))


if __name__ == "__main__":
    main(sys.argv[1:])
