"""What is written first where much is to be written."""

import asyncio
from typing import Any

from lifeboat import kube
from lifeboat.lifecycle.report import Event
from lifeboat.lifecycle.view import PROTECTED_SERVER, Subject
from lifeboat.reconcile.writer import PARALLEL_WRITES, Writer
from lifeboat.world import Key, World

SERVERS = 3 * PARALLEL_WRITES
STATUS = "status of ProtectedServer in default"


class Slow(kube.Kube):
    """An API server that answers once it is let, and knows in which order it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.busy, self.answers = asyncio.Event(), asyncio.Event()

    async def apply_status(self, kind: kube.Kind, namespace: str, name: str, status: kube.Body) -> kube.Body:
        self.asked.append(f"status of {kind.__name__} in {namespace}")
        if len(self.asked) == PARALLEL_WRITES:
            self.busy.set()
        await self.answers.wait()
        return {**body(name), "status": status}

    async def create_event(self, namespace: str, body: kube.Body) -> None:
        self.asked.append(f"event in {namespace}")
        assert body["involvedObject"]["uid"] == body["involvedObject"]["name"]


def body(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "uid": name, "resourceVersion": "1", "generation": 1}
    spec = {"sitePairRef": {"name": "pair"}, "serverId": name}
    return {"kind": PROTECTED_SERVER, "metadata": metadata, "spec": spec}


async def test_events_give_way_to_statuses_and_are_told_in_the_end() -> None:
    api, world = Slow(), World()
    names = [f"web-{number}" for number in range(SERVERS)]
    for name in names:
        world.put(body(name))
    writer = Writer(api, world, lambda: None, "me")
    events = asyncio.create_task(writer.tell_events())
    try:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(writer.status(Key(PROTECTED_SERVER, "default", name), {"phase": "FullSync"}))
            await api.busy.wait()
            for name in names:
                event = Event(Subject(PROTECTED_SERVER, name), "FullSync", "it is copied")
                writer.event(Key(PROTECTED_SERVER, "default", name), event)
            for _ in range(100):
                await asyncio.sleep(0)
            assert api.asked == [STATUS] * PARALLEL_WRITES
            api.answers.set()
        await writer.drain(30)
        assert api.asked == [STATUS] * SERVERS + ["event in default"] * SERVERS
    finally:
        events.cancel()
        await asyncio.gather(events, return_exceptions=True)
