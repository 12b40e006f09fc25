"""Launched machines as objects of a real API server: made, seen, halted, started again and removed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lifeboat import kube
from lifeboat.engines.ceph.compute import Disk, Order
from lifeboat.engines.ceph.connection import Connection
from lifeboat.engines.contract import Refused, Retry, Script, Underway
from lifeboat.engines.facts import Machine, MachineState
from lifeboat.engines.verbs import Shape
from tests.kubevirt.conftest import ZONE, World

ACCESS = Connection((), "lifeboat", "")
SERVER = "Web_1"
MIB = 1 << 20


def shape(**changes: Any) -> Shape:
    return Shape(**{"cpu": 2, "memory_bytes": 64 * MIB, "network": "recovery", **changes})


def order(name: str = "failover-1-1", disks: tuple[Disk, ...] | None = None, **changes: Any) -> Order:
    of = tuple(Disk(each, "rbd", f"lifeboat+{SERVER}+{name}+{each}", 32 * MIB) for each in ("system", "data"))
    return Order(SERVER, name, shape(**changes), of if disks is None else disks, ports=(80, 443))


async def machine(world: World, name: str = "failover-1-1") -> Machine | None:
    await world.compute.offer(ZONE)
    return (await world.compute.machines(ZONE, SERVER)).get(name)


async def settle(world: World, wanted: Callable[[Machine], bool], name: str = "failover-1-1") -> Machine:
    async with asyncio.timeout(20):
        while True:
            found = await machine(world, name)
            if found is not None and wanted(found):
                return found
            await asyncio.sleep(0.05)


async def insist(done: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await done()
            except Retry:
                await asyncio.sleep(0.05)
            else:
                return


def up(found: Machine) -> bool:
    return found.state is MachineState.RUNNING and bool(found.addresses)


async def test_a_machine_is_launched_once_on_its_images_and_removed_with_all_that_was_made(world: World) -> None:
    await world.compute.check(ZONE, order(disks=()))
    assert await world.kubevirt.vms() == [], "a check leaves nothing behind"
    for _ in range(2):
        await world.compute.launch(ZONE, order(), ACCESS)
    found = await settle(world, up)
    assert (found.name, found.reason, found.out_of_space) == ("failover-1-1", "", False)
    assert found.url == f"http://{found.addresses[0]}/"
    (ran,) = world.paper.running.values()
    assert (ran.cpu, ran.memory_bytes) == (2, 64 * MIB)
    assert [image.name for image in ran.disks] == [disk.image for disk in order().disks], "the first is the one to boot"
    assert await world.compute.disks(ZONE, SERVER) == {"failover-1-1": order().disks}
    await world.compute.launch(ZONE, order(), ACCESS)
    assert world.paper.started == [ran.name]
    await insist(lambda: world.compute.remove(ZONE, SERVER, "failover-1-1"))
    assert await machine(world) is None
    for plural in ("virtualmachines", "virtualmachineinstances", "persistentvolumeclaims", "persistentvolumes"):
        assert await _ours(world, plural) == [], plural
    assert world.paper.running == {}
    await world.compute.remove(ZONE, SERVER, "failover-1-1")


async def test_a_halted_machine_keeps_its_disks_and_is_started_again(world: World) -> None:
    await world.compute.launch(ZONE, order(), ACCESS)
    await settle(world, up)
    for _ in range(2):
        await insist(lambda: world.compute.halt(ZONE, SERVER, "failover-1-1"))
    found = await machine(world)
    assert found is not None
    assert found.state is MachineState.HALTED
    assert world.paper.running == {}
    assert world.paper.orderly == [], "its power was cut"
    assert len(await _ours(world, "persistentvolumeclaims")) == 2
    await world.compute.launch(ZONE, order(cpu=1), ACCESS)
    await settle(world, up)
    (ran,) = world.paper.running.values()
    assert ran.cpu == 1, "with the size that was asked for last"


async def test_a_machine_goes_on_with_anothers_disks_which_stay_when_that_is_removed(world: World) -> None:
    await world.compute.launch(ZONE, order(), ACCESS)
    await settle(world, up)
    await insist(lambda: world.compute.halt(ZONE, SERVER, "failover-1-1"))
    await world.compute.launch(ZONE, order("failover-1-2", order().disks), ACCESS)
    await settle(world, up, "failover-1-2")
    await insist(lambda: world.compute.remove(ZONE, SERVER, "failover-1-1"))
    assert len(await _ours(world, "persistentvolumes")) == 2
    assert up(await settle(world, up, "failover-1-2"))
    await insist(lambda: world.compute.remove(ZONE, SERVER, "failover-1-2"))
    assert await _ours(world, "persistentvolumes") == []


async def test_a_guest_that_switched_itself_off_has_failed_and_is_started_by_a_launch(world: World) -> None:
    await world.compute.launch(ZONE, order(), ACCESS)
    await settle(world, up)
    world.paper.running.clear()
    found = await settle(world, lambda found: found.state is MachineState.FAILED)
    assert "switched itself off" in found.reason
    await world.compute.launch(ZONE, order(), ACCESS)
    await settle(world, up)


async def test_a_machine_whose_node_does_not_end_it_counts_as_running(world: World) -> None:
    await world.compute.launch(ZONE, order(), ACCESS)
    await settle(world, up)
    world.paper.endless = True
    with pytest.raises(Underway, match="being stopped on its node"):
        await world.compute.halt(ZONE, SERVER, "failover-1-1")
    found = await machine(world)
    assert found is not None
    assert (found.state, found.reason) == (MachineState.RUNNING, "it is being stopped")
    with pytest.raises(Underway):
        await world.compute.launch(ZONE, order(), ACCESS)
    world.paper.endless = False
    await insist(lambda: world.compute.halt(ZONE, SERVER, "failover-1-1"))


async def test_an_isolated_machine_may_speak_to_nobody(world: World) -> None:
    await world.compute.launch(ZONE, order("drill-a", isolated=True), ACCESS)
    await settle(world, up, "drill-a")
    path = f"/apis/networking.k8s.io/v1/namespaces/{world.namespace}/networkpolicies"
    (policy,) = (await world.api.call("GET", path))["items"]
    (instance,) = await world.kubevirt.all("virtualmachineinstances")
    selector = policy["spec"]["podSelector"]["matchLabels"]
    assert selector.items() <= instance["metadata"]["labels"].items(), "KubeVirt gives the pod what the instance has"
    assert policy["spec"]["policyTypes"] == ["Egress"]
    assert "egress" not in policy["spec"] or policy["spec"]["egress"] == []
    await insist(lambda: world.compute.remove(ZONE, SERVER, "drill-a"))
    assert (await world.api.call("GET", path))["items"] == []


async def test_a_route_leads_to_an_address_that_the_machine_has(world: World) -> None:
    await world.compute.launch(ZONE, order(), ACCESS)
    found = await settle(world, up)
    with pytest.raises(Retry, match="nothing accepts connections on port"):
        await world.compute.route(ZONE, SERVER, "failover-1-1", 1)
    server = await asyncio.start_server(lambda _, writer: writer.close(), found.addresses[0], 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await world.compute.route(ZONE, SERVER, "failover-1-1", port) == (found.addresses[0], port)
    await insist(lambda: world.compute.halt(ZONE, SERVER, "failover-1-1"))
    with pytest.raises(Retry, match="does not run"):
        await world.compute.route(ZONE, SERVER, "failover-1-1", port)


async def test_what_a_quota_allows_is_what_the_zone_has(world: World) -> None:
    before = await world.compute.offer(ZONE)
    assert (before.cpu, before.memory_bytes) == (512, 16 << 40)
    assert {network.name: network.cidr for network in before.networks}["both"] == "10.30.0.0/24"
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "most"},
        "spec": {"hard": {"limits.cpu": "4", "requests.memory": "1Gi", "pods": "10"}},
    }
    await world.api.call("POST", f"/api/v1/namespaces/{world.namespace}/resourcequotas", body=quota)
    after = await world.compute.offer(ZONE)
    assert (after.cpu, after.memory_bytes) == (4, 1 << 30)
    with pytest.raises(Refused, match="ResourceQuota"):
        await world.compute.check(ZONE, order(cpu=5))


async def test_what_cannot_be_done_is_said_with_what_to_do_instead(world: World) -> None:
    for changes, said in (
        ({"network": "elsewhere"}, "has: both, recovery, vlan"),
        ({"elastic_ip": "192.0.2.1"}, "make a Service that selects"),
        ({"ip_address": "10.0.0.1"}, "leave ipAddress out"),
        ({"network": "vlan", "isolated": True}, "NetworkAttachmentDefinition of a network that leads nowhere"),
    ):
        with pytest.raises(Refused, match=said):
            await world.compute.check(ZONE, order(**changes))
    await world.compute.check(ZONE, order(network="both", isolated=True))
    await world.compute.launch(ZONE, order(), ACCESS)
    with pytest.raises(Refused, match="http or tcp"):
        await world.compute.execute(ZONE, SERVER, "failover-1-1", ["true"], 5.0)
    with pytest.raises(Refused, match="leave postScript out"):
        await world.compute.run_script(ZONE, SERVER, "failover-1-1", Script("key", "true"), 5.0)
    with pytest.raises(Refused, match="has no machine other"):
        await world.compute.route(ZONE, SERVER, "other", 80)


async def test_each_kind_is_listed_once_for_all_servers(world: World) -> None:
    calls: list[str] = []
    ours = world.compute._cluster._api
    call = ours.call

    async def counted(method: str, path: str, **more: Any) -> kube.Body:
        calls.append(f"{method} {path.rsplit('/', 1)[1]}")
        return await call(method, path, **more)

    ours.call = counted  # type: ignore[method-assign]
    await world.compute.offer(ZONE)
    for number in range(100):
        assert await world.compute.made(ZONE, f"server-{number}") is None
        await world.compute.machines(ZONE, f"server-{number}")
        await world.compute.disks(ZONE, f"server-{number}")
    assert sorted(calls) == ["GET resourcequotas", "GET virtualmachineinstances", "GET virtualmachines"]


async def _ours(world: World, plural: str) -> list[str]:
    found = await world.kubevirt.all(plural)
    return [
        each["metadata"]["name"]
        for each in found
        if plural != "persistentvolumes" or each["spec"]["claimRef"]["namespace"] == world.namespace
    ]
