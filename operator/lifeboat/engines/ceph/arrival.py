"""Whether all that a server which stands still has written is at the other site.

The journals say how far they were read. How far they go is told by their entries alone where their writer was killed,
which cost megabytes to read: that is done only for a server that does not run. It has to be written down while it can
be seen, since a primary site that burns later takes its journals along. A server that was started again after that has
its copies' journals know another writer.
"""

from __future__ import annotations

import asyncio

from lifeboat.engines.ceph import pools, standing
from lifeboat.engines.ceph.lags import Lags
from lifeboat.engines.ceph.pools import Head, Image, Look
from lifeboat.engines.ceph.records import ReplicaRecord
from lifeboat.engines.ceph.sites import Site
from lifeboat.engines.ceph.standing import Stand

_READ = 20.0


async def ends(source: Site, here: Look, record: ReplicaRecord) -> dict[str, Head]:
    """The last entries in the journals of the disks that are copied, by the ids of their images."""
    found: dict[str, Head] = {}
    for pool, images in _by_pool(here, record).items():
        ids = [image.id for image in images.values() if image.journaled]
        told = await source.worker.call("journal_ends", pool=pool, image_ids=ids, deadline=_READ)
        found |= {image_id: (int(tag), int(entry)) for image_id, (tag, entry) in told.items()}
    return found


async def tags(target: Site, there: Look, record: ReplicaRecord) -> dict[str, int]:
    """How many writers the journals of the copies know, by disk."""
    found: dict[str, int] = {}
    for pool, images in _by_pool(there, record).items():
        told = await target.worker.call("journal_tags", pool=pool, image_ids=[image.id for image in images.values()])
        found |= {name: int(told[image.id]) for name, image in images.items()}
    return found


async def seen(source: Site, target: Site, record: ReplicaRecord, lags: Lags) -> tuple[Stand, ReplicaRecord]:
    """Where the copy of a server stands that does not run, and its record with that all has arrived, if it has."""
    here, there = await asyncio.gather(pools.look(source), pools.look(target))
    stand = standing.of_copy(record, here, there, lags, await ends(source, here, record))
    if stand.lag != 0.0 or not record.synced:
        return stand, record
    return stand, record.model_copy(update={"level": True, "tags": await tags(target, there, record)})


async def still_level(target: Site, record: ReplicaRecord) -> bool:
    """Whether what was written down still holds: no other writer has written since."""
    return record.level and await tags(target, await pools.look(target), record) == record.tags


def _by_pool(look: Look, record: ReplicaRecord) -> dict[str, dict[str, Image]]:
    found: dict[str, dict[str, Image]] = {}
    for name, image in look.named(record.volumes).items():
        found.setdefault(image.pool, {})[name] = image
    return found
