"""Talking to QEMU's monitors: connect, run, disconnect, each with a deadline.

A monitor serves one client at a time, so connections are short and taken in turn. A short connection sees no events:
state is read by queries. Every command is logged at DEBUG as one JSON line, so that what was asked of QEMU can be read
afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket as sockets
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import ConnectError, ExecuteError, QMPClient, QMPError

from lifeboat.engines.contract import NoSpace, Retry
from lifeboat.host.files import FULL_TEXTS

logger = logging.getLogger(__name__)
# The library reports every refused connection as an error of its own, and as a critical one, with its stack, where the
# task that connects is cancelled twice, as it is when a deadline and a lost lease meet. Here those are facts like any
# other, and what does not come out as an exception needs no word.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)

DEADLINE = 3.0
# A socket's queue is looked at this often for a free place: the kernel wakes nobody who waits for one.
_QUEUE = 0.02
_endings: set[asyncio.Task[None]] = set()  # so that none is forgotten before its end


class CommandFailed(Retry):
    """Raised when QEMU refuses a command. `description` is what it said."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(f"QEMU refused {command}: {description}")
        self.description = description


class Silent(Retry):
    """Raised when a monitor or an agent does not answer in time."""


def owner(socket: Path) -> str:
    """Whose socket it is, in words for people who need not know where an engine keeps its sockets."""
    return f"QEMU of {socket.parent.parent.name}/{socket.parent.name}"


@contextlib.contextmanager
def reachable(socket: Path) -> Iterator[str]:
    """A path to a socket that is short enough for the kernel (108 bytes), however deep its folder lies.

    Raises:
        Silent: the folder is not there.
    """
    try:
        folder = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise Silent(f"{owner(socket)} is not there") from error
    try:
        yield f"/proc/self/fd/{folder}/{socket.name}"
    finally:
        os.close(folder)


async def connect(socket: Path) -> sockets.socket:
    """Connect to a UNIX socket once there is room for one more in its queue; the caller's deadline bounds the wait.

    A monitor's queue holds two, and who gave up on a process that stood still left one there. To a queue that is full,
    connecting without blocking fails with EAGAIN, which asyncio takes for a connection under way, and then for one.

    Raises:
        Silent: the folder is not there.
        OSError: nobody listens.
    """
    connection = sockets.socket(sockets.AF_UNIX)
    connection.settimeout(0)
    try:
        with reachable(socket) as path:
            while True:
                try:
                    connection.connect(path)
                except BlockingIOError:
                    await asyncio.sleep(_QUEUE)
                else:
                    return connection
    except BaseException:
        connection.close()
        raise


class Session:
    """An open connection to one monitor."""

    def __init__(self, client: QMPClient, socket: Path) -> None:
        self._client = client
        self._socket = socket

    async def run(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401  # as JSON
        """Run a command and return its answer.

        Raises:
            CommandFailed: QEMU refuses it.
            NoSpace: QEMU refuses it because a disk is full.
        """
        log_command(self._socket, command, arguments)
        try:
            return await self._client.execute(command, arguments)
        except ExecuteError as error:
            description = str(error)
            if any(text in description for text in FULL_TEXTS):
                raise NoSpace(f"{command}: {description}") from error
            raise CommandFailed(command, description) from error

    async def human(self, line: str) -> str:
        """Run a command of the human monitor, for the few things that QMP does not offer."""
        answer = await self.run("human-monitor-command", {"command-line": line})
        return str(answer).strip()


class Monitors:
    """The monitors of one engine, each used by one caller at a time."""

    def __init__(self) -> None:
        self._locks: dict[Path, asyncio.Lock] = {}

    @contextlib.asynccontextmanager
    async def session(self, socket: Path, seconds: float = DEADLINE) -> AsyncIterator[Session]:
        """Connect to a monitor for a few commands; waiting for one's turn is part of the deadline.

        Raises:
            Silent: it does not answer, or not in time.
        """
        lock = self._locks.setdefault(socket, asyncio.Lock())
        client = QMPClient("lifeboat")
        try:
            async with asyncio.timeout(seconds), lock:
                connection = await connect(socket)
                try:
                    await _greet(client, connection)
                    yield Session(client, socket)
                finally:
                    await _hang_up(client)
                    # Whoever is cut off while it is being greeted leaves it to nobody.
                    connection.close()
        except TimeoutError as error:
            raise Silent(f"{owner(socket)} does not answer within {seconds:g} s") from error
        except (ConnectError, QMPError, OSError, EOFError) as error:
            raise Silent(f"{owner(socket)} does not answer: {error}") from error

    @contextlib.asynccontextmanager
    async def reserved(self, socket: Path, seconds: float) -> AsyncIterator[None]:
        """Leave a monitor to a process of its own; `seconds` bounds the wait for one's turn.

        Raises:
            Silent: others have it for longer.
        """
        lock = self._locks.setdefault(socket, asyncio.Lock())
        try:
            async with asyncio.timeout(seconds):
                await lock.acquire()
        except TimeoutError as error:
            raise Silent(f"{owner(socket)} is busy for more than {seconds:g} s") from error
        try:
            yield
        finally:
            lock.release()

    async def run(
        self, socket: Path, command: str, arguments: Mapping[str, object] | None = None, seconds: float = DEADLINE
    ) -> Any:  # noqa: ANN401  # as JSON
        """Run one command on a monitor and return its answer."""
        async with self.session(socket, seconds) as session:
            return await session.run(command, arguments)

    async def quit(self, socket: Path, seconds: float) -> bool:
        """Ask a program to end, closing its images cleanly; false when it does not even answer."""
        try:
            await self.run(socket, "quit", seconds=seconds)
        except CommandFailed:
            return False
        except Silent as error:
            # A connection that breaks off instead of an answer is one.
            return not isinstance(error.__cause__, TimeoutError)
        return True


def log_command(socket: Path, command: str, arguments: Mapping[str, object] | None) -> None:
    """Log a command as one JSON line, without what a script or a file holds."""
    if not logger.isEnabledFor(logging.DEBUG):
        return
    shown = dict(arguments or {})
    for secret in {"buf-b64", "input-data", "env", "arg"} & shown.keys():
        shown[secret] = "…"
    line = {"socket": str(socket), "execute": command, "arguments": shown}
    logger.debug("%s", json.dumps(line, default=str, ensure_ascii=False))


async def _greet(client: QMPClient, connection: sockets.socket) -> None:
    try:
        await client.connect(connection)
    except AssertionError as error:
        # So the library takes a peer that hangs up right after it was greeted, as one that is being ended does.
        raise EOFError("it hung up") from error


async def _hang_up(client: QMPClient) -> None:
    """Hang up, and wait for that for a second.

    What takes longer goes on by itself: a library that is cut off here leaves its errors to nobody, who complains.
    """
    ending = asyncio.create_task(client.disconnect())
    _endings.add(ending)
    ending.add_done_callback(_ended)
    await asyncio.wait([ending], timeout=1.0)
    if ending.done() and not ending.cancelled():
        error = ending.exception()
        # A peer that ended in the middle makes the library raise here what the command has raised already.
        if error is not None and not isinstance(error, QMPError | OSError | EOFError | TimeoutError):
            raise error


def _ended(ending: asyncio.Task[None]) -> None:
    _endings.discard(ending)
    if not ending.cancelled():
        ending.exception()
