"""Machines that are started from points: their disks are clones of the point's snapshots, made in a moment.

A clone reads what it has not written from the snapshot, so starting takes no copy, and nothing that a machine writes
goes anywhere else. Nothing here asks the primary site anything.
"""

from __future__ import annotations

from lifeboat.engines.ceph import naming, pools, standing
from lifeboat.engines.ceph.compute import Compute, Disk, Order
from lifeboat.engines.ceph.records import ReplicaRecord, Stored
from lifeboat.engines.ceph.sites import Site
from lifeboat.engines.contract import NoSpace, Refused, Retry
from lifeboat.engines.facts import MachineState
from lifeboat.engines.verbs import Launch


class Machines:
    """The launched machines of the servers of a site, and what runs them."""

    def __init__(self, compute: Compute) -> None:
        self._compute = compute

    async def launch(self, site: Site, server_id: str, verb: Launch) -> None:
        """Start a machine from a point or on kept disks, or see that it runs.

        Raises:
            Refused: point, size, network or address are not to be had.
            Retry: it does not start, or another machine runs on these disks.
            NoSpace: the cluster is full.
        """
        zone = site.zone
        record = (await Stored.read(site.records, server_id)).record
        there = await self._compute.disks(zone, server_id)
        disks = there.get(verb.machine)
        if disks is None and verb.disks_of is not None and verb.disks_of != verb.machine:
            disks = there.get(verb.disks_of)
            if disks is None:
                raise Refused(f"server {server_id} has no machine {verb.disks_of} in zone {zone}")
            await self._nobody_runs(zone, server_id, verb.machine, disks)
        order = Order(
            server_id=server_id,
            name=verb.machine,
            shape=verb.shape,
            disks=disks or (),
            ports=() if record is None else record.ports,
            had=() if record is None else record.addresses,
        )
        if verb.machine not in there:
            site.pools.tier(zone, use_ssd=verb.shape.use_ssd)
            await self._compute.check(zone, order)
        if disks is None:
            disks = await self._clone(site, server_id, verb, record)
            order = Order(server_id, verb.machine, verb.shape, disks, order.ports, order.had)
        await self._compute.launch(zone, order, site.connection)

    async def remove(self, site: Site, server_id: str, name: str) -> None:
        """Stop a machine and delete its disks, unless another machine has them, or see that it is gone."""
        there = await self._compute.disks(site.zone, server_id)
        mine = {(disk.pool, disk.image) for disk in there.get(name, ())}
        others = {(disk.pool, disk.image) for machine, disks in there.items() if machine != name for disk in disks}
        look = await pools.look(site)
        # Disks that were cloned for it before it was written down belong to it as well.
        mine |= {(image.pool, image.name) for image in look.machine_disks(server_id).get(name, {}).values()}
        await self._compute.halt(site.zone, server_id, name)
        for pool, image in sorted(mine - others):
            # Of one that was copied back from here, the mirroring may still be on: its peer was silent when that ended.
            await site.worker.call("disable", pool=pool, images=[image], deadline=15.0)
            await site.worker.call("remove", pool=pool, image=image, deadline=20.0)
        await self._compute.remove(site.zone, server_id, name)

    async def make_independent(self, site: Site, server_id: str, name: str) -> None:
        """Let the cluster copy into a machine's disks what they still read from a point, in the background.

        Raises:
            Refused: there is no such machine.
            Retry: it does not run.
        """
        there = await self._compute.disks(site.zone, server_id)
        if name not in there:
            raise Refused(f"server {server_id} has no machine {name} in zone {site.zone}")
        look = await pools.look(site)
        images = {image.name: image for disks in look.machine_disks(server_id).values() for image in disks.values()}
        left = [disk for disk in there[name] if disk.image in images and images[disk.image].parent is not None]
        if not left:
            return
        if look.full:
            raise NoSpace(f"the Ceph cluster of zone {site.zone} is full: machine {name} cannot take over its data")
        tasks = {task["refs"].get("image_name") for task in await site.worker.call("tasks")}
        for disk in left:
            if disk.image not in tasks:
                await site.worker.call("flatten", pool=disk.pool, image=disk.image)

    async def _clone(self, site: Site, server_id: str, verb: Launch, record: ReplicaRecord | None) -> tuple[Disk, ...]:
        look = await pools.look(site)
        found = standing.holding(record, look, server_id, verb.point)
        if found is None:
            raise Refused(f"server {server_id} has no point {verb.point} in zone {site.zone}")
        mark, images = found
        if mark.problem is not None:
            raise Refused(f"point {verb.point} cannot be used: {mark.problem}")
        if look.full:
            raise NoSpace(f"the Ceph cluster of zone {site.zone} is full")
        to_pool = site.pools.tier(site.zone, use_ssd=verb.shape.use_ssd)
        disks = []
        for order, name in enumerate(mark.disks):
            image = images[name]
            disk = Disk(name, to_pool, naming.machine_disk(server_id, verb.machine, name), image.size_bytes)
            metadata = {
                naming.SERVER: server_id,
                naming.DISK: name,
                naming.ORDER: str(order),
                naming.MACHINE: verb.machine,
            }
            await site.worker.call(
                "clone",
                pool=image.pool,
                image=image.name,
                snapshot=naming.snapshot(verb.point),
                to_pool=to_pool,
                to=disk.image,
                metadata=metadata,
            )
            disks.append(disk)
        return tuple(disks)

    async def _nobody_runs(self, zone: str, server_id: str, name: str, disks: tuple[Disk, ...]) -> None:
        there = await self._compute.disks(zone, server_id)
        for other, machine in (await self._compute.machines(zone, server_id)).items():
            shared = other != name and set(there.get(other, ())) & set(disks)
            if shared and machine.state is MachineState.RUNNING:
                raise Retry(f"machine {other} still runs on these disks")
