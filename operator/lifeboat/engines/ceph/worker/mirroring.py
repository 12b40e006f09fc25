"""What is done to the mirroring of images. Each call does one thing, and doing it again finds it done."""

from __future__ import annotations

from typing import Any

import rbd

from lifeboat.engines.ceph.worker.cluster import Cluster


def enable(cluster: Cluster, pool: str, images: list[str]) -> None:
    """Mirror images by their journals, which each gets where it has none."""
    with cluster.pool(pool) as ioctx:
        for name in images:
            with rbd.Image(ioctx, name) as image:
                if not image.features() & rbd.RBD_FEATURE_JOURNALING:
                    image.update_features(rbd.RBD_FEATURE_JOURNALING, True)  # noqa: FBT003 - the bindings take it so
                state = image.mirror_image_get_info()["state"]
                if state == rbd.RBD_MIRROR_IMAGE_DISABLING:
                    # Somebody was cut off.
                    image.mirror_image_disable(False)  # noqa: FBT003 - the bindings take it so
                if state != rbd.RBD_MIRROR_IMAGE_ENABLED:
                    _enable(image)


def _enable(image: Any) -> None:  # noqa: ANN401 - the bindings have no types
    """Mirror an image by its journal.

    Mirroring that ends takes the journal first, and says so in the image's header after that. Where it was cut off in
    between, the header promises a journal that is not there: then it is made anew.
    """
    try:
        image.mirror_image_enable(rbd.RBD_MIRROR_IMAGE_MODE_JOURNAL)
    except rbd.ImageNotFound:
        for on in (False, True):
            image.update_features(rbd.RBD_FEATURE_JOURNALING, on)
        image.mirror_image_enable(rbd.RBD_MIRROR_IMAGE_MODE_JOURNAL)


def disable(cluster: Cluster, pool: str, images: list[str]) -> None:
    """Mirror images no more. Of one that is primary the image here stays, and the copy of it is deleted."""
    with cluster.pool(pool) as ioctx:
        for name in images:
            try:
                with rbd.Image(ioctx, name) as image:
                    if image.mirror_image_get_info()["state"] != rbd.RBD_MIRROR_IMAGE_DISABLED:
                        image.mirror_image_disable(False)  # noqa: FBT003 - the bindings take it so
            except rbd.ImageNotFound:
                continue


def promote(cluster: Cluster, pool: str, images: list[str], *, force: bool) -> None:
    """Make copies writable. By force they become histories of their own, which never follow the other side again."""
    with cluster.pool(pool) as ioctx:
        for name in images:
            with rbd.Image(ioctx, name) as image:
                info = image.mirror_image_get_info()
                if info["state"] == rbd.RBD_MIRROR_IMAGE_ENABLED and not info["primary"]:
                    image.mirror_image_promote(force)
