"""Letting a machine stand still while something is done: the operator's side of `holder.py`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lifeboat.engines.ceph.compute.host import holder
from lifeboat.engines.contract import Retry
from lifeboat.host import machine, processes
from lifeboat.host.qmp import Monitors

logger = logging.getLogger(__name__)

LOG = "holder.log"
_START = 5.0
_ANSWER = holder.BOUND + 2.0


class Held:
    """A machine that stands still."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, folder: Path) -> None:
        self._reader, self._writer, self._folder = reader, writer, folder

    async def kept(self) -> bool:
        """Let it go on; whether it stood still all the time until now."""
        self._writer.write(b"go\n")
        said = await self.said(_ANSWER)
        logger.debug("%s: stood still for %s s, kept: %s", self._folder, said.get("seconds"), said.get("kept"))
        return bool(said.get("kept"))

    async def said(self, seconds: float) -> dict[str, Any]:
        """What the holder says next.

        Raises:
            Retry: nothing, in that time.
        """
        try:
            async with asyncio.timeout(seconds):
                found: dict[str, Any] = json.loads(await self._reader.readline())
        except (TimeoutError, OSError, ValueError) as error:
            raise Retry("the process that lets the server stand still does not answer") from error
        return found


@contextlib.asynccontextmanager
async def hold(monitors: Monitors, folder: Path) -> AsyncIterator[Held]:
    """Let the machine in a folder stand still; leaving lets it go on, as does the end of `holder.BOUND` seconds.

    Raises:
        Retry: it does not stand still.
    """
    monitor = machine.socket(folder)
    async with monitors.reserved(monitor, _START):
        ours, its = socket.socketpair()
        with its:
            argv = [sys.executable, "-I", "-S", holder.__file__, str(monitor)]
            try:
                await asyncio.to_thread(processes.spawn, argv, folder, folder / LOG, its.fileno())
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours)
        held = Held(reader, writer, folder)
        try:
            said = await held.said(_START)
            if said["say"] != "held":
                raise Retry(f"the server could not be let stand still: {said.get('reason')}")
            yield held
        finally:
            # Closed, it lets the machine go on and ends, whatever it was doing.
            writer.close()
