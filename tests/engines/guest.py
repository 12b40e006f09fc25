"""A server that boots, whatever engine has its disks: the tiny guest, which writes numbers to them and answers then.

To boot it takes many seconds where it is emulated. So its source is booted once and lent to one case after the other;
after each, the world is put in order again. What cannot be put in order is out of sight: the numbers that a case wrote
are lower than those of the next. A case about the guest records no ledger, since its term would bind the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Generic, TypeVar

from lifeboat.engines.contract import Retry, Target
from lifeboat.engines.facts import Known, ReplicaState, Way
from lifeboat.engines.ledger import Direction
from lifeboat.engines.verbs import ReleaseReplica, RemoveMachine, StopReplication, Unfence, Verb
from lifeboat.host import forwards, machine
from lifeboat.host.qmp import Monitors
from tests.engines.harness import Harness, known

_Route = tuple[str, int]


class Guest(Harness):
    """What a harness says and asks of a server whose guest answers; its zones and their disasters are another class."""

    boots = True
    source_address: str
    _CASE = 1000  # more than any number in a case
    _zero = 0

    @property
    def source_folder(self) -> Path:
        """Where the source runs."""
        raise NotImplementedError

    @property
    def owners_monitors(self) -> Monitors:
        """The monitors of the source's owner: one takes one client at a time, so the engine's own turns are kept."""
        raise NotImplementedError

    async def source_up(self) -> None:
        """Let the source serve, or see that it does."""
        assert await self.start_source()
        try:
            await self.settle(lambda facts: isinstance(facts.source, Known) and facts.source.value.agent_connected)
        except AssertionError as error:
            # Whether the guest boots at all is nowhere else to be seen, and its folder is gone after the test.
            error.add_note((self.source_folder / machine.CONSOLE).read_text(encoding="utf-8", errors="replace")[-2000:])
            raise
        await self._served(self._source_route)

    async def put_in_order(self) -> None:
        """Leave no machines and no replica, and the source serving."""
        for zone in (self.pair.primary_zone, self.pair.recovery_zone):
            await self.answer(zone)
        for direction in (Direction.REVERSE, Direction.FORWARD):
            self.direction = direction
            seen = (await self.engine.observe(self.pair, [self.server_id])).servers[self.server_id]
            assert known(seen.ledger).version == 0, "a case about the guest records no ledger"
            await self._insist(StopReplication())
            for name in known(seen.way(direction).machines):
                await self._insist(RemoveMachine(name))
            await self._insist(ReleaseReplica())
        await self._insist(Unfence())
        await self.source_up()
        await self.settle(_nothing_there)
        self._zero += self._CASE

    async def write(self, number: int) -> None:
        assert await _get(await self._source_route(), f"/cgi-bin/write?n={self._zero + number}") == "ok"

    async def write_in(self, machine: str, number: int) -> None:
        route = await self._served(lambda: self._route(machine))
        assert await _get(route, f"/cgi-bin/write?n={self._zero + number}") == "ok"

    async def contents(self, machine: str) -> int:
        rows = await _get(await self._served(lambda: self._route(machine)), "/cgi-bin/rows")
        return max((int(row) - self._zero for row in rows.split() if int(row) > self._zero), default=0)

    async def original(self) -> int | None:
        raise NotImplementedError("no case about a guest asks for it: a wiped guest is not lent again")

    @asynccontextmanager
    async def alternating(self) -> AsyncIterator[None]:
        route = await self._source_route()
        done = asyncio.Event()

        async def keep_writing() -> None:
            number = 1
            while not done.is_set():
                await _get(route, f"/cgi-bin/alternate?n={number}&count=20", 60)
                number += 20

        async with asyncio.TaskGroup() as group:
            group.create_task(keep_writing())
            await asyncio.sleep(1)
            try:
                yield
            finally:
                done.set()

    async def disks_agree(self, machine: str) -> bool:
        last = json.loads(await _get(await self._served(lambda: self._route(machine)), "/cgi-bin/alternate"))
        return last["data"] > 0 and last["data"] - last["data2"] in {0, 1}

    async def _insist(self, verb: Verb) -> None:
        """Ask for it again while the engine says so: a guest takes long to go down, and its disks to be let go."""
        async with asyncio.timeout(70):
            while True:
                with contextlib.suppress(Retry):
                    await self.engine.perform(self._target(), verb)
                    return
                await asyncio.sleep(0.2)

    def _target(self) -> Target:
        return Target(self.pair, self.server_id, 1 << 30, self.direction)

    async def _source_route(self) -> _Route:
        return await forwards.ensure_route(self.owners_monitors, self.source_folder, self.source_address, 80)

    async def _route(self, machine: str) -> _Route:
        return await self.engine.route(self._target(), machine, 80)

    async def _served(self, route: Callable[[], Awaitable[_Route]]) -> _Route:
        """The route, once the guest's web server answers there."""
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(OSError, AssertionError, TimeoutError, Retry):
                    found = await route()
                    await _get(found, "/cgi-bin/info", 5)
                    return found
                await asyncio.sleep(0.2)


G = TypeVar("G", bound=Guest)


class SharedGuest(Generic[G]):
    """The world of the cases that are about the guest, made when the first one asks for it."""

    def __init__(self, create: Callable[[], Awaitable[G]]) -> None:
        self._create = create
        self._harness: G | None = None

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[G]:
        """The world for one case. That it cannot be put in order afterwards is an error, and it is not lent again."""
        if self._harness is None:
            self._harness = await self._create()
        try:
            yield self._harness
            await self._harness.put_in_order()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        harness, self._harness = self._harness, None
        if harness is not None:
            await harness.close()


def _nothing_there(facts: Way) -> bool:
    return known(facts.machines) == {} and known(facts.replica).state is ReplicaState.ABSENT


async def _get(route: _Route, path: str, seconds: float = 20.0) -> str:
    """The body of a guest's answer, which has to be a good one."""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(*route)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            await writer.drain()
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    assert " 200 " in head.splitlines()[0] if head else False, f"{path}: {head or 'no answer'}"
    return body.strip()
