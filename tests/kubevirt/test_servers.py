"""Servers that a zone has as virtual machines of their owners: seen, held, fenced and let go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from lifeboat import kube
from lifeboat.engines.ceph.compute.kubevirt import names, servers
from lifeboat.engines.ceph.compute.kubevirt.cluster import INSTANCE, VIRTUAL_MACHINE
from lifeboat.engines.contract import Refused, Retry, Underway, Unreachable
from lifeboat.engines.facts import Source
from tests.kubevirt.conftest import ZONE, World
from tests.kubevirt.test_machines import ACCESS, MIB, insist

SERVER = "web-1"


def owned(name: str = "web", server: str | None = SERVER, **spec: Any) -> kube.Body:
    """A virtual machine as its owner applies it."""
    labels = {"team": "web"} if server is None else {"team": "web", names.SERVER: server}
    domain = {"cpu": {"cores": 2}, "memory": {"guest": "64Mi"}, "devices": {}}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name, "labels": labels, "annotations": {names.PORTS: "80, 443"}},
        "spec": {"template": {"spec": {"domain": domain}}, **(spec or {"runStrategy": "Always"})},
    }


async def apply(world: World, body: kube.Body) -> None:
    path = f"{world.kubevirt.path('virtualmachines')}/{body['metadata']['name']}"
    query = {"fieldManager": "kubectl", "force": "true"}
    await world.api.call("PATCH", path, query=query, body=body, content_type=kube.APPLY_PATCH)


async def source(world: World) -> Source:
    await world.compute.offer(ZONE)
    return await world.compute.source(ZONE, SERVER)


async def until(world: World, wanted: Callable[[Source], bool]) -> Source:
    async with asyncio.timeout(20):
        while True:
            found = await source(world)
            if wanted(found):
                return found
            await asyncio.sleep(0.05)


async def vm(world: World, name: str = "web") -> kube.Body:
    found = await world.kubevirt.get("virtualmachines", name)
    assert found is not None
    return found


@pytest.fixture
async def running(world: World) -> World:
    await apply(world, owned())
    await until(world, lambda source: source.running and source.boot_time is not None)
    await until(world, lambda _: "web" in world.paper.running)
    return world


async def test_a_labelled_virtual_machine_is_a_server_of_the_zone(running: World) -> None:
    await apply(running, owned("other", None))
    offer = await running.compute.offer(ZONE)
    assert offer.servers == (SERVER,)
    assert offer.namespaces == ("demo",), "for whoever has the way in"
    made = await running.compute.made(ZONE, SERVER)
    assert made is not None
    assert (made.cpu, made.memory_bytes, made.ports, made.known) == (2, 64 * MIB, (80, 443), True)
    assert await running.compute.made(ZONE, "other") is None
    with pytest.raises(Refused, match=r"label its virtual machine .* with lifeboat.dev/server: other"):
        await running.compute.source(ZONE, "other")
    await apply(running, owned("twin"))
    await running.compute.offer(ZONE)
    with pytest.raises(Refused, match=r"twin and web .* are both labelled"):
        await running.compute.made(ZONE, SERVER)


async def test_its_owner_stops_and_starts_it(running: World) -> None:
    await insist(lambda: running.compute.stop(ZONE, SERVER))
    assert not (await source(running)).running
    await running.compute.start(ZONE, SERVER, (), ACCESS)
    await until(running, lambda source: source.running)


async def test_a_restart_is_a_later_boot(running: World) -> None:
    first = (await source(running)).boot_time
    assert first is not None
    for _ in range(2):
        await running.compute.restart(ZONE, SERVER)
    later = await until(running, lambda found: found.boot_time is not None and found.boot_time > first)
    assert later.running
    assert running.paper.started == ["web", "web"]


@pytest.mark.parametrize("spec", [{"runStrategy": "Always"}, {"running": True}])
async def test_a_fence_cuts_the_power_and_is_lifted(world: World, spec: kube.Body) -> None:
    await apply(world, owned(**spec))
    await until(world, lambda found: found.running)
    for _ in range(2):
        await world.compute.fence(ZONE, SERVER)
    found = await source(world)
    assert (found.running, found.fenced, found.drained) == (False, True, False)
    assert world.paper.running == {}
    assert world.paper.orderly == []
    with pytest.raises(Refused, match="a rollback or a failback lifts the fence"):
        await world.compute.start(ZONE, SERVER, (), ACCESS)
    with pytest.raises(Refused, match="fenced"):
        await world.compute.restart(ZONE, SERVER)
    stored = await vm(world)
    assert stored["metadata"]["labels"]["team"] == "web", "what is its owner's stays"
    for _ in range(2):
        await world.compute.unfence(ZONE, SERVER, (), ACCESS)
    found = await until(world, lambda found: found.running)
    assert not found.fenced
    stored = await vm(world)
    assert stored["spec"].items() >= spec.items()
    assert names.FENCE not in stored["metadata"]["annotations"]


async def test_a_server_that_was_off_stays_off_when_the_fence_is_lifted(world: World) -> None:
    await apply(world, owned(runStrategy="Halted"))
    await world.compute.fence(ZONE, SERVER)
    await world.compute.unfence(ZONE, SERVER, (), ACCESS)
    assert await source(world) == Source(running=False, agent_connected=False)


async def test_an_orderly_fence_lets_the_guest_end_and_waits_for_its_last_write(running: World) -> None:
    drained = False
    asked: list[None] = []

    async def drain() -> None:
        asked.append(None)
        if not drained:
            raise Underway("its last writes are on their way")

    with pytest.raises(Underway, match="is shutting down"):
        await running.compute.fence_orderly(ZONE, SERVER, drain)
    assert not asked, "a server that runs has written nothing last"
    await until(running, lambda _: not running.paper.running)
    await insist_until(lambda: running.compute.fence_orderly(ZONE, SERVER, drain), "last writes")
    assert running.paper.orderly == ["web"]
    found = await source(running)
    assert (found.running, found.fenced, found.drained) == (True, True, False), "not at its end"
    drained = True
    await running.compute.fence_orderly(ZONE, SERVER, drain)
    found = await source(running)
    assert (found.running, found.fenced, found.drained) == (False, True, True)
    asked.clear()
    await running.compute.fence_orderly(ZONE, SERVER, drain)
    assert not asked
    await running.compute.unfence(ZONE, SERVER, (), ACCESS)
    assert (await until(running, lambda found: found.running)).fenced is False


async def insist_until(done: Callable[[], Any], said: str) -> None:
    async with asyncio.timeout(20):
        while True:
            with pytest.raises(Retry) as caught:
                await done()
            if said in str(caught.value):
                return


async def test_a_fence_that_its_node_does_not_carry_out_is_told_soon(running: World) -> None:
    running.paper.endless = True
    began = time.monotonic()
    with pytest.raises(Unreachable, match="could not be fenced within"):
        await running.compute.fence(ZONE, SERVER)
    assert time.monotonic() - began < 3.5
    found = await source(running)
    assert (found.running, found.fenced) == (True, True)
    running.paper.endless = False
    await running.compute.fence(ZONE, SERVER)
    assert not (await source(running)).running


async def test_a_server_stands_still_for_a_point_and_goes_on(running: World) -> None:
    async with running.compute.hold(ZONE, SERVER) as held:
        assert running.paper.stands_still == {"web"}
        assert names.HELD in (await vm(running))["metadata"]["annotations"]
        assert await held.kept()
        assert running.paper.stands_still == set()
    assert names.HELD not in (await vm(running))["metadata"]["annotations"]
    with pytest.raises(ValueError, match="the cluster is slow"):
        async with running.compute.hold(ZONE, SERVER):
            raise ValueError("the cluster is slow")
    assert running.paper.stands_still == set()


async def test_it_goes_on_by_itself_when_a_point_takes_too_long(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "BOUND", 0.5)
    async with running.compute.hold(ZONE, SERVER) as held:
        await until(running, lambda _: not running.paper.stands_still)
        assert not await held.kept()


async def test_who_is_said_to_stand_still_already_is_let_be_and_not_believed(running: World) -> None:
    assert await running.compute._cluster.tell(INSTANCE, "web", "pause")
    with pytest.raises(Retry, match="is paused already"):
        async with running.compute.hold(ZONE, SERVER):
            raise AssertionError("it may go on at any moment")
    assert running.paper.stands_still == {"web"}


async def test_a_server_whose_operator_died_in_a_point_is_let_go_on_by_the_next_look(running: World) -> None:
    await running.compute.offer(ZONE)
    entered = running.compute.hold(ZONE, SERVER)
    held = await entered.__aenter__()
    # The operator dies here: neither its bound nor its way out is gone.
    task = next(each for each in asyncio.all_tasks() if "after" in repr(each.get_coro()))
    task.cancel()
    await running.compute.offer(ZONE)
    assert running.paper.stands_still == {"web"}, "a point that is being taken is not disturbed"
    running.clock.skew = timedelta(seconds=11)
    await running.compute.offer(ZONE)
    assert running.paper.stands_still == set()
    assert names.HELD not in (await vm(running))["metadata"]["annotations"]
    assert not await held.kept()
    await entered.__aexit__(None, None, None)


async def test_a_virtual_machine_that_was_made_anew_meanwhile_is_not_half_made(running: World) -> None:
    seen = await running.compute._server(ZONE, SERVER)
    await running.api.call("DELETE", f"{running.kubevirt.path('virtualmachines')}/web", body={})
    await running.compute._cluster.until_gone(VIRTUAL_MACHINE, "web", 20, "it is still there")
    with pytest.raises(Retry):
        await servers.fence(running.compute._cluster, seen)
    assert await running.kubevirt.vms() == []
