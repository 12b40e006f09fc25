"""What one look at a site's pools shows, as values."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lifeboat.engines.ceph import naming
from lifeboat.engines.ceph.ledgers import Text
from lifeboat.engines.ceph.records import Volume
from lifeboat.engines.ceph.sites import Site

Head = tuple[int, int]
"""How far somebody is in a journal: the number of its writer, and of the entry."""
_NOTHING: Head = (0, -1)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that a person or Lifeboat took."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Mirror:
    """What rbd-mirror says of an image at this site, up to 30 s old."""

    up: bool
    state: str
    description: str


@dataclass(frozen=True, slots=True)
class Peer:
    """How far the other site is with this image's journal: `copied` once the first copy of it is whole."""

    head: Head
    copied: bool
    connected: bool


@dataclass(frozen=True, slots=True)
class Image:
    """An image. `head` is how far its own writer is in its journal, `peers` has the other sites by their uuid."""

    pool: str
    id: str
    name: str
    size_bytes: int
    metadata: Mapping[str, str]
    snapshots: tuple[Snapshot, ...]
    parent: tuple[str, str] | None
    mirror: Mirror | None
    exclusive: bool = True
    journaled: bool = True
    head: Head = _NOTHING
    peers: Mapping[str, Peer] = field(default_factory=dict)

    def snapshot(self, name: str) -> Snapshot | None:
        """The snapshot of that name."""
        return next((each for each in self.snapshots if each.name == name), None)


@dataclass(frozen=True, slots=True)
class Mark:
    """That a point was taken whole: when, and of which disks."""

    point: str
    time: datetime
    disks: tuple[str, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool and its mirroring."""

    mirroring: bool
    mirror_uuid: str
    peers: int
    images: tuple[Image, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """All pools of a site at one moment, and the records there."""

    zone: str
    full: bool
    size_bytes: Mapping[str, int]
    free_bytes: Mapping[str, int]
    pools: Mapping[str, Pool]
    records: Mapping[str, Text]

    def images(self, server_id: str) -> tuple[Image, ...]:
        """The images of a server, whatever they are to it."""
        return tuple(
            image
            for pool in self.pools.values()
            for image in pool.images
            if image.metadata.get(naming.SERVER) == server_id
        )

    def named(self, volumes: Iterable[Volume]) -> dict[str, Image]:
        """The images of these disks that are there, by the disks' names and in their order."""
        found = {}
        for volume in volumes:
            pool = self.pools.get(volume.pool)
            image = None if pool is None else next((each for each in pool.images if each.name == volume.image), None)
            if image is not None:
                found[volume.name] = image
        return found

    def own_disks(self, server_id: str) -> dict[str, Image]:
        """The disks of the site's own server: the images that say so, by name and in their order."""
        return by_disk(
            image
            for image in self.images(server_id)
            if naming.MACHINE not in image.metadata and naming.KEPT not in image.metadata
        )

    def kept(self, server_id: str) -> dict[int, dict[str, Image]]:
        """The copies that were set aside, by their runs, newest first."""
        found: dict[int, list[Image]] = {}
        for image in self.images(server_id):
            run = image.metadata.get(naming.KEPT, "")
            if run.isdigit():
                found.setdefault(int(run), []).append(image)
        return {run: by_disk(found[run]) for run in sorted(found, reverse=True)}

    def machine_disks(self, server_id: str) -> dict[str, dict[str, Image]]:
        """The disks that were cloned for machines, by machine."""
        found: dict[str, list[Image]] = {}
        for image in self.images(server_id):
            machine = image.metadata.get(naming.MACHINE)
            if machine is not None and naming.KEPT not in image.metadata:
                found.setdefault(machine, []).append(image)
        return {machine: by_disk(images) for machine, images in found.items()}


def by_disk(images: Iterable[Image]) -> dict[str, Image]:
    """Images by the disk that each is, in the order of the disks."""
    named = {image.metadata.get(naming.DISK, ""): image for image in images}
    return {disk: named[disk] for disk in sorted(named, key=lambda disk: (_order(named[disk]), disk)) if disk}


def marks(disks: Mapping[str, Image]) -> dict[str, Mark]:
    """The points that are marked on the first of these disks, by name."""
    if not disks:
        return {}
    first = next(iter(disks.values()))
    found = {}
    for key, text in first.metadata.items():
        if (point := naming.marked(key)) is not None:
            told = json.loads(text)
            disks_of_it = tuple(told["disks"])
            found[point] = Mark(point, datetime.fromisoformat(told["time"]), disks_of_it, told.get("problem"))
    return found


def mark_text(mark: Mark) -> str:
    """A mark as metadata has it."""
    return json.dumps({"time": mark.time.isoformat(), "disks": list(mark.disks), "problem": mark.problem})


def is_whole(mark: Mark, disks: Mapping[str, Image]) -> bool:
    """Whether every disk of a point has its snapshot here."""
    name = naming.snapshot(mark.point)
    return all(disk in disks and disks[disk].snapshot(name) is not None for disk in mark.disks)


async def look(site: Site) -> Look:
    """Look at a site's pools and records.

    Raises:
        Unreachable: the cluster does not answer.
    """
    names = site.pools.names()
    standing, records, *pools = await asyncio.gather(
        site.worker.call("standing", pools=list(names)),
        site.records.all(),
        *(site.worker.call("look", pool=name) for name in names),
    )
    return Look(
        zone=site.zone,
        full=bool(standing["full"]),
        size_bytes=standing["size_bytes"],
        free_bytes=standing["free_bytes"],
        pools={name: _pool(name, pool) for name, pool in zip(names, pools, strict=True)},
        records=records,
    )


def _pool(name: str, told: dict[str, Any]) -> Pool:
    return Pool(
        mirroring=bool(told["mirroring"]),
        mirror_uuid=str(told["mirror_uuid"]),
        peers=len(told["peers"]),
        images=tuple(_image(name, image) for image in told["images"]),
    )


def _image(pool: str, told: dict[str, Any]) -> Image:
    mirror, journal = told["mirror"], told["journal"] or ()
    own = next((client for client in journal if not client["id"]), None)
    return Image(
        pool=pool,
        id=told["id"],
        name=told["name"],
        size_bytes=told["size"],
        metadata=told["metadata"],
        snapshots=tuple(Snapshot(each["id"], each["name"]) for each in told["snapshots"] if each["user"]),
        parent=None if told["parent"] is None else (told["parent"]["image"], told["parent"]["snapshot"]),
        mirror=Mirror(mirror["up"], mirror["state"], mirror["description"]) if mirror and mirror["enabled"] else None,
        exclusive=bool(told["exclusive"]),
        journaled=told["journal"] is not None,
        head=_head(own),
        peers={
            client["id"]: Peer(_head(client), client.get("state") == "replaying", client["connected"])
            for client in journal
            if client["id"]
        },
    )


def _head(client: dict[str, Any] | None) -> Head:
    positions = () if client is None else client["positions"]
    return max(((int(tag), int(entry)) for tag, entry in positions), default=_NOTHING)


def _order(image: Image) -> int:
    text = image.metadata.get(naming.ORDER, "0")
    return int(text) if text.isdigit() else 0
