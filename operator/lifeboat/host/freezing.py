"""Having a guest's file systems frozen while something is done: the operator's side of `freezer.py`."""

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

from lifeboat.engines.contract import Retry
from lifeboat.host import freezer, processes
from lifeboat.host.guest import Guests
from lifeboat.host.qmp import Silent, owner

logger = logging.getLogger(__name__)

LOG = "freezer.log"
_START = 5.0
_ANSWER = freezer.BOUND + 2.0


class Freezer:
    """A freezer that holds a guest's agent and waits for the word.

    `held` says afterwards whether the guest was frozen from before the first line of `frozen` until after its last.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, agent: Path) -> None:
        self._reader, self._writer, self._agent = reader, writer, agent
        self.held = False

    @contextlib.asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """Freeze on entering, thaw on leaving. What takes longer than `freezer.BOUND` seconds ends in a thawed guest.

        Raises:
            Retry: the guest could not be frozen; it is thawed, or will be as soon as its agent answers.
            Silent: the freezer is gone, and whether the guest is frozen is not known.
        """
        self._writer.write(b"freeze\n")
        said = await self.said(_ANSWER)
        if said["say"] != "frozen":
            raise Retry(f"the guest could not be frozen: {said['reason']}")
        try:
            yield
        finally:
            self._writer.write(b"thaw\n")
        said = await self.said(_ANSWER)
        self.held = bool(said["held"])
        logger.debug("%s: the guest stood still for %.3f s, held: %s", self._agent, said["seconds"], self.held)

    async def said(self, seconds: float) -> dict[str, Any]:
        """What the freezer says next.

        Raises:
            Silent: nothing, in that time.
        """
        try:
            async with asyncio.timeout(seconds):
                found: dict[str, Any] = json.loads(await self._reader.readline())
        except (TimeoutError, OSError, ValueError) as error:
            raise Silent(f"the process that freezes the guest does not answer ({owner(self._agent)})") from error
        return found


@contextlib.asynccontextmanager
async def ready(guests: Guests, agent: Path) -> AsyncIterator[Freezer]:
    """A freezer that needs no more than the word; nobody else of this operator talks to the agent meanwhile.

    Raises:
        Retry: the guest's agent does not answer.
    """
    async with guests.reserved(agent, _START):
        ours, its = socket.socketpair()
        with its:
            argv = [sys.executable, "-I", "-S", freezer.__file__, str(agent)]
            try:
                await asyncio.to_thread(processes.spawn, argv, agent.parent, agent.parent / LOG, its.fileno())
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            found = Freezer(reader, writer, agent)
            said = await found.said(_START)
            if said["say"] != "ready":
                raise Retry(f"the guest could not be frozen: {said['reason']}")
            yield found
        finally:
            # Closed, it thaws and ends, whatever it was doing.
            writer.close()
