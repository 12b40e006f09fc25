"""The server that is copied from: which images are its disks."""

from __future__ import annotations

from lifeboat.engines.ceph.compute import Made
from lifeboat.engines.ceph.pools import Image, Look
from lifeboat.engines.ceph.records import Volume


def source_disks(here: Look, server_id: str, made: Made) -> dict[str, Image]:
    """The images of the server that is copied: a registered machine's, or those that say they are its disks."""
    if made.machine is None:
        return here.own_disks(server_id)
    return here.named(Volume(name=disk.name, pool=disk.pool, image=disk.image) for disk in made.disks)


def absent(zone: str, server_id: str, *, registered_only: bool = False) -> str:
    """That a zone has no such server, in words."""
    what = "machine that is registered as server" if registered_only else "server"
    return f"zone {zone} has no {what} {server_id!r}"
