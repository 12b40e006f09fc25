"""Connecting to a process that stands still, or stood still until now."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat.host import freezer
from lifeboat.host.qmp import Monitors, Silent, connect


@contextlib.contextmanager
def crowded(path: Path) -> Iterator[socket.socket]:
    """A listener whose queue is full of callers who gave up."""
    path.parent.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(1)
        while True:
            caller = socket.socket(socket.AF_UNIX)
            caller.settimeout(0)
            try:
                caller.connect(str(path))
            except BlockingIOError:
                caller.close()
                break
            stack.callback(caller.close)
        yield listener


async def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "servers/web-1/qmp.sock"
    with crowded(path) as listener:
        async with asyncio.timeout(10):
            asking = asyncio.create_task(connect(path))
            await asyncio.wait([asking], timeout=0.1)
            assert not asking.done()
            listener.accept()[0].close()
            with await asking as connection:
                assert connection.getpeername() == str(path)


async def test_a_monitor_with_a_full_queue_is_silent_for_its_deadline(tmp_path: Path) -> None:
    path = tmp_path / "servers/web-1/qmp.sock"
    with crowded(path):
        with pytest.raises(Silent, match=r"QEMU of servers/web-1 does not answer within 0\.2 s"):
            await Monitors().run(path, "query-status", seconds=0.2)
        assert not await Monitors().quit(path, 0.2)


async def test_where_nobody_listens_it_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "servers/web-1/qmp.sock"
    with crowded(path):
        pass
    with pytest.raises(Silent, match="Connection refused"):
        await Monitors().run(path, "query-status", seconds=30.0)


def test_the_freezer_waits_for_a_place_in_the_queue_of_an_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "servers/web-1/qga.sock"
    monkeypatch.setattr(freezer, "_ANSWER", 0.2)
    with crowded(path):
        monkeypatch.chdir(path.parent)
        with pytest.raises(freezer.Silent, match="Resource temporarily unavailable"):
            freezer.connect(path)
