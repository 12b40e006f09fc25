"""What docs/how-to/ceph.md tells people to apply: rights that suffice and are all used, and a fence that holds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from demo.controlplane import ControlPlane
from lifeboat import kube
from lifeboat.engines.ceph.compute.kubevirt import kubeconfig, names
from lifeboat.engines.ceph.compute.kubevirt.cluster import Cluster
from lifeboat.engines.ceph.compute.kubevirt.compute import KubeVirtCompute
from lifeboat.engines.contract import Refused
from lifeboat.engines.facts import MachineState
from tests import pages, rights
from tests.kubevirt.conftest import ZONE, World, options
from tests.kubevirt.test_machines import ACCESS, insist, order, settle, up
from tests.kubevirt.test_machines import SERVER as RECOVERED
from tests.kubevirt.test_servers import SERVER, apply, owned, until, vm

PAGE = pages.ROOT / "docs" / "how-to" / "ceph.md"
ACCOUNT = "lifeboat"


def manifests(*kinds: str) -> list[kube.Body]:
    """What the page shows of these kinds."""
    found = [
        body
        for block in pages.blocks(PAGE)
        if block.language == "yaml"
        for body in yaml.safe_load_all(block.text)
        if body["kind"] in kinds
    ]
    assert {body["kind"] for body in found} == set(kinds)
    return found


def applied(plane: ControlPlane, namespace: str, *bodies: kube.Body) -> None:
    """Apply manifests of the page in a namespace of a case's own."""
    text = yaml.safe_dump_all(bodies).replace("namespace: servers", f"namespace: {namespace}")
    plane.kubectl("apply", "--filename=-", stdin=text)


@contextlib.asynccontextmanager
async def as_account(world: World, folder: Path) -> AsyncIterator[KubeVirtCompute]:
    """The compute, with what a Secret would hold of the ServiceAccount."""
    path = folder / "kubeconfig"
    world.plane.write_account_kubeconfig(path, ACCOUNT, world.namespace)
    text = world.plane.kubectl(f"--kubeconfig={path}", "config", "view", "--raw", "--minify", "--flatten")
    api = kube.Kube.reach(kubeconfig.read({kubeconfig.KEY: text}, "zone-b"))
    compute = KubeVirtCompute(Cluster(api, ZONE, world.namespace), options(), "demo", world.clock.now)
    try:
        yield compute
    finally:
        await compute.close()


async def granted(compute: KubeVirtCompute) -> None:
    """Wait until the API server has read the roles."""
    async with asyncio.timeout(20):
        while True:
            try:
                await compute.offer(ZONE)
            except Refused:
                await asyncio.sleep(0.1)
            else:
                return


def judge(world: World) -> None:
    held = rights.granted(world.plane, ACCOUNT, world.namespace)
    asked = rights.requests(world.plane.audit_log, ACCOUNT, world.namespace)
    assert held
    assert rights.refused(asked, held) == set()
    # An apply that makes an object is a patch in the log, and needs create as well.
    assert [right for right in rights.unused(held, asked) if right.verb != "create"] == []


async def test_where_servers_are_recovered_every_right_is_used_and_none_is_missing(
    world: World, tmp_path: Path
) -> None:
    wanted = ("ServiceAccount", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    role, *_ = [each for each in manifests("Role") if each["metadata"]["name"] == "lifeboat-recovery"]
    applied(world.plane, world.namespace, role, *manifests(*wanted))
    async with as_account(world, tmp_path) as compute:
        await granted(compute)
        ours, world.compute = world.compute, compute
        await compute.launch(ZONE, order(isolated=True), ACCESS)
        found = await settle(world, up)
        assert await world.kubevirt.hypervisor.runs(found.instance_id)
        paused = {"type": "Paused", "status": "True", "reason": "PausedIOError"}
        await world.kubevirt.merge("virtualmachineinstances", found.instance_id, {"status": {"conditions": [paused]}})
        await settle(world, lambda found: found.out_of_space)
        await compute.go_on(ZONE, RECOVERED, "failover-1-1")
        world.paper.running.clear()
        await settle(world, lambda found: found.state is MachineState.FAILED)
        await compute.launch(ZONE, order(), ACCESS)
        await settle(world, up)
        await insist(lambda: compute.halt(ZONE, RECOVERED, "failover-1-1"))
        await insist(lambda: compute.remove(ZONE, RECOVERED, "failover-1-1"))
        world.compute = ours
    judge(world)


async def test_where_servers_are_protected_every_right_is_used_and_none_is_missing(
    world: World, tmp_path: Path
) -> None:
    (account,) = manifests("ServiceAccount")
    role, *_ = [each for each in manifests("Role") if each["metadata"]["name"] == "lifeboat-primary"]
    (binding,) = manifests("RoleBinding")
    binding["roleRef"]["name"] = binding["metadata"]["name"] = "lifeboat-primary"
    applied(world.plane, world.namespace, account, role, binding)
    await apply(world, owned())
    async with as_account(world, tmp_path) as compute:
        await granted(compute)
        ours, world.compute = world.compute, compute
        first = (await until(world, lambda found: found.boot_time is not None)).boot_time
        async with compute.hold(ZONE, SERVER) as held:
            assert await held.kept()
        await compute.restart(ZONE, SERVER)
        assert first is not None
        await until(world, lambda found: found.boot_time is not None and found.boot_time > first)
        await compute.fence(ZONE, SERVER)
        await compute.unfence(ZONE, SERVER, (), ACCESS)
        await until(world, lambda found: found.running)
        world.compute = ours
    judge(world)


async def test_an_account_without_rights_is_told_where_they_are_listed(world: World, tmp_path: Path) -> None:
    (account,) = manifests("ServiceAccount")
    applied(world.plane, world.namespace, account)
    async with as_account(world, tmp_path) as compute:
        with pytest.raises(Refused, match=r"cannot list .* docs/how-to/ceph.md"):
            await compute.offer(ZONE)


async def test_nobody_starts_a_fenced_server_where_the_policy_is(world: World) -> None:
    policy = manifests("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    applied(world.plane, world.namespace, *policy)
    for name, spec in (("web", {"runStrategy": "Always"}), ("old", {"running": True})):
        await apply(world, owned(name, f"{name}-1", **spec))
    try:
        for name, spec in (("web", {"runStrategy": "Always"}), ("old", {"running": True})):
            server = f"{name}-1"
            await insist(lambda server=server: world.compute.fence(ZONE, server))  # type: ignore[misc]
            while not await denied(world, owned(name, server, **spec)):
                # The API server takes a moment to read the policy.
                await insist(lambda server=server: world.compute.fence(ZONE, server))  # type: ignore[misc]
            assert names.FENCED in (await vm(world, name))["metadata"]["labels"]
            await world.compute.unfence(ZONE, server, (), ACCESS)
            await apply(world, owned(name, server, **spec))
    finally:
        world.plane.kubectl("delete", "validatingadmissionpolicybinding", "lifeboat-fence")
        world.plane.kubectl("delete", "validatingadmissionpolicy", "lifeboat-fence")


async def denied(world: World, body: kube.Body) -> bool:
    """Whether the API server refuses what an owner applies, with the policy's words."""
    try:
        await apply(world, body)
    except kube.Rejected as error:
        return "a rollback or a failback lifts the fence" in str(error)
    return False
