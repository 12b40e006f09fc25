"""A recovered machine as the server of its zone, and the disks of a server that are given up for its return."""

from __future__ import annotations

import pytest

from lifeboat.engines.ceph.compute.kubevirt import names
from lifeboat.engines.contract import Refused
from tests.kubevirt.conftest import ZONE, World, options
from tests.kubevirt.test_machines import ACCESS, SERVER, insist, order, settle, up
from tests.kubevirt.test_servers import apply, owned

MACHINE = "failover-1-1"


@pytest.fixture
async def recovered(world: World) -> World:
    """A zone that has a server of that id of its own, stopped, and a recovered one."""
    world.compute._options = options(mounter="rbd-nbd")
    await apply(world, owned("web", SERVER, runStrategy="Halted"))
    await world.compute.launch(ZONE, order(), ACCESS)
    await settle(world, up)
    return world


async def test_a_machine_that_is_registered_is_the_server_of_its_zone(recovered: World) -> None:
    compute = recovered.compute
    before = await compute.made(ZONE, SERVER)
    assert before is not None
    assert before.machine is None
    for _ in range(2):
        await compute.register(ZONE, SERVER, MACHINE)
    made = await compute.made(ZONE, SERVER)
    assert made is not None
    assert (made.machine, made.cpu, made.ports, made.disks) == (MACHINE, 2, (80, 443), order().disks)
    source = await compute.source(ZONE, SERVER)
    assert (source.running, source.machine) == (True, MACHINE)
    assert up((await compute.machines(ZONE, SERVER))[MACHINE]), "it stays a machine as well"
    await compute.fence(ZONE, SERVER)
    assert (await compute.source(ZONE, SERVER)).fenced
    with pytest.raises(Refused, match="is fenced"):
        await compute.launch(ZONE, order(), ACCESS)
    await insist(lambda: compute.remove(ZONE, SERVER, MACHINE))
    made = await compute.made(ZONE, SERVER)
    assert made is not None
    assert made.machine is None, "the registration ends with the machine"


async def test_what_cannot_be_the_server_is_refused(recovered: World) -> None:
    compute = recovered.compute
    with pytest.raises(Refused, match="has no machine other"):
        await compute.register(ZONE, SERVER, "other")
    await compute.launch(ZONE, order("drill-a", isolated=True), ACCESS)
    with pytest.raises(Refused, match="is isolated"):
        await compute.register(ZONE, SERVER, "drill-a")
    compute._options = options()
    with pytest.raises(Refused, match="mounter: rbd-nbd"):
        await compute.register(ZONE, SERVER, MACHINE)
    compute._options = options(mounter="rbd-nbd")
    await compute.start(ZONE, SERVER, (), ACCESS)
    with pytest.raises(Refused, match="still runs"):
        await compute.register(ZONE, SERVER, MACHINE)


async def test_disks_are_given_up_only_where_they_serve_nobody_and_then_for_good(world: World) -> None:
    compute = world.compute
    await apply(world, owned("web", SERVER))
    with pytest.raises(Refused, match="runs: its disks are not given up"):
        await compute.check_given_up(ZONE, SERVER)
    await insist(lambda: compute.stop(ZONE, SERVER))
    with pytest.raises(Refused, match="is not fenced"):
        await compute.check_given_up(ZONE, SERVER)
    await compute.start(ZONE, SERVER, (), ACCESS)
    await compute.fence(ZONE, SERVER)
    await compute.check_given_up(ZONE, SERVER)
    for _ in range(2):
        await compute.give_up(ZONE, SERVER, 2)
    with pytest.raises(Refused, match="given up"):
        await compute.unfence(ZONE, SERVER, (), ACCESS)
    assert (await compute.source(ZONE, SERVER)).fenced
    vm = await world.kubevirt.get("virtualmachines", "web")
    assert vm is not None
    assert vm["metadata"]["annotations"][names.GIVEN_UP] == "2"
