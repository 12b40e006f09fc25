"""The whole road with servers on KubeVirt: a point, a machine on clones of it, its halt, and nothing left of it.

The clusters and the API server are real. What KubeVirt would do is done by a stand-in, which boots a real machine from
the images that its claims lead to.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from demo.ceph import Clusters
from demo.controlplane import ControlPlane
from lifeboat.engines.ceph.compute.kubevirt import manifests
from lifeboat.engines.contract import Retry
from lifeboat.engines.facts import MachineState, Way
from lifeboat.engines.verbs import (
    Fence,
    Halt,
    Launch,
    MakeIndependent,
    ReleaseReplica,
    RemoveMachine,
    StopReplication,
    TakePoint,
    Unfence,
)
from tests.engines.harness import Stage, known
from tests.kubevirt.ceph_harness import KubeVirtHarness
from tests.kubevirt.conftest import serve_kubevirt

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
async def recovering(clusters: Clusters, control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[KubeVirtHarness]:
    async for harness in _harness(clusters, control_plane, tmp_path, both=False):
        yield harness


@pytest.fixture
async def everywhere(clusters: Clusters, control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[KubeVirtHarness]:
    async for harness in _harness(clusters, control_plane, tmp_path, both=True):
        yield harness


async def _harness(
    clusters: Clusters, plane: ControlPlane, folder: Path, *, both: bool
) -> AsyncIterator[KubeVirtHarness]:
    await serve_kubevirt(plane)
    namespace = f"servers-{uuid.uuid4().hex[:8]}"
    async with KubeVirtHarness.opened(clusters, plane, namespace, folder, both=both) as harness:
        yield harness


async def _launched(stage: Stage, harness: KubeVirtHarness, verb: Launch) -> None:
    for _ in range(2):
        await stage.perform(verb)
    await harness.up(verb.machine)


async def _left(harness: KubeVirtHarness) -> list[str]:
    """What is still there of machines: objects and images."""
    found = []
    for plural in ("virtualmachines", "virtualmachineinstances", "persistentvolumeclaims", "persistentvolumes"):
        ours = [each["metadata"] for each in await harness.kubevirt.all(plural)]
        mine = manifests.labels("zone-b", harness.server_id).items()
        found += [f"{plural}/{each['name']}" for each in ours if mine <= each.get("labels", {}).items()]
    images = harness.clusters.recovery.run("rbd", "ls", "rbd").split()
    return found + [image for image in images if image.startswith(f"lifeboat+{harness.server_id}+")]


async def test_from_a_point_to_a_virtual_machine_and_to_nothing(recovering: KubeVirtHarness) -> None:
    harness, stage = recovering, Stage(recovering)
    await stage.replicate()
    await harness.write(1)
    await stage.insist(TakePoint("point-1"))
    await harness.write(2)
    await _launched(stage, harness, Launch("drill-a", "point-1", stage.shape(isolated=True)))
    assert await harness.contents("drill-a") == 1, "what the disks held at the point"
    await harness.write_in("drill-a", 7)
    (point,) = [each for each in (await stage.replica()).points if each.name == "point-1"]
    assert point.used_by == ("drill-a",)
    await stage.perform(TakePoint("point-2"))
    await harness.restart_engine()
    await stage.insist(Halt("drill-a"))
    assert (await stage.machines())["drill-a"].state is MachineState.HALTED
    await stage.perform(Launch("drill-a", "point-1", stage.shape(isolated=True)))
    await harness.up("drill-a")
    assert await harness.contents("drill-a") == 7, "its disks are its own"
    await stage.insist(RemoveMachine("drill-a"))
    assert await _left(harness) == []
    assert await stage.machines() == {}
    await stage.perform(RemoveMachine("drill-a"))


async def test_a_failed_over_server_goes_on_with_its_disks_and_needs_no_point_any_more(
    recovering: KubeVirtHarness,
) -> None:
    harness, stage = recovering, Stage(recovering)
    await stage.replicate()
    await harness.write(3)
    await stage.insist(Fence(orderly=True))
    await stage.insist(StopReplication(freeze_as="tip"))
    await _launched(stage, harness, Launch("failover-1-1", "tip", stage.shape()))
    assert await harness.contents("failover-1-1") == 3
    await harness.write_in("failover-1-1", 4)
    again = Launch("failover-1-2", "tip", stage.shape(cpu=1), disks_of="failover-1-1")
    with pytest.raises(Retry, match="still runs on these disks"):
        await stage.perform(again)
    await stage.insist(Halt("failover-1-1"))
    await _launched(stage, harness, again)
    assert await harness.contents("failover-1-2") == 4
    await stage.insist(RemoveMachine("failover-1-1"))
    assert await harness.contents("failover-1-2") == 4, "disks that another machine goes on with stay"
    await stage.perform(MakeIndependent("failover-1-2"))

    def independent(facts: Way) -> bool:
        return known(facts.machines)["failover-1-2"].independent

    await harness.settle(independent)
    await stage.perform(ReleaseReplica())
    assert await stage.points() == []
    assert await harness.contents("failover-1-2") == 4
    await stage.insist(RemoveMachine("failover-1-2"))
    assert await _left(harness) == []


async def test_a_server_that_is_a_virtual_machine_already_is_copied_held_fenced_and_let_go_on(
    everywhere: KubeVirtHarness,
) -> None:
    harness, stage = everywhere, Stage(everywhere)
    assert known((await stage.look()).primary).servers == (harness.server_id,)
    hardware = known((await stage.server()).hardware)
    assert (hardware.cpu, hardware.memory_bytes) == (harness.cpu, harness.memory_bytes)
    assert [disk.name for disk in hardware.disks] == list(harness.disks)
    await stage.replicate()
    async with harness.alternating():
        await stage.insist(TakePoint("point-1"))
    assert harness.qemu.stood_still > 0
    await _launched(stage, harness, Launch("drill-a", "point-1", stage.shape(isolated=True)))
    assert await harness.agrees("point-1"), "both disks are of one instant"
    await harness.write(1000)
    await stage.insist(Fence(orderly=True))
    source = await stage.source()
    assert (source.running, source.fenced, source.drained) == (False, True, True)
    assert not await harness.start_source()
    await stage.insist(StopReplication(freeze_as="tip"))
    (tip,) = [point for point in (await stage.replica()).points if point.name == "tip"]
    assert tip.problem is None
    await _launched(stage, harness, Launch("failover-1-1", "tip", stage.shape()))
    assert await harness.contents("failover-1-1") == 1000
    for machine in ("drill-a", "failover-1-1"):
        await stage.insist(RemoveMachine(machine))
    assert await _left(harness) == []
    await stage.perform(Unfence())
    await harness.settle(lambda facts: known(facts.source).running and not known(facts.source).fenced)
