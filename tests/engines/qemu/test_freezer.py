"""The program that freezes and thaws, with agents that do what a real one does on its worst days only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lifeboat.engines.contract import Retry
from lifeboat.host import freezer, freezing
from lifeboat.host.guest import Guests
from lifeboat.host.qmp import Silent

FREEZE, THAW = "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"
# How an agent answers a command that it was given; None hangs up.
Answer = Callable[[str], object]


class FakeAgent:
    """An agent of one answer after the other. `asked` are the orders that it got."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.asked: list[str] = []
        self.thawed = asyncio.Event()
        self.slow = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := (await reader.readline()).lstrip(b"\xff"):
            said = json.loads(line)
            command = str(said["execute"])
            if command == "guest-sync-delimited":
                writer.write(b"\xff" + json.dumps({"return": said["arguments"]["id"]}).encode() + b"\n")
                continue
            self.asked.append(command)
            if command == FREEZE:
                await asyncio.sleep(self.slow)
            answer = self._answer(command)
            if answer is None:
                break
            writer.write(json.dumps(answer).encode() + b"\n")
            if command == THAW:
                self.thawed.set()
        writer.close()


@contextlib.asynccontextmanager
async def listening(agent: FakeAgent) -> AsyncIterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="lifeboat-agent-"))
    try:
        async with await asyncio.start_unix_server(agent.serve, folder / "qga.sock"):
            yield folder / "qga.sock"
    finally:
        shutil.rmtree(folder)


def counting(_: str) -> object:
    return {"return": 2}


async def test_it_freezes_holds_and_thaws() -> None:
    agent = FakeAgent(counting)
    async with listening(agent) as socket, freezing.ready(Guests(), socket) as held:
        assert agent.asked == []
        async with held.frozen():
            assert agent.asked == [FREEZE]
        assert agent.asked == [FREEZE, THAW]
        assert held.held


async def test_it_thaws_in_time_and_says_that_it_did() -> None:
    agent = FakeAgent(counting)
    async with listening(agent) as socket, freezing.ready(Guests(), socket) as held:
        async with held.frozen():
            await asyncio.wait_for(agent.thawed.wait(), freezer.BOUND + 2)
        assert not held.held


async def test_an_agent_that_freezes_slowly_has_the_thaw_behind_it() -> None:
    agent = FakeAgent(counting)
    agent.slow = freezer.BOUND + 1
    async with listening(agent) as socket:
        async with freezing.ready(Guests(), socket) as held:
            with pytest.raises(Retry, match="not frozen within"):
                async with held.frozen():
                    raise AssertionError("it is not frozen")
            assert agent.asked == [FREEZE]
        await asyncio.wait_for(agent.thawed.wait(), 10)
    assert agent.asked == [FREEZE, THAW]


async def test_a_guest_that_was_booted_anew_was_not_frozen_until_the_end() -> None:
    agent = FakeAgent(lambda command: {"return": 2 if command == FREEZE else 0})
    async with listening(agent) as socket, freezing.ready(Guests(), socket) as held:
        async with held.frozen():
            pass
        assert not held.held


@pytest.mark.parametrize(
    ("answer", "reason"),
    [({"return": 0}, "none of its file systems"), ({"error": {"desc": "/data is busy"}}, "/data is busy")],
)
async def test_a_guest_that_does_not_freeze_says_why(answer: object, reason: str) -> None:
    agent = FakeAgent(lambda command: answer if command == FREEZE else {"return": 0})
    async with listening(agent) as socket, freezing.ready(Guests(), socket) as held:
        with pytest.raises(Retry, match=reason):
            async with held.frozen():
                raise AssertionError("it is not frozen")
        await asyncio.wait_for(agent.thawed.wait(), 10)


async def test_an_agent_that_goes_away_frozen_is_thawed_when_it_is_back() -> None:
    lost = iter((True, False))
    agent = FakeAgent(lambda command: None if command == THAW and next(lost) else {"return": 2})
    async with listening(agent) as socket:
        async with freezing.ready(Guests(), socket) as held:
            with pytest.raises(Silent):
                async with held.frozen():
                    pass
            assert not held.held
        await asyncio.wait_for(agent.thawed.wait(), 10)
    assert agent.asked == [FREEZE, THAW, THAW]


async def test_an_agent_that_is_not_there_is_not_waited_for() -> None:
    folder = Path(tempfile.mkdtemp(prefix="lifeboat-agent-"))
    try:
        with pytest.raises(Retry, match="agent does not answer"):
            async with freezing.ready(Guests(), folder / "qga.sock"):
                raise AssertionError("there is no agent")
    finally:
        shutil.rmtree(folder)
