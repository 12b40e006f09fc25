"""Machines that are launched: a drill's or a failover's server as a virtual machine on the images of its disks."""

from __future__ import annotations

import asyncio
import contextlib

from lifeboat.engines.ceph.compute import Order
from lifeboat.engines.ceph.compute.kubevirt import manifests, names, reading
from lifeboat.engines.ceph.compute.kubevirt.cluster import (
    CLAIM,
    INSTANCE,
    POLICY,
    VIRTUAL_MACHINE,
    VOLUME,
    Body,
    Cluster,
)
from lifeboat.engines.ceph.compute.kubevirt.manifests import HALTED
from lifeboat.engines.ceph.compute.kubevirt.reading import Found, Seen
from lifeboat.engines.ceph.options import KubeVirt, KubeVirtNetwork
from lifeboat.engines.contract import Refused, Retry, Underway

# A verb waits so long for what has begun to end; the next call goes on from there.
_ENDS = 4.0
_ANSWERS = 2.0
_WHERE = "spec.engine.ceph: compute.kubevirt.networks"


def check(options: KubeVirt, zone: str, seen: Seen, order: Order) -> KubeVirtNetwork:
    """See that a machine could be started; the answer is the network that it joins.

    Raises:
        Refused: it could not.
    """
    shape = order.shape
    network = options.network(shape.network)
    if network is None:
        known = ", ".join(sorted(each.name for each in options.networks))
        raise Refused(f"zone {zone} has no network {shape.network}; {_WHERE} has: {known}")
    if shape.cpu > seen.cpu:
        raise Refused(f"{shape.cpu} CPUs are more than the {seen.cpu} that the ResourceQuota of zone {zone} allows")
    if shape.memory_bytes > seen.memory_bytes:
        raise Refused(f"{shape.memory_bytes} bytes of memory are more than the ResourceQuota of zone {zone} allows")
    if shape.elastic_ip is not None:
        raise Refused(
            f"{shape.elastic_ip} is not an elastic IP of zone {zone}: KubeVirt has none; leave elasticIP out and make "
            f"a Service that selects {names.SERVER}: {order.server_id}"
        )
    if shape.ip_address is not None:
        raise Refused(
            f"the cluster of zone {zone} gives addresses itself: leave ipAddress out; on a network of Multus a guest "
            "keeps an address that its own configuration says, or that DHCP there has for it"
        )
    if shape.isolated and network.multus is not None and network.isolated is None:
        raise Refused(
            f"network {network.name} of zone {zone} cannot be isolated: write under {_WHERE} isolated, the "
            "NetworkAttachmentDefinition of a network that leads nowhere"
        )
    return network


async def launch(cluster: Cluster, options: KubeVirt, seen: Seen, order: Order) -> None:
    """Start a machine, or see that it runs or is being started.

    Raises:
        Refused: it cannot have what was asked for.
        Retry: a machine of that name is still going.
    """
    zone, namespace = cluster.zone, cluster.namespace
    network = check(options, zone, seen, order)
    name = names.machine(zone, order.server_id, order.name)
    found = await _find(cluster, name)
    if found is not None:
        if found.vm["metadata"].get("deletionTimestamp"):
            raise Retry(f"machine {order.name} of server {order.server_id} is still being removed")
        if found.fenced:
            raise Refused(f"machine {order.name} is fenced: it must not serve beside the server that it became again")
        if found.strategy != HALTED and found.phase == "Succeeded":
            # It switched itself off, and KubeVirt starts it again when it is asked to.
            await cluster.tell(VIRTUAL_MACHINE, name, "start")
            return
        if found.strategy != HALTED:
            return
        if found.alive:
            raise Underway(f"machine {order.name} of server {order.server_id} is still being stopped")
    for body in manifests.disks(options, zone, namespace, order.server_id, order.disks):
        await cluster.apply(body, names.MANAGER)
    if order.shape.isolated and network.multus is None:
        await cluster.apply(manifests.isolation(zone, namespace, order), names.MANAGER)
    await cluster.apply(manifests.machine(network, zone, namespace, order), names.MANAGER)


async def halt(cluster: Cluster, name: str) -> None:
    """Cut the power of a virtual machine and keep its disks, or see that it is off.

    Raises:
        Underway: it is not yet.
    """
    found = await _find(cluster, name)
    if found is None:
        return
    if found.strategy != HALTED:
        await cluster.apply(manifests.power(found.vm, HALTED, {}, {}), names.POWER)
    await cut(cluster, name)


async def cut(cluster: Cluster, name: str) -> None:
    """End the instance of a virtual machine that is to be halted, without grace.

    Raises:
        Underway: its node has not ended it yet.
    """
    if await cluster.get(INSTANCE, name) is None:
        return
    # The first takes the grace away that the instance was made with, the second ends one that nobody owns any more.
    await cluster.tell(VIRTUAL_MACHINE, name, "stop", {"gracePeriod": 0})
    await cluster.delete(INSTANCE, name, grace=0)
    await cluster.until_gone(INSTANCE, name, _ENDS, f"virtual machine {name} is being stopped on its node")


async def remove(cluster: Cluster, server_id: str, machine: str) -> None:
    """Remove a machine's virtual machine, then the claims and volumes that no other one has, or see that they are gone.

    What a half done removal left is found by what others do not need: their labels say whose they are.

    Raises:
        Underway: something is not gone yet.
    """
    name = names.machine(cluster.zone, server_id, machine)
    mine = ",".join(f"{key}={value}" for key, value in manifests.labels(cluster.zone, server_id).items())
    going = await cluster.get(VIRTUAL_MACHINE, name)
    if going is not None:
        await cluster.delete(VIRTUAL_MACHINE, name)
        await cluster.until_gone(VIRTUAL_MACHINE, name, _ENDS, f"virtual machine {name} is being removed")
    await cluster.until_gone(INSTANCE, name, _ENDS, f"virtual machine {name} is being stopped on its node")
    await cluster.delete(POLICY, name)
    vms, claims, volumes = await asyncio.gather(
        cluster.all(VIRTUAL_MACHINE, mine), cluster.all(CLAIM, mine), cluster.all(VOLUME, mine)
    )
    needed = {claim for vm in vms for claim in reading.claims(vm)}
    free = [claim for claim in _names(claims) if claim not in needed]
    for claim in free:
        await cluster.delete(CLAIM, claim)
    for claim in free:
        await cluster.until_gone(CLAIM, claim, _ENDS, f"claim {claim} is still in use on a node")
    left = [volume for volume in _ours(volumes, cluster.namespace) if volume not in needed]
    for volume in left:
        await cluster.delete(VOLUME, volume)
    for volume in left:
        await cluster.until_gone(VOLUME, volume, _ENDS, f"volume {volume} is still in use on a node")


async def route(cluster: Cluster, seen: Seen, server_id: str, machine: str, port: int) -> tuple[str, int]:
    """The address of a machine and a port of it, once something there accepts connections.

    Raises:
        Retry: nothing does yet, or from here it cannot be told.
    """
    found = present(seen, cluster.zone, server_id, machine)
    if not found.alive:
        raise Retry(f"machine {machine} does not run")
    addresses = found.addresses()
    if not addresses:
        raise Retry(
            f"KubeVirt knows no address of machine {machine} yet; on a network of Multus the guest's agent tells"
        )
    try:
        async with asyncio.timeout(_ANSWERS):
            _, writer = await asyncio.open_connection(addresses[0], port)
    except (OSError, TimeoutError) as error:
        raise Retry(f"nothing accepts connections on port {port} of machine {machine} ({addresses[0]})") from error
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return addresses[0], port


def present(seen: Seen, zone: str, server_id: str, machine: str) -> Found:
    """A machine that was launched.

    Raises:
        Refused: there is none of that name.
    """
    found = seen.machines.get(server_id, {}).get(machine)
    if found is None:
        raise Refused(f"server {server_id} has no machine {machine} in zone {zone}")
    return found


async def _find(cluster: Cluster, name: str) -> Found | None:
    vm, instance = await asyncio.gather(cluster.get(VIRTUAL_MACHINE, name), cluster.get(INSTANCE, name))
    return None if vm is None else Found(vm, instance)


def _names(bodies: list[Body]) -> list[str]:
    return [str(body["metadata"]["name"]) for body in bodies]


def _ours(volumes: list[Body], namespace: str) -> list[str]:
    """The volumes of claims in this namespace: they have none themselves."""
    mine = [each for each in volumes if (each["spec"].get("claimRef") or {}).get("namespace") == namespace]
    return _names(mine)
