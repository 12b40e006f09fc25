"""Which copies are images of their own, and how they become that.

rbd-mirror takes part in both: it has a copy open until it sees that it was promoted, and deletes one whose source is
mirrored no more.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping

from lifeboat.engines.ceph.pools import Image
from lifeboat.engines.ceph.sites import Site
from lifeboat.engines.ceph.workers import CephFailed
from lifeboat.engines.contract import Underway

# How long rbd-mirror is waited for after a promotion, and how often that is looked at.
_LET_GO = 8.0
_PAUSE = 0.2


async def promote(site: Site, images: Mapping[str, list[str]]) -> None:
    """Make copies (by pool) images of their own, for good.

    A promotion that was answered can be undone: where rbd-mirror is taking in a new writer of the source at that
    moment, it notes that writer after it. Once it has let the image go it cannot. Until then nothing else may be done:
    a copy that is none of its own is deleted, with all its points, as soon as its source is not mirrored any more.

    Raises:
        Underway: rbd-mirror has them open still. One that was killed does for as long as the cluster waits for it.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + _LET_GO
    while True:
        for pool, names in images.items():
            await site.worker.call("promote", pool=pool, images=names, force=True)
        found = [await site.worker.call("let_go", pool=pool, images=names) for pool, names in images.items()]
        # Asked once more: what was undone was so before it was let go.
        own = [await site.worker.call("primary", pool=pool, images=names) for pool, names in images.items()]
        if all(found) and all(all(each.values()) for each in own):
            return
        if loop.time() > end:
            raise Underway(f"rbd-mirror of zone {site.zone} has not let go of a copy that was promoted")
        await asyncio.sleep(_PAUSE)


async def is_primary(site: Site, image: Image) -> bool:
    """Whether an image can be written to."""
    found = await site.worker.call("primary", pool=image.pool, images=[image.name])
    return bool(found[image.name])


async def is_primary_or_going(site: Site, image: Image) -> bool:
    """Whether an old copy of ours can be written to; of one that rbd-mirror has half deleted, delete the rest.

    rbd-mirror takes an image's name first. Where it was interrupted at that, the image is listed for ever, and in the
    way of the next copy.

    Raises:
        Underway: it is being deleted.
    """
    try:
        return await is_primary(site, image)
    except CephFailed as error:
        if error.errno != errno.ENOENT:
            raise
        await site.worker.call("remove", pool=image.pool, image=image.name, deadline=20.0)
        raise Underway(f"image {image.pool}/{image.name} of zone {site.zone} is being deleted") from error
