"""When the operator begins to decide: not before all that was there at its start is known."""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest

from lifeboat import service
from lifeboat.kube import Kube, Unavailable
from lifeboat.reconcile.reconciler import Reconciler
from lifeboat.service import Service
from lifeboat.settings import Settings
from tests.unit.test_world import server


class Lists:
    """An API server that lists these names of servers, one answer after the other, and the last again and again."""

    def __init__(self, *answers: Iterable[str] | None) -> None:
        self.answers = list(answers)

    async def list_metadata(self, kind: type, _namespace: str | None) -> list[dict[str, Any]]:
        """Nothing of the other kinds; an answer of None is no answer."""
        if kind.__name__ != "ProtectedServer":
            return []
        names = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if names is None:
            raise Unavailable("it does not answer")
        return [{"namespace": "ns", "name": name} for name in names]


class Begun:
    """A reconciler that notes that it was begun, and with what."""

    def __init__(self, of: Service) -> None:
        self._of = of
        self.with_servers: int | None = None

    async def run(self) -> None:
        """Begin."""
        assert self._of.world.complete
        self.with_servers = len(self._of.world._seen)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(service, "LIST_AGAIN_SECONDS", 0.05)


async def begun(made: Service, lists: Lists) -> int | None:
    reconciler = Begun(made)
    async with asyncio.timeout(30):
        await made._reconcile(cast("Reconciler", reconciler), cast("Kube", lists))
    return reconciler.with_servers


@pytest.fixture
def made() -> Service:
    return Service(Settings(), lambda *_: pytest.fail("no engine is needed"))


async def test_an_empty_cluster_is_complete(made: Service) -> None:
    assert await begun(made, Lists(())) == 0


async def test_it_waits_for_what_the_watch_has_not_told_yet(made: Service) -> None:
    made.world.put(server("web"))
    beginning = asyncio.create_task(begun(made, Lists(("web", "db"))))
    await asyncio.sleep(0.2)  # longer than it waits before it lists again
    assert not made.world.complete
    made.world.put(server("db", "db"))
    assert await beginning == 2


async def test_what_was_deleted_before_the_watch_saw_it_is_not_waited_for(made: Service) -> None:
    made.world.put(server("web"))
    assert await begun(made, Lists(("web", "gone"), ("web",))) == 1


async def test_it_lists_until_it_is_answered(made: Service) -> None:
    assert await begun(made, Lists(None, None, ())) == 0
